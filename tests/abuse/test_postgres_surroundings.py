"""PostgreSQL is locked, read-only or full, has harmful settings, or the role lacks rights.

Requests that do not need it are served, all others get a 503 with the cause in the log, and
`tether check` finds the cause.
"""

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import psycopg
import pytest

from tests.commands import tether, tether_ok
from tests.conftest import Server
from tests.console.visitors import partner_number, visitor
from tests.postgres.pooler import running_pgbouncer, through
from tests.services import running_postgres
from tests.sql import execute
from tests.wire import Partner, ask_at_once, run

EVENT = {"type": "VEHICLE_CONNECTED", "chargerId": "C1", "vehicleId": "V1"}
VEHICLE = {"chargeCapacity": 9, "chargePowers": [1]}
WAITS = "SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND wait_event_type = 'Lock'"


@pytest.fixture
def database(new_postgres_database: Callable[[], str]) -> str:
    return new_postgres_database()


def name_of(url: str) -> str:
    return urlsplit(url).path.removeprefix("/")


def set_in(database: str, **settings: str) -> None:
    for name, value in settings.items():
        execute(database, f"ALTER DATABASE {name_of(database)} SET {name} = '{value}'")


def check(database: str) -> dict[str, tuple[str, str]]:
    """What `tether check` finds: status and message of each."""
    done = tether("check", "--json", "--database", database, "--port", "0")
    report = json.loads(done.stdout)
    assert done.returncode == (0 if report["ok"] else 1)
    return {one["check"]: (one["status"], one["message"]) for one in report["checks"]}


# Locks --------------------------------------------------------------------------------------------


@contextmanager
def held_up(database: str, table: str, server: Server, path: str, key: str) -> Iterator[None]:
    """Locks the table meanwhile, and 24 requests wait for it."""

    def ask() -> None:
        with server.client(key) as client:
            client.get(path, timeout=60)

    readers = [threading.Thread(target=ask) for _ in range(24)]
    with (
        psycopg.connect(database) as locking,
        psycopg.connect(database, autocommit=True) as watching,
    ):
        locking.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE".encode())
        for reader in readers:
            reader.start()
        while watching.execute(WAITS, [name_of(database)]).fetchone() == (0,):
            time.sleep(0.02)
        yield
        locking.rollback()
    for reader in readers:
        reader.join()


def test_pages_give_up_waiting_for_a_locked_table(
    database: str, server_with_constants: Callable[..., Server]
) -> None:
    server = server_with_constants("tether.console.pages.PATIENCE_S=1", database=database)
    partner = Partner(server)
    pages = f"/console/p/{partner_number(server, partner.key)}"
    with visitor(server, partner.key) as user, psycopg.connect(database) as locking:
        for page in ("live", "sessions"):
            assert user.get(f"{pages}/{page}").status_code == 200
        locking.execute("LOCK TABLE sessions IN ACCESS EXCLUSIVE MODE")
        for page in ("live", "sessions"):
            answer = user.get(f"{pages}/{page}")
            assert answer.status_code == 503
            assert "its database does not answer" in answer.text
        locking.rollback()
        for page in ("live", "sessions"):
            assert user.get(f"{pages}/{page}").status_code == 200
    assert server.failures() == []


@pytest.mark.parametrize(
    ("table", "waiting", "others"),
    [
        ("events", "/events?type=VEHICLE_CONNECTED", ["/chargers", "/chargers/C1", "/vehicles"]),
        ("events", "/events", ["/chargers", "/chargers/C1", "/vehicles"]),
        ("sessions", "/sessions", ["/chargers", "/chargers/C1", "/vehicles"]),
        ("chargers", "/chargers", ["/events", "/events?vehicleId=V1"]),
    ],
)
def test_a_locked_table_takes_nothing_away_that_does_not_need_it(
    database: str, new_server: Callable[..., Server], table: str, waiting: str, others: list[str]
) -> None:
    server = new_server(database=database)
    partner, other = Partner(server), Partner(server)
    assert other.client.get("/sessions").status_code == 200
    fresh = server.key()  # no request has used this key yet
    with held_up(database, table, server, waiting, partner.key):
        with server.client(fresh, timeout=25) as client:
            assert client.get("/ready").status_code == 200
            assert client.get("/nowhere").status_code == 404
        for path in others:
            assert other.client.get(path, timeout=25).status_code == 200, path
        if table != "chargers":
            body = {"chargePowers": [11]}
            assert other.client.put("/chargers/C2", json=body, timeout=25).status_code == 201
            assert other.client.patch("/chargers/C2", json=body, timeout=25).status_code == 200
    assert server.failures() == []


# Rights -------------------------------------------------------------------------------------------


@pytest.fixture
def as_role(database: str) -> Iterator[tuple[str, str]]:
    """The migrated database, and its URL for a role with the rights that the documents name."""
    tether_ok("migrate", "--database", database)
    role = f"tether_{uuid4().hex[:12]}"
    execute(database, f"CREATE ROLE {role} LOGIN")
    rights = "SELECT, INSERT, UPDATE, DELETE"
    execute(database, f"GRANT {rights} ON ALL TABLES IN SCHEMA public TO {role}")
    parts = urlsplit(database)
    netloc = f"{role}@{parts.netloc.rpartition('@')[2]}"
    yield database, parts._replace(netloc=netloc).geturl()
    execute(database, f"DROP OWNED BY {role}; DROP ROLE {role}")


NEED: list[tuple[str, str, str, str, Any]] = [
    ("INSERT", "events", "POST", "/events", EVENT),
    ("UPDATE", "event_heads", "POST", "/events", EVENT),
    ("SELECT", "events", "GET", "/events", None),
    ("UPDATE", "chargers", "PATCH", "/chargers/C1", {"chargePowers": [22]}),
    ("INSERT", "vehicles", "PUT", "/vehicles/V2", VEHICLE),
    ("SELECT", "sessions", "GET", "/sessions", None),
    ("SELECT", "charger_events", "GET", "/events?chargerId=C1", None),
]


def test_a_missing_right_is_a_503_that_names_it_and_check_finds_all(
    as_role: tuple[str, str], new_server: Callable[..., Server]
) -> None:
    database, url = as_role
    role = urlsplit(url).username
    server = new_server(database=url)
    partner = Partner(server)
    for right, table, method, path, body in NEED:
        told = len(server.log)
        execute(database, f"REVOKE {right} ON {table} FROM {role}")
        answer = partner.client.request(method, path, json=body)
        assert answer.status_code == 503, (right, table)
        assert answer.headers["retry-after"] in {"1", "2"}
        assert answer.json()["message"].startswith("Service Unavailable")
        execute(database, f"GRANT {right} ON {table} TO {role}")
        assert partner.client.request(method, path, json=body).status_code in (200, 201)
        kind = "view" if table == "charger_events" else "table"
        deadline = time.monotonic() + 60  # an answer is sent before its request is logged
        while f"permission denied for {kind} {table}" not in "".join(server.log[told:]):
            assert time.monotonic() < deadline, server.log[told:]
            time.sleep(0.02)
    assert check(url)["rights"][0] == "ok"
    for right, table, *_ in NEED:
        execute(database, f"REVOKE {right} ON {table} FROM {role}")
    assert check(url)["rights"] == (
        "problem",
        "The role lacks SELECT on charger_events; UPDATE on chargers; UPDATE on event_heads; "
        "SELECT, INSERT on events; SELECT on sessions; INSERT on vehicles.",
    )
    assert server.failures() == []


def test_a_schema_that_the_role_may_not_use_is_named(as_role: tuple[str, str]) -> None:
    database, url = as_role
    execute(database, "REVOKE USAGE ON SCHEMA public FROM PUBLIC")
    status, message = check(url)["database"]
    assert status == "problem"
    assert "GRANT USAGE ON SCHEMA" in message


def test_tables_that_a_search_path_hides_are_a_503_until_it_is_put_right(
    database: str, new_server: Callable[..., Server]
) -> None:
    server = new_server(database=database)
    partner = Partner(server)
    execute(database, "CREATE SCHEMA elsewhere")
    set_in(database, search_path="elsewhere")
    execute(database, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            f"WHERE datname = '{name_of(database)}' AND application_name = 'tether'")  # fmt: skip
    assert partner.client.get("/chargers").status_code == 503
    assert partner.client.get("/ready").status_code == 503
    assert check(database)["schema"][0] == "problem"
    execute(database, f"ALTER DATABASE {name_of(database)} RESET search_path")
    execute(database, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            f"WHERE datname = '{name_of(database)}' AND application_name = 'tether'")  # fmt: skip
    assert partner.client.get("/chargers").status_code == 200
    assert any("relation" in line and "does not exist" in line for line in server.log)
    assert server.failures() == []


# Settings -----------------------------------------------------------------------------------------

STRANGE = {
    "client_encoding": "LATIN1",
    "standard_conforming_strings": "off",
    "DateStyle": "SQL, DMY",
    "IntervalStyle": "sql_standard",
    "TimeZone": "Asia/Kathmandu",
    "bytea_output": "escape",
    "extra_float_digits": "-15",
    "enable_indexscan": "off",
    "enable_nestloop": "off",
    "lc_messages": "C",
}
HARMFUL = {
    "default_transaction_isolation": "serializable",
    "default_transaction_deferrable": "on",
    "statement_timeout": "1s",
    "lock_timeout": "1s",
    "idle_in_transaction_session_timeout": "1s",
    "transaction_timeout": "1s",
    "idle_session_timeout": "1s",
    "synchronous_commit": "off",
}


def write_a_lot(server: Server) -> Counter[int]:
    """The statuses of writes and reads of many clients at once."""
    partner = Partner(server)
    requests = [
        request
        for number in range(60)
        for request in (
            partner.post(number),
            partner.request("PATCH", "/chargers/C1", b'{"chargePowers":[%d]}' % (number + 1)),
            partner.request("PUT", "/vehicles/V1", b'{"chargeCapacity":1,"chargePowers":[1]}'),
            partner.request("GET", "/events?vehicleId=V1"),
        )
    ]
    return Counter(answer.status for answer in run(ask_at_once(server, requests)))


def test_whatever_is_set_otherwise_makes_no_request_fail(
    database: str, new_server: Callable[..., Server]
) -> None:
    set_in(database, **STRANGE, **HARMFUL)
    servers = [new_server(database=database) for _ in range(2)]
    for server in servers:
        counts = write_a_lot(server)
        assert set(counts) == {200, 201}, counts
    partner = Partner(servers[0])
    with servers[0].client(servers[0].key("Müller 東京")) as client:
        assert client.get("/events").status_code == 200
    # Longer than each of these limits.
    lasting = "-c transaction_timeout=0 -c idle_in_transaction_session_timeout=0"
    with psycopg.connect(database, options=lasting) as locking:
        locking.execute("LOCK TABLE chargers IN ACCESS EXCLUSIVE MODE")
        threading.Timer(1.5, locking.rollback).start()
        answer = partner.client.patch("/chargers/C1", json={"chargePowers": [22]})
        assert answer.status_code == 200
    assert set(write_a_lot(servers[1])) == {200, 201}, "it was idle meanwhile"
    found = check(database)["settings"]
    assert found[0] == "warning"
    assert "default_transaction_isolation = serializable" in found[1]
    assert "statement_timeout = 1s" in found[1]
    for server in servers:
        assert server.failures() == []
        assert [line for line in server.log if '"event":"unavailable"' in line] == []


def test_an_isolation_that_is_set_otherwise_does_no_harm_behind_a_pooler(
    database: str, postgres: str, new_server: Callable[..., Server]
) -> None:
    set_in(database, default_transaction_isolation="repeatable read")
    with running_pgbouncer(postgres) as port:
        server = new_server(database=through(port, database))
        counts = write_a_lot(server)
        assert set(counts) == {200, 201}, counts
        found = check(through(port, database))["settings"]
        assert "default_transaction_isolation = repeatable read" in found[1]
        assert server.failures() == []
        assert server.stop() == 0


def test_a_database_that_is_read_only_is_read_and_check_says_why_no_more(
    database: str, new_server: Callable[..., Server]
) -> None:
    server = new_server(database=database)
    partner = Partner(server)
    assert partner.client.post("/events", json=EVENT).status_code == 201
    set_in(database, default_transaction_read_only="on")
    execute(database, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            f"WHERE datname = '{name_of(database)}' AND application_name = 'tether'")  # fmt: skip
    for _ in range(3):
        assert partner.client.post("/events", json=EVENT).status_code == 503
        assert partner.client.patch("/chargers/C1", json={}).status_code == 503
        assert len(partner.client.get("/events").json()) == 1
        assert partner.client.get("/ready").status_code == 200
    found = check(database)
    assert found["writes"][0] == "problem"
    assert found["settings"] == ("ok", "2 given, the others have their defaults.")
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("SET default_transaction_read_only = off")
        sql = f"ALTER DATABASE {name_of(database)} RESET default_transaction_read_only"
        connection.execute(sql.encode())
    assert partner.client.post("/events", json=EVENT).status_code == 201
    assert any("read-only transaction" in line for line in server.log)
    assert server.failures() == []


def test_a_new_database_of_another_encoding_is_refused(postgres: str) -> None:
    name = f"latin_{uuid4().hex[:12]}"
    execute(postgres, f"CREATE DATABASE {name} ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    url = urlsplit(postgres)._replace(path=f"/{name}").geturl()
    done = tether("migrate", "--database", url)
    assert done.returncode == 1
    assert "has the encoding LATIN1" in done.stderr
    assert check(url)["encoding"][0] == "problem"
    execute(postgres, f"DROP DATABASE {name}")


# Connections --------------------------------------------------------------------------------------


def test_a_server_goes_on_with_the_connections_that_it_has_when_there_are_no_more(
    new_server: Callable[..., Server],
) -> None:
    with running_postgres(max_connections="16", superuser_reserved_connections="0") as postgres:
        database = postgres.new_database()
        server = new_server(database=database)
        partner = Partner(server)
        assert partner.client.post("/events", json=EVENT).status_code == 201
        with ExitStack() as others:
            while True:
                try:
                    others.enter_context(psycopg.connect(database))
                except psycopg.OperationalError:
                    break
            counts = write_a_lot_of(partner)
            assert set(counts) == {200, 201}, counts
            assert partner.client.get("/ready").status_code == 200
            assert any("PostgreSQL refuses" in line for line in server.log)
            done = tether("check", "--database", database, "--port", "0")
            assert done.returncode == 1
            assert "too many clients" in done.stdout
        assert check(database)["connections"][0] == "ok"
        assert set(write_a_lot_of(partner)) == {200, 201}
        assert server.failures() == []
        assert server.stop() == 0


def write_a_lot_of(partner: Partner) -> Counter[int]:
    requests = [partner.post(number) for number in range(60)]
    requests += [partner.request("GET", f"/events?limit={number}") for number in range(1, 40)]
    requests += [partner.request("GET", "/chargers")] * 40
    return Counter(answer.status for answer in run(ask_at_once(partner.server, requests)))
