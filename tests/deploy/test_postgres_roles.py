"""The roles of `deploy/postgres`, and PgBouncer in front of them with passwords."""

import subprocess
from collections.abc import Callable
from urllib.parse import urlsplit

import psycopg
import pytest

from tests import commands
from tests.commands import Result
from tests.conftest import Server
from tests.deploy.files import DEPLOY, running_pgbouncer
from tests.fleet import put_fleet
from tests.services import Postgres, postgres_programs
from tests.sql import query

PASSWORD = "correct horse"


@pytest.fixture
def database(guarded: Postgres) -> str:
    """The URL, for the superuser, of an empty database to which the roles have rights."""
    url = guarded.new_database()
    give_roles(url)
    with psycopg.connect(url, autocommit=True) as connection:
        for role in ("tether_owner", "tether_server"):
            connection.execute(f"ALTER ROLE {role} PASSWORD '{PASSWORD}'".encode())
    return url


def give_roles(url: str) -> None:
    script = DEPLOY / "postgres" / "roles.sql"
    subprocess.run(
        [postgres_programs() / "psql", "-qX", "-v", "ON_ERROR_STOP=1", "-f", script, url],
        check=True, capture_output=True,
    )  # fmt: skip


def of(role: str, url: str, port: int | None = None) -> str:
    """The URL of the same database for this role."""
    parts = urlsplit(url)
    place = f"{role}@127.0.0.1:{port or parts.port}"
    return parts._replace(netloc=place).geturl()


def tether(*words: str) -> Result:
    return commands.tether(*words, PGPASSWORD=PASSWORD)


def use(server: Server, key: str) -> None:
    with server.client(key) as client:
        put_fleet(client)
        for kind in ("CONNECTED", "DISCONNECTED"):
            event = {"type": f"VEHICLE_{kind}", "chargerId": "C1", "vehicleId": "V1"}
            assert client.post("/events", json=event).status_code == 201
        assert client.get("/sessions").json()[-1]["status"] == "ended"
        assert client.get("/ready").status_code == 200


def test_a_server_without_rights_to_create_serves_what_the_owner_migrated(
    database: str, new_server: Callable[..., Server]
) -> None:
    done = tether("migrate", "--database", of("tether_owner", database))
    assert done.returncode == 0, done.stderr
    own = of("tether_server", database)
    key = tether("keys", "create", "acme", "--database", own).stdout.strip()
    server = new_server(database=own, PGPASSWORD=PASSWORD)
    use(server, key)

    # The next migration adds a table. Its rights are granted automatically.
    with psycopg.connect(of("tether_owner", database), password=PASSWORD) as owner:
        owner.execute("CREATE TABLE later (id BIGINT GENERATED ALWAYS AS IDENTITY, word TEXT)")
        owner.execute("CREATE TABLE numbered (id SERIAL, word TEXT)")
        owner.execute("CREATE VIEW seen AS SELECT word FROM later")
    with psycopg.connect(own, password=PASSWORD) as connection:
        for table in ("later", "numbered"):
            connection.execute(f"INSERT INTO {table} (word) VALUES ('x')".encode())
            connection.execute(f"UPDATE {table} SET word = 'y'".encode())
        assert connection.execute("SELECT word FROM seen").fetchall() == [("y",)]
        connection.execute("DELETE FROM later")
        for forbidden in ("DROP TABLE later", "CREATE TABLE mine (id INT)", "TRUNCATE events"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege), connection.transaction():
                connection.execute(forbidden.encode())
    use(server, key)
    assert server.failures() == []
    assert server.stop() == 0
    checked = tether("check", "--database", own, "--port", "0")
    assert "problem " not in checked.stdout, checked.stdout


def test_what_another_role_made_is_handed_over(guarded: Postgres) -> None:
    url = guarded.new_database()
    done = tether("migrate", "--database", url)
    assert done.returncode == 0, done.stderr
    give_roles(url)
    give_roles(url)
    with psycopg.connect(url, autocommit=True) as connection:
        for role in ("tether_owner", "tether_server"):
            connection.execute(f"ALTER ROLE {role} PASSWORD '{PASSWORD}'".encode())
        connection.execute("CREATE TABLE by_the_superuser (word TEXT)")  # migrates later
    with psycopg.connect(of("tether_owner", url), password=PASSWORD) as owner:
        owner.execute("ALTER TABLE events ADD COLUMN later TEXT")
        owner.execute("DROP VIEW charger_events")
        owner.rollback()
    with psycopg.connect(of("tether_server", url), password=PASSWORD) as connection:
        connection.execute("INSERT INTO by_the_superuser VALUES ('x')")
    made = tether("keys", "create", "acme", "--database", of("tether_server", url))
    assert made.returncode == 0, made.stderr


def test_pgbouncer_lets_the_server_in_by_its_password(
    guarded: Postgres, database: str, new_server: Callable[..., Server]
) -> None:
    assert tether("migrate", "--database", of("tether_owner", database)).returncode == 0
    ((line,),) = query(
        database,
        'SELECT format(\'"%s" "%s"\', rolname, rolpassword) FROM pg_authid '
        "WHERE rolname = 'tether_server'",
    )
    with running_pgbouncer(database, line) as port:
        pooled = of("tether_server", database, port)
        key = tether("keys", "create", "acme", "--database", pooled).stdout.strip()
        server = new_server("--workers", "2", database=pooled, PGPASSWORD=PASSWORD)
        use(server, key)
        assert server.stop() == 0
        with pytest.raises(psycopg.OperationalError, match="authentication failed"):
            psycopg.connect(pooled, password="wrong")
