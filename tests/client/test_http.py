"""Both clients behave in the same way, although their HTTP libraries differ."""

import ssl
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer
from pathlib import Path
from socket import SHUT_WR, create_connection, create_server, socket
from typing import Any, ClassVar, TypeAlias

import pytest

from tests.client.calls import KEY, asynchronous, blocking
from tests.client.devices import CHARGER, connected
from tests.client.scripted import Reply, ScriptedServer
from tests.services import make_certificate
from tether.client import (
    Charger,
    NotFound,
    TetherError,
    Unavailable,
    UnexpectedAnswer,
    connection,
)
from tether.client.exchange import NO_RETRIES, Request, exchange

MISSING = Reply(404, b'{"message":"Not Found"}')
SAVED = Reply(201, b'{"id":"C1"}', {"ETag": '"1"'})
HUNG_UP = Reply(None)
THING = Charger(id=CHARGER, charge_powers=[11])

Call: TypeAlias = Callable[[Any], Any]
Ask: TypeAlias = Callable[..., Any]


@pytest.fixture(params=[blocking, asynchronous])
def ask(request: pytest.FixtureRequest) -> Ask:
    """Makes a client for a URL and calls these functions with it, one after the other."""
    found: Ask = request.param
    return found


def get(client: Any) -> Any:
    return client.chargers.get(CHARGER)


def put(client: Any) -> Any:
    return client.chargers.put(THING)


def post(client: Any) -> Any:
    return client.events.post(connected())


@pytest.mark.parametrize("call", [get, put, post])
def test_a_library_does_not_retry_by_itself(ask: Ask, call: Call) -> None:
    """If a library sent a PUT with if_match twice, the second would fail."""
    with ScriptedServer(SAVED, HUNG_UP) as server:
        with pytest.raises(Unavailable) as caught:
            ask(server.url, put, call, retries=0)
        assert len(server.requests) == 2
    assert caught.value.status is None


@pytest.mark.parametrize("call", [get, put, post])
def test_a_broken_connection_is_replaced(ask: Ask, call: Call) -> None:
    with ScriptedServer(SAVED, HUNG_UP, HUNG_UP, Reply(400, b'{"message":"No"}')) as server:
        with pytest.raises(TetherError, match="No"):
            ask(server.url, put, call)
        assert len(server.requests) == 4
    assert len({request.headers["x-request-id"] for request in server.requests}) == 2


def test_a_redirect_is_not_followed(ask: Ask) -> None:
    with ScriptedServer(MISSING) as elsewhere:
        moved = Reply(307, b"", {"Location": elsewhere.url})
        with ScriptedServer(moved) as server, pytest.raises(UnexpectedAnswer):
            ask(server.url, get)
        assert elsewhere.requests == []


def test_the_request_has_the_form_that_the_api_expects(ask: Ask) -> None:
    with ScriptedServer(SAVED) as server:
        ask(server.url.replace("//", "//user:se%40cret@") + "/below", put)
    request = server.requests[0]
    assert request.target == f"/below/chargers/{CHARGER}"
    assert request.body == b'{"id":"C1","chargePowers":[11]}'
    assert request.headers["x-api-key"] == KEY
    assert request.headers["authorization"] == f"Basic {b64encode(b'user:se@cret').decode()}"
    assert request.headers["user-agent"].startswith("tether-client/")
    assert "content-type" not in request.headers


def test_an_id_is_sent_percent_encoded(ask: Ask) -> None:
    with ScriptedServer(MISSING) as server, pytest.raises(NotFound):
        ask(server.url, lambda client: client.chargers.get("a/b%41 ü~"))
    assert server.requests[0].target == "/chargers/a%2Fb%2541%20%C3%BC~"


def test_the_error_without_a_server_is_a_sentence(ask: Ask) -> None:
    with ScriptedServer(SAVED) as server:
        pass
    with pytest.raises(Unavailable, match=r"The server gave no answer \(\w+: .+\)"):
        ask(server.url, get, retries=1)


def test_a_silent_server_causes_a_time_out(ask: Ask) -> None:
    with ScriptedServer(Reply(200, delay_s=10)) as server:
        began = time.monotonic()
        with pytest.raises(Unavailable, match=r"[Tt]ime"):
            ask(server.url, get, timeout=0.2, retries=1)
        assert time.monotonic() - began < 8


def test_a_server_that_stops_reading_causes_a_time_out(
    ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "MIN_UPLOAD_BYTES_PER_S", 1e9)
    request = Request("POST", "/events/bulk", b"x" * 64 * 1024 * 1024)
    with create_server(("127.0.0.1", 0)) as deaf:
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        with pytest.raises(Unavailable):
            ask(url, lambda client: client._run(exchange(request, NO_RETRIES, 200)), timeout=0.5)


def test_an_answer_that_ends_too_early_is_not_accepted(ask: Ask) -> None:
    short = Reply(200, b'{"id":"C1"', {"Content-Length": "100"})
    with ScriptedServer(short) as server, pytest.raises(Unavailable):
        ask(server.url, get, timeout=0.3, retries=0)


@pytest.mark.parametrize("exempt", ["", "other.invalid", "*"])
def test_the_proxy_of_the_environment_is_used(
    ask: Ask, exempt: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ScriptedServer(MISSING) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url.removeprefix("http://"))
        monkeypatch.setenv("no_proxy", exempt)
        with pytest.raises(Unavailable if exempt == "*" else NotFound):
            ask("http://tether.invalid", get, retries=0)
    targets = [request.target for request in proxy.requests]
    assert targets == ([] if exempt == "*" else ["http://tether.invalid/chargers/C1"])


# TLS ---------------------------------------------------------------------------------------------


class _Secret(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(404)
        self.send_header("content-length", str(len(MISSING.body)))
        self.end_headers()
        self.wfile.write(MISSING.body)

    def log_message(self, format: str, *args: object) -> None:
        """Logs nothing."""


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A self-signed certificate for 127.0.0.1, with its key in the same file."""
    file, key = make_certificate(tmp_path)
    file.write_text(key.read_text() + file.read_text())
    return file


@pytest.fixture
def tls_url(certificate: Path) -> Iterator[str]:
    """A server with TLS and this certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with HTTPServer(("127.0.0.1", 0), _Secret) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield f"https://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_an_untrusted_certificate_is_refused(ask: Ask, tls_url: str) -> None:
    with pytest.raises(Unavailable, match=r"(?i)certificate"):
        ask(tls_url, get, retries=0)


def test_trusted_certificates_come_from_the_environment(
    ask: Ask, tls_url: str, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with pytest.raises(NotFound):
        ask(tls_url, get, retries=0)


class _Tunnel(BaseHTTPRequestHandler):
    """A proxy with a password that opens tunnels."""

    asked: ClassVar[list[tuple[str, str | None]]] = []

    def do_CONNECT(self) -> None:
        self.asked.append((self.path, self.headers["proxy-authorization"]))
        host, _, port = self.path.rpartition(":")
        with create_connection((host, int(port))) as there:
            self.send_response(200)
            self.end_headers()
            back = threading.Thread(target=_pass_on, args=(there, self.connection))
            back.start()
            _pass_on(self.connection, there)
            back.join()
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        """Logs nothing."""


def _pass_on(one: socket, other: socket) -> None:
    with suppress(OSError):
        while data := one.recv(65536):
            other.sendall(data)
        other.shutdown(SHUT_WR)


def test_a_proxy_leads_to_a_server_with_tls(
    ask: Ask, tls_url: str, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _Tunnel.asked.clear()
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with ThreadingHTTPServer(("127.0.0.1", 0), _Tunnel) as proxy:
        threading.Thread(target=proxy.serve_forever, args=(0.02,), daemon=True).start()
        address = f"127.0.0.1:{proxy.server_address[1]}"
        monkeypatch.setenv("https_proxy", f"http://me:pa%40ss@{address}")
        with pytest.raises(NotFound):
            ask(tls_url, get, retries=0)
        proxy.shutdown()
    known = f"Basic {b64encode(b'me:pa@ss').decode()}"
    assert _Tunnel.asked == [(tls_url.removeprefix("https://"), known)]
