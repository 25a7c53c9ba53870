"""Behind a proxy that shows the server under a path, all addresses lead back through the proxy."""

import asyncio
import re
import socket
import subprocess
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import httpx
import pytest

from tests.api.helpers import ON_ONE_ENGINE, create_charger, create_event, create_vehicle, message
from tests.conftest import TETHER, Server
from tests.debian import program
from tests.services import free_port, wait_for_port
from tether.client import AsyncClient, Client

pytestmark = ON_ONE_ENGINE

NGINX = """
daemon off; master_process off; pid {folder}/pid; error_log stderr crit; worker_processes 1;
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
    server {{
        listen 127.0.0.1:{port};
        location /tether/ {{
            proxy_pass {upstream}/;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $http_host;
            proxy_set_header X-Forwarded-Proto $scheme;
            proxy_set_header X-Forwarded-Prefix /tether;
        }}
    }}
}}
"""


@pytest.fixture
def address(server: Server, tmp_path: Path) -> Iterator[str]:
    """Where an nginx shows the server."""
    port, configuration = free_port(), tmp_path / "nginx.conf"
    configuration.write_text(NGINX.format(folder=tmp_path, port=port, upstream=server.url))
    process = subprocess.Popen(
        [program("nginx"), "-p", tmp_path, "-c", configuration], stderr=subprocess.DEVNULL
    )
    try:
        wait_for_port(port)
        yield f"http://127.0.0.1:{port}/tether"
    finally:
        process.kill()
        process.wait()


def fill(site: httpx.Client) -> None:
    for number in range(3):
        create_charger(site, f"C{number}")
        create_vehicle(site, f"V{number}")
        create_event(site, chargerId=f"C{number}", vehicleId=f"V{number}")


LISTS = (
    "/events", "/events?order=desc", "/chargers", "/vehicles", "/sessions", "/capacity?by=charger",
)  # fmt: skip


def test_links_and_the_sdk_go_through_the_proxy(server: Server, address: str) -> None:
    key = server.key()
    with httpx.Client(base_url=address, headers={"x-api-key": key}) as site:
        fill(site)
        for target in LISTS:
            mark = "&" if "?" in target else "?"
            link = site.get(f"{target}{mark}limit=2").links["next"]["url"]
            assert link.startswith(f"{address}{target.partition('?')[0]}?")
            assert len(site.get(link).json()) == 1

    for base in (address, address + "/"):
        with Client(base, key) as sdk:
            assert [one.id for one in sdk.chargers.list(page_size=1)] == ["C0", "C1", "C2"]
            assert len(list(sdk.events.list(page_size=2))) == 3
            assert next(sdk.events.follow()).charger_id == "C0"
            with sdk.stream("start") as stream:
                assert next(stream)

    async def awaiting() -> None:
        async with AsyncClient(address, key) as sdk:
            assert len([one async for one in sdk.events.list(page_size=2)]) == 3
            async with sdk.stream("start") as stream:
                assert await anext(stream)

    asyncio.run(awaiting())
    command = [str(TETHER), "chargers", "list", "--url", address, "--api-key", key]
    assert "C2" in subprocess.run(command, capture_output=True, text=True, check=True).stdout


class _Addresses(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value or "" for name, value in attrs if name in ("src", "href")]


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_pages_find_what_they_are_made_of(address: str, path: str) -> None:
    """As a browser does: relative to the page."""
    page = address + path
    found = _Addresses(httpx.get(page).text).found
    assert found
    for one in found:
        assert urljoin(page, one).startswith(f"{address}/")
        # The console redirects to the sign-in page.
        assert httpx.get(urljoin(page, one), follow_redirects=True).status_code == 200
    # The reference loads the document by the same rule, and calls the server in it.
    (named,) = re.findall(r'fetch\("([^"]+)"\)', httpx.get(f"{address}/static/docs.js").text)
    document = urljoin(page, named)
    (server,) = httpx.get(document).json()["servers"]
    assert urljoin(document, server["url"]) == address
    assert httpx.get(f"{urljoin(document, server['url'])}/health").status_code == 200


@pytest.mark.parametrize(
    ("said", "prefix"),
    [
        ("/tether", "/tether"),
        ("/tether/", "/tether"),
        ("/a/b-c_d~e.f", "/a/b-c_d~e.f"),
        ("/outer, /inner", "/outer/inner"),
        ("", ""),
        ("/", ""),
        ("tether", ""),
        ("//evil.example", ""),
        ("/a//evil.example", ""),
        ("/, //evil.example", ""),
        ("/../up", ""),
        ("/a/./b", ""),
        ("/a/.hidden", ""),
        ("https://evil.example", ""),
        ("/\\evil.example", ""),
        ("/%2e%2e/up", ""),
        ('/a>; rel="next", <http://evil.example', ""),
        ("/a?b=c", ""),
        ("/a#b", ""),
        ('/a"}],"x":"', ""),
        ("/" + "a" * 10_000, ""),
    ],
)
@pytest.mark.parametrize("host", ["api.example.com", "odd host"])
def test_a_client_cannot_lead_elsewhere(server: Server, said: str, prefix: str, host: str) -> None:
    headers = {"X-Forwarded-Prefix": said, "Host": host}
    with server.client() as site:
        fill(site)
        link = site.get("/events?limit=1", headers=headers).headers["link"]
        start = "http://api.example.com" if host == "api.example.com" else ""
        assert link.startswith(f"<{start}{prefix}/events?limit=1&cursor=")
        assert link.count("<") == link.count(">") == 1
        assert urlsplit(link[1:]).netloc == urlsplit(start).netloc
        answer = site.get("/openapi.json", headers=headers)
        assert [one["url"] for one in answer.json()["servers"]] == [prefix or "/"]
        assert answer.headers["vary"] == "X-Forwarded-Prefix"
        assert {**answer.json(), "servers": []} == {
            **site.get("/openapi.json").json(), "servers": [],
        }  # fmt: skip


# Host ---------------------------------------------------------------------------------------------


def said_to(server: Server, *parts: bytes) -> bytes:
    """The answer of the server, until it closes the connection."""
    place = urlsplit(server.url)
    with socket.create_connection((str(place.hostname), place.port or 0), timeout=20) as wire:
        for part in parts:
            wire.sendall(part)
        wire.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: wire.recv(65_536), b""))


@pytest.mark.parametrize(
    "head",
    [
        b"GET /health HTTP/1.1\r\n\r\n",
        b"GET http://a/health HTTP/1.1\r\n\r\n",
        b"GET /health HTTP/1.1\r\nhost: a\r\nHost: b\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: a\r\nX: y\r\nhOST: a\r\n\r\n",
        b"GET /health HTTP/1.0\r\nhost: a\r\nhost: b\r\n\r\n",
        b"GET /health HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
        b"POST /events HTTP/1.1\r\ncontent-length: 2\r\n\r\n{}",
        b"POST /events HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    ],
)
def test_a_missing_or_second_host_is_refused(server: Server, head: bytes) -> None:
    good = b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n"
    for parts in ((head,), (head[:30], head[30:]), (head + good,)):
        answer = said_to(server, *parts)
        assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n"), answer
        assert answer.count(b"HTTP/1.1 ") == 1
        assert b'{"message":"A request must have one Host header, and not two."}' in answer
        assert b"x-request-id: " in answer
    answer = said_to(server, good + head)
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b" 200 " not in answer[15:]


def test_one_host_is_enough_also_an_empty_one_and_none_before_1_1(server: Server) -> None:
    for head in (
        b"GET /health HTTP/1.0\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost:\r\nConnection: close\r\n\r\n",
        b"GET /health HTTP/1.1\r\nConnection: close, upgrade\r\nUpgrade: x\r\nHost: a\r\n\r\n",
    ):
        assert said_to(server, head).startswith(b"HTTP/1.1 200 OK\r\n")
    with server.client() as site:
        assert message(site.get("/events/none")) == "Not Found"
