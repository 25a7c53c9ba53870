"""Several nodes behind a load balancer, and a replica of PostgreSQL that is promoted."""

import asyncio
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psycopg

from tests.conftest import Server
from tests.debian import program
from tests.postgres.load import Follower, Load, check_exactly_once, endless
from tests.services import Postgres, free_port, running_postgres, wait_for_port
from tests.sql import query
from tests.wire import Partner, run, until

NGINX = """
daemon off; master_process off; pid {folder}/pid; error_log stderr crit; worker_processes 1;
events {{ worker_connections 512; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
    upstream tether {{ {nodes} keepalive 64; }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://tether;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $host;
        }}
    }}
}}
"""


@contextmanager
def running_nginx(nodes: list[Server]) -> Iterator[int]:
    """Runs an nginx in front of these nodes; yields its port."""
    folder = Path(tempfile.mkdtemp(prefix="tether-nginx-"))
    port = free_port()
    places = " ".join(
        f"server {urlsplit(one.url).netloc} max_fails=1 fail_timeout=1s;" for one in nodes
    )
    configuration = folder / "nginx.conf"
    configuration.write_text(NGINX.format(folder=folder, nodes=places, port=port))
    process = subprocess.Popen(
        [program("nginx"), "-p", folder, "-c", configuration], stderr=subprocess.DEVNULL
    )
    try:
        wait_for_port(port)
        yield port
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def test_a_node_that_dies_behind_a_balancer_loses_and_doubles_nothing(
    database: str, node: Callable[..., Server]
) -> None:
    nodes = [node("--workers", "2", database=database) for _ in range(2)]
    load = Load(Partner(nodes[1]))
    load.unavailable = {502, 503, 504}

    async def main(balancer: Server) -> None:
        load.servers = [balancer]
        working = asyncio.create_task(load.run(endless(), 32))
        await asyncio.sleep(2)
        before = len(load.answered)
        assert before > 0
        nodes[0].kill()
        killed = time.monotonic()
        await until(lambda: load.rate(killed + 2, killed + 5) > 0)
        load.stop()
        await working
        follower = Follower(load.partner)
        await follower.run(lambda: True)
        check_exactly_once(load, follower, len(load.answered))

    with running_nginx(nodes) as port:
        run(main(Server(database, url=f"http://127.0.0.1:{port}")))
    assert nodes[1].stop() == 0


# Fail-over ----------------------------------------------------------------------------------------


def make_replica(primary: Postgres, folder: Path) -> Postgres:
    """A streaming replica of the primary, to which each commit goes before it is acknowledged."""
    replica = Postgres(folder, free_port(), {"max_connections": "60"})
    if replica.user is not None:
        shutil.chown(folder, replica.user)
    source = f"host=127.0.0.1 port={primary.port} user=postgres application_name=replica"
    replica.run("pg_basebackup", "-D", str(replica.data), "-d", source, "-R", "-X", "stream",
                "-c", "fast", "--no-sync")  # fmt: skip
    replica.start()
    with psycopg.connect(primary.url(), autocommit=True) as connection:
        connection.execute("ALTER SYSTEM SET synchronous_standby_names = 'replica'")
        connection.execute("SELECT pg_reload_conf()")
    return replica


def is_synchronous(primary: Postgres) -> bool:
    states = query(primary.url(), "SELECT sync_state FROM pg_stat_replication")
    return states == [("sync",)]


@contextmanager
def running_pair() -> Iterator[tuple[Postgres, Postgres]]:
    """A primary and its synchronous replica."""
    folder = Path(tempfile.mkdtemp(prefix="tether-replica-"))
    with running_postgres(max_connections="60") as primary:
        replica = make_replica(primary, folder)
        try:
            run(until(lambda: is_synchronous(primary)))
            yield primary, replica
        finally:
            replica.stop()
            shutil.rmtree(folder, ignore_errors=True)


def test_a_replica_that_takes_over_has_everything_that_was_acknowledged(
    new_server: Callable[..., Server],
) -> None:
    with running_pair() as (primary, replica):
        name = urlsplit(primary.new_database()).path
        hosts = f"127.0.0.1:{primary.port},127.0.0.1:{replica.port}"
        database = f"postgresql://postgres@{hosts}{name}?target_session_attrs=read-write"
        server = new_server("--workers", "2", "--log-level", "warning", database=database)
        load = Load(Partner(server))

        async def main() -> None:
            working = asyncio.create_task(load.run(endless(), 24))
            await asyncio.sleep(2)
            primary.stop()
            await asyncio.sleep(0.5)
            replica.run("pg_ctl", "-D", str(replica.data), "promote")
            promoted = time.monotonic()
            await until(lambda: load.rate(promoted + 2, promoted + 5) > 0)
            load.stop()
            await working
            follower = Follower(load.partner)
            await follower.run(lambda: True)
            check_exactly_once(load, follower, len(load.answered))

        run(main())
        assert set(load.statuses) == {201, 503}
        assert server.failures() == []
        assert server.stop() == 0
        primary.start()  # for its own clean end


def test_on_a_replica_alone_reads_go_on_and_writes_are_unavailable_until_it_takes_over(
    new_server: Callable[..., Server],
) -> None:
    with running_pair() as (primary, replica):
        database = primary.new_database()
        at_replica = (
            urlsplit(database)._replace(netloc=f"postgres@127.0.0.1:{replica.port}").geturl()
        )
        first = new_server("--log-level", "warning", database=database)
        partner = Partner(first)
        event = {"type": "VEHICLE_CONNECTED", "chargerId": "C1", "vehicleId": "V1"}
        assert partner.client.post("/events", json=event).status_code == 201
        assert first.stop() == 0
        run(until(lambda: len(query(at_replica, "SELECT 1 FROM events")) == 1))
        second = new_server("--log-level", "warning", "--pool-size", "2", database=at_replica)
        with httpx.Client(base_url=second.url, headers={"x-api-key": partner.key}) as client:
            for _ in range(5):
                for refusal in (
                    client.post("/events", json=event),
                    client.put("/chargers/C2", json={"chargePowers": [11]}),
                    client.patch("/chargers/C1", json={"chargePowers": [22]}),
                ):
                    assert (refusal.status_code, refusal.headers["retry-after"]) == (503, "1")
                assert len(client.get("/events").json()) == 1
                assert client.get("/chargers/C1").json() == {"id": "C1", "chargePowers": [11]}
                assert client.get("/ready").status_code == 200
            primary.stop()
            assert len(client.get("/events").json()) == 1
            replica.run("pg_ctl", "-D", str(replica.data), "-w", "promote")
            assert client.post("/events", json=event).status_code == 201
        assert second.failures() == []
        assert second.stop() == 0
        primary.start()
