"""nginx with the configuration of `deploy/nginx`, in front of a real server."""

import json
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPResponse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.conftest import Server
from tests.deploy.files import Proxy, running_proxy
from tests.fleet import put_fleet
from tests.services import free_port
from tether.domain.errors import Code

BULK = "/events/bulk"


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(str(tmp_path_factory.mktemp("node") / "tether.db")).start()
    yield server
    assert server.stop() == 0
    assert server.failures() == []


@pytest.fixture(scope="module")
def proxy(node: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """nginx in front of this node and another one, which is down."""
    nodes = [urlsplit(node.url).netloc, f"127.0.0.1:{free_port()}"]
    with running_proxy(tmp_path_factory.mktemp("nginx"), nodes) as running:
        yield running


@pytest.fixture
def client(node: Server, proxy: Proxy) -> Iterator[httpx.Client]:
    with proxy.client(node.key()) as client:
        put_fleet(client)
        yield client


def event(number: int) -> dict[str, object]:
    instant = f"2026-01-01T{number // 3600:02}:{number // 60 % 60:02}:{number % 60:02}Z"
    return {
        "type": "VEHICLE_CONNECTED", "chargerId": "C1", "vehicleId": "V1", "timestamp": instant,
    }  # fmt: skip


def curl(proxy: Proxy, *words: str) -> str:
    return subprocess.run(
        ["curl", "-sS", "--cacert", proxy.certificate, *words],
        capture_output=True, text=True, check=True, timeout=300,
    ).stdout  # fmt: skip


def test_it_speaks_http_2_over_tls_and_nothing_else(proxy: Proxy) -> None:
    told = curl(proxy, "--http2", "-w", "%{http_version} %{http_code}", f"{proxy.url}/ready")
    assert told == '{"status":"ok"}2 200'
    head = curl(proxy, "-I", f"{proxy.url}/ready").lower()
    assert "strict-transport-security: max-age=31536000" in head
    plain = httpx.get(f"{proxy.plain_url}/events", headers={"x-api-key": "secret"})
    assert (plain.status_code, plain.json()) == (403, {"message": "Use https."})
    refused = subprocess.run(
        ["curl", "-sS", "--cacert", proxy.certificate, "--tls-max", "1.1", f"{proxy.url}/ready"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert refused.returncode == 35  # no TLS 1.1


def test_bodies_may_be_as_large_as_tether_takes_them(client: httpx.Client) -> None:
    events = [event(number) for number in range(10_000)]
    large = json.dumps(events, indent=12)
    assert 1024**2 < len(large) < 8 * 1024**2
    answer = client.post(BULK, content=large)
    assert {one["status"] for one in answer.json()} == {201}
    for path, size in (("/events", 1024**2 + 1), (BULK, 8 * 1024**2 + 1)):
        for body in (b" " * size, iter([b" " * size])):  # with a length, and in chunks
            refusal = client.post(path, content=body)
            assert refusal.status_code == 413
            assert "1 MiB at most, or 8 MiB" in refusal.json()["message"]
            assert refusal.headers["tether-error"] == "too-large"
    assert client.post("/events", content=b" " * 1024**2).status_code == 400  # Tether itself


def test_links_lead_through_it_and_a_node_that_is_down_is_not_noticed(
    proxy: Proxy, client: httpx.Client
) -> None:
    for number in range(20_000, 20_020):
        assert client.post("/events", json=event(number)).status_code == 201
    first = client.get("/events?limit=15")
    link = first.links["next"]["url"]
    assert link.startswith(f"{proxy.url}/events?")
    assert len(client.get(link).json()) == 5


def test_a_stream_comes_through_at_once(client: httpx.Client) -> None:
    with client.stream("GET", "/stream", timeout=60) as stream:
        lines = stream.iter_lines()
        assert client.post("/events", json=event(30_000)).status_code == 201
        assert any('"vehicleId":"V1"' in line for line in lines)


@pytest.mark.parametrize("path", ["/metrics", "/%6detrics", "//metrics", "/./metrics", "/metrics/",
                                  "/x/../metrics", "/metrics?x", "/METRICS"])  # fmt: skip
def test_the_numbers_stay_inside(node: Server, proxy: Proxy, path: str) -> None:
    assert "tether_request_seconds" in httpx.get(f"{node.url}/metrics").text
    told = curl(proxy, "--path-as-is", "-w", " %{http_code}", proxy.url + path)
    assert "tether_" not in told
    assert told.endswith((" 404", " 403"))


def test_the_log_has_no_key(proxy: Proxy) -> None:
    key = "ttr_live_0123456789012345678901234567890123456789"
    with proxy.client(key) as client:
        assert client.get(f"/events?api_key={key}").status_code == 403
        assert client.get("/events").status_code == 403
    lines = [json.loads(line) for line in proxy.log.read_text().splitlines()]
    assert {"client", "path", "status", "seconds", "node", "request_id"} <= lines[-1].keys()
    assert lines[-1]["client"] == "127.0.0.1"
    assert "ttr_live" not in proxy.log.read_text()


class _Echo(BaseHTTPRequestHandler):
    """Answers with the headers that it got."""

    def do_GET(self) -> None:
        body = json.dumps({name.lower(): value for name, value in self.headers.items()}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words: object) -> None:
        """Says nothing."""


@contextmanager
def echoing() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Echo) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_no_client_says_where_it_comes_from_or_what_links_look_like(tmp_path: Path) -> None:
    claimed = {"x-forwarded-for": "6.6.6.6", "x-forwarded-proto": "gopher",
               "x-forwarded-prefix": "/evil", "x-api-key": "key"}  # fmt: skip
    with echoing() as echo, running_proxy(tmp_path, [echo, echo]) as proxy:
        got = httpx.get(proxy.url, headers=claimed, verify=proxy.trust()).json()
    assert got["x-forwarded-for"] == "127.0.0.1"
    assert got["x-forwarded-proto"] == "https"
    assert got["host"] == urlsplit(proxy.url).netloc
    assert got["x-api-key"] == "key"
    assert "x-forwarded-prefix" not in got


def raw(proxy: Proxy, sent: bytes, *, encrypted: bool = True) -> httpx.Response:
    """The answer to these bytes, which no HTTP library would send."""
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=60) as plain:
        context = proxy.trust()
        wire = context.wrap_socket(plain, server_hostname="127.0.0.1") if encrypted else plain
        wire.sendall(sent)
        got = HTTPResponse(wire)
        got.begin()
        return httpx.Response(got.status, headers=got.getheaders(), content=got.read())


def check(answer: httpx.Response, status: int, code: str, words: str) -> None:
    """Checks that the answer is an error in our form."""
    assert (answer.status_code, answer.headers.get_list("tether-error")) == (status, [code])
    assert answer.headers["content-type"] == "application/json"
    assert words in answer.json()["message"]
    assert answer.headers["strict-transport-security"] == "max-age=31536000"
    assert answer.headers.get_list("retry-after") == (["1"] if status in (429, 503) else [])
    assert code in set(Code)


REFUSED: dict[str, tuple[bytes, int, str, str]] = {
    "nonsense": (b"nonsense\r\n\r\n", 400, "request-malformed", "not a valid HTTP request"),
    "no host": (b"GET /events HTTP/1.1\r\n\r\n", 400, "request-malformed", "not a valid"),
    "version": (b"GET / HTTP/3.0\r\nhost: a\r\n\r\n", 400, "request-malformed", "not a valid"),
    "encoding": (
        b"POST /events HTTP/1.1\r\nhost: a\r\ntransfer-encoding: identity\r\n\r\n",
        400, "request-malformed", "not a valid",
    ),
    "target": (
        b"GET /events?" + b"x" * 10_000 + b" HTTP/1.1\r\nhost: a\r\n\r\n",
        431, "head-too-large", "shorter",
    ),
    "header": (
        b"GET /events HTTP/1.1\r\nhost: a\r\nname: " + b"x" * 10_000 + b"\r\n\r\n",
        431, "head-too-large", "shorter",
    ),
    "method": (b"TRACE /events HTTP/1.1\r\nhost: a\r\n\r\n", 405, "method-not-allowed", "Allowed"),
    "numbers": (b"GET /metrics HTTP/1.1\r\nhost: a\r\n\r\n", 404, "path-unknown", "no such path"),
    "its own": (
        b"GET /.refused/size HTTP/1.1\r\nhost: a\r\n\r\n", 404, "path-unknown", "no such path",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_never_reaches_a_node_is_refused_in_our_form(proxy: Proxy, what: str) -> None:
    sent, status, code, words = REFUSED[what]
    check(raw(proxy, sent), status, code, words)


def test_who_speaks_plain_http_to_the_port_of_tls_is_told_so(proxy: Proxy) -> None:
    answer = raw(proxy, b"GET /events HTTP/1.1\r\nhost: a\r\n\r\n", encrypted=False)
    check(answer, 400, "request-malformed", "Use https.")


def test_the_codes_of_nodes_come_through_as_they_are(client: httpx.Client) -> None:
    answers = [
        client.post("/events", json={**event(1), "chargerId": "none"}),
        client.get("/events/none"),
        client.get("/events", headers={"x-api-key": "none"}),
    ]
    found = [(one.status_code, one.headers.get_list("tether-error")) for one in answers]
    assert found == [
        (409, ['charger-unknown; parameter="chargerId"']), (404, ["not-found"]),
        (403, ["key-invalid"]),
    ]  # fmt: skip


def test_a_crowd_and_an_outage_are_answered_in_our_form(
    new_server: Callable[..., Server], tmp_path: Path
) -> None:
    server = new_server()
    node = urlsplit(server.url).netloc
    changes = {"tether_addresses 1000": "tether_addresses 1"}
    with running_proxy(tmp_path, [node, node], changes) as proxy, proxy.client(server.key()) as one:
        with one.stream("GET", "/stream") as stream:
            assert stream.status_code == 200
            check(one.get("/events"), 429, "too-many-at-once", "from this address")
        server.kill()
        for answer in (one.get("/events"), one.post("/events", json=event(1))):
            check(answer, 503, "unavailable", "Try again")
