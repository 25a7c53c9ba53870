"""Nothing outside can erase or spoil the metrics of several workers, or end a worker with them."""

import asyncio
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import psutil
import pytest

from tests.conftest import TETHER, Server
from tests.services import free_port
from tests.wire import Partner, Wire, metric, pid_of, request_of, run, until
from tether.server.metrics import sum_pages
from tether.server.metrics_port import serving

WORKERS = 2
ALONE = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc"]


@pytest.fixture
def temporary(tmp_path: Path) -> Path:
    """A folder for TMPDIR."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    return folder


@pytest.fixture
def start(
    new_postgres_database: Callable[[], str],
    new_server: Callable[..., Server],
    temporary: Path,
) -> Callable[..., Server]:
    """Starts servers of several workers, whose temporary files are in `temporary`."""

    def start(*options: str, **environment: str) -> Server:
        return new_server(
            "--workers", str(WORKERS), *options,
            database=new_postgres_database(), TMPDIR=str(temporary), **environment,
        )  # fmt: skip

    return start


def workers_of(server: Server) -> list[psutil.Process]:
    """Its worker processes."""
    children: list[psutil.Process] = psutil.Process(pid_of(server)).children()
    return children


async def answered_by_all(server: Server, partner: Partner, count: int) -> None:
    """Sends this number of requests, until each worker has answered some of them."""
    wires = [await Wire.to(server) for _ in range(count)]
    request = partner.request("GET", "/chargers")
    answers = await asyncio.gather(*(wire.ask(request) for wire in wires))
    assert {answer.status for answer in answers} == {200}
    for wire in wires:
        wire.writer.close()


def answered(server: Server) -> list[float]:
    """How many such requests were answered, as several workers say."""
    pages = [httpx.get(f"{server.url}/metrics").text for _ in range(4 * WORKERS)]
    return [
        metric(page, "tether_request_seconds_count", route="/chargers", status="200")
        for page in pages
    ]


def test_workers_and_their_metrics_do_without_temporary_files(
    start: Callable[..., Server], temporary: Path
) -> None:
    server = start()
    partner = Partner(server)
    run(answered_by_all(server, partner, 40))
    assert list(temporary.iterdir()) == []
    shutil.rmtree(temporary)
    assert set(answered(server)) == {40}
    before = workers_of(server)
    before[0].kill()
    run(until(lambda: len(workers_of(server)) == WORKERS and not before[0].is_running()))
    run(answered_by_all(server, partner, 40))
    assert set(answered(server)) == {80}
    assert server.stop() == 0


def test_another_server_in_its_own_pid_namespace_does_not_wipe_them(
    start: Callable[..., Server], temporary: Path, new_postgres_database: Callable[[], str]
) -> None:
    server = start()
    partner = Partner(server)
    run(answered_by_all(server, partner, 40))
    command = [str(TETHER), "serve", "--database", new_postgres_database(), "--port", "0"]
    namespace = ALONE if can_unshare() else ALONE[:0]  # beside it, where that is forbidden
    other = subprocess.Popen(
        [*namespace, *command, "--workers", "2"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        text=True, env={**os.environ, "TMPDIR": str(temporary)}, start_new_session=True,
    )  # fmt: skip
    try:
        assert other.stdout is not None
        assert "http://" in other.stdout.readline()
        assert set(answered(server)) == {40}
    finally:
        os.killpg(other.pid, signal.SIGKILL)
        other.wait()
    assert set(answered(server)) == {40}
    assert server.stop() == 0


def can_unshare() -> bool:
    """Whether we may make a PID namespace here."""
    return subprocess.run([*ALONE, "true"], capture_output=True, check=False).returncode == 0


def test_a_folder_of_the_librarys_own_variable_is_not_used(
    start: Callable[..., Server], temporary: Path
) -> None:
    server = start(PROMETHEUS_MULTIPROC_DIR=str(temporary / "gone"))
    run(answered_by_all(server, Partner(server), 10))
    assert set(answered(server)) == {10}
    assert list(temporary.iterdir()) == []
    assert server.stop() == 0


def test_a_worker_that_dies_loses_a_second_of_its_counts_at_most(
    start: Callable[..., Server],
) -> None:
    server = start()
    partner = Partner(server)
    run(answered_by_all(server, partner, 40))
    time.sleep(2)
    victims = workers_of(server)
    for victim in victims:
        victim.kill()
    run(until(lambda: not any(victim.is_running() for victim in victims)))
    run(until(lambda: _answers(server)))
    assert set(answered(server)) == {40}
    assert server.stop() == 0


def _answers(server: Server) -> bool:
    try:
        return httpx.get(f"{server.url}/health", timeout=1).status_code == 200
    except httpx.HTTPError:
        return False


def test_a_worker_that_hangs_holds_up_nobodys_metrics(start: Callable[..., Server]) -> None:
    port = free_port()
    server = start("--metrics", f"127.0.0.1:{port}")
    partner = Partner(server)
    run(answered_by_all(server, partner, 40))
    url = f"http://127.0.0.1:{port}/metrics"
    first = httpx.get(url)
    victim = workers_of(server)[0]
    victim.suspend()
    try:
        page = httpx.get(url, timeout=10)
        assert page.status_code == 200
        count = metric(page.text, "tether_request_seconds_count", route="/chargers")
        assert count == metric(first.text, "tether_request_seconds_count", route="/chargers") == 40
    finally:
        victim.resume()
    assert server.stop() == 0


def test_without_an_answer_of_the_supervisor_metrics_are_503_and_the_workers_serve(
    start: Callable[..., Server],
) -> None:
    server = start()
    key = server.key()
    supervisor = psutil.Process(pid_of(server))

    async def main() -> None:
        wire = await Wire.to(server)
        supervisor.suspend()
        try:
            asked = asyncio.create_task(wire.ask(request_of("GET", "/metrics", "")))
            other = await Wire.to(server)
            for _ in range(200):
                assert (await other.ask(request_of("GET", "/chargers", key))).status == 200
            assert (await asked).status == 503
        finally:
            supervisor.resume()
        assert (await wire.ask(request_of("GET", "/metrics", ""))).status == 200

    run(main())
    assert server.stop() == 0


def test_dead_workers_are_replaced_also_where_processes_could_not_be_made_for_a_while(
    start: Callable[..., Server],
) -> None:
    server = start()
    before = workers_of(server)
    supervisor = psutil.Process(pid_of(server))
    limits = supervisor.rlimit(psutil.RLIMIT_NOFILE)
    supervisor.rlimit(psutil.RLIMIT_NOFILE, (1, limits[1]))  # no file descriptor for a new one
    for worker in before:
        worker.kill()
    run(until(lambda: any("worker cannot run" in line for line in server.log)))
    supervisor.rlimit(psutil.RLIMIT_NOFILE, limits)
    run(until(lambda: len(workers_of(server)) == WORKERS and _answers(server)))
    assert not any(worker.is_running() for worker in before)
    assert server.stop() == 0


def test_nothing_to_add_up_is_no_empty_page(free: int) -> None:
    with pytest.raises(ValueError, match="No worker"):
        sum_pages([])
    with pytest.raises(ValueError, match="No worker"):
        sum_pages([sum_pages([""], ended=True), "", ""])
    with serving(lambda: sum_pages(["", ""]), ("127.0.0.1", free)):
        assert httpx.get(f"http://127.0.0.1:{free}/metrics").status_code == 500


@pytest.fixture
def free() -> int:
    """A free port."""
    return free_port()


def test_an_address_of_their_own_has_metrics_at_one_path_only(
    new_server: Callable[..., Server], free: int
) -> None:
    server = new_server("--metrics", f"127.0.0.1:{free}")
    url = f"http://127.0.0.1:{free}"
    assert "tether_queue_depth 0" in httpx.get(f"{url}/metrics").text
    assert httpx.get(f"{url}/metrics?name[]=x").status_code == 200
    assert httpx.head(f"{url}/metrics").status_code == 200
    for path in ("/", "//metrics", "/metrics/", "/metrics//", "/metricsx", "/%6detrics", "/x"):
        assert httpx.get(url + path).status_code == 404, path
    assert httpx.post(f"{url}/metrics").status_code == 501
    assert server.stop() == 0
    assert server.failures() == []
