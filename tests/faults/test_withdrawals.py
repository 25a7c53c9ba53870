"""Withdrawals survive kill -9 at any moment, and followers end with the data of the server."""

import json
import threading
from collections.abc import Callable
from contextlib import suppress
from random import Random
from typing import Any

import httpx
import pytest

from tests.conftest import Server
from tests.derivation.helpers import prepare, read_all, sessions, states
from tests.derivation.load import derived
from tests.derivation.streams import Body, stream
from tests.sse import streaming, up_to, without_age
from tests.wire import run

KILLS = 3
VEHICLES = [f"V{number}" for number in range(6)]


class Followers:
    """Copies of what a partner has, kept by its lists and its stream from the places that they
    gave.
    """

    def __init__(self) -> None:
        self.events: dict[str, Any] = {}
        self.sessions: dict[str, Any] = {}
        self.streamed: dict[str, Any] = {}
        self.states: dict[str, Any] = {}
        self._last_id: str | None = None
        self._places = {
            "events": "/events?limit=40",
            "withdrawn": "/events/withdrawn?limit=40",
            "sessions": "/sessions?updatedFrom=2020-01-01T00:00:00Z&limit=40",
        }

    def catch_up(self, client: httpx.Client) -> None:
        self.events |= {event["id"]: event for event in self._new(client, "events")}
        for withdrawal in self._new(client, "withdrawn"):
            self.events.pop(withdrawal["id"], None)
        for session in self._new(client, "sessions"):
            self.sessions[session["id"]] = session
            if session["status"] == "removed":
                del self.sessions[session["id"]]
        with streaming(client) as found:
            end = next(found).id
        begin = {"cursor": "start"} if self._last_id is None else {}
        with streaming(client, self._last_id, **begin) as found:
            for message in up_to(found, end) if self._last_id != end else ():
                if message.name == "event":
                    self.streamed[message.data["id"]] = message.data
                elif message.name == "withdrawal":
                    self.streamed.pop(message.data["id"], None)
                else:
                    self.states[message.data["vehicleId"]] = without_age(message.data)
        self._last_id = end

    def _new(self, client: httpx.Client, what: str) -> list[Any]:
        new: list[Any] = []
        while True:
            answer = client.get(self._places[what])
            if answer.status_code == 503:
                continue
            assert answer.status_code == 200, answer.text
            new += answer.json()
            if "next" not in answer.links:
                return new
            self._places[what] = answer.links["next"]["url"].partition(client.base_url.host)[2]
            self._places[what] = self._places[what][self._places[what].index("/") :]


@pytest.mark.parametrize("engine", ["sqlite", "postgres"])
def test_kills_amid_withdrawals_leave_no_trace_of_them(
    engine: str, new_server: Callable[..., Server], request: pytest.FixtureRequest
) -> None:
    database = None
    if engine == "postgres":
        database = request.getfixturevalue("new_postgres_database")()
    server = new_server("--log-level", "warning", database=database)
    key, plain_key, random, followers = server.key(), server.key(), Random(11), Followers()
    kept: dict[str, Body] = {}
    wanted: set[str] = set()

    def withdraw(client: httpx.Client) -> None:
        """Withdraws these events, one by one or in bulk, until the server is killed."""
        ids = sorted(wanted)
        with suppress(httpx.HTTPError):
            for id in ids[:5]:
                client.delete(f"/events/{id}")
            client.post("/events/withdraw", json=ids)

    with server.client(key) as client:
        prepare(client, VEHICLES)
    for _ in range(KILLS):
        with server.client(key) as client:
            bodies = [body for vehicle in VEHICLES for body in stream(random, vehicle)]
            new = [body for body in bodies if body not in kept.values()]
            random.shuffle(new)
            answer = client.post("/events/bulk", content="\n".join(map(json.dumps, new)))
            for body, item in zip(new, answer.json(), strict=True):
                if item["status"] == 201:
                    kept[item["id"]] = body
            followers.catch_up(client)
            wanted |= set(random.sample(sorted(kept), len(kept) // 3))
            working = threading.Thread(target=withdraw, args=(client,))
            working.start()
            working.join(random.uniform(0, 0.06))
            server.kill()
            working.join()
        server.start()
        with server.client(key) as client:
            followers.catch_up(client)
            found = client.post("/events/withdraw", json=sorted(wanted)).json()
            assert {item["status"] for item in found} <= {204}
            kept = {id: body for id, body in kept.items() if id not in wanted}
    with server.client(plain_key) as plain:
        prepare(plain, VEHICLES)
        plain.post("/events/bulk", content="\n".join(map(json.dumps, kept.values())))
        expected = sessions(plain), states(plain)
    with server.client(key) as client:
        assert (sessions(client), states(client)) == expected
        followers.catch_up(client)
        there = {event["id"]: event for event in read_all(client, "/events")}
        assert followers.events.keys() == followers.streamed.keys() == there.keys() == kept.keys()
        assert followers.sessions == {one["id"]: one for one in client.get(
            "/sessions?limit=1000").json()}  # fmt: skip
        for vehicle, state in followers.states.items():
            assert without_age(client.get(f"/vehicles/{vehicle}/state").json()) == state
        gone = [entry["id"] for entry in read_all(client, "/events/withdrawn")]
        assert sorted(gone) == sorted(wanted)
    run(derived(server.database))  # a rebuild finds no difference
    assert server.failures() == []
