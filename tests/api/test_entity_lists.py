"""`GET /chargers` and `GET /vehicles`: all of them, in order of id, in pages."""

import re
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.api.helpers import CHARGER, VEHICLE, create_charger
from tests.conftest import Server
from tests.lists import pages

BODY = {"chargers": CHARGER, "vehicles": VEHICLE}


@pytest.mark.parametrize("kind", ["chargers", "vehicles"])
def test_without_any_the_list_is_an_empty_array(client: httpx.Client, kind: str) -> None:
    answer = client.get(f"/{kind}")
    assert (answer.status_code, answer.text) == (200, "[]")
    assert answer.headers["content-type"] == "application/json"
    assert "link" not in answer.headers


@pytest.mark.parametrize("kind", ["chargers", "vehicles"])
def test_a_list_has_the_same_objects_as_get_by_id_in_order_of_the_characters_of_the_ids(
    client: httpx.Client, kind: str
) -> None:
    ids = ["b", "a", "B", "A", "a.b", "a-b", "a~b", "10", "9", "_", "*", "+", "@", ":", "aa"]
    for entity_id in ids:
        assert client.put(f"/{kind}/{entity_id}", json=BODY[kind]).status_code == 201
    listed = client.get(f"/{kind}")
    assert [entity["id"] for entity in listed.json()] == sorted(ids)
    alone = [client.get(f"/{kind}/{entity_id}").text for entity_id in sorted(ids)]
    assert listed.text == f"[{','.join(alone)}]"
    for limit in (1, 2, 7, 14, 15, 16, 1000):
        found = list(pages(client, f"/{kind}", limit=limit))
        assert [entity["id"] for page in found for entity in page] == sorted(ids)
        assert all(len(page) == limit for page in found[:-1])
        assert found[-1]


def test_a_page_has_a_hundred_unless_asked_and_a_thousand_at_most(client: httpx.Client) -> None:
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda number: create_charger(client, f"C{number:04}"), range(1001)))
    assert len(client.get("/chargers").json()) == 100
    whole = client.get("/chargers", params={"limit": 1000})
    assert len(whole.json()) == 1000
    last = client.get(whole.links["next"]["url"])
    assert [charger["id"] for charger in last.json()] == ["C1000"]
    assert "link" not in last.headers


def test_the_link_is_absolute_and_its_cursor_opaque(client: httpx.Client, server: Server) -> None:
    create_charger(client, "C1")
    create_charger(client, "C2")
    link = client.get("/chargers?limit=1").headers["link"]
    assert re.fullmatch(
        rf'<{re.escape(server.url)}/chargers\?limit=1&cursor=[A-Za-z0-9_-]+>; rel="next"', link
    )


operations = st.lists(
    st.tuples(st.sampled_from(["page", "add"]), st.integers(0, 99)), min_size=10, max_size=40
)


@settings(max_examples=15)
@given(start=st.sets(st.integers(0, 99)), steps=operations, limit=st.integers(1, 7))
def test_pages_skip_and_repeat_nothing_that_was_there_while_others_write(
    server: Server, start: set[int], steps: list[tuple[str, int]], limit: int
) -> None:
    with server.client() as client:
        for number in start:
            create_charger(client, f"{number:02}")
        seen: list[str] = []
        address: str | None = f"/chargers?limit={limit}"
        for step, number in [*steps, *[("page", 0)] * 100]:
            if step == "add":
                assert client.put(f"/chargers/{number:02}", json=CHARGER).status_code in (200, 201)
            elif address is not None:
                answer = client.get(address)
                seen += [charger["id"] for charger in answer.json()]
                address = answer.links["next"]["url"] if "next" in answer.links else None
        assert address is None
        assert seen == sorted(set(seen))
        assert {f"{number:02}" for number in start} <= set(seen)


def test_a_list_can_be_read_while_eight_clients_write(client: httpx.Client) -> None:
    for number in range(0, 200, 2):
        create_charger(client, f"{number:03}")
    stop = threading.Event()

    def write(writer: int) -> None:
        number = writer
        while not stop.is_set():
            path = f"/chargers/{number % 200:03}"
            assert client.put(path, json=CHARGER).status_code in (200, 201)
            number += 7

    with ThreadPoolExecutor(8) as threads:
        writers = [threads.submit(write, writer) for writer in range(8)]
        try:
            for _ in range(3):
                found = [c["id"] for page in pages(client, "/chargers", limit=9) for c in page]
                assert found == sorted(set(found))
                assert {f"{number:03}" for number in range(0, 200, 2)} <= set(found)
        finally:
            stop.set()
        for writer in writers:
            writer.result()
