"""PgBouncer between Tether and PostgreSQL, with Debian's version of it."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from tests.debian import program
from tests.services import UNPRIVILEGED, free_port, wait_for_port


@contextmanager
def running(configure: Callable[[Path, int], str], users: str = "") -> Iterator[int]:
    """Runs a PgBouncer; yields its port.

    `configure` makes its configuration from a folder, with `users` in userlist.txt, and a port.
    """
    folder, port = Path(tempfile.mkdtemp(prefix="tether-pgbouncer-")), free_port()
    (folder / "userlist.txt").write_text(users)
    configuration = folder / "pgbouncer.ini"
    configuration.write_text(configure(folder, port))
    user = UNPRIVILEGED if os.geteuid() == 0 else None  # it refuses to run as root
    if user is not None:
        for path in (folder, *folder.iterdir()):
            shutil.chown(path, user)
    process = subprocess.Popen(
        [program("pgbouncer"), "-q", configuration], user=user, cwd=folder,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait_for_port(port)
        yield port
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def running_pgbouncer(server_url: str, **settings: object) -> Iterator[int]:
    """A PgBouncer with these settings before this server; its port."""
    server = urlsplit(server_url)

    def configure(_folder: Path, port: int) -> str:
        everything = {
            "listen_addr": "127.0.0.1",
            "listen_port": port,
            "unix_socket_dir": "",
            "auth_type": "any",
            "pool_mode": "transaction",
            "default_pool_size": 3,
            "max_client_conn": 200,
            **settings,
        }
        lines = [
            "[databases]",
            f"* = host={server.hostname} port={server.port} user={server.username}",
            "[pgbouncer]",
            *(f"{name} = {value}" for name, value in everything.items()),
        ]
        return "\n".join(lines) + "\n"

    with running(configure) as port:
        yield port


def through(port: int, url: str) -> str:
    """The URL of the same database at the pooler's port."""
    parts = urlsplit(url)
    return parts._replace(netloc=f"{parts.username}@127.0.0.1:{port}").geturl()
