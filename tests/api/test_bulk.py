"""Many events in one request: `POST /events/bulk`, an addition to the reference."""

import gzip
import json
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.api.helpers import CONNECTED, ON_ONE_ENGINE, create_both, message, ndjson
from tests.conftest import Server
from tests.lists import pages
from tether.domain.keys import Rate
from tether.domain.timestamps import format_instant

MIB = 1024 * 1024
START_MS = 1_700_000_000_000


def event(number: int = 0, **members: object) -> dict[str, object]:
    return {**CONNECTED, "timestamp": format_instant(START_MS + number), **members}


def statuses(answer: httpx.Response) -> list[int]:
    assert answer.status_code == 200, answer.text
    return [item["status"] for item in answer.json()]


def recorded(client: httpx.Client) -> list[dict[str, Any]]:
    return [found for page in pages(client, "/events", limit=1000) for found in page]


@pytest.mark.parametrize("encode", [ndjson, lambda items: json.dumps(items).encode()])
@pytest.mark.parametrize("compress", [bytes, gzip.compress])
def test_each_item_gets_its_id_in_the_order_of_the_input(
    client: httpx.Client, encode: Callable[[list[Any]], bytes], compress: Callable[[bytes], bytes]
) -> None:
    create_both(client)
    headers = {"content-encoding": "gzip"} if compress is gzip.compress else {}
    sent = [event(number) for number in range(2_300)]
    answer = client.post("/events/bulk", content=compress(encode(sent)), headers=headers)
    assert set(statuses(answer)) == {201}
    found = recorded(client)
    assert [one["id"] for one in found] == [item["id"] for item in answer.json()]
    assert [one["timestamp"] for one in found] == [one["timestamp"] for one in sent]


def test_good_items_are_stored_although_others_are_bad(client: httpx.Client) -> None:
    create_both(client)
    items = [
        event(1),
        event(2, stateOfCharge=149),
        event(3, chargerId="nobody's"),
        event(4, chargerId="unknown"),
        event(5),
        event(5, stateOfCharge=1),
        7,
    ]
    lines = ndjson(items) + b'{"type": \n\n\xff\n' + ndjson([event(6)])
    answer = client.post("/events/bulk", content=lines)
    assert statuses(answer) == [201, 400, 400, 409, 201, 409, 400, 400, 400, 201]
    results = answer.json()
    for place in (1, 2, 3):  # the same words as for one event alone
        alone, item = client.post("/events", json=items[place]), results[place]
        assert item["message"] == message(alone)
        said = f'{item["code"]}; parameter="{item["parameter"]}"'
        assert said == alone.headers["tether-error"]
    refused = {"status", "message", "code"}
    members = ({"status", "id"}, refused, {*refused, "parameter"})
    assert all(set(item) in members for item in results)
    assert [one["id"] for one in recorded(client)] == [results[place]["id"] for place in (0, 4, 9)]


def test_sending_it_again_gives_the_same_ids_and_stores_nothing(client: httpx.Client) -> None:
    create_both(client)
    body = ndjson([event(number) for number in range(50)] + [event(0)])
    first, second = (client.post("/events/bulk", content=body) for _ in range(2))
    assert first.json() == second.json()
    assert first.json()[50] == first.json()[0]
    assert len(recorded(client)) == 50


def test_events_without_a_timestamp_are_always_new(client: httpx.Client) -> None:
    create_both(client)
    item = {name: value for name, value in CONNECTED.items() if name != "timestamp"}
    answer = client.post("/events/bulk", json=[item] * 300)
    assert len({one["id"] for one in answer.json()}) == len(recorded(client)) == 300


@ON_ONE_ENGINE
@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"", 400, "no events"),
        (b" \n \r\n", 400, "no events"),
        (b"[]", 400, "no events"),
        (b'[{"type": 1},', 400, "not valid JSON"),
        (b"[" * 100_000, 400, "nested too deeply"),
        (ndjson([event(number) for number in range(10_001)]), 413, "10,000 events"),
        (b" " * (8 * MIB + 1), 413, "8,388,608 bytes"),
    ],
)
def test_a_body_that_is_refused_as_a_whole_has_stored_nothing(
    client: httpx.Client, body: bytes, status: int, words: str
) -> None:
    create_both(client)
    for content in (body, (body[at : at + MIB] for at in range(0, len(body), MIB))):
        answer = client.post("/events/bulk", content=content)
        assert answer.status_code == status
        assert words in message(answer)
    assert recorded(client) == []


LONG = 64 * 1024


@ON_ONE_ENGINE
def test_a_line_that_is_too_long_is_refused_and_the_others_are_not(client: httpx.Client) -> None:
    create_both(client)
    lines = [json.dumps(event(number)).encode() for number in range(5)]
    lines[1] = lines[1].ljust(LONG)
    lines[2] = lines[2].ljust(LONG + 1)
    lines[3] = lines[3].ljust(8 * LONG + 7)
    for end in (b"", b"\n", b"\r\n \n" + b" " * (2 * LONG)):
        answer = client.post("/events/bulk", content=b" \n\n" + b"\n".join(lines) + end)
        assert statuses(answer) == [201, 201, 413, 413, 201]
        assert answer.json()[2]["message"] == (
            "Payload Too Large: an event has at most 65,536 bytes."
        )
    assert len(recorded(client)) == 3


@ON_ONE_ENGINE
def test_blanks_between_events_do_not_count(client: httpx.Client) -> None:
    create_both(client)
    one, two = (json.dumps(event(number)).encode() for number in range(2))
    for size in (1, LONG - 1, LONG, LONG + 1, LONG + 2, 3 * LONG):
        lines = b"\n" * size + one + b"\n" + b" " * size + b"\n" * size + two + b"\n"
        blank = b" \t\r\n"[size % 4 :][:1] * size
        array = blank + b"[" + blank + one + blank + b"," + blank + two + blank + b"]" + blank
        for body in (lines, array):
            assert statuses(client.post("/events/bulk", content=body)) == [201, 201]


@ON_ONE_ENGINE
@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"[,]", 400, "an event is expected (byte 1)"),
        (b"[%s,,]", 400, "an event is expected"),
        (b"[,%s]", 400, "an event is expected"),
        (b"[%s %s]", 400, "a comma or the end of the array is expected"),
        (b"[%s", 400, "a comma or the end"),
        (b"[%s,", 400, "an event is expected"),
        (b"[", 400, "an event is expected"),
        (b"[%s]]", 400, "something follows the array"),
        (b"[%s]%s", 400, "something follows the array"),
        (b"[%s}", 400, "a comma or the end"),
        (b"[}]", 400, "Event 1 of the array: The body is not valid JSON"),
        (b'[%s,{"a" 1}]', 400, "Event 2 of the array: The body is not valid JSON"),
        (b'[%s,{"a":[}]', 400, "a comma or the end"),
        (b'[%s,"]', 400, "an event is expected"),
        (b"[%s,nul]", 400, "Event 2 of the array: The body is not valid JSON"),
        (b"[%s,\x0c%s]", 400, "a comma or the end"),
        (b'[{"a":1,"a":2}]', 400, "names {a} twice"),
        (b'[{"a":"\xff"}]', 400, "not valid UTF-8"),
        (b'["' + b"x" * LONG + b'"]', 413, "an event has at most 65,536 bytes"),
        (b"[" + b"1" * (LONG + 1) + b"]", 413, "an event has at most 65,536 bytes"),
        (b'[{"a":[[' + b" " * LONG + b"]]}]", 413, "an event has at most 65,536 bytes"),
        (b"[[" + b"[]," * 101 + b"[]]]", 400, "no more than 200 brackets and strings"),
        (b"[" + b"1," * 10_000 + b"1]", 413, "10,000 events"),
    ],
)
def test_an_array_that_is_no_json_has_stored_nothing(
    client: httpx.Client, body: bytes, status: int, words: str
) -> None:
    create_both(client)
    body = body.replace(b"%s", json.dumps(event()).encode())
    answer = client.post("/events/bulk", content=body)
    assert answer.status_code == status
    assert words in message(answer)
    assert recorded(client) == []


@ON_ONE_ENGINE
def test_values_of_an_array_that_are_no_events_are_refused_by_themselves(
    client: httpx.Client,
) -> None:
    create_both(client)
    odd = [1, "a]", '"}', None, True, [], [1, ["]"]], {}, {"a": {"b": [1, {"c": "}\\"}]}},
           {"type": [1] * 200}]  # fmt: skip
    items = [event(1), *odd, event(2, stateOfCharge=1.50)]
    for body in (json.dumps(items), json.dumps(items, indent=3)[:-1] + " , ]"):
        answer = client.post("/events/bulk", content=body)
        assert statuses(answer) == [201, *[400] * len(odd), 201]
        assert answer.json()[1]["message"] == "An event must be a JSON object."


@ON_ONE_ENGINE
def test_broken_gzip_is_refused_as_a_whole(client: httpx.Client) -> None:
    create_both(client)
    whole = gzip.compress(ndjson([event(number) for number in range(1_000)]))
    bomb = zlib.compressobj(9, wbits=31)
    parts = b"".join(bomb.compress(b" " * MIB) for _ in range(200)) + bomb.flush()
    for body, status in (
        (whole[: len(whole) // 2], 400),
        (b"not gzip", 400),
        (whole + b"more", 400),
        (parts, 413),
    ):
        answer = client.post("/events/bulk", content=body, headers={"content-encoding": "gzip"})
        assert answer.status_code == status
        message(answer)
    assert recorded(client) == []


@ON_ONE_ENGINE
def test_events_count_in_the_rate_limit_and_those_beyond_it_say_so(server: Server) -> None:
    key = server.key(rate=Rate(1, 60), burst=100)
    with server.client(key) as client:
        create_both(client)  # 2 of 100
        answer = client.post("/events/bulk", json=[event(number) for number in range(150)])
        assert statuses(answer) == [201] * 98 + [429] * 52
        assert int(answer.headers["retry-after"]) >= 1
        assert answer.json()[-1]["message"] == "Too Many Requests"
        assert answer.headers["ratelimit"].startswith('"default";r=0;t=')
        assert client.post("/events/bulk", json=[event()]).status_code == 429


@ON_ONE_ENGINE
def test_only_posting_is_possible_and_only_with_a_key_that_may_write(server: Server) -> None:
    with server.client(server.key(read_only=True)) as client:
        assert client.post("/events/bulk", json=[event()]).status_code == 403
        answer = client.get("/events/bulk")
        assert (answer.status_code, answer.headers["allow"]) == (405, "OPTIONS, POST")


def test_memory_does_not_grow_with_the_number_of_requests_under_way(
    new_server: Callable[..., Server],
) -> None:
    server = new_server()
    with server.client() as client:
        create_both(client)
        padded = ndjson([event(number) for number in range(200)]).ljust(8 * MIB)
        client.post("/events/bulk", content=padded)
        alone = _peak_mb(server)
        with ThreadPoolExecutor(24) as pool:
            send = pool.map(lambda _: client.post("/events/bulk", content=padded), range(24))
            assert all(set(statuses(answer)) == {201} for answer in send)
        assert _peak_mb(server) < alone + 60  # 24 bodies are 192 MB


def _peak_mb(server: Server) -> float:
    assert server.process is not None
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    kib = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(kib) / 1024
