"""PgBouncer between Tether and PostgreSQL, with Debian's version of it."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from tests.debian import program
from tests.parts import UNPRIVILEGED, free_port, wait_for_port


@contextmanager
def running_pgbouncer(server_url: str, **settings: object) -> Iterator[int]:
    """A PgBouncer before this server for the time being; its port."""
    server = urlsplit(server_url)
    folder = Path(tempfile.mkdtemp(prefix="tether-pgbouncer-"))
    port = free_port()
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
    configuration = folder / "pgbouncer.ini"
    configuration.write_text("\n".join(lines) + "\n")
    user = UNPRIVILEGED if os.geteuid() == 0 else None  # it refuses to run as root
    if user is not None:
        shutil.chown(folder, user)
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


def through(port: int, url: str) -> str:
    """The URL of the same database at the pooler's port."""
    parts = urlsplit(url)
    return parts._replace(netloc=f"{parts.username}@127.0.0.1:{port}").geturl()
