"""Ids of chargers and vehicles in paths: which are valid, and that two never become one."""

import string

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.api.helpers import CHARGER, ID_RULE, ON_ONE_ENGINE, VEHICLE, Wire, message

pytestmark = ON_ONE_ENGINE

ALLOWED = string.ascii_letters + string.digits + "._~*+@:-"
BODY = {"chargers": CHARGER, "vehicles": VEHICLE}
IDS = [*"AZaz09_~*+@:-", "...", ".a", "a.", "..a", "a..b", "~0", "C0229", "x" * 128, "c:windows",
       "null", "__proto__", "2B", "id", "chargers"]  # fmt: skip


def put(wire: Wire, kind: str, segment: str) -> int:
    body = b'{"chargePowers":[11]' + (b',"chargeCapacity":1}' if kind == "vehicles" else b"}")
    wire.send(wire.request("PUT", f"/{kind}/{segment}", body))
    answer = wire.answer()
    if answer.status == 400:
        assert answer.body.decode() == (f'{{"message":"Parameter {{id}} is invalid. {ID_RULE}"}}')
    return answer.status


def status(wire: Wire, method: str, target: str, body: bytes | None = None) -> int:
    wire.send(wire.request(method, target, body))
    return wire.answer(method).status


@pytest.mark.parametrize("kind", ["chargers", "vehicles"])
def test_every_allowed_character_makes_an_id_and_different_ids_never_meet(
    client: httpx.Client, wire: Wire, kind: str
) -> None:
    names = list(dict.fromkeys([*IDS, *ALLOWED.replace(".", "")]))
    for name in names:
        assert put(wire, kind, name) == 201, name
    for name in names:
        wire.send(wire.request("GET", f"/{kind}/{name}"))
        assert f'"id":"{name}"'.encode() in wire.answer().body
    wire.send(wire.request("GET", f"/{kind}?limit=1000"))
    listed = httpx.Response(200, content=wire.answer().body).json()
    assert [entity["id"] for entity in listed] == sorted(names)


@pytest.mark.parametrize("kind", ["chargers", "vehicles"])
def test_an_id_may_be_percent_encoded_and_is_decoded_once(wire: Wire, kind: str) -> None:
    assert put(wire, kind, "A") == 201
    assert put(wire, kind, "%41") == 200
    for name in ALLOWED:
        encoded = "".join(f"%{byte:02x}" for byte in f"x{name}".encode())
        assert put(wire, kind, f"x{name}") in (200, 201)
        assert put(wire, kind, encoded) == put(wire, kind, encoded.upper()) == 200
    wire.send(wire.request("GET", f"/{kind}/%41"))
    assert b'"id":"A"' in wire.answer().body


BAD = ["", ".", "..", "%2E", "%2e%2E", "a%2Fb", "%2F", "%00", "A%00", "%FF", "%C3%28", "%c3%a9",
       "%2541", "%252F", "a%20b", "a%0A", "%", "%4", "%zz", "a%", "{id}", "a,b", "a;b", "a=b",
       "a#b", "#", "a&b", "a!b", "a$b", "a'b", "(a)", "[a]", "a|b", "a\\b", "x" * 129, "%41" * 129,
       "x" * 5000, "%EF%BC%A1", "\u00c3\u00a9", "%E2%80%AE", "a%09"]  # fmt: skip


@pytest.mark.parametrize("kind", ["chargers", "vehicles"])
@pytest.mark.parametrize("segment", BAD, ids=lambda text: text[:20])
def test_what_is_not_an_id_is_400_on_a_write_and_404_on_a_read(
    wire: Wire, kind: str, segment: str
) -> None:
    if not segment.isascii():  # not a valid request line at all
        assert status(wire, "PUT", f"/{kind}/{segment}", b"{}") == 400
        return
    assert put(wire, kind, segment) == 400
    assert status(wire, "PATCH", f"/{kind}/{segment}", b"{}") == 400
    assert status(wire, "GET", f"/{kind}/{segment}") == 404
    assert status(wire, "HEAD", f"/{kind}/{segment}") == 404
    assert status(wire, "GET", f"/{kind}") == 200


@pytest.mark.parametrize("kind", ["chargers", "vehicles"])
def test_the_bad_id_is_told_before_a_bad_body(shared: httpx.Client, kind: str) -> None:
    assert "{id}" in message(shared.put(f"/{kind}/a%20b", content="nonsense"))
    assert "{id}" in message(shared.patch(f"/{kind}/a%20b", content="nonsense"))


def test_an_encoded_slash_does_not_make_two_segments(wire: Wire) -> None:
    assert status(wire, "GET", "/chargers%2FC1") == 404
    assert status(wire, "PUT", "/chargers/a/b", b"{}") == 404
    assert status(wire, "PUT", "/chargers/C1/", b"{}") == 404
    assert put(wire, "chargers", "C1%2F..%2FC2") == 400


def test_dots_in_a_path_are_not_walked(wire: Wire) -> None:
    assert put(wire, "chargers", "C1") == 201
    assert status(wire, "GET", "/vehicles/../chargers/C1") == 404
    assert status(wire, "GET", "/chargers/./C1") == 404


@settings(max_examples=100)
@given(name=st.text(ALLOWED, min_size=1, max_size=128).filter(lambda n: n not in (".", "..")))
def test_any_name_of_allowed_characters_is_kept_as_it_is(shared: httpx.Client, name: str) -> None:
    assert shared.put(f"/chargers/{name.replace('.', '%2E')}", json=CHARGER).status_code in (
        200, 201,
    )  # fmt: skip
    found = shared.get("/chargers", params={"limit": 1000}).json()
    assert name in [charger["id"] for charger in found]


@settings(max_examples=200)
@given(data=st.binary(min_size=1, max_size=40))
def test_whatever_bytes_are_encoded_into_a_path_they_are_the_id_or_refused(
    shared: httpx.Client, data: bytes
) -> None:
    segment = "".join(f"%{byte:02X}" for byte in data)
    text = data.decode("latin-1")
    is_id = all(character in ALLOWED for character in text) and text not in (".", "..")
    answer = shared.put(f"/chargers/{segment}", json=CHARGER)
    if is_id:
        assert answer.status_code in (200, 201)
        assert shared.get(f"/chargers/{segment}").json()["id"] == text
    else:
        assert answer.status_code == 400
        assert shared.get(f"/chargers/{segment}").status_code == 404
