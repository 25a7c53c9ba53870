"""Requests for keys: the form, the operator's decision, and taking the key."""

import asyncio
import json
import re
from collections.abc import Iterator
from itertools import count

import httpx
import pytest

from tests.commands import Result, tether, tether_ok
from tests.conftest import Server
from tests.console.visitors import OURS, from_address, visitor
from tether.domain import timestamps
from tether.domain.key_requests import (
    KEPT_MS,
    MAX_OF_CLIENT,
    MAX_WAITING,
    WAITS_MS,
    Limits,
    RequestForm,
)
from tether.domain.keys import Rate, digest_of
from tether.server import key_requests, retention
from tether.server.databases import database_of
from tether.server.store import Store, open_store

HOSTILE = "<script>alert(1)</script>\u202egnp.exe {{7*7}} \x1b[31m'\""
WISH = {
    "organisation": "Nordic Charge AB", "email": "ops@nordic.example", "purpose": "Our\r\nchargers",
    "fleet": "40 chargers, 300 vehicles",
}  # fmt: skip
ADDRESSES = count(10)


@pytest.fixture
def stranger(server: Server) -> Iterator[httpx.Client]:
    """A client with an address of this machine that no other test uses."""
    address = f"127.0.9.{next(ADDRESSES)}"
    with from_address(server, address) as client:
        client.headers["X-Address"] = address
        yield client


def ask(stranger: httpx.Client, **fields: str) -> str:
    """Requests a key; returns the path of the page for the requester."""
    answer = stranger.post("/request-key", data={**WISH, **fields})
    assert answer.status_code == 303, answer.text
    return answer.headers["location"]


def request_id(path: str) -> str:
    """The id that the operator uses for the request."""
    return digest_of(path.rpartition("/")[2])[:10]


def requests(server: Server, *words: str) -> Result:
    return tether("keys", "requests", *words, "--database", server.database)


def decide(server: Server, path: str, **form: str) -> httpx.Response:
    with visitor(server) as operator:
        fields = {"request": request_id(path), "rate": "90/min", **form}
        return operator.post("/console/key-requests", data=fields)


def secret_in(page: str) -> str:
    (secret,) = re.findall(r'id="secret">([^<]*)<', page)
    return str(secret)


def test_what_is_asked_has_bounds_and_the_form_keeps_what_was_typed(
    server: Server, stranger: httpx.Client
) -> None:
    for wrong in (
        {"organisation": ""}, {"organisation": "x" * 101}, {"email": "nobody"}, {"purpose": " "},
        {"email": "a@" + "b" * 260}, {"fleet": "x" * 101}, {"purpose": "x" * 1001},
    ):  # fmt: skip
        fields = {**WISH, **wrong, "fleet": wrong.get("fleet", HOSTILE)}
        answer = stranger.post("/request-key", data=fields)
        assert answer.status_code == 400, wrong
        assert 'aria-invalid="true"' in answer.text
        assert "<script>alert" not in answer.text
        assert "ops@nordic.example" in answer.text or "email" in wrong
    assert stranger.post("/request-key", data={"purpose": "x" * 9000}).status_code == 413
    elsewhere = httpx.post(f"{server.url}/request-key", data=WISH, verify=False)
    assert elsewhere.status_code == 403  # a form of another site
    assert stranger.get("/request-key/unknown").status_code == 404
    assert stranger.post(f"/request-key/{'x' * 30}").status_code == 404
    assert stranger.get("/request-key").headers["content-security-policy"].startswith("default-src")


def test_an_address_asks_a_few_times_an_hour(server: Server, stranger: httpx.Client) -> None:
    for _ in range(MAX_OF_CLIENT):
        ask(stranger)
    answer = stranger.post("/request-key", data=WISH)
    assert answer.status_code == 429
    assert int(answer.headers["retry-after"]) == 3600
    assert "Nordic Charge AB" in answer.text
    with from_address(server, f"127.0.9.{next(ADDRESSES)}") as other:
        ask(other)


def test_of_two_who_claim_at_once_one_gets_the_key(server: Server, stranger: httpx.Client) -> None:
    path = ask(stranger, organisation="Claimed Twice")
    assert "Show my key" not in stranger.get(path).text
    assert 'id="secret"' not in stranger.post(path).text  # it waits
    assert decide(server, path, do="approve", name="Claimed Twice").status_code == 303
    assert 'id="secret"' not in stranger.get(path).text  # what only looks takes nothing

    async def claim() -> list[str]:
        transport = httpx.AsyncHTTPTransport(local_address=f"127.0.9.{next(ADDRESSES)}")
        async with httpx.AsyncClient(
            base_url=server.url, headers=OURS, transport=transport, timeout=60
        ) as client:
            answers = await asyncio.gather(*(client.post(path) for _ in range(10)))
        assert {answer.status_code for answer in answers} == {200}
        return [answer.text for answer in answers if 'id="secret"' in answer.text]

    (page,) = asyncio.run(claim())
    with server.client(secret_in(page)) as client:
        assert client.get("/chargers").headers["ratelimit-policy"] == '"default";q=90;w=60'
    listed = tether_ok("keys", "list", "Claimed Twice", "--json", "--database", server.database)
    assert [one["name"] for one in json.loads(listed)] == ["requested"]


def test_nobody_gets_a_partners_data_by_asking_in_its_name(
    server: Server, stranger: httpx.Client
) -> None:
    server.key("Known Partner")
    path = ask(stranger, organisation="Known Partner")
    answer = decide(server, path, do="approve", name="Known Partner")
    assert answer.status_code == 400
    assert "whose data this key would open" in answer.text
    assert "waiting" in stranger.get(path).text
    for form, message in (
        ({"name": "Nobody", "known": "on"}, "There is no partner"),
        ({"name": ""}, "cannot be a partner"),
        ({"name": "X", "rate": "fast"}, "is not a rate"),
        ({"name": "X", "lives": "long"}, "lives"),
    ):
        answer = decide(server, path, do="approve", **form)
        assert answer.status_code == 400
        assert message in answer.text
    assert decide(server, path, do="approve", name="Known Partner", known="on").status_code == 303
    assert decide(server, path, do="decline").status_code == 400  # too late
    with visitor(server, server.key()) as other:
        assert other.get("/console/key-requests").status_code == 404
        assert other.post("/console/key-requests", data={"do": "decline"}).status_code == 404


def test_the_command_lists_approves_and_declines(server: Server, stranger: httpx.Client) -> None:
    paths = [ask(stranger, purpose=HOSTILE) for _ in range(3)]
    found = {one["id"]: one for one in json.loads(requests(server, "list", "--json").stdout)}
    mine = [found[request_id(path)] for path in paths]
    assert [one["state"] for one in mine] == ["waiting"] * 3
    assert {one["from"] for one in mine} == {stranger.headers["X-Address"]}
    first, second, third = (one["id"] for one in mine)
    done = requests(
        server, "approve", first, "By Command", "--rate", "5/s", "--for", "1d", "--test"
    )
    assert done.returncode == 0, done.stderr
    secret = secret_in(stranger.post(paths[0]).text)
    assert secret.startswith("ttr_test_")
    with server.client(secret) as client:
        assert client.get("/chargers").headers["ratelimit-policy"] == '"default";q=5;w=1'
    done = requests(server, "decline", second, third, first)
    assert done.returncode != 0
    assert "is claimed already" in done.stderr
    assert "declined" in stranger.get(paths[2]).text
    table = requests(server, "list").stdout
    assert "\x1b" not in table
    assert "\u202e" not in table
    (line,) = (line for line in table.splitlines() if first in line)
    assert "claimed" in line


def test_requests_expire_are_bounded_and_go_with_their_partner(database: str) -> None:
    database_of(database).migrate()
    form, now_ms = RequestForm(*WISH.values()), timestamps.now_ms()

    async def fill() -> None:
        async with open_store(database) as store:
            await use(store)

    async def use(store: Store) -> None:
        begin_ms = now_ms - WAITS_MS - 10
        old = await key_requests.add(store, begin_ms, form, "old")
        for number in range(MAX_WAITING):
            await key_requests.add(store, now_ms, form, str(number))
        assert await store.key_requests.find(digest_of(old), now_ms) is None
        assert await store.key_requests.find(digest_of(old), begin_ms) is None  # it is gone
        with pytest.raises(key_requests.TooMany):
            await key_requests.add(store, now_ms, form, "one more")
        first, *_ = await store.key_requests.all(now_ms)
        await key_requests.decline(store, now_ms, first)
        token = await key_requests.add(store, now_ms, form, "one more")  # there is room again
        request = await key_requests.find(store, now_ms, digest_of(token))
        limits = Limits(Rate(1, 1), 1, None, is_test=True)
        made = await key_requests.approve(store, now_ms, request, "Gone", limits)
        late_ms = now_ms + KEPT_MS
        request = await key_requests.find(store, now_ms, request.id)
        assert await key_requests.claim(store, late_ms, request) is None  # too late
        await store.partners.erase(made, lambda events: None)
        assert await store.key_requests.find(digest_of(token), now_ms) is None
        await retention.delete_old(store, now_ms + WAITS_MS)
        assert await store.key_requests.all(now_ms) == []

    asyncio.run(fill())
