"""The roles of `deploy/postgres`, and PgBouncer before them with passwords."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

from tests.conftest import TETHER, Server
from tests.debian import program
from tests.deploy.files import DEPLOY, replaced
from tests.parts import (
    UNPRIVILEGED,
    Postgres,
    free_port,
    postgres_programs,
    running_postgres,
    wait_for_port,
)
from tests.postgres.rig import query

PASSWORD = "correct horse"


@pytest.fixture(scope="module")
def guarded() -> Iterator[Postgres]:
    """A PostgreSQL that asks everybody but its superuser for a password."""
    with running_postgres(password_encryption="scram-sha-256") as server:
        rules = "host all postgres 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n"
        (server.data / "pg_hba.conf").write_text(rules)
        server.restart("fast")
        yield server


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


def tether(*words: str) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "PGPASSWORD": PASSWORD}
    return subprocess.run(
        [TETHER, *words], env=environment, capture_output=True, text=True, check=False
    )


def use(server: Server, key: str) -> None:
    with server.client(key) as client:
        assert client.put("/chargers/C1", json={"chargePowers": [11]}).status_code in (200, 201)
        vehicle = {"chargeCapacity": 74.8, "chargePowers": [11]}
        assert client.put("/vehicles/V1", json=vehicle).status_code in (200, 201)
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

    # The next migration adds a table: nobody has to think of the rights to it.
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


def test_the_rights_can_be_given_later_and_again(guarded: Postgres) -> None:
    url = guarded.new_database()
    done = tether("migrate", "--database", url)  # by another role, whose tables they become
    assert done.returncode == 0, done.stderr
    give_roles(url)
    give_roles(url)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"ALTER ROLE tether_server PASSWORD '{PASSWORD}'".encode())
    made = tether("keys", "create", "acme", "--database", of("tether_server", url))
    assert made.returncode == 0, made.stderr


@contextmanager
def running_pgbouncer(guarded: Postgres, database: str) -> Iterator[int]:
    """PgBouncer with the file of `deploy/pgbouncer`; its port."""
    folder = Path(tempfile.mkdtemp(prefix="tether-pgbouncer-"))
    port = free_port()
    users = folder / "userlist.txt"
    ((line,),) = query(
        database,
        'SELECT format(\'"%%s" "%%s"\', rolname, rolpassword) FROM pg_authid '
        "WHERE rolname = 'tether_server'",
    )
    users.write_text(f"{line}\n")
    configuration = replaced(
        (DEPLOY / "pgbouncer" / "pgbouncer.ini").read_text(),
        {
            "tether = host=10.0.0.12 port=5432":
                f"{urlsplit(database).path[1:]} = host=127.0.0.1 port={guarded.port}",
            "listen_addr = 10.0.0.10": "listen_addr = 127.0.0.1",
            "listen_port = 6432": f"listen_port = {port}",
            "unix_socket_dir = /run/postgresql": "unix_socket_dir =",
            "/etc/pgbouncer/userlist.txt": str(users),
        },
    )  # fmt: skip
    (folder / "pgbouncer.ini").write_text(configuration)
    user = UNPRIVILEGED if os.geteuid() == 0 else None  # it refuses to run as root
    if user is not None:
        for path in (folder, users, folder / "pgbouncer.ini"):
            shutil.chown(path, user)
    process = subprocess.Popen(
        [program("pgbouncer"), "-q", folder / "pgbouncer.ini"], user=user, cwd="/",
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait_for_port(port)
        yield port
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(folder)


def test_pgbouncer_lets_the_server_in_by_its_password(
    guarded: Postgres, database: str, new_server: Callable[..., Server]
) -> None:
    assert tether("migrate", "--database", of("tether_owner", database)).returncode == 0
    with running_pgbouncer(guarded, database) as port:
        pooled = of("tether_server", database, port)
        key = tether("keys", "create", "acme", "--database", pooled).stdout.strip()
        server = new_server("--workers", "2", database=pooled, PGPASSWORD=PASSWORD)
        use(server, key)
        assert server.stop() == 0
        with pytest.raises(psycopg.OperationalError, match="authentication failed"):
            psycopg.connect(pooled, password="wrong")
