"""A slow disk makes events slower, and nothing else."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import psutil

from tests.conftest import Server
from tests.debian import program
from tests.postgres.load import Follower, Load, check_exactly_once, endless
from tests.wire import Partner, event, run, until

DELAY_S = 0.2
CLIENTS = 48


def test_reports_share_the_commits_of_a_slow_disk_and_reads_do_not_wait(tmp_path: Path) -> None:
    server = Server(str(tmp_path / "tether.db"))
    server.program = [
        program("strace"), "--quiet=all", "--follow-forks", "--seccomp-bpf", "--signal=none",
        "--trace=fdatasync,fsync", "--output=/dev/null",
        f"--inject=fdatasync,fsync:delay_enter={int(DELAY_S * 1_000_000)}",
        *server.program,
    ]  # fmt: skip
    server.start()
    assert server.process is not None
    try:
        run(report_and_read(Load(Partner(server))))
    finally:
        for traced in psutil.Process(server.process.pid).children():
            traced.terminate()  # strace keeps signals to itself, and ends with the server
        assert server.process.wait(120) == 0
    assert server.failures() == []


async def report_and_read(load: Load) -> None:
    reads: list[float] = []
    started = time.monotonic()
    working = asyncio.create_task(load.run(endless(), CLIENTS))
    headers = {"x-api-key": load.partner.key}
    async with httpx.AsyncClient(base_url=load.partner.server.url, headers=headers) as client:
        while len(load.answered) < 4 * CLIENTS:
            began = time.monotonic()
            assert (await client.get("/chargers/C1")).status_code == 200
            reads.append(time.monotonic() - began)
            await asyncio.sleep(0.02)
    took, stored = time.monotonic() - started, len(load.answered)
    load.stop()
    await working
    assert set(load.statuses) == {201}
    assert load.slowest_s > DELAY_S, "the disk was not slow: this tested nothing"
    assert took < stored * DELAY_S / 2, "each report had a commit of its own"
    assert sorted(reads)[len(reads) // 2] < max(DELAY_S, load.slowest_s / 2)
    follower = Follower(load.partner)
    await follower.run(lambda: True)
    check_exactly_once(load, follower, len(load.answered))


def test_the_log_is_copied_beside_the_commits_and_not_by_one_of_them(
    new_server: Callable[..., Server],
) -> None:
    server = new_server()
    partner, file = Partner(server), Path(server.database)
    before = file.stat().st_size
    events = b"\n".join(map(event, range(10_000)))
    partner.client.post("/events/bulk", content=events).raise_for_status()
    run(until(lambda: file.stat().st_size > before + 1_000_000))
