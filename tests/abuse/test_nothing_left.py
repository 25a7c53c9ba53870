"""Without space for temporary files, or file descriptors: 503 with Retry-After."""

import asyncio
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.conftest import Server
from tests.faults.test_full_disk import NoFileMayGrow, SmallDisk
from tests.wire import (
    CUT_OFF,
    Answer,
    Partner,
    Wire,
    event,
    open_files,
    pid_of,
    request_of,
    run,
)

MIB = 1024 * 1024
LARGE = b"\n".join(map(event, range(2_000))).ljust(2 * MIB, b"\n")
PAGES = (
    "/",
    "/docs",
    "/guides",
    "/guides/stream",
    "/static/scalar-api-reference.js",
    "/openapi.json",
    "/health",
    "/ready",
)


def is_refused(answer: httpx.Response) -> bool:
    if answer.status_code != 503:
        return False
    assert answer.json() == {"message": "Service Unavailable"}
    assert int(answer.headers["retry-after"]) >= 1
    return True


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A folder with little space, if one can be made."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    mounted = (
        shutil.which("mount") is not None
        and subprocess.run(mount, capture_output=True, check=False).returncode == 0
    )
    yield folder
    if mounted and folder.is_mount():
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.parametrize("how", ["full", "lost", "no file may grow"])
def test_no_room_for_temporary_files_stops_only_large_bodies_in_bulk(
    new_server: Callable[..., Server], small: Path, how: str
) -> None:
    server = new_server(TMPDIR=str(small))
    partner = Partner(server)
    if how == "full" and not small.is_mount():
        how = "lost"

    def send(content: bytes | Iterator[bytes]) -> httpx.Response:
        return partner.client.post("/events/bulk", content=content)

    assert send(LARGE).status_code == 200
    disk = SmallDisk(small) if how == "full" else NoFileMayGrow(small)
    if how == "lost":
        subprocess.run(["umount", "--lazy", str(small)], capture_output=True, check=False)
        small.rmdir()
    else:
        disk.fill(server)
    assert is_refused(send(LARGE))
    assert is_refused(send(iter([LARGE])))
    if how != "no file may grow":  # the database may not write there either
        assert partner.client.post("/events", content=event(1)).status_code == 201
        assert send(event(2)).json()[0]["status"] == 201
    if how == "lost":
        small.mkdir()
    else:
        disk.free(server)
    assert send(LARGE).status_code == 200
    assert server.failures() == []
    assert not any('"status":500' in line for line in server.log)


def test_without_file_descriptors_nothing_is_a_500_and_the_server_recovers(
    new_server: Callable[..., Server],
) -> None:
    server = new_server()
    partner = Partner(server)
    pid = pid_of(server)
    soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)

    async def try_to_connect() -> list[Answer]:
        answers = []
        for _ in range(20):
            wire = await Wire.to(server)
            try:
                async with asyncio.timeout(2):
                    answers.append(await wire.ask(request_of("GET", "/health", "")))
            except (*CUT_OFF, TimeoutError):
                pass
            wire.reset()
        return answers

    resource.prlimit(pid, resource.RLIMIT_NOFILE, (open_files(server), hard))
    for path in PAGES:
        answer = partner.client.get(path)
        assert is_refused(answer) or answer.status_code == 200
    for _ in range(3):
        answer = partner.client.post("/events/bulk", content=LARGE)
        assert is_refused(answer) or answer.status_code == 200
        assert partner.client.post("/events", content=event(1)).status_code == 201
        assert partner.client.get("/events?vehicleId=V1&limit=1").status_code in (200, 503)
    assert all(answer.status in (200, 503) for answer in run(try_to_connect()))

    resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))
    assert [answer.status for answer in run(try_to_connect())] == [200] * 20
    assert partner.client.post("/events/bulk", content=LARGE).status_code == 200
    assert partner.client.get("/docs").status_code == 200
    assert server.failures() == []
    assert not any('"status":500' in line for line in server.log)


def test_without_room_for_another_thread_nothing_is_a_500_and_the_server_recovers(
    new_server: Callable[..., Server],
) -> None:
    stack = resource.getrlimit(resource.RLIMIT_STACK)
    resource.setrlimit(resource.RLIMIT_STACK, (8 * MIB, stack[1]))  # which a thread's stack takes
    try:
        server = new_server()
    finally:
        resource.setrlimit(resource.RLIMIT_STACK, stack)
    partner = Partner(server)
    pid = pid_of(server)
    soft, hard = resource.prlimit(pid, resource.RLIMIT_AS)
    # Many known events are looked up in a thread, and no thread has been started yet.
    known = b"\n".join(map(event, range(300)))
    assert partner.client.post("/events/bulk", content=known).status_code == 200

    # Enough memory is left for everything but a thread and its stack. A limit of
    # processes would not hold root.
    size = int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * resource.getpagesize()
    resource.prlimit(pid, resource.RLIMIT_AS, (size + 6 * MIB, hard))
    for _ in range(3):
        assert is_refused(partner.client.post("/events/bulk", content=known))
        assert partner.client.post("/events", content=event(1)).status_code == 201
        assert partner.client.get("/chargers/C1").status_code == 200

    resource.prlimit(pid, resource.RLIMIT_AS, (soft, hard))
    assert partner.client.post("/events/bulk", content=known).status_code == 200
    assert partner.client.get("/sessions").status_code == 200
    assert server.failures() == []
    assert not any('"status":500' in line for line in server.log)
