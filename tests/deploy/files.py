"""The files of `deploy/`, and a machine that gives a program no more rights than they do."""

import os
import re
import ssl
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psutil

from tests.conftest import TETHER
from tests.debian import program
from tests.postgres import pooler
from tests.services import free_port, make_certificate, wait_for_port

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
USER_ID = 10001  # belongs to no account, as in a container
INSTALLED = "/opt/tether/current"

# It gets a new read-only root, into which the folders of the system are bound.
_ENTER = """
set -eu
root=$1; shift
mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs "$root"
for name in usr bin sbin lib lib64 etc; do
    if [ -L "/$name" ]; then cp -P "/$name" "$root/$name"
    elif [ -e "/$name" ]; then mkdir "$root/$name"; mount --bind -o ro "/$name" "$root/$name"; fi
done
for name in null zero random urandom; do
    mkdir -p "$root/dev"; : > "$root/dev/$name"; mount --bind "/dev/$name" "$root/dev/$name"
done
mkdir "$root/proc" "$root/tmp"
mount -t proc -o hidepid=invisible proc "$root/proc"
if [ "$SCRATCH" = yes ]; then mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"; fi
for path in $READ_ONLY; do
    mkdir -p "$root$path"; mount --bind "$path" "$root$path"; mount -o remount,bind,ro "$root$path"
done
for pair in $WRITABLE; do
    mkdir -p "$root${pair#*:}"; mount --bind "${pair%%:*}" "$root${pair#*:}"
done
mkdir -p "$root$INSTALLED/bin"
ln -s "$TETHER" "$BACKUP" "$root$INSTALLED/bin/"
mount -o remount,ro "$root"
cd "$root"
PATH="$PATH:/usr/sbin:/sbin" exec chroot . "$@"
"""


@dataclass
class Machine:
    """Runs a program as a user without rights, who can write only to the named folders.

    The program is the first process of its own PID namespace, and shares the network.
    """

    folder: Path
    writable: dict[str, Path]
    environment: dict[str, str]
    scratch: bool = True
    """Whether there is a /tmp to write to."""
    user_id: int = USER_ID
    log: list[str] = field(default_factory=list)

    def command(self, words: Sequence[str]) -> list[str]:
        """The command that runs a program on this machine."""
        as_root = os.geteuid() == 0
        for path in self.writable.values():
            path.mkdir(parents=True, exist_ok=True)
            if as_root:
                os.chown(path, self.user_id, self.user_id)
                for found in path.iterdir():
                    os.chown(found, self.user_id, self.user_id)
        root = self.folder / "root"
        root.mkdir(exist_ok=True)
        user = [f"--reuid={self.user_id}", f"--regid={self.user_id}", "--clear-groups"]
        return [
            program("unshare", "util-linux"), "--mount", "--pid", "--ipc", "--fork", "--kill-child",
            *(() if as_root else ("--map-root-user",)),
            "sh", "-c", _ENTER, "sh", str(root),
            "setpriv", *(user if as_root else ()), "--no-new-privs", "--bounding-set=-all",
            "--inh-caps=-all", "env", "-i", *(f"{k}={v}" for k, v in self.environment.items()),
            *words,
        ]  # fmt: skip

    def surroundings(self) -> dict[str, str]:
        """The variables for the script that enters the machine."""
        return {
            **os.environ,
            "READ_ONLY": " ".join(dict.fromkeys([sys.base_prefix, str(ROOT), sys.prefix])),
            "WRITABLE": " ".join(f"{path}:{name}" for name, path in self.writable.items()),
            "SCRATCH": "yes" if self.scratch else "no",
            "INSTALLED": INSTALLED,
            "TETHER": str(TETHER),
            "BACKUP": str(DEPLOY / "systemd" / "tether-backup"),
        }

    def run(self, *words: str) -> "subprocess.CompletedProcess[str]":
        """Runs a program on this machine to its end."""
        return subprocess.run(
            self.command(words), env=self.surroundings(), capture_output=True, text=True,
            check=False, timeout=300,
        )  # fmt: skip

    @contextmanager
    def serving(self, *words: str) -> Iterator[psutil.Process]:
        """Runs a server on this machine, which must end with status 0 after SIGTERM."""
        process = subprocess.Popen(
            self.command(words), env=self.surroundings(), stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        output = process.stdout
        assert output is not None
        threading.Thread(target=lambda: self.log.extend(output), daemon=True).start()
        try:
            address = f"http://127.0.0.1:{self.environment['TETHER_PORT']}"
            wait_until_ready(address, process, self.log)
            (first,) = psutil.Process(process.pid).children()
            yield first
            first.terminate()
            assert process.wait(120) == 0, self.log
        finally:
            if process.poll() is None:  # a process with another user does not die with its parent
                for one in psutil.Process(process.pid).children():
                    one.kill()
            process.kill()
            process.wait()


def wait_until_ready(
    address: str, process: "subprocess.Popen[str]", log: Sequence[str], seconds: float = 120
) -> None:
    """Returns when the server is ready; fails with its log if it does not become ready."""
    end = time.monotonic() + seconds
    while True:
        try:
            if httpx.get(f"{address}/ready").status_code == 200:
                return
        except httpx.TransportError:
            pass
        assert process.poll() is None, log
        assert time.monotonic() < end, log
        time.sleep(0.05)


def settings_of(name: str) -> dict[str, str]:
    """The lines NAME=value of a file in `deploy/`."""
    lines = (DEPLOY / name).read_text().splitlines()
    return dict(
        line.split("=", 1) for line in lines if "=" in line and not line.startswith(("#", "["))
    )


def commands_below(document: str, heading: str, language: str = "sh") -> list[str]:
    """The blocks of commands, or of another language, in the section of this heading."""
    section = re.search(rf"^## {heading}\n(.*?)(?=^## |\Z)", document, re.DOTALL | re.MULTILINE)
    assert section is not None, heading
    found = re.findall(r"^ *```(\w*)\n(.*?)^ *```$", section[1], re.DOTALL | re.MULTILINE)
    return [textwrap.dedent(code) for named, code in found if named == language]


def replaced(text: str, changes: Mapping[str, str]) -> str:
    """The text with other addresses and paths. Each old one must be in it."""
    for old, new in changes.items():
        assert old in text, f"{old} is not there any more"
        text = text.replace(old, new)
    return text


# nginx ------------------------------------------------------------------------------------------

_AROUND = """
daemon off; master_process off; pid {folder}/pid; error_log {folder}/errors; worker_processes 1;
events {{ worker_connections 1024; }}
http {{
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
    include {folder}/tether.conf;
}}
"""


@dataclass
class Proxy:
    """A running nginx with the configuration of `deploy/nginx`."""

    port: int
    plain_port: int
    folder: Path

    @property
    def url(self) -> str:
        """Its address, with TLS."""
        return f"https://127.0.0.1:{self.port}"

    @property
    def plain_url(self) -> str:
        """The address without TLS, where it serves nothing."""
        return f"http://127.0.0.1:{self.plain_port}"

    @property
    def certificate(self) -> Path:
        """Its certificate, which it has signed itself."""
        return self.folder / "certificate.pem"

    @property
    def log(self) -> Path:
        """The file in which it logs requests."""
        return self.folder / "access.log"

    def trust(self) -> ssl.SSLContext:
        """The TLS context of a client that trusts the certificate."""
        return ssl.create_default_context(cafile=str(self.certificate))

    def client(self, key: str) -> httpx.Client:
        """An HTTP client with this key."""
        headers = {"x-api-key": key}
        return httpx.Client(base_url=self.url, headers=headers, verify=self.trust(), timeout=120)


@contextmanager
def running_proxy(
    folder: Path, nodes: Sequence[str], changes: Mapping[str, str] | None = None
) -> Iterator[Proxy]:
    """Runs an nginx in front of two nodes, each HOST:PORT."""
    proxy = Proxy(free_port(), free_port(), folder)
    _, key = make_certificate(folder)
    configuration = replaced(
        (DEPLOY / "nginx" / "tether.conf").read_text(),
        {
            "10.0.0.1:8000": nodes[0],
            "10.0.0.2:8000": nodes[1],
            "    listen [::]:80;\n": "",
            "    listen [::]:443 ssl http2;\n": "",
            "listen 80;": f"listen 127.0.0.1:{proxy.plain_port};",
            "listen 443 ssl http2;": f"listen 127.0.0.1:{proxy.port} ssl http2;",
            "/etc/letsencrypt/live/api.example.com/fullchain.pem": str(proxy.certificate),
            "/etc/letsencrypt/live/api.example.com/privkey.pem": str(key),
            "/var/log/nginx/tether.log": str(proxy.log),
            **(changes or {}),
        },
    )
    (folder / "tether.conf").write_text(configuration)
    (folder / "nginx.conf").write_text(_AROUND.format(folder=folder))
    command = [program("nginx"), "-p", str(folder), "-c", str(folder / "nginx.conf")]
    tested = subprocess.run([*command, "-t"], capture_output=True, text=True, check=False)
    assert tested.returncode == 0, tested.stderr
    assert "[warn]" not in tested.stderr or "http2" in tested.stderr  # nginx says so from 1.25 on
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        wait_for_port(proxy.port)
        yield proxy
    finally:
        process.kill()
        process.wait()


# PgBouncer --------------------------------------------------------------------------------------


@contextmanager
def running_pgbouncer(database: str, users: str) -> Iterator[int]:
    """PgBouncer with the file of `deploy/pgbouncer` and these lines as userlist.txt; its port."""
    server = urlsplit(database)

    def configure(folder: Path, port: int) -> str:
        return replaced(
            (DEPLOY / "pgbouncer" / "pgbouncer.ini").read_text(),
            {
                "tether = host=10.0.0.12 port=5432":
                    f"{server.path[1:]} = host=127.0.0.1 port={server.port}",
                "listen_addr = 10.0.0.10": "listen_addr = 127.0.0.1",
                "listen_port = 6432": f"listen_port = {port}",
                "unix_socket_dir = /run/postgresql": "unix_socket_dir =",
                "/etc/pgbouncer/userlist.txt": str(folder / "userlist.txt"),
            },
        )  # fmt: skip

    with pooler.running(configure, users) as port:
        yield port
