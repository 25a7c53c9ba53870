"""Sizes and encodings of bodies: at most 1 MiB, plain or gzip."""

import gzip
import zlib

import httpx
import pytest

from tests.api.helpers import ON_ONE_ENGINE, Wire, message

pytestmark = ON_ONE_ENGINE

MIB = 1024 * 1024
TOO_LARGE = "Payload Too Large: a body has at most 1,048,576 bytes."
SMALL = b'{"chargePowers":[11]}'


def padded(size: int) -> bytes:
    """A valid charger of exactly so many bytes."""
    return SMALL + b" " * (size - len(SMALL))


def chunks(body: bytes, size: int = 65_536) -> bytes:
    parts = [body[start : start + size] for start in range(0, len(body), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in [*parts, b""])


@pytest.mark.parametrize(
    "content_type",
    [None, "", "application/json", "application/json; charset=latin-1", "text/plain",
     "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "nonsense", ";;;"],
)  # fmt: skip
def test_the_body_is_json_whatever_its_content_type_says(
    client: httpx.Client, content_type: str | None
) -> None:
    headers = {} if content_type is None else {"Content-Type": content_type}
    assert client.put("/chargers/C1", content=SMALL, headers=headers).status_code == 201


def test_a_body_of_exactly_one_mebibyte_is_accepted(client: httpx.Client) -> None:
    assert client.put("/chargers/C1", content=padded(MIB)).status_code == 201


def test_a_body_of_one_byte_more_is_413(client: httpx.Client) -> None:
    answer = client.put("/chargers/C1", content=padded(MIB + 1))
    assert (answer.status_code, message(answer)) == (413, TOO_LARGE)
    assert client.get("/chargers/C1").status_code == 404


def test_the_same_holds_for_chunks(wire: Wire) -> None:
    for size, status in ((MIB, 201), (MIB + 1, 413), (len(SMALL), 200)):
        head = wire.request("PUT", "/chargers/C1", b"", transfer_encoding="chunked")
        wire.send(head + chunks(padded(size)))
        assert wire.answer().status == status


def test_a_chunked_body_in_single_bytes_is_accepted(wire: Wire) -> None:
    wire.send(wire.request("PUT", "/chargers/C1", b"", transfer_encoding="chunked"))
    wire.send(chunks(SMALL, 1))
    assert wire.answer().status == 201


def test_a_body_announced_too_large_is_refused_before_it_is_sent(wire: Wire) -> None:
    wire.send(wire.request("PUT", "/chargers/C1", content_length="999999999999"))
    wire.send(b"{")  # the server looks at the request once its body begins
    answer = wire.answer()
    assert (answer.status, answer.body.decode()) == (413, f'{{"message":"{TOO_LARGE}"}}')


def test_after_a_413_the_connection_can_go_on(wire: Wire) -> None:
    wire.send(wire.request("PUT", "/chargers/C1", padded(3 * MIB)))
    assert wire.answer().status == 413
    wire.send(wire.request("PUT", "/chargers/C1", SMALL))
    assert wire.answer().status == 201


def test_a_gzipped_body_is_undone(client: httpx.Client) -> None:
    for number, encoding in enumerate(("gzip", "GZIP")):
        path = f"/chargers/C{number}"
        headers = {"Content-Encoding": encoding}
        answer = client.put(path, content=gzip.compress(SMALL), headers=headers)
        assert answer.status_code == 201
        assert client.get(path).json()["chargePowers"] == [11]


@pytest.mark.parametrize("size", [MIB, MIB + 1, 900 * MIB])
def test_the_limit_holds_for_what_gzip_makes_of_it_too(client: httpx.Client, size: int) -> None:
    if size > 2 * MIB:  # a bomb: 900 MiB in a little less than 1 MiB
        squeezer = zlib.compressobj(9, wbits=31)
        block = b" " * MIB
        body = b"".join(squeezer.compress(block) for _ in range(size // MIB)) + squeezer.flush()
        assert len(body) < MIB
    else:
        body = gzip.compress(padded(size))
    answer = client.put("/chargers/C1", content=body, headers={"Content-Encoding": "gzip"})
    assert answer.status_code == (201 if size <= MIB else 413)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "The body is not valid gzip: it ends too early."),
        (SMALL, "The body is not valid gzip."),
        (gzip.compress(SMALL)[:-1], "The body is not valid gzip: it ends too early."),
        (gzip.compress(SMALL)[:12], "The body is not valid gzip: it ends too early."),
        (gzip.compress(SMALL) + b"x", "The body is not valid gzip: something follows its end."),
        (gzip.compress(SMALL) + gzip.compress(SMALL)[:-1],
         "The body is not valid gzip: it ends too early."),
        (gzip.compress(SMALL) + gzip.compress(b"") * 1_000,
         "The body is not valid gzip: it has more than 1000 members."),
        (gzip.compress(SMALL)[:-8] + bytes(8), "The body is not valid gzip."),
        (zlib.compress(SMALL), "The body is not valid gzip."),
        (gzip.compress(gzip.compress(SMALL)), "The body is not valid UTF-8 (byte 1)."),
        (gzip.compress(b""), "The body is empty: a JSON object is expected."),
    ],
    ids=["empty", "plain", "truncated", "cut off", "trailing", "second cut off", "members",
         "checksum", "zlib",
         "nested", "of nothing"],
)  # fmt: skip
def test_what_is_not_whole_gzip_is_400(shared: httpx.Client, body: bytes, reason: str) -> None:
    answer = shared.put("/chargers/C1", content=body, headers={"Content-Encoding": "gzip"})
    assert (answer.status_code, message(answer)) == (400, reason)


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_body_may_have_several_members(client: httpx.Client, size: int) -> None:
    body = SMALL + b" " * 3000
    parts = [gzip.compress(body[at : at + size]) for at in range(0, len(SMALL), size)]
    answer = client.put(
        "/chargers/C1", content=b"".join([*parts, gzip.compress(b"")]),
        headers={"Content-Encoding": "gzip"},
    )  # fmt: skip
    assert answer.status_code == 201
    bomb = gzip.compress(b" " * 400_000) * 3
    answer = client.put("/chargers/C1", content=bomb, headers={"Content-Encoding": "gzip"})
    assert answer.status_code == 413


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [("br", "br"), ("deflate", "deflate"), ("gzip, gzip", "gzip, gzip"), ("x-gzip", "x-gzip"),
     ("identity, gzip", "identity, gzip"), ("<script>", "?script?"), ("z" * 100, "z" * 40)],
)  # fmt: skip
def test_another_content_encoding_is_415(shared: httpx.Client, encoding: str, shown: str) -> None:
    answer = shared.put("/chargers/C1", content=SMALL, headers={"Content-Encoding": encoding})
    assert (answer.status_code, message(answer)) == (
        415, f"Unsupported Media Type: Content-Encoding must be gzip, not {shown}.",
    )  # fmt: skip


def test_a_body_that_nobody_asked_for_is_ignored(client: httpx.Client) -> None:
    assert client.request("GET", "/chargers", content=b"nonsense").json() == []
