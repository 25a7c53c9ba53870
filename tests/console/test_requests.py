"""The kept requests that were not refused, items of bulks, and how much is kept."""

import asyncio
import json
import re
from collections.abc import Iterator
from html import unescape

import httpx
import pytest

from tests.conftest import Server
from tests.console.test_signing_in import refused_of, with_things
from tests.console.visitors import visitor
from tests.wire import cpu_seconds
from tether.console.refused_requests import RefusedItem, marked_items
from tether.domain.timestamps import DAY_MS, now_ms
from tether.http.middleware import Sample
from tether.server import admin
from tether.server.databases import database_of
from tether.server.store import open_store
from tether.storage.refused_requests import RefusalFilter, RefusedRequest, RequestLogSettings

GOOD = {"type": "VEHICLE_CONNECTED", "chargerId": "C1", "vehicleId": "V1", "stateOfCharge": 20,
        "timestamp": "2026-01-05T08:00:00Z"}  # fmt: skip
BAD = {**GOOD, "stateOfCharge": 150}
UNKNOWN = {**GOOD, "chargerId": "C9"}


def only_request(owner: httpx.Client, path: str, wanted: str) -> str:
    """The page of the only request in the list, once it shows this."""
    page = refused_of(owner, path, wanted)
    (link,) = set(re.findall(r'href="([^"]*/requests/one[^"]*)"', page))
    return owner.get(unescape(link)).text


def marks(page: str) -> list[str]:
    return [unescape(mark) for mark in re.findall(r"<mark>(.*?)</mark>", page)]


@pytest.mark.parametrize("form", ["array", "lines"])
def test_items_that_a_bulk_refuses_are_shown_and_marked(server: Server, form: str) -> None:
    key, number = with_things(server)
    path = f"/console/p/{number}/requests"
    items = [json.dumps(item) for item in (GOOD, BAD, GOOD, UNKNOWN)]
    body = f" [{','.join(items)}]" if form == "array" else "\n\n" + "\n \n".join(items)
    with server.client(key) as client, visitor(server, key) as owner:
        answer = client.post("/events/bulk", content=body.encode())
        assert [one["status"] for one in answer.json()] == [201, 400, 201, 409]
        page = only_request(owner, path, "2 of 4 items were refused")
        assert marks(page) == ['"stateOfCharge": 150', '"chargerId": "C9"']
        assert re.findall(r'<li value="(\d+)">', page) == ["2", "4"]
        assert "It must be a number from 0 to 100" in page
        assert "It was cut" not in page
        assert "It must refer to an existing charger" in page
        assert "4 items were refused" in owner.get(path, params={"status": "200"}).text
        assert "4 items were refused" not in owner.get(path, params={"status": "4xx"}).text


def test_a_sample_of_the_others_is_kept_beside_what_was_refused(server: Server) -> None:
    key, number = with_things(server)  # of which the first request is the sample of this minute
    path = f"/console/p/{number}/requests"
    with server.client(key) as client, visitor(server, key) as owner:
        for _ in range(3):
            client.get("/vehicles/V1").raise_for_status()
        client.get("/vehicles/none")
        refused = refused_of(owner, path, "/vehicles/none")
        assert refused.count('<th scope="row">') == 1
        every = refused_of(owner, f"{path}?show=all", "/chargers/C1")
        assert "/vehicles/none" in every
        one = only_request(owner, f"{path}?show=all&status=2xx&path=/chargers/C1", "requests/one")
        assert "<h1>201</h1>" in one
        assert "chargePowers" in one
        assert owner.get(path, params={"show": "nothing"}).status_code == 400


def test_of_a_body_that_was_cut_the_page_says_so(server: Server) -> None:
    key, number = with_things(server)
    path = f"/console/p/{number}/requests"
    long = json.dumps({"type": "x" * 20_000}).encode()

    def in_chunks() -> Iterator[bytes]:
        for start in range(0, len(long), 5_000):
            yield long[start : start + 5_000]

    with server.client(key) as client, visitor(server, key) as owner:
        assert client.post("/events?whole", content=long).status_code == 400
        assert client.post("/events?chunks", content=in_chunks()).status_code == 400
        page = only_request(owner, f"{path}?path=/events%3Fwhole", "requests/one")
        assert "only the beginning of its 20,012 bytes is kept" in page
        page = only_request(owner, f"{path}?path=/events%3Fchunks", "requests/one")
        assert "It was cut" in page


def test_a_long_line_of_blanks_costs_little_to_show(server: Server) -> None:
    key, number = with_things(server)
    with server.client(key) as client, visitor(server, key) as owner:
        assert client.post("/events/bulk", content=b"1\n" + b" " * 16_000).status_code == 200
        refused_of(owner, f"/console/p/{number}/requests", "1 of 1 items were refused")
        before = cpu_seconds(server)
        page = only_request(owner, f"/console/p/{number}/requests", "1 of 1")
        assert cpu_seconds(server) - before < 0.5  # it was a second
        assert marks(page) == ["1"]


@pytest.mark.parametrize(
    ("body", "number", "marked"),
    [
        ('[{"a": 1}, {"a": 2}', 2, ['"a": 2']),  # cut behind the item
        ('[{"a": 1}, {"a": 2', 2, []),  # within it
        ('[{"b": "]"}, 7, {"a": [1, {"a": 3}]}]', 3, ['"a": [1', '"a": 3']),
        ('[{"b": 1}, 7]', 2, ["7"]),  # without the member the item
        ('{"a": 1}\n{"a"', 2, ['{"a"']),
        ("[" * 9000, 1, []),
        ("[1]", 9, []),
        ("", 1, []),
    ],
)
def test_what_is_marked_in_a_bulk(body: str, number: int, marked: list[str]) -> None:
    parts = marked_items(body, [RefusedItem(number, "", "a")])
    assert "".join(part.text for part in parts) == body
    assert [part.text for part in parts if part.is_marked] == marked


def test_how_much_is_kept_is_a_setting(database: str) -> None:
    database_of(database).migrate()
    here_ms = now_ms()

    def made(number: int, status: int, at_ms: int = here_ms) -> RefusedRequest:
        error = "not-found" if status == 404 else ""
        return RefusedRequest(at_ms + number, f"{status}-{number}", "", "GET", "/", status, 1,
                              error, "", "")  # fmt: skip

    async def work() -> None:
        kept = RequestLogSettings(rows=20, days=2, body_bytes=10, sample=2)
        async with open_store(database, request_log=kept) as store:
            _, key = await admin.create_key(store, here_ms, "acme")
            partner, requests = key.partner, store.refused_requests
            await requests.add(partner, [made(number, 404) for number in range(50)], here_ms)
            await requests.add(partner, [made(number, 200) for number in range(50)], here_ms)
            old = made(0, 404, here_ms - 3 * DAY_MS)
            await requests.add(partner, [old], here_ms)
            every = RefusalFilter(sampled=True)
            found = await requests.page(partner, every, (2**62, ""), here_ms, 100)
            refused = [one.id for one in found if one.is_refused]
            assert refused == [f"404-{number}" for number in range(49, 29, -1)]
            assert [one.id for one in found if not one.is_refused] == ["200-49", "200-48"]
            found = await requests.page(partner, RefusalFilter(), (2**62, ""), here_ms, 100)
            assert [one.id for one in found] == refused

    asyncio.run(work())


@pytest.mark.parametrize(("a_minute", "taken"), [(2, 3), (0, 0)])
def test_the_sample_is_so_many_a_minute(a_minute: int, taken: int) -> None:
    sample = Sample(a_minute)
    assert sum(sample.selects(1, second) for second in range(90)) == taken
    assert sample.selects(2, 90) is (taken > 0)
