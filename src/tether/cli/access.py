"""How a partner's commands reach the server: the URL, the key, and messages for errors."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import click

from tether.cli.display.output import note
from tether.domain.errors import Code, SetupError

if TYPE_CHECKING:
    from tether.client import Client

P = ParamSpec("P")
T = TypeVar("T")

DEMO_KEY = Path(".tether/demo.key")
RETRIES = 3  # when a user waits for the answer
PATIENT_RETRIES = 12  # when the work is long: about a minute of outage

url_option = click.option(
    "--url",
    default="http://127.0.0.1:8000",
    envvar="TETHER_URL",
    show_default=True,
    show_envvar=True,
    help="The URL of the server.",
)
api_key_option = click.option(
    "--api-key",
    envvar="TETHER_API_KEY",
    show_envvar=True,
    metavar="KEY",
    help="Your API key.  [default: the key of `make run`, in its folder]",
)


class Access:
    """The URL of the server and the key. Never shows the key."""

    def __init__(self, url: str, api_key: str | None) -> None:
        self.url = url
        self._is_demo = not api_key
        self.key = _checked_key(api_key or _demo_key())

    def __repr__(self) -> str:
        return f"Access({self.safe_url!r})"

    @property
    def safe_url(self) -> str:
        """The URL without its password."""
        from tether.client.connection import url_without_password

        return url_without_password(self.url)

    @contextmanager
    def client(self, *, patient: bool = False) -> Iterator["Client"]:
        """The SDK's client. Its errors become messages.

        `patient`: checks once that the server is there, then retries for about a minute.
        """
        from tether.client import Client

        with self.errors_as_messages():
            if patient:
                self.check()
            retries = PATIENT_RETRIES if patient else RETRIES
            with Client(self.url, self.key, retries=retries) as client:
                yield client

    def check(self) -> None:
        """Raises an error if the server is not there or does not accept the key.

        Says first if the key is the demo key.
        """
        from tether.client import Client

        if self._is_demo:
            note(f"With the demo key in {DEMO_KEY}.")
        not_ours = f"{self.safe_url} does not answer like a Tether server"
        with (
            Client(self.url, self.key, retries=0, timeout=10) as client,
            not_found_as_message(f"{not_ours}: it has no list of chargers."),
        ):
            next(client.chargers.list(page_size=1), None)

    @contextmanager
    def errors_as_messages(self) -> Iterator[None]:
        """Turns the SDK's general errors into SetupErrors with messages for the user."""
        from tether.client import (
            EpochChanged,
            Forbidden,
            RateLimited,
            Unavailable,
            UnexpectedAnswer,
        )
        from tether.client.connection import IS_IT_RUNNING

        try:
            yield
        except EpochChanged as error:
            raise SetupError(
                "The server's database was restored: what was read may not be there any more. Run "
                f"this again from the start. ({error.message})"
            ) from None
        except Forbidden as error:
            if error.code == Code.KEY_READ_ONLY:
                raise SetupError("This API key may only read (403): use another one.") from None
            raise SetupError(
                f"The server at {self.safe_url} does not accept this API key (403). Is it "
                "complete, or is it revoked or expired?"
            ) from None
        except Unavailable as error:
            if error.status is None:
                reason = error.message.partition(f" {IS_IT_RUNNING}")[0]
                raise SetupError(
                    f"Nothing answers at {self.safe_url}. Is the server running there? ({reason})"
                ) from None
            raise SetupError(
                f"The server at {self.safe_url} cannot do this now: {error}."
            ) from None
        except RateLimited as error:
            wait = f" in {error.retry_after:.0f} s" if error.retry_after else " later"
            raise SetupError(f"The key's rate limit is used up (429): try again{wait}.") from None
        except UnexpectedAnswer as error:
            raise SetupError(
                f"{self.safe_url} does not answer like a Tether server: {error.message}"
            ) from None


@contextmanager
def not_found_as_message(message: str) -> Iterator[None]:
    """Turns the SDK's NotFound into a SetupError with this message."""
    from tether.client import NotFound

    try:
        yield
    except NotFound:
        raise SetupError(message) from None


def calls_of(client: "Client", noun: str) -> Any:
    """The client's calls for chargers or vehicles. `noun` is `charger` or `vehicle`."""
    return client.chargers if noun == "charger" else client.vehicles


@contextmanager
def retries_noticed(notice: Callable[[str], None]) -> Iterator[None]:
    """Calls `notice` once with a message when the SDK waits and tries again."""

    class OneNotice(logging.Handler):
        done = False

        def emit(self, record: logging.LogRecord) -> None:
            if not self.done:
                self.done = True
                notice("The server asks to wait, or is out of reach: trying again by itself.")

    log, handler = logging.getLogger("tether.client"), OneNotice()
    log.setLevel(logging.INFO)
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)


def with_access(command: Callable[P, T]) -> Callable[..., T]:
    """Adds the options --url and --api-key to a command. The command gets them as `access`."""

    @url_option
    @api_key_option
    @wraps(command)
    def run(*args: Any, url: str, api_key: str | None, **kwargs: Any) -> T:
        return command(*args, access=Access(url, api_key), **kwargs)  # type: ignore[arg-type]

    return run


def with_client(command: Callable[P, T]) -> Callable[..., T]:
    """Adds the options --url and --api-key to a command. The command gets the SDK's `client`."""

    @with_access
    @wraps(command)
    def run(*args: Any, access: Access, **kwargs: Any) -> T:
        with access.client() as client:
            return command(*args, client=client, **kwargs)  # type: ignore[arg-type]

    return run


def _demo_key() -> str:
    """The key that `make run` left in this folder. Raises SetupError if there is none."""
    try:
        return DEMO_KEY.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        raise SetupError(
            "An API key is needed: give --api-key or set TETHER_API_KEY. "
            "(`make run` makes a demo key, which is used by commands in the same folder.)"
        ) from None


def _checked_key(key: str) -> str:
    """The key, if it is well-formed. Raises SetupError, which does not show the key."""
    key = key.strip()
    if not (key.isascii() and key.isprintable() and " " not in key):
        raise SetupError("The API key has characters that no key has.")
    if key.startswith(("'", '"')):
        raise SetupError("The API key has quotes around it: leave them out.")
    return key
