"""The steps that bring a database to the schema of this version of Tether.

A step is `migrations/NNNN_name.sql`, which runs on both engines. SQL for one engine only is beside
it, in `NNNN_name.sqlite.sql` or `NNNN_name.postgres.sql`. Steps are never changed after a release.
The version before must still work after a step, so that both can run during a roll-out.
"""

from importlib.resources import files
from typing import NamedTuple

from tether.domain.errors import SetupError
from tether.storage.dialect import Dialect
from tether.storage.tables import TABLES

VERSION_TABLE = "tether_schema"
COPY_TABLE = "tether_copy"
"""A database has this table while it is an incomplete copy."""

CREATE_VERSION_TABLE = f"CREATE TABLE {VERSION_TABLE} (version BIGINT NOT NULL PRIMARY KEY)"
READ_VERSION = f"SELECT coalesce(max(version), 0) FROM {VERSION_TABLE}"
ADD_VERSION = f"INSERT INTO {VERSION_TABLE} (version) VALUES ($1)"


class Step(NamedTuple):
    """One numbered change of the schema, as a script in the engine's dialect."""

    version: int
    script: str


def steps(dialect: Dialect) -> list[Step]:
    """All steps for an engine, in order."""
    scripts: dict[int, str] = {}
    folder = files("tether.storage").joinpath("migrations")
    for file in sorted(folder.iterdir(), key=lambda entry: entry.name):
        number, *engine = file.name.removesuffix(".sql").split(".")
        if file.name.endswith(".sql") and engine in ([], [dialect.name]):
            script = file.read_text(encoding="utf-8").replace("{text}", dialect.text)
            script = script.replace("{clustered}", dialect.clustered)
            version = int(number.partition("_")[0])
            scripts[version] = scripts.get(version, "") + script
    return [Step(version, script) for version, script in sorted(scripts.items())]


def missing_steps(dialect: Dialect, tables: set[str], version: int, database: str) -> list[Step]:
    """The steps that a database with these tables and this schema version still needs.

    Raises SetupError if it is an incomplete copy, or if its schema is newer. `database` names it in
    the message.
    """
    if COPY_TABLE in tables:
        raise SetupError(f"{database} is a copy that is not whole: run the same tether copy again.")
    known = steps(dialect)
    if version > known[-1].version:
        raise SetupError(
            f"{database} was made by a newer Tether (schema {version}, this version knows "
            f"{known[-1].version}). Install the newer version; nothing was changed."
        )
    return [step for step in known if step.version > version]


def check_not_foreign(tables: set[str], database: str) -> None:
    """Raises SetupError if another program's database has a table with one of our names."""
    if VERSION_TABLE not in tables and (clash := sorted(tables & TABLES.keys())):
        raise SetupError(
            f"{database} is not a Tether database but has a table {clash[0]!r}; nothing was "
            "changed. Name another database."
        )
