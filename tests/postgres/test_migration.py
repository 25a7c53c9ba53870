"""Migration of a PostgreSQL database, and the messages when it is not possible."""

import os
import re
import subprocess
from collections.abc import Callable, Iterator
from urllib.parse import quote, urlsplit

import psutil
import psycopg
import pytest

from tests.commands import tether
from tests.conftest import TETHER, Server
from tests.services import Postgres, free_port, running_postgres
from tests.sql import execute, query
from tether.domain.errors import SetupError
from tether.server.databases import database_of
from tether.storage.postgres.database import PostgresDatabase

PASSWORD = "s3cr3t/with@odd:chars%&?#"


def refused(*words: str, **environment: str) -> str:
    """The one sentence with which the command is refused."""
    done = tether(*words, **environment)
    assert (done.returncode, done.stdout) == (1, ""), done
    *_, line = done.stderr.splitlines()  # the log of a server comes before
    return line


def test_eight_nodes_that_start_at_once_migrate_once(
    database: str, new_server: Callable[..., Server]
) -> None:
    command = [
        str(TETHER),
        "serve",
        "--database",
        database,
        "--port",
        "0",
        "--log-level",
        "warning",
    ]
    nodes = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(8)
    ]
    try:
        for one in nodes:
            assert one.stdout is not None
            assert "http://" in one.stdout.readline()
    finally:
        for one in nodes:
            one.terminate()
    assert [one.communicate(timeout=180)[1] for one in nodes] == [""] * 8
    assert [one.returncode for one in nodes] == [0] * 8
    versions = query(database, "SELECT version FROM tether_schema ORDER BY version")
    assert versions == sorted(set(versions))
    assert database_of(database).pending_steps() == 0


def test_migrate_is_a_step_of_its_own_that_can_be_repeated(database: str) -> None:
    assert database_of(database).pending_steps() > 0
    assert "not up to date" in refused("keys", "list", "--database", database)
    assert tether("migrate", "--database", database).returncode == 0
    assert database_of(database).pending_steps() == 0
    again = tether("migrate", "--database", database)
    assert (again.returncode, "is up to date" in again.stdout) == (0, True)


def test_a_database_of_a_newer_version_is_refused_and_left_alone(database: str) -> None:
    database_of(database).migrate()
    execute(database, "INSERT INTO tether_schema VALUES (9000)")
    for command in (("serve", "--port", "0"), ("migrate",)):
        sentence = refused(*command, "--database", database)
        assert "was made by a newer Tether (schema 9000" in sentence
        assert "nothing was changed" in sentence


def test_a_database_of_another_program_is_refused_and_left_alone(database: str) -> None:
    execute(database, "CREATE TABLE keys (id int)")
    for command in (("serve", "--port", "0"), ("migrate",)):
        assert "is not a Tether database but has a table 'keys'" in refused(
            *command, "--database", database
        )
    tables = query(database, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    assert tables == [("keys",)]


def test_one_sentence_says_why_the_database_cannot_be_used(database: str) -> None:
    nobody = urlsplit(database)._replace(netloc=f"127.0.0.1:{free_port()}").geturl()
    missing = urlsplit(database)._replace(path="/no_such_name").geturl()
    for url, reason in (
        (nobody, "onnection refused"),
        (missing, 'database "no_such_name" does not exist'),
        (database + "?sslmode=require", "server does not support SSL"),
        (database + "?sslmode=bogus", 'invalid sslmode value: "bogus"'),
        (database + "?colour=red", 'invalid URI query parameter: "colour"'),
    ):
        for command in (("serve", "--port", "0"), ("migrate",)):
            assert reason in refused(*command, "--database", url)


def test_a_role_that_may_not_create_tables_is_told_so_and_can_serve_later(
    postgres: str, database: str, node: Callable[..., Server]
) -> None:
    role = "tether_" + database[-8:]
    execute(postgres, f"CREATE ROLE {role} LOGIN")
    url = re.sub("//postgres@", f"//{role}@", database)
    assert "permission denied for schema public" in refused("migrate", "--database", url)
    database_of(database).migrate()
    rights = "SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public"
    execute(database, f"GRANT {rights} TO {role}")
    server = node(database=url)
    with server.client() as client:
        assert client.put("/chargers/C1", json={"chargePowers": [11]}).status_code == 201
    assert server.stop() == 0


# Passwords ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def guarded() -> Iterator[Postgres]:
    """A server that asks for passwords (SCRAM)."""
    with running_postgres() as server:
        with psycopg.connect(server.url(), autocommit=True) as connection:
            literal = connection.execute("SELECT quote_literal(%s)", [PASSWORD]).fetchone()
            assert literal is not None
            connection.execute(f"CREATE ROLE guarded LOGIN PASSWORD {literal[0]}".encode())
            connection.execute("CREATE DATABASE guarded OWNER guarded")
        rule = "host all guarded 127.0.0.1/32 scram-sha-256\n"
        rules = server.data / "pg_hba.conf"
        rules.write_text(rule + rules.read_text())
        server.run("pg_ctl", "-D", str(server.data), "reload")
        yield server


def url_with(server: Postgres, password: str) -> str:
    return f"postgresql://guarded:{quote(password, safe='')}@127.0.0.1:{server.port}/guarded"


def test_the_password_of_the_url_opens_the_database_and_is_shown_nowhere(
    guarded: Postgres, new_server: Callable[..., Server]
) -> None:
    url = url_with(guarded, PASSWORD)
    server = Server(url, ["--workers", "2", "--log-level", "debug"])
    # In the environment, where nobody else sees it: a command line is public.
    command = [str(TETHER), "serve", "--port", "0", "--workers", "2", "--log-level", "debug"]
    process = subprocess.Popen(
        command, env={**os.environ, "TETHER_DATABASE": url},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        first = process.stdout.readline()
        server.url = next(word for word in first.split() if word.startswith("http://"))
        with server.client() as client:
            assert client.get("/chargers").status_code == 200
        family = [psutil.Process(process.pid)]
        family += family[0].children(recursive=True)
        assert len(family) == 3
        commands = " ".join(word for one in family for word in one.cmdline())
        guarded.stop()
        with server.client("ttr_live_") as client:
            assert client.get("/ready").status_code == 503
    finally:
        process.terminate()
        output, log = process.communicate(timeout=180)
        guarded.start()
    assert process.returncode == 0
    assert "unavailable" in log
    for text in (first, output, log, commands):
        for secret in (PASSWORD, quote(PASSWORD, safe=""), "s3cr3t"):
            assert secret not in text


def test_a_wrong_password_is_refused_in_a_sentence_that_does_not_show_it(guarded: Postgres) -> None:
    sentence = refused("serve", "--port", "0", TETHER_DATABASE=url_with(guarded, "wr0ng"))
    assert 'password authentication failed for user "guarded"' in sentence
    assert "wr0ng" not in sentence


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://user:s3cr3t@part@host/name",
        "postgresql://user:s3cr3t/part@host/name",
        "postgresql://user:12/s3cr3t@host/name",
        "postgresql://user:s3cr3t%part@host/name",
        "postgresql://user:s3/cr3t?part=1@host/name",
        "postgresql://user:s3cr3t@host:port/name",
    ],
)
def test_a_password_that_is_not_encoded_is_not_shown_either(url: str) -> None:
    with pytest.raises(SetupError) as refusal:
        PostgresDatabase(url).describe()
    assert "cannot be read" in refusal.value.message
    assert "%40 for @" in refusal.value.message
    for part in ("s3", "cr3t", "part"):
        assert part not in refusal.value.message
    assert "s3" not in refused("migrate", TETHER_DATABASE=url)


@pytest.mark.parametrize(
    ("mistyped", "message"),
    [
        ("postgresql:/user:s3cr3t@host/name", "is not a database that Tether knows"),
        ("user:s3cr3t@host/name", "The database is no path"),
    ],
)
def test_a_url_that_is_mistyped_is_no_file_and_its_password_not_shown(
    mistyped: str, message: str
) -> None:
    for command in ("migrate", "check", "serve"):
        done = tether(command, TETHER_DATABASE=mistyped)
        assert done.returncode != 0
        assert message in done.stdout + done.stderr
        assert "s3cr3t" not in done.stdout + done.stderr


def test_an_address_is_described_without_its_secrets() -> None:
    described = {
        "postgresql://u:p%40ss@db.example/name?sslmode=require": "u@db.example:5432/name",
        "postgres://db.example": "db.example:5432/",
        "postgresql://u@[::1]:5433/n": "u@::1:5433/n",
        "postgresql://u:p@a:1,b:2/n?target_session_attrs=read-write": "u@a:1,b:2/n",
        "postgresql:///n?host=a,b&password=p": "a:5432,b:5432/n",
    }
    for url, shown in described.items():
        assert PostgresDatabase(url).describe() == f"postgresql://{shown}"
