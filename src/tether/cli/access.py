"""How a partner's commands reach the server: where it is, the key, and what goes wrong."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import click

from tether.cli.display.output import note
from tether.domain.errors import SetupError

if TYPE_CHECKING:
    from tether.client import Client

P = ParamSpec("P")
T = TypeVar("T")

DEMO_KEY = Path(".tether/demo.key")
RETRIES = 3  # when somebody waits for the answer
PATIENT_RETRIES = 12  # when the work is long: about a minute of outage

url_option = click.option(
    "--url",
    default="http://127.0.0.1:8000",
    envvar="TETHER_URL",
    show_default=True,
    show_envvar=True,
    help="Where the server is.",
)
api_key_option = click.option(
    "--api-key",
    envvar="TETHER_API_KEY",
    show_envvar=True,
    metavar="KEY",
    help="Default: the demo key that `make run` left here.",
)


class Access:
    """Where the server is, and the key. Never shows the key."""

    def __init__(self, url: str, api_key: str | None) -> None:
        self.url = url
        self._is_demo = not api_key
        self.key = checked_key(api_key or demo_key())

    def __repr__(self) -> str:
        return f"Access({self.shown!r})"

    @property
    def shown(self) -> str:
        """The address, without a password that may be in it."""
        from tether.client.connection import url_without_password

        return url_without_password(self.url)

    def note_demo(self) -> None:
        """Says that the key is that of the demo, before much is done with it."""
        if self._is_demo:
            note(f"With the demo key in {DEMO_KEY}.")

    @contextmanager
    def client(self, *, patient: bool = False) -> Iterator["Client"]:
        """The SDK's client; what stops it becomes a sentence.

        For a `patient` one it is tried first, without patience, whether there is such a server.
        """
        from tether.client import Client

        with self.explained():
            if patient:
                self.check()
            retries = PATIENT_RETRIES if patient else RETRIES
            with Client(self.url, self.key, retries=retries) as client:
                yield client

    def check(self) -> None:
        """Raises if there is no such server or it does not accept the key."""
        self.note_demo()
        from tether.client import Client, NotFound

        with Client(self.url, self.key, retries=0, timeout=10) as client:
            try:
                next(client.chargers.list(page_size=1), None)
            except NotFound:  # a list is there even if nothing is in it
                raise SetupError(
                    f"{self.shown} does not answer like a Tether server: "
                    "it has no list of chargers."
                ) from None

    @contextmanager
    def asking_for(self, what: str) -> Iterator["Client"]:
        """The SDK's client, as `client` gives it; says so if there is no such thing."""
        from tether.client import NotFound

        with self.client() as client:
            try:
                yield client
            except NotFound:
                raise SetupError(f"There is no {what}.") from None

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Turns errors of the SDK that are nobody's in particular into sentences."""
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
        except Forbidden:
            raise SetupError(
                f"The server at {self.shown} does not accept this API key for that (403). "
                "Is it revoked, expired, or made with --read-only?"
            ) from None
        except Unavailable as error:
            if error.status is None:
                reason = error.message.partition(f" {IS_IT_RUNNING}")[0]
                raise SetupError(
                    f"Nothing answers at {self.shown}. Is the server running there? ({reason})"
                ) from None
            raise SetupError(f"The server at {self.shown} cannot do this now: {error}.") from None
        except RateLimited as error:
            wait = f" in {error.retry_after:.0f} s" if error.retry_after else " later"
            raise SetupError(f"The key's rate limit is used up (429): try again{wait}.") from None
        except UnexpectedAnswer as error:
            raise SetupError(
                f"{self.shown} does not answer like a Tether server: {error.message}"
            ) from None


def calls_of(client: "Client", one: str) -> Any:
    """The calls for chargers or for vehicles, of which `one` is charger or vehicle."""
    return client.chargers if one == "charger" else client.vehicles


@contextmanager
def told_of_waiting(tell: Callable[[str], None]) -> Iterator[None]:
    """Tells once that the SDK waits: long work that seems to stand still needs an explanation."""

    class Teller(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if not self.told:
                self.told = True
                tell("The server asks to wait, or is out of reach: trying again by itself.")

        told = False

    log, teller = logging.getLogger("tether.client"), Teller()
    log.setLevel(logging.INFO)
    log.addHandler(teller)
    try:
        yield
    finally:
        log.removeHandler(teller)


def with_access(command: Callable[P, T]) -> Callable[..., T]:
    """Gives a command the options --url and --api-key, and their Access as `access`."""

    @url_option
    @api_key_option
    @wraps(command)
    def run(*args: Any, url: str, api_key: str | None, **kwargs: Any) -> T:
        return command(*args, access=Access(url, api_key), **kwargs)  # type: ignore[arg-type]

    return run


def demo_key() -> str:
    """The key that `make run` left in this folder. Raises SetupError if there is none."""
    try:
        return DEMO_KEY.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        raise SetupError(
            "An API key is needed: give --api-key or set TETHER_API_KEY. "
            "(`make run` makes a demo key, which is used by commands in the same folder.)"
        ) from None


def checked_key(key: str) -> str:
    """The key, if it can be one. Raises SetupError, which does not show it."""
    key = key.strip()
    if not (key.isascii() and key.isprintable() and " " not in key):
        raise SetupError("The API key has characters that no key has.")
    if key.startswith(("'", '"')):
        raise SetupError("The API key has quotes around it: leave them out.")
    return key
