"""Processes of a benchmark: starts them on chosen cores, waits for them and stops them."""

import http.client
import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

CORES = sorted(os.sched_getaffinity(0))
SERVER_CORES = CORES[:1]
LOAD_CORES = CORES[-1:]

START_S = 60.0
STOP_S = 30.0


class StartError(Exception):
    """A server did not start, or died."""


def pinned(command: Sequence[str], cores: Sequence[int]) -> list[str]:
    """The command, held to some cores."""
    return ["taskset", "-c", ",".join(map(str, cores)), *command]


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def spawn(
    command: Sequence[str],
    log: Path,
    *,
    cores: Sequence[int] = SERVER_CORES,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> subprocess.Popen[bytes]:
    """Start a server; everything it prints goes to a file, as in production."""
    with log.open("wb") as output:
        return subprocess.Popen(
            pinned(command, cores),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, **(env or {})},
            cwd=cwd,
        )


def wait_until_answering(process: subprocess.Popen[bytes], port: int, key: str, log: Path) -> float:
    """Wait until a GET of a charger is answered (200, or 404 if there is none); returns seconds.

    Raises StartError with the end of the log when the server dies or is too slow.
    """
    started = time.perf_counter()
    while time.perf_counter() - started < START_S:
        if process.poll() is not None:
            break
        if _answers(port, key):
            return time.perf_counter() - started
        time.sleep(0.002)
    stop(process)
    end = log.read_text(errors="replace")[-2000:]
    raise StartError(f"{' '.join(map(str, process.args))} did not start:\n{end}")  # type: ignore[arg-type]


def _answers(port: int, key: str) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/chargers/C0000", headers={"x-api-key": key})
        return connection.getresponse().status in (200, 404)
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def stop(process: subprocess.Popen[bytes], how: int = signal.SIGTERM) -> None:
    """Ask a server to end, and end it when it does not."""
    process.send_signal(how)
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def descendants(pid: int) -> list[int]:
    """The process and all its descendants."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(below for child in children for below in descendants(int(child)))]


def resident_bytes(pid: int) -> int:
    """Resident memory of a process and all that it started."""
    total = 0
    for each in descendants(pid):
        status = Path(f"/proc/{each}/status").read_text()
        total += 1024 * int(status.split("VmRSS:")[1].split()[0])
    return total
