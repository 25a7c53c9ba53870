"""Bodies that parsers read differently: refused with 400 and a reason, never a 500."""

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.api.helpers import ON_ONE_ENGINE, create_both, message

pytestmark = ON_ONE_ENGINE

ACCEPTED = {
    "a trailing comma in an object": b'{"chargePowers":[11],}',
    "a trailing comma in an array": b'{"chargePowers":[11,]}',
    "trailing commas everywhere": b'{"chargePowers":[11 , ] , }',
    "white space around": b' \t\r\n{"chargePowers" : [ 11 ] }\n\n',
    "an escaped name": b'{"charge\\u0050owers":[11]}',
    "commas in a string beside a trailing one": b'{"chargePowers":[11],"id":"C1",}',
}
REFUSED: dict[str, bytes] = {
    "two trailing commas": b'{"chargePowers":[11],,}',
    "two trailing commas in an array": b'{"chargePowers":[11,,]}',
    "two trailing commas apart": b'{"chargePowers":[11, , ]}',
    "three trailing commas": b'{"chargePowers":[11,,,]}',
    "only a comma in an object": b"{,}",
    "only a comma in an array": b'{"chargePowers":[,]}',
    "a leading comma": b'{,"chargePowers":[11]}',
    "a comma after the whole": b'{"chargePowers":[11]},',
    "a comma for a value": b'{"chargePowers":,}',
    "a comma for a colon": b'{"chargePowers",}',
    "a comma after a colon": b'{"chargePowers":[11],"id":,}',
    "no comma": b'{"chargePowers":[11] "id":"C1"}',
    "a duplicate name": b'{"chargePowers":[11],"chargePowers":[22]}',
    "a duplicate name by an escape": b'{"chargePowers":[11],"charge\\u0050owers":[22]}',
    "a duplicate name inside": b'{"chargePowers":[11],"latitude":{"a":1,"a":1},"longitude":1}',
    "a duplicate name with a trailing comma": b'{"chargePowers":[11],"chargePowers":[11],}',
    "NaN": b'{"chargePowers":[NaN]}',
    "Infinity": b'{"chargePowers":[Infinity]}',
    "-Infinity": b'{"chargePowers":[-Infinity]}',
    "nan": b'{"chargePowers":[nan]}',
    "1e400": b'{"chargePowers":[1e400]}',
    "a huge exponent": b'{"chargePowers":[1e99999999999999999999]}',
    "a huge number": b'{"chargePowers":[' + b"9" * 500_000 + b"]}",
    "a long fraction": b'{"chargePowers":[0.' + b"0" * 500_000 + b"1]}",
    "a leading zero": b'{"chargePowers":[011]}',
    "a plus sign": b'{"chargePowers":[+11]}',
    "a bare fraction": b'{"chargePowers":[.5]}',
    "a bare point": b'{"chargePowers":[5.]}',
    "a bare exponent": b'{"chargePowers":[5e]}',
    "a hexadecimal number": b'{"chargePowers":[0x11]}',
    "an underscore": b'{"chargePowers":[1_1]}',
    "digits of another script": '{"chargePowers":[\u0661\u0661]}'.encode(),
    "single quotes": b"{'chargePowers':[11]}",
    "no quotes": b"{chargePowers:[11]}",
    "a comment": b'{"chargePowers":[11]/* kW */}',
    "a line comment": b'{"chargePowers":[11]}// kW',
    "something after": b'{"chargePowers":[11]} x',
    "a second document": b'{"chargePowers":[11]}{}',
    "a NUL after": b'{"chargePowers":[11]}\x00',
    "a NUL before": b'\x00{"chargePowers":[11]}',
    "a NUL in a string": b'{"chargePowers":[11],"id":"C1\x00"}',
    "a line break in a string": b'{"chargePowers":[11],"id":"C\n1"}',
    "a tab in a string": b'{"chargePowers":[11],"id":"C\t1"}',
    "an escaped NUL in a name": b'{"chargePowers":[11],"\\u0000":1}',
    "an unknown escape": b'{"chargePowers":[11],"id":"\\x43"}',
    "half an escape": b'{"chargePowers":[11],"id":"\\u00"}',
    "a lone high surrogate": b'{"chargePowers":[11],"id":"\\ud800"}',
    "a lone low surrogate": b'{"chargePowers":[11],"id":"\\udc00"}',
    "surrogates the wrong way round": b'{"chargePowers":[11],"id":"\\udc00\\ud800"}',
    "a lone surrogate in a name": b'{"chargePowers":[11],"\\ud800":1}',
    "a lone surrogate far inside": b'{"chargePowers":[[{"a":["\\uDBFF"]}]]}',
    "a surrogate in UTF-8": b'{"chargePowers":[11],"id":"\xed\xa0\x80"}',
    "invalid UTF-8": b'{"chargePowers":[11],"id":"\xff"}',
    "overlong UTF-8": b'{"chargePowers":[11],"id":"\xc0\xaf"}',
    "truncated UTF-8": b'{"chargePowers":[11],"id":"\xe2\x82"}',
    "Latin-1": b'{"chargePowers":[11],"id":"\xe9"}',
    "a byte order mark": b'\xef\xbb\xbf{"chargePowers":[11]}',
    "UTF-16": '{"chargePowers":[11]}'.encode("utf-16"),
    "a no-break space": '\u00a0{"chargePowers":[11]}'.encode(),
    "a form feed": b'\x0c{"chargePowers":[11]}',
    "nothing": b"",
    "white space": b" \r\n\t ",
    "an array": b"[]",
    "an array with the object": b'[{"chargePowers":[11]}]',
    "a string": b'"chargePowers"',
    "a number": b"11",
    "true": b"true",
    "null": b"null",
    "an unfinished object": b'{"chargePowers":[11]',
    "an unfinished string": b'{"chargePowers',
    "a form": b"chargePowers=11",
    "XML": b"<charger/>",
    "deep arrays": b"[" * 500_000,
    "deep arrays, closed": b'{"chargePowers":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "deep objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "deep with an escape": b'{"a":' + b"[" * 990 + b'"\\u0041"' + b"]" * 990 + b"}",
}


@pytest.mark.parametrize("what", ACCEPTED)
def test_one_trailing_comma_is_forgiven_and_white_space_is_free(
    client: httpx.Client, what: str
) -> None:
    answer = client.put("/chargers/C1", content=ACCEPTED[what])
    assert (answer.status_code, answer.text) == (201, '{"id":"C1"}')
    assert client.get("/chargers/C1").json() == {"id": "C1", "chargePowers": [11]}


@pytest.mark.parametrize("what", REFUSED)
def test_everything_else_beyond_rfc_8259_is_400_with_a_reason(
    shared: httpx.Client, what: str
) -> None:
    for method, path in (("PUT", "/chargers/C1"), ("PATCH", "/vehicles/V1"), ("POST", "/events")):
        answer = shared.request(method, path, content=REFUSED[what])
        assert answer.status_code == 400
        assert message(answer).endswith(".")
    assert shared.get("/chargers/C1").status_code == 404


def test_a_patch_that_is_refused_leaves_the_entity_as_it_was(client: httpx.Client) -> None:
    charger, vehicle = {"chargePowers": [11]}, {"chargeCapacity": 74.8, "chargePowers": [11]}
    for path, entity in (("/chargers/C1", charger), ("/vehicles/V1", vehicle)):
        tag = client.put(path, json=entity).headers["etag"]
        for what, body in REFUSED.items():
            assert client.patch(path, content=body).status_code == 400, what
        found = client.get(path)
        assert (found.json(), found.headers["etag"]) == (entity | {"id": path[-2:]}, tag)


SMALL = {what: body for what, body in REFUSED.items() if len(body) < 60_000 and body.strip()}


def test_a_bad_line_of_a_bulk_request_is_400_and_spoils_no_other(client: httpx.Client) -> None:
    create_both(client)
    for number, (what, body) in enumerate(SMALL.items()):
        lines = [good_event(2 * number), body, good_event(2 * number + 1)]
        if b"\n" in body:
            continue
        answer = client.post("/events/bulk", content=b"\n".join(lines))
        assert [one["status"] for one in answer.json()] == [201, 400, 201], what
        assert answer.json()[1]["message"].endswith("."), what


def test_a_bad_item_of_an_array_is_400_or_the_array_is(client: httpx.Client) -> None:
    create_both(client)
    recorded = 0
    for number, (what, body) in enumerate(SMALL.items()):
        answer = client.post("/events/bulk", content=b"[%s,%s]" % (good_event(number), body))
        if answer.status_code == 200:
            statuses = [one["status"] for one in answer.json()]
            assert statuses[0] == 201, what
            assert set(statuses[1:]) == {400}, what
            recorded += 1
        else:
            assert answer.status_code == 400, what
            assert message(answer).endswith("."), what
    assert len(client.get("/events?limit=1000").json()) == recorded  # none of a refused array


def test_a_huge_item_of_a_bulk_request_is_refused_alone_or_with_all(client: httpx.Client) -> None:
    create_both(client)
    for number, body in enumerate(body for body in REFUSED.values() if len(body) >= 60_000):
        for whole in (good_event(number) + b"\n" + body, b"[%s,%s]" % (good_event(number), body)):
            answer = client.post("/events/bulk", content=whole)
            if answer.status_code == 200:
                assert answer.json()[1]["status"] in (400, 413)
            else:
                assert answer.status_code in (400, 413)


def good_event(number: int) -> bytes:
    """An event of the vehicle and charger of `create_both`; each number gives another event."""
    timestamp = f"2023-05-11T{number // 60:02}:{number % 60:02}:00Z"
    members = {"type": "VEHICLE_CONNECTED", "chargerId": "C1", "vehicleId": "V1"}
    return json.dumps(members | {"timestamp": timestamp}).encode()


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "The body is empty: a JSON object is expected."),
        (b"[1]", "The body must be a JSON object, not an array."),
        (b'"{}"', "The body must be a JSON object, without quotes around it."),
        (b'{"a":1,"a":2}', "The body names {a} twice."),
        (b'{"a\\n":1,"a\\u000a":2}', "The body names {a\\n} twice."),
        (b'{"id":"\xff"}', "The body is not valid UTF-8 (byte 7)."),
        (b'{"id":"\\ud800"}',
         "The body has a lone surrogate (an incomplete \\u escape)."),
        (b"\xef\xbb\xbf{}", "The body is not valid JSON: it begins with a byte order mark."),
        (b"[" * 100_000, "The body is nested too deeply."),
        (b'{"a":NaN}', "The body is not valid JSON: NaN is not a number."),
        (b'{"a":\n 1 2}',
         "The body is not valid JSON: a comma or a closing bracket is expected (line 2, "
         "column 4)."),
        (b'{"a" 1}', "The body is not valid JSON: a colon is expected (line 1, column 6)."),
        (b'{"a": "1}',
         "The body is not valid JSON: a text has no closing quotation mark (line 1, column 7)."),
        (b'{"a": "C:\\x"}',
         "The body is not valid JSON: a text has a backslash that begins no escape of JSON "
         "(line 1, column 10)."),
        (b'{"a": "\\u12"}',
         "The body is not valid JSON: a text has a \\u without four hexadecimal digits (line 1, "
         "column 9)."),
        (b'{"a": "\n"}',
         "The body is not valid JSON: a text has a control character, such as a line break "
         "(line 1, column 8)."),
    ],
    ids=lambda value: str(value)[:30],
)  # fmt: skip
def test_the_message_says_what_is_wrong_with_the_body(
    shared: httpx.Client, body: bytes, reason: str
) -> None:
    assert message(shared.put("/chargers/C1", content=body)) == reason


def test_every_depth_of_nesting_is_answered_also_where_the_parser_just_manages(
    shared: httpx.Client,
) -> None:
    for depth in range(940, 1010):
        body = b'{"a":' + b"[" * depth + b'"\\u0041"' + b"]" * depth + b"}"
        assert shared.put("/chargers/C1", content=body).status_code == 400


def costly_bodies() -> Iterator[bytes]:
    """Bodies near 1 MiB on which a careless parser, or a repair by pattern, takes minutes."""
    size = 1_000_000
    yield b'{"a": "' + b'\\"' * (size // 2)
    yield b'{"a": "' + b"\\\\" * (size // 2)
    yield b'{"a": [' + b'"' * size
    yield b'{"a": [1' + b" " * size
    yield b'{"a": [' + b"," * size
    yield b'{"a": [1' + b" ," * (size // 2) + b"]}"
    yield b'{"a": [' + b"1," * (size // 2) + b"]}"
    yield b'{"a": [' + b"[],[,]," * (size // 7) + b"]}"
    yield b"{" + b",".join(b'"%d":1' % number for number in range(80_000)) + b"}"
    yield b'{"a": "' + b"\\ud83d" * (size // 6) + b'"}'
    yield b'{"a": ' + b"1" * size + b"}"
    yield b'{"a": 1e' + b"1" * size + b"}"
    yield b'{"chargePowers": [0.' + b"1" * size + b"]}"


def test_no_body_within_the_limit_takes_long(shared: httpx.Client) -> None:
    for body in costly_bodies():
        start = time.monotonic()
        answer = shared.put("/chargers/C1", content=body)
        assert answer.status_code == 400
        assert len(answer.content) < 400
        assert time.monotonic() - start < 5, body[:40]


def test_others_are_served_while_such_bodies_are_read(shared: httpx.Client) -> None:
    bodies = list(costly_bodies())
    with ThreadPoolExecutor(8) as senders:
        sent = [senders.submit(shared.put, "/chargers/C1", content=body) for body in bodies]
        waits = []
        while not all(one.done() for one in sent):
            asked = time.monotonic()
            assert shared.get("/chargers/C1").status_code in (200, 404)
            waits.append(time.monotonic() - asked)
    assert {one.result().status_code for one in sent} == {400}
    assert max(waits) < 1


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
names = st.sampled_from(
    ["id", "chargePowers", "chargePowerMin", "minChargePower", "latitude", "chargeCapacity", "type",
     "chargerId", "vehicleId", "timestamp", "stateOfCharge", "chargeTime"]
)  # fmt: skip


@settings(max_examples=200)
@given(document=st.dictionaries(names, json_values, max_size=6))
def test_any_values_of_any_members_are_accepted_or_400(
    shared: httpx.Client, document: dict[str, object]
) -> None:
    body = json.dumps(document)
    for method, path in (("PUT", "/vehicles/H"), ("PATCH", "/vehicles/H"), ("POST", "/events")):
        assert shared.request(method, path, content=body).status_code in (200, 201, 400, 404, 409)


@settings(max_examples=200)
@given(body=st.binary(max_size=60) | st.text('{}[],:"\\u0dD8e1- tfn', max_size=40).map(str.encode))
def test_any_bytes_for_a_body_are_400(shared: httpx.Client, body: bytes) -> None:
    assert shared.put("/chargers/X", content=body).status_code == 400
