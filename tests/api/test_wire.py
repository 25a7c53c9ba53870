"""HTTP/1.1 as clients really use it, and as attackers do: bytes on a socket."""

import json
import re
from time import monotonic, sleep
from typing import Any

import pytest

from tests.api.helpers import ON_ONE_ENGINE, Raw, Wire
from tests.conftest import Server
from tether.domain.errors import Code
from tether.server.status_codes import STATUS

pytestmark = ON_ONE_ENGINE

CHARGER = b'{"chargePowers":[11]}'
H2C: dict[str, Any] = {  # what Java's HttpClient adds to the first requests of every connection
    "connection": "Upgrade, HTTP2-Settings",
    "upgrade": "h2c",
    "http2_settings": "AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA",
}


def refused(answer: Raw, status: int = 400) -> bool:
    """Whether this is an error in our form, also if it comes from below the application."""
    assert answer.status == status, answer
    assert answer.head["content-type"] == "application/json"
    assert list(json.loads(answer.body)) == ["message"]
    assert STATUS[Code(answer.head["tether-error"].partition(";")[0])] == status
    return re.fullmatch(r"[0-9a-f]{16}", answer.head["x-request-id"]) is not None


@pytest.mark.parametrize(
    ("sent", "status"),
    [(b"No HTTP at all\r\n\r\n", 400), (b"GET /" + b"x" * 2_000_000, 431)],
)
def test_what_is_refused_before_it_is_a_request_is_found_in_the_log_by_its_id(
    server: Server, wire: Wire, sent: bytes, status: int
) -> None:
    wire.send(sent)
    answer = wire.answer()
    assert refused(answer, status)
    request_id = answer.head["x-request-id"]
    deadline = monotonic() + 60
    while not (lines := [line for line in server.log if request_id in line]):
        assert monotonic() < deadline
        sleep(0.01)
    line = json.loads(lines[0])
    assert (line["event"], line["status"]) == ("refused", status)
    assert line["reason"] == answer.head["tether-error"]


@pytest.mark.parametrize("upgrade", ["h2c", "websocket", "TLS/1.0", "h2c, websocket"])
def test_a_wish_to_upgrade_is_passed_over_and_the_body_is_read_twice_on_one_connection(
    wire: Wire, upgrade: str
) -> None:
    headers = H2C | {"upgrade": upgrade}
    for number in (1, 2):
        wire.send(wire.request("PUT", f"/chargers/C{number}", CHARGER, **headers))
        assert wire.answer().status == 201
        wire.send(wire.request("GET", f"/chargers/C{number}", **headers))
        answer = wire.answer()
        assert (answer.status, json.loads(answer.body)["id"]) == (200, f"C{number}")
    assert "upgrade" not in answer.head


def test_an_upgrade_with_a_chunked_body_and_one_in_pieces_works_as_well(wire: Wire) -> None:
    head = wire.request("PUT", "/chargers/C1", b"", transfer_encoding="chunked", **H2C)
    wire.send(head + b"15\r\n" + CHARGER + b"\r\n0\r\n\r\n")
    assert wire.answer().status == 201
    whole = wire.request("PUT", "/chargers/C1", CHARGER, **H2C)
    for start in range(0, len(whole), 50):
        wire.send(whole[start : start + 50])
    assert wire.answer().status == 200


def test_100_continue_comes_before_the_body_is_sent(wire: Wire) -> None:
    whole = wire.request("PUT", "/chargers/C1", CHARGER, expect="100-continue")
    wire.send(whole[: -len(CHARGER)])
    assert wire.answer().status == 100
    wire.send(CHARGER)
    assert wire.answer().status == 201


def test_an_absolute_request_target_is_understood(wire: Wire, server: Server) -> None:
    wire.send(wire.request("PUT", f"{server.url}/chargers/a%2Bb", CHARGER))
    assert wire.answer().status == 201
    wire.send(wire.request("GET", "http://elsewhere.example:1/chargers?limit=1"))
    assert json.loads(wire.answer().body)[0]["id"] == "a+b"


def test_http_1_0_is_answered_and_the_connection_closed(wire: Wire) -> None:
    create = wire.request("PUT", "/chargers/C1", CHARGER).replace(b"HTTP/1.1", b"HTTP/1.0")
    wire.send(create)
    answer = wire.answer()
    assert (answer.status, answer.head["connection"]) == (201, "close")
    assert wire.is_closed()


def test_http_1_0_gets_a_stream_without_chunks(wire: Wire) -> None:
    wire.send(wire.request("GET", "/stream").replace(b"HTTP/1.1", b"HTTP/1.0"))
    head = wire.until(b"\r\n\r\n")
    assert b"connection: close" in head
    assert b"transfer-encoding" not in head
    assert re.fullmatch(rb": connected\nretry: 1000\nid: [A-Za-z0-9_-]+\n\n", wire.until(b"\n\n"))


def test_http_1_0_without_a_host_gets_links_that_are_relative(wire: Wire) -> None:
    for name in ("C1", "C2"):
        wire.send(wire.request("PUT", f"/chargers/{name}", CHARGER))
        assert wire.answer().status == 201
    wire.send(f"GET /chargers?limit=1 HTTP/1.0\r\nx-api-key: {wire.key}\r\n\r\n".encode())
    assert wire.answer().head["link"].startswith("</chargers?limit=1&cursor=")


@pytest.mark.parametrize("version", ["HTTP/0.9", "HTTP/2.0", "HTTP/3.0", "HTTP/1.2", "HTTP/9.9"])
def test_another_version_of_http_is_answered_or_refused_but_never_a_failure(
    wire: Wire, version: str
) -> None:
    wire.send(wire.request("GET", "/chargers").replace(b"HTTP/1.1", version.encode()))
    assert wire.answer().status in (200, 400, 505)


def test_pipelined_requests_are_answered_in_order(wire: Wire) -> None:
    requests = [wire.request("PUT", f"/chargers/C{number}", CHARGER) for number in range(20)]
    requests += [wire.request("GET", f"/chargers/C{number}") for number in range(20)]
    requests.append(wire.request("GET", "/nowhere"))
    wire.send(b"".join(requests))
    answers = [wire.answer() for _ in requests]
    assert [answer.status for answer in answers] == [201] * 20 + [200] * 20 + [404]
    for number, answer in enumerate(answers[:40]):
        assert json.loads(answer.body)["id"] == f"C{number % 20}"


def test_thousands_of_pipelined_requests_are_not_taken_for_one_long_head(wire: Wire) -> None:
    request = wire.request("GET", "/health")
    for _ in range(3):
        wire.send(request * 1000 + request[:40])
        assert {wire.answer().status for _ in range(1000)} == {200}
        wire.send(request[40:])
        assert wire.answer().status == 200


def test_a_request_may_come_in_single_bytes(wire: Wire) -> None:
    for byte in wire.request("PUT", "/chargers/C1", CHARGER):
        wire.send(bytes([byte]))
    assert wire.answer().status == 201


def test_a_connection_serves_many_requests_until_it_is_asked_to_close(wire: Wire) -> None:
    for _ in range(50):
        wire.send(wire.request("GET", "/chargers"))
        assert wire.answer().status == 200
    wire.send(wire.request("GET", "/chargers", connection="close"))
    assert wire.answer().head["connection"] == "close"
    assert wire.is_closed()


SMUGGLED = {
    "length and chunks": "transfer-encoding: chunked\r\ncontent-length: 21",
    "chunks and length": "content-length: 21\r\ntransfer-encoding: chunked",
    "two lengths": "content-length: 21\r\ncontent-length: 20",
    "the same length twice": "content-length: 21\r\ncontent-length: 21",
    "a list of lengths": "content-length: 21, 21",
    "a negative length": "content-length: -1",
    "a length with a sign": "content-length: +21",
    "a hexadecimal length": "content-length: 0x15",
    "a length that nothing holds": "content-length: 99999999999999999999999",
    "no number": "content-length: many",
    "another coding": "transfer-encoding: gzip",
    "chunked before another": "transfer-encoding: chunked, gzip",
    "a made up coding": "transfer-encoding: xchunked",
    "a folded header": "x-a: b\r\n c: d\r\ncontent-length: 21",
    "a header without a colon": "content-length 21",
    "a space before the colon": "content-length : 21",
    "a NUL in a header": "x-a: \x00\r\ncontent-length: 21",
    "an empty header name": ": x\r\ncontent-length: 21",
}


@pytest.mark.parametrize("what", SMUGGLED)
def test_heads_about_which_two_servers_could_disagree_are_400_and_end_the_connection(
    wire: Wire, what: str
) -> None:
    head = f"PUT /chargers/C1 HTTP/1.1\r\nhost: x\r\nx-api-key: {wire.key}\r\n{SMUGGLED[what]}\r\n"
    wire.send(head.encode("latin-1") + b"\r\n" + CHARGER)
    assert refused(wire.answer())
    assert wire.is_closed()


def test_a_refused_head_has_not_changed_anything(wire: Wire, server: Server) -> None:
    for what in SMUGGLED.values():
        with Wire(server.url, wire.key) as other:
            head = f"PUT /chargers/C1 HTTP/1.1\r\nx-api-key: {wire.key}\r\n{what}\r\n\r\n"
            other.send(head.encode("latin-1") + CHARGER)
            assert other.answer().status == 400
    wire.send(wire.request("GET", "/chargers"))
    assert wire.answer().body == b"[]"


BAD_CHUNKS = [b"zz\r\n{}\r\n", b"-1\r\n", b"15\r\n" + CHARGER + b"x\r\n", b"\r\n", b"0x15\r\n",
              b"fffffffffffffffff\r\n"]  # fmt: skip


@pytest.mark.parametrize("chunk", BAD_CHUNKS)
def test_broken_chunks_are_400_and_end_the_connection(wire: Wire, chunk: bytes) -> None:
    head = wire.request("PUT", "/chargers/C1", b"", transfer_encoding="chunked")
    wire.send(head + chunk + b"0\r\n\r\n")
    assert refused(wire.answer())
    assert wire.is_closed()


CHUNKED = {"transfer_encoding": "chunked"}


@pytest.mark.parametrize("method", ["GET", "PUT", "POST", "DELETE", "PATCH"])
@pytest.mark.parametrize("expect", ["", "100-continue"])
@pytest.mark.parametrize("key", ["", "of a partner"])
def test_a_broken_chunk_gets_one_answer_whatever_the_request_would_get(
    wire: Wire, method: str, expect: str, key: str
) -> None:
    wire.key = key and wire.key
    wire.send(wire.request(method, "/chargers/C1", b"zz\r\n", expect=expect, **CHUNKED))
    answer = wire.answer()
    assert refused(wire.answer() if answer.status == 100 else answer)
    assert wire.is_closed()


def test_an_answer_that_was_given_is_not_followed_by_one_to_a_broken_chunk(wire: Wire) -> None:
    wire.key = ""
    wire.send(wire.request("PUT", "/chargers/C1", b"1\r\nx\r\n", **CHUNKED))
    assert refused(wire.answer(), 403)
    wire.send(b"zz\r\n")
    assert wire.is_closed()


def test_an_answer_that_has_begun_ends_with_a_broken_chunk(wire: Wire) -> None:
    wire.send(wire.request("GET", "/stream", b"1\r\nx\r\n", **CHUNKED))
    wire.until(b"\r\n\r\n")
    wire.send(b"zz\r\n")
    assert b"HTTP/1.1" not in wire.rest()


def test_requests_before_a_broken_chunk_are_answered(wire: Wire) -> None:
    good = wire.request("GET", "/chargers/C1")
    broken = wire.request("PUT", "/chargers/C1", b"zz\r\n", **CHUNKED)
    wire.send(good * 5 + broken + good)
    for _ in range(5):
        assert refused(wire.answer(), 404)
    assert wire.is_closed()


NOT_HTTP = {
    "a word": b"nonsense\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100),
    "a method nobody knows": b"FETCH /chargers HTTP/1.1\r\n\r\n",
    "a method in small letters": b"get /chargers HTTP/1.1\r\n\r\n",
    "no target": b"GET HTTP/1.1\r\n\r\n",
    "a target without a slash": b"GET chargers HTTP/1.1\r\n\r\n",
    "a space in the target": b"GET /char gers HTTP/1.1\r\n\r\n",
    "bytes in the target": b"GET /\xff\xfe HTTP/1.1\r\n\r\n",
    "bytes in the query": b"GET /chargers?limit=\xff HTTP/1.1\r\n\r\n",
    "a NUL in the target": b"GET /\x00 HTTP/1.1\r\n\r\n",
    "another protocol": b"SSH-2.0-OpenSSH_9.6\r\n",
    "SIP": b"OPTIONS sip:nm SIP/2.0\r\n\r\n",
    "a tunnel": b"CONNECT example.com:443 HTTP/1.1\r\nhost: example.com\r\n\r\n",
}


@pytest.mark.parametrize("what", NOT_HTTP)
def test_what_is_not_http_is_400_in_our_form_and_ends_the_connection(wire: Wire, what: str) -> None:
    wire.send(NOT_HTTP[what])
    assert refused(wire.answer())
    assert wire.is_closed()


def test_a_head_without_end_is_431_in_our_form_long_before_it_fills_the_memory(wire: Wire) -> None:
    wire.send(b"GET /chargers HTTP/1.1\r\nx-a: ")
    for _ in range(40):  # in pieces, and not one more than it takes
        wire.send(b"a" * 8192)
        if wire.has_answer(0.05):
            break
    assert refused(wire.answer(), 431)
    assert wire.is_closed()


def test_a_long_head_within_the_limit_is_fine(wire: Wire) -> None:
    wire.send(wire.request("GET", "/chargers", x_long="a" * 60_000))
    assert wire.answer().status == 200


def test_who_hangs_up_in_the_middle_does_no_harm(server: Server, wire: Wire) -> None:
    whole = wire.request("PUT", "/chargers/C1", CHARGER)
    for length in (3, 30, len(whole) - 10, len(whole) - 1):
        with Wire(server.url, wire.key) as other:
            other.send(whole[:length])
            other.finish()
            assert other.is_closed()
    wire.send(wire.request("GET", "/chargers"))
    assert wire.answer().body == b"[]"


def test_a_client_that_stops_writing_still_gets_its_answer(wire: Wire) -> None:
    wire.send(wire.request("PUT", "/chargers/C1", CHARGER))
    answer = wire.answer()
    wire.send(wire.request("GET", "/chargers/C1"))
    assert answer.status == 201
    assert wire.answer().status == 200


def test_an_empty_query_does_not_matter(wire: Wire) -> None:
    for target in ("/chargers?", "/chargers?&&"):
        wire.send(wire.request("GET", target))
        assert wire.answer().body == b"[]"


def test_a_number_sign_begins_no_fragment(wire: Wire, server: Server) -> None:
    """It is part of the target. Otherwise C1#1 and C1#2 would both be C1."""
    for base in ("", server.url):
        wire.send(wire.request("PUT", f"{base}/chargers/C1#1", CHARGER))
        answer = wire.answer()
        assert refused(answer)
        assert b"{id}" in answer.body
        for target, status in (("/chargers/C1", 404), ("/chargers#x", 404), ("/chargers?#x", 400)):
            wire.send(wire.request("GET", base + target))
            assert wire.answer().status == status, target


@pytest.mark.parametrize("target", ["http://example.com", "HTTP://example.com?x=/chargers"])
def test_an_absolute_target_without_a_path_is_the_start_page(wire: Wire, target: str) -> None:
    wire.send(wire.request("GET", target))
    answer = wire.answer()
    assert (answer.status, answer.head["content-type"]) == (200, "text/html; charset=utf-8")


def test_blanks_around_a_header_are_not_part_of_it(wire: Wire) -> None:
    """As RFC 9110, 5.5 says, and pasted keys often have some."""
    create = wire.request("PUT", "/chargers/C1", CHARGER, if_none_match="\t* ")
    wire.send(create.replace(wire.key.encode(), b"  " + wire.key.encode() + b" \t"))
    assert wire.answer().status == 201
    wire.send(wire.request("GET", "/chargers/C1", if_none_match="* ", x_request_id="mine "))
    answer = wire.answer()
    assert (answer.status, answer.head["x-request-id"]) == (304, "mine")
