"""On a full disk writes are answered with 503, reads work, and the server recovers by itself."""

import asyncio
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pytest

from tests.conftest import TETHER, Server
from tests.wire import Answer, Partner, Wire, check_integrity, pid_of, post_events, run


class Disk(Protocol):
    """The folder of the database."""

    folder: Path

    def fill(self, server: Server) -> None:
        """Fills the disk."""

    def free(self, server: Server) -> None:
        """Frees space on the disk."""


@dataclass
class SmallDisk:
    """A file system of a few megabytes."""

    folder: Path

    def fill(self, server: Server) -> None:
        filler = (self.folder / "filler").open("wb", buffering=0)
        with filler, suppress(OSError):
            while True:
                filler.write(b"x" * 4096)

    def free(self, server: Server) -> None:
        (self.folder / "filler").unlink()


@dataclass
class NoFileMayGrow:
    """The limit of the kernel on the size of the files that a process writes."""

    folder: Path

    def fill(self, server: Server) -> None:
        self._limit(server, 1)

    def free(self, server: Server) -> None:
        self._limit(server, resource.RLIM_INFINITY)

    def _limit(self, server: Server, size: int) -> None:
        pid = pid_of(server)
        _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard if size < 0 else size, hard))


@pytest.fixture(params=[SmallDisk, NoFileMayGrow])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Disk]:
    """A disk that can be full. Without the right to mount one, it is the file size limit."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(folder)]
    mounted = (
        request.param is SmallDisk
        and shutil.which("mount") is not None
        and subprocess.run(mount, capture_output=True, check=False).returncode == 0
    )
    try:
        yield SmallDisk(folder) if mounted else NoFileMayGrow(folder)
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


def is_refused(answer: Answer) -> bool:
    """Whether the answer to a write is right while the disk is full."""
    if answer.status != 503:
        return False
    assert answer.json() == {"message": "Service Unavailable"}
    assert int(answer.headers["retry-after"]) >= 1
    return True


async def fill_up(partner: Partner, first: int) -> tuple[int, set[str]]:
    """Posts events until one is refused; returns its number, and the ids of the others."""
    wire = await Wire.to(partner.server)
    ids: set[str] = set()
    for number in range(first, first + 20_000):
        answer = await wire.ask(partner.post(number))
        if is_refused(answer):
            return number, ids
        assert answer.status == 201
        ids.add(answer.json()["id"])
    raise AssertionError("the disk is not full")


async def write_at_once(partner: Partner, number: int) -> list[Answer]:
    """Sends all kinds of writes at the same time; returns the answers."""
    capacity = b'{"chargeCapacity":99}'
    requests = [partner.post(number, vehicle="V1") for number in range(number, number + 20)]
    requests += [partner.request("PUT", f"/chargers/N{n}", b'{"chargePowers":[7]}') for n in (1, 2)]
    requests += [partner.request("PATCH", "/vehicles/V1", capacity)]
    wires = await asyncio.gather(*(Wire.to(partner.server) for _ in requests))
    return await asyncio.gather(
        *(wire.ask(request) for wire, request in zip(wires, requests, strict=True))
    )


def test_a_full_disk_stops_the_writes_only_and_only_while_it_is_full(
    disk: Disk, new_server: Callable[..., Server]
) -> None:
    server = new_server(database=str(disk.folder / "tether.db"))
    pid = pid_of(server)
    partner = Partner(server)
    run(post_events(partner, 200))
    before = partner.events()
    disk.fill(server)

    refused, ids = run(fill_up(partner, 200))
    assert all(is_refused(answer) for answer in run(write_at_once(partner, refused)))

    stored = partner.events()
    assert {found["id"] for found in stored} == {found["id"] for found in before} | ids
    assert partner.client.get("/vehicles/V1").json()["chargeCapacity"] == 60  # as put_fleet left it
    assert partner.client.get("/chargers/N1").status_code == 404
    assert partner.client.get("/events?vehicleId=V1&limit=1").status_code == 200
    assert partner.client.get("/ready").status_code == 200

    disk.free(server)
    answers = run(write_at_once(partner, refused))
    assert sorted(answer.status for answer in answers) == [200] + 22 * [201]
    assert pid_of(server) == pid
    assert partner.events()[: len(stored)] == stored
    check_integrity(server.database)
    assert not any('"status":500' in line for line in server.log)


def test_a_log_that_cannot_be_written_fails_no_request(tmp_path: Path) -> None:
    for log_format in ("json", "text"):
        server = Server(str(tmp_path / f"{log_format}.db"))
        with Path("/dev/full").open("wb", buffering=0) as full:
            server.process = subprocess.Popen(
                [TETHER, "serve", "--database", server.database, "--port", "0",
                 "--log-format", log_format],
                stdout=subprocess.PIPE, stderr=full, text=True,
            )  # fmt: skip
        assert server.process.stdout is not None
        server.url = server.process.stdout.readline().split()[3]
        assert server.url.startswith("http://")
        run(post_events(Partner(server), 50))
        assert server.stop() == 0
