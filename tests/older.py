"""Makes SQLite files as older versions made them."""

from contextlib import closing
from pathlib import Path

from tether.storage.dialect import SQLITE
from tether.storage.migrate import ADD_VERSION, CREATE_VERSION_TABLE, steps
from tether.storage.sqlite.file import APPLICATION_ID, connect, native

TABLES = (
    "partners", "keys", "chargers", "vehicles", "events", "sessions", "session_versions",
    "derivations", "listings", "list_of_charger", "list_of_vehicle", "list_by_time",
)  # fmt: skip


def make_older(path: Path, content: Path, schema: int) -> None:
    """A file of an older schema with the content of a new one."""
    path.touch()
    with closing(connect(path)) as connection:
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}").fetchall()
        connection.execute("PRAGMA journal_mode = WAL").fetchall()
        connection.execute(CREATE_VERSION_TABLE).fetchall()
        for step in steps(SQLITE)[:schema]:
            connection.execute(step.script).fetchall()
            connection.execute(native(ADD_VERSION), (step.version,)).fetchall()
        connection.execute("ATTACH ? AS content", (str(content),)).fetchall()
        for table in TABLES:
            columns = ", ".join(
                name for _, name, *_ in connection.execute(f"PRAGMA main.table_info({table})")
            )
            connection.execute(
                f"INSERT INTO {table} ({columns}) SELECT {columns} FROM content.{table}"
            ).fetchall()
