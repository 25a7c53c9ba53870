"""What can be done with a whole database, while servers use it or not. Each engine says how."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple, Protocol

from tether.storage.copying import Side
from tether.storage.engine import Engine
from tether.storage.log_positions import EpochState


class Surroundings(NamedTuple):
    """What Tether finds at the server of a database."""

    risks: list[str]
    """Settings that let a commit be answered before it is on disk, such as `fsync = off`."""
    missing_rights: list[str]
    """Such as `UPDATE on events`."""
    settings: list[str]
    """Those that Tether needs otherwise, such as `statement_timeout = 1s`."""
    direct: bool
    """No pooler stands between, so every connection can have settings of its own."""
    encoding: str
    is_replica: bool
    read_only: bool
    most: int
    """Connections that the server takes."""
    free: int
    """How many of them are left to us."""


class Certificate(NamedTuple):
    """One of a connection; `ends_ms` is in ms since 1970."""

    name: str
    ends_ms: int


class Database(Protocol):
    """A database by its name, also one that is not there yet. Every method raises SetupError."""

    @property
    def file(self) -> Path | None:
        """The file that it is in. One that is in no file has a server of its own."""

    def describe(self) -> str:
        """The database, fit to be shown and logged: without a password."""

    def exists(self) -> bool:
        """Whether it is there; that of a server is told by the first connection."""

    def migrate(self) -> int:
        """Brings the schema up to date; returns how many steps that took.

        Refuses what cannot be used, is not ours, or is newer than we are.
        """

    def pending_steps(self) -> int:
        """How many steps the schema still needs. Refuses the same."""

    def open(self, connections: int) -> Engine:
        """Runs its statements, in the event loop that runs. It must be up to date."""

    def only_server(self) -> AbstractContextManager[None]:
        """Meanwhile no other process can serve it, if it is one that has one process."""

    def is_served(self) -> bool:
        """Whether a process on this machine serves it, if it is one that has one process."""

    def version(self) -> str:
        """What it runs on, such as `SQLite 3.54.0`."""

    def epoch(self) -> EpochState:
        """Its epoch; it must be up to date."""

    def begin_epoch(self) -> None:
        """Begins a new epoch: from now on all cursors of before are refused."""

    def clock_ahead_ms(self) -> int | None:
        """How far this machine's clock is ahead of its server's; of a file, at most 0, how far it
        is behind the newest instant that was written. None if there is none.
        """

    def damages(self, *, full: bool = False) -> list[str]:
        """What it finds wrong with itself; `full` looks longer."""

    def surroundings(self) -> Surroundings | None:
        """What Tether finds at its server."""

    def certificates(self) -> Iterable[Certificate]:
        """Those of the connection to its server that can be read."""

    def back_up(
        self, target: Path, progress: Callable[[float], None], *, replace: bool = False
    ) -> None:
        """A consistent copy of the database, made while it is used.

        Tells `progress` the share that is done. An existing `target` stays unless `replace`.
        """

    def restore(self, source: Path, progress: Callable[[float], None]) -> Path | None:
        """Puts a copy of the SQLite file `source` in its place; a new epoch begins.

        Returns where the database of before is now, if there was one. When it raises SetupError,
        nothing was changed.
        """

    def side(self) -> AbstractContextManager[Side]:
        """The database as one of the two sides of a copy; it must be up to date."""
