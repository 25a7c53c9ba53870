"""A database in a SQLite file. What it is asked for is loaded then: nobody waits for the rest."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from pathlib import Path

import apsw

from tether.domain.errors import SetupError
from tether.domain.timestamps import now_ms
from tether.storage.database import Certificate, Surroundings
from tether.storage.engine import Engine
from tether.storage.log_positions import EpochState
from tether.storage.sqlite import file
from tether.storage.sqlite.copying import SqliteSide, sqlite_side

# The newest instant by the clocks of servers: all of these are in the past.
_NEWEST_INSTANT = """
SELECT max(at_ms) FROM (
    SELECT max(updated_ms) AS at_ms FROM derivations
    UNION ALL SELECT max(created_ms) FROM keys
    UNION ALL SELECT max(last_used_ms) FROM keys
    UNION ALL SELECT began_ms FROM epoch
) newest
"""


class SqliteDatabase:
    """See `Database`."""

    def __init__(self, path: Path) -> None:
        self.file = path

    def describe(self) -> str:
        return str(self.file)

    def exists(self) -> bool:
        if self.file.is_dir():
            inside = self.file / "tether.db"
            raise SetupError(f"{self.file} is a folder: name a file in it, such as {inside}.")
        return self.file.exists()

    def migrate(self) -> int:
        return file.migrate_sqlite(self.file)

    def pending_steps(self) -> int:
        return file.pending_sqlite(self.file)

    def open(self, connections: int) -> Engine:
        from tether.storage.sqlite.engine import SqliteEngine

        return SqliteEngine(self.file)

    def only_server(self) -> AbstractContextManager[None]:
        return file.only_server(self.file)

    def is_served(self) -> bool:
        return file.is_served(self.file)

    def version(self) -> str:
        file.check_version()
        return f"SQLite {apsw.sqlite_lib_version()} (apsw {apsw.apsw_version()})"

    def epoch(self) -> EpochState:
        return file.epoch_of_sqlite(self.file)

    def begin_epoch(self) -> None:
        file.new_epoch_of_sqlite(self.file)

    def clock_ahead_ms(self) -> int | None:
        with self.side() as side:
            began_ms = now_ms()
            ((newest_ms,),) = side.query(_NEWEST_INSTANT)
        return None if newest_ms is None else min(0, began_ms - int(newest_ms))

    def damages(self, *, full: bool = False) -> list[str]:
        from tether.storage.sqlite.backup import damages_in_sqlite

        return damages_in_sqlite(self.file, full=full)

    def surroundings(self) -> Surroundings | None:
        return None

    def certificates(self) -> Iterable[Certificate]:
        return ()

    def back_up(
        self, target: Path, progress: Callable[[float], None], *, replace: bool = False
    ) -> None:
        from tether.storage.sqlite.backup import back_up_sqlite

        back_up_sqlite(self.file, target, progress, replace=replace)

    def restore(self, source: Path, progress: Callable[[float], None]) -> Path | None:
        from tether.storage.sqlite.restore import restore_sqlite

        return restore_sqlite(source, self.file, progress)

    def side(self) -> AbstractContextManager[SqliteSide]:
        return sqlite_side(self.file)
