"""Streams of real equipment, in any order of arrival, over HTTP."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from decimal import Decimal
from itertools import permutations
from random import Random
from typing import Any, NamedTuple

import httpx
import pytest

from tests.commands import tether_ok
from tests.conftest import FAST, Server
from tests.derivation.evidence import CASES, Body, Meaning, events_of, meaning_of
from tests.derivation.helpers import put_vehicles, read, read_all

CHARGER = {"chargePowers": [11]}
FEW_EVENTS, ORDERS, ROUNDS = 5, 20, 10
# What is derived is the same code on each engine: PostgreSQL, which takes longer, stores and reads
# what comes of a quarter of the orders.
EVERY = {"sqlite": 1, "postgres": 4}


class Sent(NamedTuple):
    """The partner that sent all cases, and the sessions and states derived from them."""

    name: str
    client: httpx.Client
    sessions: dict[str, list[dict[str, Any]]]
    states: dict[str, dict[str, Any]]
    every: int


def orders(stream: str, random: Random) -> list[list[Body]]:
    """The stream in many orders of arrival, or in all if it is short. Some events come twice."""
    events = events_of(stream)
    if len(events) <= FEW_EVENTS:
        return [list(order) for order in permutations(events)]
    found = [events, events[::-1]]
    while len(found) < ORDERS:
        again = random.sample(events, len(events) // 3)
        found.append(random.sample([*events, *again], len(events) + len(again)))
    return found


@pytest.fixture(scope="module")
def sent(server: Server) -> Iterator[Sent]:
    """Each case in each order: one bulk has an event or two of each vehicle, what is derived is
    read, and the next bulk has the next ones. A vehicle's first order goes in single requests.
    """
    random, name = Random(13), "evidence"
    waiting: dict[str, list[Body]] = {}
    every = EVERY["postgres" if server.database.startswith("postgres") else "sqlite"]
    for number, (stream, _) in enumerate(CASES.values()):
        for order, events in enumerate(orders(stream, random)[::every]):
            vehicle = f"{number}.{order}"
            waiting[vehicle] = [{**event, "vehicleId": vehicle} for event in events]
    key = server.key(name, rate=FAST)
    with server.client(key, timeout=60) as client:
        put_vehicles(client, list(waiting), {"chargePowers": [11], "chargeCapacity": 60})
        for charger in ("C1", "C2", "C3"):
            assert client.put(f"/chargers/{charger}", json=CHARGER).status_code == 201
        for vehicle, events in waiting.items():
            if vehicle.endswith(".0"):
                for event in events:
                    assert client.post("/events", json=event).status_code == 201
                events.clear()
        whole = [events for vehicle, events in waiting.items() if vehicle.endswith(".1")]
        bulk(client, [event for events in whole for event in events])
        for events in whole:
            events.clear()
        sizes = {vehicle: len(events) // ROUNDS + 1 for vehicle, events in waiting.items()}
        for turn in range(ROUNDS):
            bulk(client, [
                event
                for vehicle, events in waiting.items()
                for event in events[turn * sizes[vehicle] : (turn + 1) * sizes[vehicle]]
            ])  # fmt: skip
            read_all(client, "/sessions", limit=1, vehicleId="0.0")
        sessions = defaultdict(list)
        for session in read_all(client, "/sessions"):
            sessions[session["vehicleId"]].append(session)
        listed = read_all(client, "/vehicles", include="state")
        yield Sent(name, client, sessions, {one["id"]: one["state"] for one in listed}, every)


def bulk(client: httpx.Client, bodies: list[Body]) -> None:
    """Reports all of them."""
    for place in range(0, len(bodies), 5_000):
        portion = bodies[place : place + 5_000]
        answer = client.post("/events/bulk", content="\n".join(map(json.dumps, portion)))
        assert answer.status_code == 200, answer.text
        assert {item["status"] for item in answer.json()} == {201}, answer.text


def found_of(sessions: list[dict[str, Any]], state: dict[str, Any]) -> Meaning:
    """The derived sessions of a vehicle, in the form of the cases."""
    found = []
    for session in sessions:
        end = "ended"
        if session["status"] == "active":
            end = "charging" if state["charging"] else "here"
        found.append((session["chargerId"], session.get("chargedEnergy"), end))
    flags = [flag["name"] for session in sessions for flag in session["flags"]]
    return Meaning(tuple(sorted(found, key=str)), frozenset(flags), clean=not flags)


def same(one: Meaning, other: Meaning) -> bool:
    """Whether both have the same sessions: 5 kWh are 5.0."""
    return Counter(one.sessions) == Counter(other.sessions)


@pytest.mark.parametrize("case", CASES)
def test_a_stream_means_what_happened_in_any_order_of_arrival(sent: Sent, case: str) -> None:
    stream, told = CASES[case]
    expected, number = meaning_of(told), list(CASES).index(case)
    vehicles = [vehicle for vehicle in sent.states if vehicle.split(".")[0] == str(number)]
    assert len(vehicles) >= ORDERS // sent.every or len(events_of(stream)) < FEW_EVENTS
    flags = set()
    for vehicle in vehicles:
        found = found_of(sent.sessions[vehicle], sent.states[vehicle])
        assert same(found, expected), (vehicle, found)
        assert found.flags >= expected.flags, vehicle
        assert found.clean or not expected.clean, (vehicle, found.flags)
        here = [session for session in found.sessions if session[2] != "ended"]
        state = sent.states[vehicle]
        assert (state["pluggedIn"], len(here)) == (bool(here), state["pluggedIn"])
        assert state.get("chargerId") == (here[0][0] if here else None)
        assert state["charging"] == any(one[2] == "charging" for one in here)
        flags.add(found.flags)
    assert len(flags) == 1, "flags do not depend on the order of arrival either"


def test_capacity_knows_who_is_there_and_who_charges(sent: Sent) -> None:
    capacity = read(sent.client.get("/capacity"))
    here = [state for state in sent.states.values() if state["pluggedIn"]]
    assert capacity["vehiclesPluggedIn"] == len(here)
    assert capacity["vehiclesCharging"] == sum(state["charging"] for state in here)
    power = sum((state.get("chargePower", Decimal(0)) for state in here), Decimal(0))
    assert capacity["chargePower"] == power


def test_what_was_derived_in_any_order_is_what_is_derived_at_once(
    sent: Sent, server: Server
) -> None:
    said = tether_ok("rebuild", sent.name, "--check", "--database", server.database)
    assert "none differs" in said
