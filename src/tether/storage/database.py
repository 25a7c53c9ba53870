"""The interface of a whole database: migrations, backups, checks. Each engine implements it."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from tether.storage.engine import Engine
from tether.storage.log_positions import Epoch, EpochState

Values = Sequence[Any]


class ServerReport(NamedTuple):
    """The settings and limits of a database's server."""

    risks: list[str]
    """Settings with which a commit is answered before it is on disk, such as `fsync = off`."""
    missing_rights: list[str]
    """Rights that the role lacks, such as `UPDATE on events`."""
    settings: list[str]
    """Settings with the wrong value, such as `statement_timeout = 1s`."""
    direct: bool
    """There is no pooler, so every connection can have settings of its own."""
    encoding: str
    is_replica: bool
    read_only: bool
    max_connections: int
    """Connections that the server accepts."""
    free_connections: int
    """Connections that are left for us."""


class Certificate(NamedTuple):
    """A certificate of a connection; `ends_ms` is in ms since 1970."""

    name: str
    ends_ms: int


class CopyConnection(Protocol):
    """A connection to one of the two databases of a copy. Statements have `?` for parameters."""

    name: str
    """For display: without a password."""

    def query(self, sql: str, *parameters: object) -> list[Values]:
        """The rows of a query."""

    def transaction(self) -> AbstractContextManager[object]:
        """Commits the changes of the block together."""

    def columns(self, table: str) -> list[str]:
        """The columns of a table, in any order; none if there is no such table."""

    def check_alone(self) -> None:
        """Raises SetupError if a server or a command of ours uses the database."""

    def freeze(self) -> None:
        """Makes all later queries see the database as it is now."""

    def add(self, table: str, columns: Sequence[str], rows: Sequence[Values]) -> None:
        """Adds these rows to a table in one transaction, durable when this returns."""

    def finish(self, epoch: Epoch) -> None:
        """Fills the tables that only this engine has, and sets the epoch."""


class Database(Protocol):
    """A database, which may not exist yet. Every method raises SetupError."""

    @property
    def file(self) -> Path | None:
        """The file of the database. None if it is on a database server."""

    def describe(self) -> str:
        """The name of the database for messages and logs, without a password."""

    def exists(self) -> bool:
        """Whether it exists. On a database server only the first connection shows that."""

    def migrate(self) -> int:
        """Migrates the schema; returns the number of steps.

        Refuses a database that is not ours, or that a newer version made.
        """

    def pending_steps(self) -> int:
        """How many steps the schema still needs. Refuses the same databases."""

    def open(self, connections: int) -> Engine:
        """The engine for its statements, in the running event loop. The schema must be current."""

    def only_server(self) -> AbstractContextManager[None]:
        """Keeps other processes from serving it, if it can have only one server process."""

    def is_served(self) -> bool:
        """Whether a process on this machine serves it, if it can have only one server process."""

    def version(self) -> str:
        """The name and version of the engine, such as `SQLite 3.54.0`."""

    def epoch(self) -> EpochState:
        """Its epoch. The schema must be current."""

    def begin_epoch(self) -> None:
        """Begins a new epoch: from now on all older cursors are refused."""

    def clock_ahead_ms(self) -> int | None:
        """How far this machine's clock is ahead of the clock of the database server. For a file:
        how far it is behind the newest stored instant, as a negative number, or 0. None if no
        instant is stored.
        """

    def damages(self, *, full: bool = False) -> list[str]:
        """The damages that it finds in itself. `full` searches longer and finds more."""

    def server_report(self) -> ServerReport | None:
        """The settings and limits of its server. None for a file."""

    def certificates(self) -> Iterable[Certificate]:
        """The certificates of the connection to its server, as far as they can be read."""

    def back_up(self, target: Path, progress: Callable[[float], None], *, replace: bool) -> None:
        """Makes a consistent copy of the database while it is used.

        Calls `progress` with the finished share. Replaces an existing file only if `replace`.
        """

    def restore(self, source: Path, progress: Callable[[float], None]) -> Path | None:
        """Replaces the database by a copy of the SQLite file `source`. A new epoch begins.

        Returns the file that now has the old database, if there was one. If it raises SetupError,
        nothing was changed.
        """

    def copy_connection(self) -> AbstractContextManager[CopyConnection]:
        """A connection for a copy from or to the database. The schema must be current."""
