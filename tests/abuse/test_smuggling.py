"""No request inside another is served: not directly, not behind nginx, not behind HAProxy.

Each proxy gives its own id to every request that it passes on. So if the server logs the id of an
inner request, the proxy did not send it. Others who use the same connections of the proxy get the
answers to their own requests.
"""

import asyncio
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from tests.abuse.smuggling import CHARGER, Variant, variants
from tests.conftest import Server
from tests.debian import program
from tests.services import free_port, wait_for_port

SILENCE_S = 0.3  # without a byte: then no more is expected
AT_ONCE = 24
NGINX = """
daemon off; master_process off; pid {folder}/pid; error_log /dev/null;
events {{ worker_connections 512; }}
http {{
    log_format upstream "$upstream_addr";
    access_log {folder}/access.log upstream;
    client_body_temp_path {folder}/a; proxy_temp_path {folder}/b; fastcgi_temp_path {folder}/c;
    uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e;
    upstream tether {{ server {node}; keepalive 4; }}
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_set_header X-Request-Id $request_id;
    server {{ listen 127.0.0.1:{whole}; location / {{ proxy_pass http://tether; }} }}
    server {{
        listen 127.0.0.1:{streaming};
        ignore_invalid_headers off; underscores_in_headers on; merge_slashes off;
        location / {{ proxy_pass http://tether; proxy_request_buffering off; }}
    }}
}}
"""
HAPROXY = """
global
    log stdout format raw local0
defaults
    mode http
    log global
    log-format "%s"
    timeout connect 5s
    timeout client 10s
    timeout server 10s
    http-reuse always
    default_backend tether
frontend strict
    bind 127.0.0.1:{strict}
frontend lax
    bind 127.0.0.1:{lax}
    option accept-invalid-http-request
backend tether
    http-request set-header X-Request-Id %[uuid]
    server tether {node}
"""


@dataclass
class Proxies:
    """The ports of running proxies, and how many requests they sent to the server."""

    ports: dict[str, int]
    sent: Callable[[], int]


@contextmanager
def running_nginx(node: str) -> Iterator[Proxies]:
    """An nginx that reads whole bodies first, and one that passes them on in pieces."""
    folder = Path(tempfile.mkdtemp(prefix="tether-nginx-"))
    whole, streaming = free_port(), free_port()
    configuration = folder / "nginx.conf"
    configuration.write_text(
        NGINX.format(folder=folder, node=node, whole=whole, streaming=streaming)
    )
    process = subprocess.Popen(
        [program("nginx"), "-p", folder, "-c", configuration], stderr=subprocess.DEVNULL
    )

    def sent() -> int:
        lines = (folder / "access.log").read_text().splitlines()
        return sum(len(line.split(",")) for line in lines if line != "-")

    try:
        wait_for_port(streaming)
        yield Proxies({"n": whole, "o": streaming}, sent)
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def running_haproxy(node: str) -> Iterator[Proxies]:
    """A strict HAProxy, and one that accepts invalid HTTP."""
    folder = Path(tempfile.mkdtemp(prefix="tether-haproxy-"))
    strict, lax = free_port(), free_port()
    configuration, log = folder / "haproxy.cfg", folder / "log"
    configuration.write_text(HAPROXY.format(node=node, strict=strict, lax=lax))
    with log.open("w") as output:
        process = subprocess.Popen(
            [program("haproxy"), "-db", "-f", configuration],
            stdout=output, stderr=subprocess.DEVNULL,
        )  # fmt: skip
    try:
        wait_for_port(lax)
        yield Proxies({"h": strict, "i": lax}, lambda: log.read_text().count("tether\n"))
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


async def exchange(port: int, raw: bytes) -> bytes:
    """All bytes that come back, until the other end closes or is silent."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answer = b""
    try:
        writer.write(raw)
        while piece := await asyncio.wait_for(reader.read(65536), SILENCE_S):
            answer += piece
    except (TimeoutError, ConnectionError):
        pass
    finally:
        writer.transport.abort()
    return answer


async def ask(port: int, key: str, name: str) -> None:
    """Another client creates a charger through the same connections of the proxy."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"PUT /chargers/{name} HTTP/1.1\r\nhost: x\r\nx-api-key: {key}\r\nconnection: close\r\n"
    writer.write(f"{head}content-length: {len(CHARGER)}\r\n\r\n".encode() + CHARGER)
    answer = await asyncio.wait_for(reader.read(), 30)
    writer.close()
    assert answer.startswith(b"HTTP/1.1 201"), (name, answer)
    assert b'{"id":"%s"}' % name.encode() in answer, (name, answer)


async def attack(port: int, tried: list[Variant], other: str | None = None) -> dict[str, bytes]:
    """Sends each variant, and with the key `other` also another request; returns the answers."""
    free = asyncio.Semaphore(AT_ONCE)

    async def one(number: int, variant: Variant) -> tuple[str, bytes]:
        async with free:
            answer = await exchange(port, variant.raw)
            if other is not None:
                await ask(port, other, f"own-{port}-{number}")
            return variant.name, answer

    return dict(await asyncio.gather(*(one(*pair) for pair in enumerate(tried))))


def seen(server: Server) -> list[str]:
    """Stops the server; returns the ids of all requests that it saw or refused unread."""
    assert server.stop() == 0
    assert server.failures() == []
    lines = [json.loads(line) for line in server.log if line.startswith("{")]
    return [line["request_id"] for line in lines if line["event"] in ("request", "refused")]


def test_the_table_has_more_than_228_variants() -> None:
    table = variants("key", "d")
    assert len({variant.raw for variant in table}) == len(table) > 228


def test_what_is_inside_a_request_is_never_taken_for_another(
    new_server: Callable[..., Server],
) -> None:
    server = new_server("--log-level", "debug")  # which has a line for each refusal
    table = variants(server.key(), "d")
    answers = asyncio.run(attack(urlsplit(server.url).port or 0, table))
    failures = {name: answer for name, answer in answers.items() if b"HTTP/1.1 5" in answer}
    assert failures == {}
    table_of_ids = {f"smuggled-d-{number:04}": one for number, one in enumerate(table)}
    found = [table_of_ids[request_id] for request_id in seen(server) if request_id in table_of_ids]
    assert [one.name for one in found if not one.allowed] == []
    assert found  # a second request that every server reads as one is served


def test_no_request_reaches_the_server_that_the_proxy_did_not_send(
    new_server: Callable[..., Server],
) -> None:
    server = new_server("--log-level", "debug")  # which has a line for each refusal
    node, other = urlsplit(server.url).netloc, server.key()
    with running_nginx(node) as nginx, running_haproxy(node) as haproxy:
        ports = nginx.ports | haproxy.ports

        async def attack_all() -> None:
            key = server.key
            keys = await asyncio.to_thread(lambda: [key() for _ in ports])
            await asyncio.gather(*(
                attack(port, variants(own, mark), other)
                for (mark, port), own in zip(ports.items(), keys, strict=True)
            ))  # fmt: skip

        asyncio.run(attack_all())
        ids = seen(server)
        deadline = time.monotonic() + 60  # a proxy writes its line when a request is over
        while len(ids) > nginx.sent() + haproxy.sent():
            assert time.monotonic() < deadline, "requests that no proxy sent"
            time.sleep(0.05)
    assert [request_id for request_id in ids if request_id.startswith("smuggled-")] == []
    assert len(set(ids)) == len(ids)
