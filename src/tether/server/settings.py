"""The settings of a server, each with its environment variable."""

import re
from dataclasses import dataclass, field
from pathlib import Path

from platformdirs import user_data_path

from tether.domain.errors import SetupError

_SCHEME = re.compile(r"[^/]*?:")
_ASSIGNMENT = re.compile(r"\s*[A-Za-z_ ]+=")  # host=… dbname=…, Server=…;Database=…
_ACCOUNT = re.compile(r"[^/]*@[^/]*/")  # user@host/name
_VARIABLE = re.compile(r"\$[A-Za-z_{(]|%[A-Za-z_]+%")
_TILES = re.compile(r"(https?://[A-Za-z0-9.-]+(?::[0-9]{1,5})?)/[!#-&(-;=-~]*")
_FORMS = "give a file's path, sqlite:///path or postgresql://user:password@host/name"


def default_database() -> str:
    """The file in the user's data folder that is used when none is named.

    Raises SetupError for a user without a home, as in a container.
    """
    try:
        return str(user_data_path("tether", appauthor=False) / "tether.db")
    except RuntimeError:
        raise SetupError(
            "You have no home folder here: name the database with --database (TETHER_DATABASE)."
        ) from None


@dataclass(frozen=True, slots=True)
class Settings:
    """How a server runs. `docs/configuration.md` says more about each."""

    database: str = field(default_factory=default_database)
    host: str = "127.0.0.1"
    port: int = 8000
    metrics: str = "on"
    """`on` (at /metrics), `off`, or HOST:PORT of an address of its own."""
    metrics_by_partner: bool = False
    console: str = "on"
    """`on` (at /console) or `off`."""
    requests_kept: int = 5_000
    """Refused requests of each partner that the console shows; of others a tenth of that."""
    requests_days: int = 7
    requests_body: int = 16_384
    """Bytes of each body."""
    requests_sample: int = 6
    """Requests a minute that were not refused, of each partner in each worker."""
    key_requests: str = "off"
    """`on` (at /request-key, a page of the console) or `off`."""
    audit_days: int = 400
    """How long entries of the audit trail are kept."""
    event_days: int = 0
    """How long events are kept of partners of which nothing else is said; 0 for ever."""
    attempt_days: int = 30
    """The same of attempts of webhooks."""
    map_tiles: str = ""
    """Whose pictures the console's maps show: a URL with `{z}`, `{x}` and `{y}`; none if empty."""
    cors_origins: tuple[str, ...] = ()
    trusted_proxies: tuple[str, ...] = ()
    """Networks of proxies whose X-Forwarded-For is believed, such as `10.0.0.0/8`."""
    log_level: str = "info"
    log_format: str = "json"
    workers: int = 1
    """Processes that share the port; more than one only on PostgreSQL."""
    pool_size: int = 12
    """Connections to PostgreSQL of each worker; 3 at least."""
    max_connections: int = 5000
    """Of each worker."""
    max_unread: int = 64
    """MB of answers that wait for clients which do not read, of each worker."""
    redis: str = ""
    """The Redis (or Valkey) that shares the rate limits among all workers and nodes."""
    secret_key: str = ""
    """Encrypts the secrets of webhooks. Without it a SQLite database has a file beside it."""
    webhooks_allow: tuple[str, ...] = ()
    """Networks that are not of the internet to which webhooks may go, such as `10.0.0.0/8`."""
    webhooks_allow_http: bool = False
    demo_key: str = ""
    """The file that has the key of a demo, which the landing page then names."""


def is_postgres(database: str) -> bool:
    """Whether this names a PostgreSQL database, not a file."""
    return database.startswith(("postgresql://", "postgres://"))


def sqlite_path(database: str) -> Path:
    """The file that this names: a path, or `sqlite:///` before one; `~` is the user's folder.

    What was meant as something else is no file of that name, which nobody would find again. Raises
    SetupError, which shows nothing that may be a password.
    """
    if database.startswith(("'", '"')):
        raise SetupError("The database has quotes around its name: leave them out.")
    if _ASSIGNMENT.match(database) or _ACCOUNT.match(database):
        raise SetupError(f"The database is no path: {_FORMS} (./ before a path with = or @).")
    path = database
    if database.startswith("sqlite://"):
        path = database.removeprefix("sqlite:///")
        if not path or path == database:
            raise SetupError(f"{database} names no file: write sqlite:///path or a plain path.")
        if "?" in path or path == ":memory:":
            raise SetupError(f"{database} names no file alone: write sqlite:///path.")
    elif scheme := _SCHEME.match(database):  # also one with a slash too few
        raise SetupError(
            f"{scheme[0]} is not a database that Tether knows: {_FORMS} "
            "(./ before the path of a file whose name has a colon)"
        )
    if _VARIABLE.search(path):
        raise SetupError(f"{path} has a variable in it that nothing expands: write the whole path.")
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise SetupError(f"{path} begins with a user who is not known here.") from None


def checked_database(name: str) -> str:
    """The name of a database. Raises SetupError if it can be none."""
    if not is_postgres(name):
        sqlite_path(name)
    return name


def origin_of(map_tiles: str) -> str:
    """The server of these tiles, as a Content-Security-Policy names it. Raises SetupError."""
    found = _TILES.fullmatch(map_tiles)
    if found is None or not all(part in map_tiles for part in ("{z}", "{x}", "{y}")):
        raise SetupError(
            f"{map_tiles!r} is no address of tiles: write https://tiles.example.com/{{z}}/{{x}}/{{y}}.png"
        )
    return found[1]


def metrics_address(metrics: str) -> tuple[str, int] | None:
    """Where the setting `metrics` wants them served apart from the API. Raises SetupError."""
    return None if metrics in ("on", "off") else parse_address(metrics)


def parse_address(text: str) -> tuple[str, int]:
    """Host and port of `HOST:PORT`. Raises SetupError."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise SetupError(f"{text!r} is not an address: write HOST:PORT.")
    return host.strip("[]"), int(port)
