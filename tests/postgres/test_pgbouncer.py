"""PgBouncer with transaction pooling between Tether and PostgreSQL, and with TLS."""

import asyncio
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import Server
from tests.postgres.load import Follower, Load, check_exactly_once
from tests.postgres.pooler import running_pgbouncer, through
from tests.postgres.test_migration import refused
from tests.services import Postgres, make_certificate
from tests.sql import query
from tests.wire import Partner, Wire, run, until
from tether.storage.postgres.database import PostgresDatabase

COUNT_BACKENDS = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"


@pytest.fixture(scope="module")
def pooler(postgres: str) -> Iterator[int]:
    """The port of a PgBouncer that replaces its connections to the server every second."""
    with running_pgbouncer(postgres, server_lifetime=1, server_idle_timeout=1) as port:
        yield port


def test_the_whole_flow_works_through_three_server_connections(
    database: str, pooler: int, node: Callable[..., Server]
) -> None:
    server = node("--workers", "2", "--pool-size", "16", database=through(pooler, database))
    partner = Partner(server)
    client = partner.client
    assert client.put("/chargers/C2", json={"chargePowers": [11]}).status_code == 201
    assert client.put("/chargers/C2", json={"chargePowers": [22]}).status_code == 200
    assert client.patch("/chargers/C2", json={"latitude": 52.5, "longitude": 13.4}).text == ""
    assert client.get("/chargers/C2").json()["latitude"] == 52.5
    assert [one["id"] for one in client.get("/chargers").json()] == ["C1", "C2"]
    assert client.patch("/vehicles/V9", json={"chargeCapacity": 1}).status_code == 404

    async def report() -> None:
        wires = [await Wire.to(server) for _ in range(50)]
        answers = await asyncio.gather(
            *(wire.ask(partner.post(number)) for number, wire in enumerate(wires))
        )
        assert [answer.status for answer in answers] == [201] * 50
        again = await asyncio.gather(
            *(wire.ask(partner.post(number)) for number, wire in enumerate(wires))
        )
        assert [one.json() for one in again] == [one.json() for one in answers]

    run(report())
    assert len(partner.events("/events?limit=7")) == 50
    assert len(client.get("/events?order=desc&limit=1000&vehicleId=V1").json()) == 50
    assert client.post("/events", json={"type": "VEHICLE_CONNECTED", "chargerId": "C1",
                                        "vehicleId": "V8"}).status_code == 409  # fmt: skip
    # One that it has just replaced may still be about to end.
    run(until(lambda: query(database, COUNT_BACKENDS) <= [(3 + 1,)]))
    assert server.stop() == 0


def test_it_goes_on_while_the_pooler_changes_its_server_connections(
    database: str, pooler: int, node: Callable[..., Server]
) -> None:
    server = node(database=through(pooler, database))
    load = Load(Partner(server))
    backends: set[int] = set()

    async def main() -> None:
        for first in range(0, 4000, 500):
            await load.run(range(first, first + 500), 24)
            found = query(database, "SELECT pid FROM pg_stat_activity WHERE usename = 'postgres'")
            backends.update(pid for (pid,) in found)
            await asyncio.sleep(0.3)
        follower = Follower(load.partner)
        await follower.run(lambda: True)
        check_exactly_once(load, follower, 4000)

    run(main())
    assert load.statuses == {201: 4000}
    assert len(backends) > 3, "the pooler did not change them: this tested nothing"
    assert server.failures() == []
    assert server.stop() == 0


def test_it_is_back_soon_after_the_database_behind_the_pooler_was_away(
    own_postgres: Postgres, node: Callable[..., Server]
) -> None:
    with running_pgbouncer(own_postgres.url(), server_login_retry=1) as port:
        server = node("--workers", "2", database=through(port, own_postgres.new_database()))
        partner = Partner(server)
        load = Load(partner)

        async def main() -> None:
            await load.run(range(200), 24)
            await asyncio.to_thread(own_postgres.stop)
            async with asyncio.TaskGroup() as group:
                group.create_task(load.run(range(200, 400), 24))
                await until(lambda: load.statuses[503] >= 24)  # the pooler knows that it is away
                await asyncio.to_thread(own_postgres.start)
                async with asyncio.timeout(10):  # 15 s with the pooler's default
                    while len(load.answered) < 400:  # noqa: ASYNC110
                        await asyncio.sleep(0.05)

        run(main())
        assert load.surprises == []
        assert {one["id"] for one in partner.events()} == set(load.answered.values())
        assert server.stop() == 0


def test_statements_are_prepared_on_a_server_but_not_on_a_pooler(
    database: str, pooler: int
) -> None:
    async def prepared(url: str) -> int:
        engine = PostgresDatabase(url).open(1)
        for number in range(8):
            await engine.read("SELECT $1::bigint + 1", number)
        ((count,),) = await engine.read("SELECT count(*) FROM pg_prepared_statements")
        await engine.close()
        return int(count)

    async def main() -> None:
        assert await prepared(database) > 0
        for _ in range(5):
            assert await prepared(through(pooler, database)) == 0

    asyncio.run(main())


def test_a_session_that_a_pooler_lends_keeps_the_settings_it_had(
    database: str, pooler: int
) -> None:
    async def main() -> None:
        for url, setting in ((database, "off"), (through(pooler, database), "on")):
            engine = PostgresDatabase(url).open(1)
            assert await engine.read("SHOW enable_seqscan") == [(setting,)]
            await engine.close()

    asyncio.run(main())


# TLS: the PostgreSQL of the tests is built without it, but its client is not ----------------------


@pytest.fixture(scope="module")
def certificate() -> Iterator[tuple[Path, Path]]:
    """A self-signed certificate for another host, and its key."""
    folder = Path(tempfile.mkdtemp(prefix="tether-tls-"))
    made, key = make_certificate(folder, "DNS:other.example")
    folder.chmod(0o755)  # PgBouncer runs as another user, and the key protects nothing
    key.chmod(0o644)
    yield made, key
    shutil.rmtree(folder)


def test_the_tls_options_of_the_url_are_honoured(
    postgres: str,
    database: str,
    certificate: tuple[Path, Path],
    new_server: Callable[..., Server],
) -> None:
    made, key = certificate
    options = {
        "client_tls_sslmode": "require",
        "client_tls_key_file": key,
        "client_tls_cert_file": made,
    }
    with running_pgbouncer(postgres, **options) as port:
        url = through(port, database)
        assert "SSL required" in refused("migrate", "--database", f"{url}?sslmode=disable")
        assert "root certificate file" in refused(
            "migrate", "--database", f"{url}?sslmode=verify-full&sslrootcert=/no/such/file"
        )
        assert 'does not match host name "127.0.0.1"' in refused(
            "migrate", "--database", f"{url}?sslmode=verify-full&sslrootcert={made}"
        )
        for good in ("sslmode=require", f"sslmode=verify-ca&sslrootcert={made}"):
            server = new_server("--workers", "2", database=f"{url}?{good}")
            with server.client() as client:
                assert client.put("/chargers/C1", json={"chargePowers": [11]}).status_code == 201
            assert server.stop() == 0
