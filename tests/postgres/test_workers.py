"""Several worker processes behind one port: they act as one server."""

import asyncio
import os
import signal
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Callable

import httpx
import psutil

from tests.commands import tether
from tests.conftest import TETHER, Server
from tests.postgres.load import Follower, Load, check_exactly_once, endless
from tests.postgres.test_migration import refused
from tests.services import free_port
from tests.wire import CUT_OFF, Partner, Wire, metric, pid_of, request_of, run, until

REVOKED_S = 2.0


def workers_of(server: Server) -> list[psutil.Process]:
    """Its worker processes."""
    return psutil.Process(pid_of(server)).children()


def is_alive(process: psutil.Process) -> bool:
    """Whether it runs. A zombie does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def wires_to_all(server: Server, workers: int) -> list[Wire]:
    """Connections to all workers: the kernel distributes them at random."""
    return [await Wire.to(server) for _ in range(16 * workers)]


# Keys ---------------------------------------------------------------------------------------------


def test_a_revoked_key_stops_on_every_worker_of_every_node_within_two_seconds(
    database: str, node: Callable[..., Server]
) -> None:
    servers = [node("--workers", "2", database=database) for _ in range(2)]
    key = servers[0].key()

    async def main() -> None:
        wires = [wire for server in servers for wire in await wires_to_all(server, 2)]
        request = request_of("GET", "/chargers", key)

        async def statuses() -> Counter[int]:
            answers = await asyncio.gather(*(wire.ask(request) for wire in wires))
            return Counter(answer.status for answer in answers)

        assert await statuses() == {200: len(wires)}
        revoking = asyncio.create_task(
            asyncio.to_thread(tether, "keys", "revoke", key, "--database", database)
        )
        while not revoking.done():
            assert set(await statuses()) <= {200, 403}
        revoked = time.monotonic()
        assert revoking.result().returncode == 0
        asked = revoked
        while 200 in await statuses():
            assert asked - revoked < REVOKED_S  # the answers themselves may take their time
            asked = time.monotonic()
        await asyncio.sleep(max(0, revoked + REVOKED_S - time.monotonic()))
        assert await statuses() == {403: len(wires)}

    run(main())
    assert [server.stop() for server in servers] == [0, 0]


# Metrics ------------------------------------------------------------------------------------------


def answered(page: str, **labels: str) -> float:
    """How many requests were answered according to the metrics."""
    return metric(page, "tether_request_seconds_count", **labels)


def test_metrics_add_up_whichever_worker_answers_also_after_one_was_killed(
    database: str, node: Callable[..., Server]
) -> None:
    server = node("--workers", "3", database=database)
    partner = Partner(server)

    async def pages(wires: list[Wire]) -> list[str]:
        request = request_of("GET", "/metrics", "")
        return [(await wire.ask(request)).body.decode() for wire in wires]

    async def main() -> None:
        wires = await wires_to_all(server, 3)
        await asyncio.gather(*(wire.ask(partner.request("GET", "/chargers")) for wire in wires))
        await asyncio.gather(*(wire.ask(partner.post(n)) for n, wire in enumerate(wires)))
        sent = len(wires)
        for page in await pages(wires):
            assert answered(page, route="/chargers", status="200") == sent
            assert answered(page, route="/events", method="POST", status="201") == sent
            assert metric(page, "tether_commit_batch_size_sum") == sent
        victim = workers_of(server)[0]
        victim.kill()
        await until(lambda: len(workers_of(server)) == 3 and not is_alive(victim))
        await asyncio.sleep(1)
        wires = await wires_to_all(server, 3)
        await asyncio.gather(*(wire.ask(partner.request("GET", "/chargers")) for wire in wires))
        for page in await pages(wires):
            assert answered(page, route="/chargers", status="200") == sent + len(wires)
            assert metric(page, "tether_queue_depth") == 0

    run(main())
    assert server.stop() == 0


def test_metrics_have_an_address_of_their_own_for_all_workers(
    database: str, node: Callable[..., Server]
) -> None:
    port = free_port()
    server = node("--workers", "2", "--metrics", f"127.0.0.1:{port}", database=database)
    partner = Partner(server)

    async def main() -> None:
        wires = await wires_to_all(server, 2)
        await asyncio.gather(*(wire.ask(partner.request("GET", "/chargers")) for wire in wires))
        page = (await asyncio.to_thread(httpx.get, f"http://127.0.0.1:{port}/metrics")).text
        assert answered(page, route="/chargers", status="200") == len(wires)
        assert (await wires[0].ask(partner.request("GET", "/metrics"))).status == 404

    run(main())
    assert server.stop() == 0


# Life and death -----------------------------------------------------------------------------------


def test_a_worker_that_is_killed_is_replaced_and_the_others_go_on(
    database: str, node: Callable[..., Server]
) -> None:
    server = node("--workers", "2", database=database)
    load = Load(Partner(server))

    async def main() -> None:
        working = asyncio.create_task(load.run(endless(), 16))
        for _ in range(3):
            before = workers_of(server)
            before[0].kill()
            await until(lambda: len(workers_of(server)) == 2 and not is_alive(before[0]))  # noqa: B023
            await asyncio.sleep(0.5)
            assert is_alive(before[1])
        load.stop()
        await working
        follower = Follower(load.partner)
        await follower.run(lambda: True)
        check_exactly_once(load, follower, len(load.answered))

    run(main())
    assert set(load.statuses) == {201}
    assert "".join(server.log).count("worker died") == 3
    assert server.stop() == 0


def test_workers_do_not_outlive_a_supervisor_that_is_killed(
    database: str, node: Callable[..., Server]
) -> None:
    server = node("--workers", "3", database=database)
    partner = Partner(server)
    workers = workers_of(server)
    assert len(workers) == 3

    async def main() -> None:
        wire = await Wire.to(server)
        assert (await wire.ask(partner.post(1))).status == 201
        server.kill()
        await until(lambda: not any(map(is_alive, workers)))

    run(main())
    again = node("--workers", "2", database=database)
    with again.client(partner.key) as client:
        assert len(client.get("/events").json()) == 1
    assert again.stop() == 0


def test_told_to_stop_under_load_they_lose_nothing(
    database: str, node: Callable[..., Server]
) -> None:
    server = node("--workers", "2", database=database)
    partner = Partner(server)
    answered: dict[int, str] = {}
    numbers = endless()
    workers = workers_of(server)

    async def client(wire: Wire) -> None:
        try:
            for number in numbers:
                answer = await wire.ask(partner.post(number))
                assert answer.status == 201, answer
                answered[number] = answer.json()["id"]
        except CUT_OFF:
            pass

    async def main() -> None:
        clients = [asyncio.create_task(client(await Wire.to(server))) for _ in range(32)]
        await asyncio.sleep(1.5)
        assert await asyncio.to_thread(server.stop) == 0
        await asyncio.gather(*clients)

    run(main())
    assert len(answered) > 100
    assert not any(map(is_alive, workers))
    again = node(database=database)
    partner.server = again
    partner.again()
    stored = {event["id"] for event in partner.events()}
    assert stored == set(answered.values()), "what was begun was also answered"
    assert again.stop() == 0
    assert "worker died" not in "".join(server.log)


def test_ctrl_c_is_for_all_of_them_and_clean(database: str) -> None:
    command = [str(TETHER), "serve", "--database", database, "--port", "0", "--workers", "2"]
    process = subprocess.Popen(
        [*command, "--log-level", "warning"], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert "http://" in process.stdout.readline()
    workers = psutil.Process(process.pid).children()
    os.killpg(process.pid, signal.SIGINT)
    _, log = process.communicate(timeout=180)
    assert (process.returncode, log) == (0, "")
    assert not any(map(is_alive, workers))


def test_a_port_that_somebody_has_is_refused_in_one_sentence(
    database: str, node: Callable[..., Server]
) -> None:
    for workers in ("1", "2"):
        first = node("--workers", workers, database=database)
        port = first.url.rpartition(":")[2]
        for second in ("1", "2"):
            sentence = refused("serve", "--database", database, "--port", port, "--workers", second)
            assert f"cannot listen on 127.0.0.1 port {port}: Address already in use" in sentence
        with first.client() as client:
            assert client.get("/chargers").status_code == 200
        assert first.stop() == 0


def is_free(port: int) -> bool:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


def test_of_two_that_start_at_once_on_a_port_the_first_gets_it(database: str) -> None:
    tether("migrate", "--database", database)
    port = free_port()
    command = [str(TETHER), "serve", "--database", database, "--port", str(port), "--workers", "2"]
    first = subprocess.Popen(
        [*command, "--log-level", "warning"], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    run(until(lambda: not is_free(port)))
    # Its workers do not listen yet, so this is a port that is only reserved.
    sentence = refused(*command[1:])
    assert "Address already in use" in sentence
    assert first.stdout is not None
    assert "http://" in first.stdout.readline()
    first.terminate()
    assert first.communicate(timeout=180) == ("", "")
    assert first.returncode == 0


def test_more_than_one_worker_needs_postgresql(tmp_path: object) -> None:
    sentence = refused("serve", "--database", f"{tmp_path}/tether.db", "--workers", "2")
    assert "A SQLite file has one server process" in sentence
