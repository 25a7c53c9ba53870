from collections.abc import Iterator

import pytest

from tests.services import Postgres, running_postgres


@pytest.fixture(scope="session")
def guarded() -> Iterator[Postgres]:
    """A PostgreSQL that asks everybody but its superuser for a password."""
    with running_postgres(password_encryption="scram-sha-256") as server:
        rules = "host all postgres 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n"
        (server.data / "pg_hba.conf").write_text(rules)
        server.run("pg_ctl", "-D", str(server.data), "reload")
        yield server
