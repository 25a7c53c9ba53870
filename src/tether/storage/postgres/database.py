"""A database of a PostgreSQL server."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from tether.domain.errors import SetupError
from tether.domain.timestamps import now_ms
from tether.storage.database import Certificate, Surroundings
from tether.storage.engine import Engine
from tether.storage.log_positions import EpochState, new_epoch
from tether.storage.postgres import engine
from tether.storage.postgres.copying import PostgresSide, postgres_side

_NOW_MS = "SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT)"


class PostgresDatabase:
    """See `Database`."""

    file = None

    def __init__(self, url: str) -> None:
        self._url = url

    def describe(self) -> str:
        return engine.describe_postgres(self._url)

    def exists(self) -> bool:
        return True

    def migrate(self) -> int:
        return engine.migrate_postgres(self._url)

    def pending_steps(self) -> int:
        return engine.pending_postgres(self._url)

    def open(self, connections: int) -> Engine:
        return engine.PostgresEngine(self._url, connections)

    def only_server(self) -> AbstractContextManager[None]:
        return nullcontext()

    def is_served(self) -> bool:
        return False

    def version(self) -> str:
        with engine.session(self._url) as connection:
            number = connection.info.server_version
        return f"PostgreSQL {number // 10_000}.{number % 10_000}"

    def epoch(self) -> EpochState:
        with engine.session(self._url) as connection:
            return engine.epoch_of(connection)

    def begin_epoch(self) -> None:
        with engine.session(self._url) as connection:
            engine.begin_epoch(connection, new_epoch())

    def clock_ahead_ms(self) -> int | None:
        with self.side() as side:
            began_ms = now_ms()
            ((there_ms,),) = side.query(_NOW_MS)
            return (began_ms + now_ms()) // 2 - int(there_ms)

    def damages(self, *, full: bool = False) -> list[str]:
        return []  # it checks its pages itself when they are read

    def surroundings(self) -> Surroundings | None:
        from tether.storage.postgres.check import surroundings

        return surroundings(self._url)

    def certificates(self) -> Iterable[Certificate]:
        from tether.storage.postgres.certificates import certificates

        return certificates(self._url)

    def back_up(
        self, target: Path, progress: Callable[[float], None], *, replace: bool = False
    ) -> None:
        raise SetupError(
            "tether backup copies a SQLite file. For PostgreSQL: pg_dump --format=custom "
            f"--file={target} {self.describe()}"
        )

    def restore(self, source: Path, progress: Callable[[float], None]) -> Path | None:
        raise SetupError(
            "tether restore is for SQLite files. PostgreSQL has tools of its own, such as "
            "pg_restore; then: tether epoch new"
        )

    def side(self) -> AbstractContextManager[PostgresSide]:
        return postgres_side(self._url)
