"""Webhooks call addresses on the internet, and none inside the network."""

import socket
from ipaddress import ip_network
from typing import Any

import httpx
import pytest

from tests.conftest import Server
from tests.webhooks.receiver import Receiver
from tether.webhooks.addresses import AddressRules, ForbiddenAddress

INSIDE = [
    "0.0.0.0", "0.1.2.3", "10.1.2.3", "100.64.0.1", "100.127.255.254", "127.0.0.1", "127.9.9.9",
    "169.254.169.254", "172.16.0.1", "172.31.255.255", "192.0.0.1", "192.0.2.1", "192.88.99.1",
    "192.168.1.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.255",
    "240.0.0.1", "255.255.255.255",
    "::", "::1", "fe80::1", "fec0::1", "fc00::1", "fd12:3456::1", "ff02::1", "2001:db8::1",
    "100::1", "2001::1", "2001:10::1", "3fff::1", "5f00::1", "64:ff9b:1::a00:1",
    # IPv4 in IPv6: mapped, compatible, translated, NAT64, 6to4
    "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1", "::10.0.0.1",
    "::ffff:0:10.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b::c0a8:101",
    "2002:7f00:1::", "2002:a00:1::1", "2002:c0a8:101::1", "2002:a9fe:a9fe::",
]  # fmt: skip
OUTSIDE = [
    "1.1.1.1", "93.184.216.34", "2606:4700:4700::1111", "64:ff9b::101:101", "2002:101:101::1",
    "::ffff:8.8.8.8",
]  # fmt: skip
# Other ways to write 127.0.0.1 and 10.0.0.1 that a resolver may understand.
NAMES = ["localhost", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "10.1", "[::ffff:7f00:1]"]


@pytest.mark.parametrize("address", INSIDE)
def test_nothing_goes_inside(address: str) -> None:
    with pytest.raises(ForbiddenAddress, match="no request goes there"):
        AddressRules().check(address)


@pytest.mark.parametrize("address", OUTSIDE)
def test_the_internet_is_open(address: str) -> None:
    AddressRules().check(address)


def test_what_is_allowed_is_open_in_every_form() -> None:
    allowed = AddressRules([ip_network("10.0.0.0/8")])
    for address in ("10.1.2.3", "::ffff:10.1.2.3", "64:ff9b::a01:203"):
        allowed.check(address)
    with pytest.raises(ForbiddenAddress):
        allowed.check("192.168.1.1")


def test_an_address_of_this_machine_is_refused_whatever_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Probe:
        def __init__(self, *_: Any) -> None:
            pass

        def __enter__(self) -> "Probe":
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def connect(self, place: tuple[str, int]) -> None:
            self._place = place

        def getsockname(self) -> tuple[str, int]:
            return self._place

    monkeypatch.setattr(socket, "socket", Probe)
    with pytest.raises(ForbiddenAddress, match="this server"):
        AddressRules().check("1.1.1.1")


def test_what_counts_is_the_address_of_the_socket_not_what_the_name_led_to_before() -> None:
    """A name that changes (rebinding) is looked up once for each request, and then checked."""
    rules = AddressRules()
    first = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("93.184.216.34", 443))
    rules.open_socket(first).close()
    with pytest.raises(ForbiddenAddress):
        rules.open_socket((*first[:4], ("127.0.0.1", 443)))


@pytest.fixture(scope="module")
def server(sqlite_server: Server) -> Server:
    """A server with the usual settings."""
    return sqlite_server


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.1", "[::1]", "[::ffff:10.0.0.1]",
                                     "169.254.169.254", "100.64.0.1"])  # fmt: skip
def test_an_address_inside_is_refused_at_once(server: Server, address: str) -> None:
    with server.client() as client:
        answer = client.post("/webhooks", json={"url": f"https://{address}/"})
    assert answer.status_code == 400
    assert "no request goes there" in answer.json()["message"]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_leads_inside_is_refused_when_it_is_called(server: Server, name: str) -> None:
    with server.client() as client:
        made = client.post("/webhooks", json={"url": f"https://{name}:9/"})
        if made.status_code == 400:
            assert "no request goes there" in made.json()["message"]
            return
        outcome = client.post(f"/webhooks/{made.json()['id']}/test").json()
        assert not outcome["succeeded"]
        refused = ("no request goes there", "not a canonical IPv4 address")
        assert any(words in outcome["error"] for words in refused), outcome
        (attempt,) = client.get(f"/webhooks/{made.json()['id']}/attempts").json()
        assert attempt["error"] == outcome["error"]


@pytest.mark.parametrize("url", [
    "http://example.com/", "ftp://example.com/", "example.com", "https://", "https://:443/",
    "https://user:word@example.com/", "https://user@example.com", "https://example.com/#part",
    "https://exa mple.com/", "https://example.com\\@10.0.0.1/", "https://example.com:99999/",
    "https://example.com:0/", "https://ex%61mple.com/", "https://[::1", "https://exämple.com/",
    "https://example.com/\x00", "javascript:alert(1)", "", "https://-a/", "https://" + 2000 * "a",
])  # fmt: skip
def test_what_is_no_address_of_an_endpoint_is_refused(server: Server, url: str) -> None:
    with server.client() as client:
        answer = client.post("/webhooks", json={"url": url})
    assert answer.status_code == 400, answer.text
    assert "{url}" in answer.json()["message"]


def test_no_proxy_and_no_cookie(new_server: Any, receiver: Receiver, path: str) -> None:
    server = new_server(
        "--webhooks-allow", "127.0.0.0/8", "--webhooks-allow-http",
        HTTP_PROXY="http://127.0.0.1:9", http_proxy="http://127.0.0.1:9",
    )  # fmt: skip
    receiver.answer = lambda one: (200, {"Set-Cookie": "a=b"}, b"") if one.path == path else None
    with server.client() as client:
        made = client.post("/webhooks", json={"url": receiver.url + path}).json()
        for _ in range(2):
            assert client.post(f"/webhooks/{made['id']}/test").json()["succeeded"]
    assert not any("cookie" in one.headers for one in receiver.wait_for(path, 2))


def test_a_large_answer_is_read_to_its_beginning_only(
    new_server: Any, receiver: Receiver, path: str
) -> None:
    receiver.answer = lambda one: (200, {}, 50_000_000 * b"x") if one.path == path else None
    server = new_server("--webhooks-allow", "127.0.0.0/8", "--webhooks-allow-http")
    with server.client() as client:
        made = client.post("/webhooks", json={"url": receiver.url + path}).json()
        outcome: dict[str, Any] = client.post(f"/webhooks/{made['id']}/test").json()
    assert outcome["succeeded"]
    assert outcome["answer"] == 1000 * "x"


def test_another_partner_sees_none_of_it(server: Server) -> None:
    with server.client() as client, server.client() as other:
        made = client.post("/webhooks", json={"url": "https://hook.invalid/"}).json()
        address = f"/webhooks/{made['id']}"
        calls: list[tuple[str, str]] = [
            ("GET", address), ("PATCH", address), ("DELETE", address),
            ("GET", f"{address}/attempts"), ("POST", f"{address}/test"),
            ("POST", f"{address}/rotate-secret"),
        ]  # fmt: skip
        for method, path in calls:
            answer: httpx.Response = other.request(
                method, path, json={} if method != "GET" else None
            )
            assert answer.status_code == 404, (method, path, answer.text)
        replay = other.post(f"{address}/replay", json={"from": "start"})
        assert replay.status_code == 404
        assert other.get("/webhooks").json() == []
        assert "secret" not in client.get(address).json()
