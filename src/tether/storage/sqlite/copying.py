"""A SQLite file as one of the two sides of a copy."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, cast

import apsw

from tether.domain.errors import SetupError
from tether.storage.copying import Values
from tether.storage.log_positions import BEGIN_EPOCH, Epoch
from tether.storage.sqlite.file import connect, native

# Sorted, so that each goes to the end of its table: see migrations/0003.
_LISTS = """
DELETE FROM listings; DELETE FROM list_of_charger; DELETE FROM list_of_vehicle;
DELETE FROM list_by_time;
INSERT INTO listings (partner, seq) SELECT partner, max(seq) FROM events GROUP BY partner;
INSERT INTO list_of_charger (partner, charger_id, seq)
SELECT partner, charger_id, seq FROM events ORDER BY partner, charger_id, seq;
INSERT INTO list_of_vehicle (partner, vehicle_id, seq)
SELECT partner, vehicle_id, seq FROM events ORDER BY partner, vehicle_id, seq;
INSERT INTO list_by_time (partner, vehicle_id, at_ms, seq)
SELECT partner, vehicle_id, at_ms, seq FROM events ORDER BY partner, vehicle_id, at_ms, seq;
"""


class SqliteSide:
    """See `Side`."""

    def __init__(self, path: Path, connection: apsw.Connection) -> None:
        self.name = str(path)
        self._connection = connection

    def query(self, sql: str, *parameters: object) -> list[Values]:
        rows = self._connection.execute(sql, cast(tuple[Any, ...], parameters)).fetchall()
        return cast(list[Values], rows)

    def transaction(self) -> AbstractContextManager[object]:
        return self._connection

    def columns(self, table: str) -> list[str]:
        return [str(name) for _, name, *_ in self.query(f"PRAGMA table_info({table})")]

    def check_alone(self) -> None:
        pass  # the lock of the one server sees to that

    def freeze(self) -> None:
        self.query("BEGIN")
        self.query("SELECT 1 FROM sqlite_master")

    def add(self, table: str, columns: Sequence[str], rows: Sequence[Values]) -> None:
        marks = ", ".join("?" for _ in columns)
        sql = f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})"
        with self._connection:
            self._connection.executemany(sql, cast(Any, rows))

    def finish(self, epoch: Epoch) -> None:
        self.query(_LISTS)
        self.query(native(BEGIN_EPOCH), *epoch)


@contextmanager
def sqlite_side(path: Path) -> Iterator[SqliteSide]:
    """The file, for a copy. Raises SetupError."""
    connection = connect(path)
    try:
        connection.execute("PRAGMA temp_store = FILE")  # sorted rows may be larger than the memory
        yield SqliteSide(path, connection)
    except apsw.Error as error:
        raise SetupError(f"{path} cannot be used: {error}") from error
    finally:
        connection.close()
