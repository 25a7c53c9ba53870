"""How the tests of derived data send events and read the result."""

import json
import time
from collections.abc import Mapping, Sequence
from decimal import Decimal
from random import Random
from typing import Any

import httpx

from tests.derivation.streams import CHARGERS, VEHICLE, Body

VOLATILE = ("version", "updatedAt")


def prepare(client: httpx.Client, vehicles: Sequence[str]) -> None:
    """The chargers, and these vehicles."""
    for charger, body in CHARGERS.items():
        assert client.put(f"/chargers/{charger}", json=body).status_code in (200, 201)
    put_vehicles(client, vehicles, VEHICLE)


def put_vehicles(client: httpx.Client, names: Sequence[str], vehicle: Mapping[str, Any]) -> None:
    """Creates vehicles that differ only in their ids."""
    for start in range(0, len(names), 5_000):
        bodies = [{"id": name, **vehicle} for name in names[start : start + 5_000]]
        answer = client.post("/vehicles/bulk", json=bodies)
        assert answer.status_code == 200, answer.text
        assert {item["status"] for item in answer.json()} <= {200, 201}, answer.text


def send(client: httpx.Client, bodies: list[Body], random: Random, largest: int = 400) -> None:
    """Posts all these events in random order, some twice, one by one and in bulk."""
    waiting = bodies + random.sample(bodies, len(bodies) // 10)
    random.shuffle(waiting)
    while waiting:
        size = random.choice((1, 2, largest // 8, largest, largest))
        portion, waiting = waiting[:size], waiting[size:]
        if size == 1:
            answer = client.post("/events", json=portion[0])
            assert answer.status_code == 201, answer.text
            continue
        answer = client.post("/events/bulk", content="\n".join(map(json.dumps, portion)))
        assert answer.status_code == 200, answer.text
        assert {item["status"] for item in answer.json()} == {201}, answer.text


def read(answer: httpx.Response) -> Any:
    """The body, with exact numbers."""
    assert answer.status_code == 200, answer.text
    return json.loads(answer.text, parse_float=Decimal, parse_int=Decimal)


def read_all(client: httpx.Client, path: str, **query: Any) -> list[Any]:
    """All pages of a list."""
    found: list[Any] = []
    answer = client.get(path, params={"limit": 1000, **query})
    while answer.status_code == 503:
        time.sleep(0.05)
        answer = client.get(path, params={"limit": 1000, **query})
    while page := read(answer):
        found += page
        if "next" not in answer.links:
            break
        answer = client.get(answer.links["next"]["url"])
    return found


def sessions(client: httpx.Client, **query: Any) -> dict[str, Any]:
    """All sessions by id, without what depends on the order of arrival."""
    return {
        session["id"]: {name: value for name, value in session.items() if name not in VOLATILE}
        for session in read_all(client, "/sessions", **query)
    }


def states(client: httpx.Client) -> dict[str, Any]:
    """The states of all vehicles and chargers, without ids of events, and ages."""
    found: dict[str, Any] = {}
    for path in ("/vehicles", "/chargers"):
        for entity in read_all(client, path, include="state"):
            found[entity["id"]] = _lasting(entity["state"])
    return found


def _lasting(value: Any) -> Any:
    if isinstance(value, list):
        return [_lasting(one) for one in value]
    if not isinstance(value, dict):
        return value
    return {
        name: _lasting({k: v for k, v in one.items() if k != "id"} if name == "lastEvent" else one)
        for name, one in value.items()
        if name != "asOf" and not name.endswith("Age")
    }
