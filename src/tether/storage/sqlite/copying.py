"""A SQLite file as the source or the target of a copy."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, cast

import apsw

from tether.storage.copying import Values
from tether.storage.log_positions import BEGIN_EPOCH, Epoch
from tether.storage.sqlite.file import native

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

    def __init__(self, name: str, connection: apsw.Connection) -> None:
        self.name = name
        self._connection = connection

    def query(self, sql: str, *parameters: object) -> list[Values]:
        rows = self._connection.execute(sql, cast(tuple[Any, ...], parameters)).fetchall()
        return cast(list[Values], rows)

    def transaction(self) -> AbstractContextManager[object]:
        return self._connection

    def columns(self, table: str) -> list[str]:
        return [str(name) for _, name, *_ in self.query(f"PRAGMA table_info({table})")]

    def check_alone(self) -> None:
        pass  # `SqliteFile.only_server` locks the file

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
