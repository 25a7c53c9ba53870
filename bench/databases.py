"""Databases to measure on: an SQLite file, or one database of a PostgreSQL server."""

import itertools
import shutil
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, Protocol

import apsw

from bench.postgres import Cluster

Engine = Literal["sqlite", "postgres"]

_numbers: Iterator[int] = itertools.count(1)


class Database(Protocol):
    """The operations of the benchmark on a database of any engine."""

    engine: ClassVar[Engine]

    @property
    def url(self) -> str:
        """The name of the database for a server."""

    def run(self, script: str) -> str:
        """Run statements and commit; returns the last one's first value."""

    def count_events(self) -> int:
        """How many rows the table of events has."""

    def clone(self) -> "Database":
        """A copy with the same content. No server may have this one open."""

    def new(self) -> "Database":
        """Another, empty database beside this one."""

    def settle(self) -> None:
        """Finish the work of earlier runs, so that it does not disturb the next."""


@dataclass(frozen=True)
class SqliteDatabase:
    engine: ClassVar[Engine] = "sqlite"
    path: Path

    @property
    def url(self) -> str:
        return str(self.path)

    def run(self, script: str) -> str:
        # apsw and not sqlite3, which is often linked with a version that must
        # not share a WAL database with another process.
        with closing(apsw.Connection(str(self.path))) as connection:
            rows = connection.execute(script).fetchall()
        return str(rows[-1][0]) if rows else ""

    def count_events(self) -> int:
        return int(self.run("SELECT count(*) FROM events"))

    def clone(self) -> "SqliteDatabase":
        copy = self.new()
        shutil.copyfile(self.path, copy.path)
        wal = self.path.with_name(f"{self.path.name}-wal")
        if wal.exists():
            shutil.copyfile(wal, copy.path.with_name(f"{copy.path.name}-wal"))
        return copy

    def new(self) -> "SqliteDatabase":
        return SqliteDatabase(self.path.with_name(f"{next(_numbers)}.db"))

    def settle(self) -> None:
        """Reads the file into the system's cache. Some virtual machines drop cached data within a
        minute, even with free memory, and the next run would measure the disk.
        """
        with self.path.open("rb") as file:
            while file.read(1 << 20):
                pass


@dataclass(frozen=True)
class PostgresDatabase:
    engine: ClassVar[Engine] = "postgres"
    cluster: Cluster
    name: str

    @property
    def url(self) -> str:
        return self.cluster.url(self.name)

    def run(self, script: str) -> str:
        return self.cluster.sql(self.name, script)

    def count_events(self) -> int:
        return int(self.run("SELECT count(*) FROM events"))

    def clone(self) -> "PostgresDatabase":
        return self._create(f" TEMPLATE {self.name}")

    def new(self) -> "PostgresDatabase":
        return self._create("")

    def _create(self, template: str) -> "PostgresDatabase":
        name = f"bench_{next(_numbers)}"
        self.cluster.sql("postgres", f"CREATE DATABASE {name}{template}")
        return PostgresDatabase(self.cluster, name)

    def settle(self) -> None:
        self.cluster.settle()
