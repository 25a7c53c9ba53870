"""The settings of a connection to the SQLite file have an effect."""

from contextlib import closing
from pathlib import Path

import pytest

from tether.server.databases import database_of
from tether.storage.sqlite.file import connect


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("synchronous", 2),
        ("cache_size", -2000),
        ("temp_store", 2),
        ("journal_size_limit", 64 * 1024 * 1024),
        ("wal_autocheckpoint", 16_000),
    ],
)
def test_every_setting_is_in_force(tmp_path: Path, setting: str, value: int) -> None:
    path = tmp_path / "tether.db"
    database_of(str(path)).migrate()
    with closing(connect(path)) as connection:
        assert connection.execute(f"PRAGMA {setting}").fetchall() == [(value,)]
