"""Two PostgreSQL servers under Patroni, with etcd, from Debian's packages."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil
import yaml

from tests.debian import program
from tests.services import UNPRIVILEGED, free_port, postgres_programs, wait_for_port

USER = UNPRIVILEGED if os.geteuid() == 0 else None
# How soon a lost leader is replaced: its key lives for so long, and is looked at so often.
TTL_S, LOOP_S, RETRY_S = 20, 5, 5


@dataclass
class Member:
    """One PostgreSQL and its Patroni."""

    name: str
    folder: Path
    etcd_port: int
    port: int = field(default_factory=free_port)
    api_port: int = field(default_factory=free_port)
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def data(self) -> Path:
        """The data folder of PostgreSQL."""
        return self.folder / self.name

    def configuration(self) -> dict[str, object]:
        """The content of its configuration file."""
        return {
            "scope": "tether",
            "name": self.name,
            "restapi": {"listen": f"127.0.0.1:{self.api_port}",
                        "connect_address": f"127.0.0.1:{self.api_port}"},
            "etcd3": {"hosts": [f"127.0.0.1:{self.etcd_port}"]},
            "bootstrap": {
                "dcs": {
                    "ttl": TTL_S, "loop_wait": LOOP_S, "retry_timeout": RETRY_S,
                    "maximum_lag_on_failover": 1048576,
                    "synchronous_mode": True,
                    "postgresql": {"use_pg_rewind": True, "use_slots": True,
                                   "parameters": {"max_connections": 60, "wal_log_hints": "on"}},
                },
                "initdb": [{"encoding": "UTF8"}, "data-checksums"],
            },
            "postgresql": {
                "listen": f"127.0.0.1:{self.port}", "connect_address": f"127.0.0.1:{self.port}",
                "data_dir": str(self.data), "bin_dir": str(postgres_programs()),
                "pgpass": str(self.folder / f"pgpass-{self.name}"),
                "authentication": {"superuser": {"username": "postgres"},
                                   "replication": {"username": "replicator"}},
                "parameters": {"unix_socket_directories": str(self.folder)},
                "pg_hba": ["host all all 127.0.0.1/32 trust", "local all all trust",
                           "host replication all 127.0.0.1/32 trust"],
            },
        }  # fmt: skip

    def start(self) -> None:
        """Starts Patroni, which starts PostgreSQL."""
        file = self.folder / f"{self.name}.yaml"
        file.write_text(yaml.safe_dump(self.configuration()))
        with (self.folder / f"{self.name}.log").open("a") as log:
            self.process = subprocess.Popen(
                [program("patroni"), file], user=USER, cwd=self.folder, stdout=log, stderr=log,
                env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"},
            )  # fmt: skip

    def is_leader(self) -> bool:
        """Whether Patroni says that this one takes writes."""
        return self._says("/primary")

    def is_synchronous(self) -> bool:
        """Whether Patroni says that each commit waits for this one."""
        return self._says("/synchronous")

    def _says(self, path: str) -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{self.api_port}{path}").status_code == 200
        except httpx.TransportError:
            return False

    def kill(self) -> None:
        """Kills both at once, as when the machine is lost."""
        processes = self._postgres()
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGKILL)

    def _postgres(self) -> list[psutil.Process]:
        try:
            first = psutil.Process(int((self.data / "postmaster.pid").read_text().split()[0]))
            return [first, *first.children(recursive=True)]
        except (OSError, psutil.NoSuchProcess):
            return []


@contextmanager
def running_cluster() -> Iterator[list[Member]]:
    """A leader and its synchronous standby."""
    folder = Path(tempfile.mkdtemp(prefix="tether-patroni-"))
    if USER is not None:
        shutil.chown(folder, USER)
    client, peer = free_port(), free_port()
    etcd = subprocess.Popen(
        [
            program("etcd", "etcd-server"), "--name", "etcd", "--data-dir", folder / "etcd",
            "--listen-client-urls", f"http://127.0.0.1:{client}",
            "--advertise-client-urls", f"http://127.0.0.1:{client}",
            "--listen-peer-urls", f"http://127.0.0.1:{peer}",
            "--initial-advertise-peer-urls", f"http://127.0.0.1:{peer}",
            "--initial-cluster", f"etcd=http://127.0.0.1:{peer}",
        ],
        user=USER, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    members = [Member(name, folder, client) for name in ("one", "two")]
    try:
        wait_for_port(client)
        members[0].start()
        wait_until(members[0].is_leader, members)
        members[1].start()
        wait_until(members[1].is_synchronous, members)
        yield members
    finally:
        for member in members:
            member.kill()
        etcd.kill()
        etcd.wait()
        shutil.rmtree(folder, ignore_errors=True)


def wait_until(condition: object, members: Sequence[Member], seconds: float = 120) -> None:
    """Returns when it is true; fails with the output of Patroni if it takes too long."""
    assert callable(condition)
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            logs = [(m.folder / f"{m.name}.log") for m in members]
            raise AssertionError("\n".join(log.read_text()[-4000:] for log in logs if log.exists()))
        time.sleep(0.1)
