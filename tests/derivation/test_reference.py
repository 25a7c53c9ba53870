"""The server derives from dirty streams the same as a slow implementation of the rules."""

from collections import Counter, defaultdict
from decimal import Decimal
from random import Random
from typing import Any

import httpx

from tests.derivation import reference
from tests.derivation.helpers import prepare, read_all, send
from tests.derivation.streams import LIMITS, VEHICLE, Body, ms_of, stream
from tether.domain.session_views import FLAGS

STREAMS = 1_000
CAPACITY = Decimal(str(VEHICLE["chargeCapacity"]))


def events_of(bodies: list[Body]) -> list[dict[str, Any]]:
    """The events in the form of the reference: exact numbers, and the instant as a number."""
    return [
        {
            **{n: Decimal(str(v)) if isinstance(v, int | float) else v for n, v in body.items()},
            "ms": ms_of(body["timestamp"]),
            "kind": body["type"].removeprefix("VEHICLE_"),
        }
        for body in bodies
    ]


def shown_session(session: dict[str, Any]) -> dict[str, Any]:
    """The members of a session that the reference has, too."""
    periods = [
        (
            ms_of(period["startedAt"]),
            ms_of(period["stoppedAt"]) if "stoppedAt" in period else None,
            period.get("chargedEnergy"),
            period["chargedTime"],
            period.get("energySource"),
        )
        for period in session["periods"]
    ]
    unplugged, heard = session.get("disconnectedAt"), session.get("lastEventAt")
    return {
        "chargerId": session["chargerId"],
        "connectedAt": ms_of(session["connectedAt"]),
        "disconnectedAt": None if unplugged is None else ms_of(unplugged),
        "lastEventAt": None if heard is None else ms_of(heard),
        "periods": periods,
        "chargedEnergy": session.get("chargedEnergy"),
        "chargedTime": session["chargedTime"],
        "stateOfCharge": (session.get("stateOfChargeStart"), session.get("stateOfChargeEnd")),
        "flags": sorted(flag["name"] for flag in session["flags"]),
    }


def limit(flag: str, charge_kw: int, discharge_kw: int) -> reference.Limits:
    """The event in the form of the reference."""
    return flag, Decimal(charge_kw), Decimal(discharge_kw)


def order(session: dict[str, Any]) -> Any:
    """The key of a session of a vehicle, unique also for one instant."""
    end = session["disconnectedAt"]
    return session["connectedAt"], end is None, end or 0, session["chargerId"], session["flags"]


def shown_state(state: dict[str, Any]) -> dict[str, Any]:
    """The members of a vehicle's state that the reference has, too."""
    names = ("pluggedIn", "charging", "chargerId", "stateOfCharge", "chargePower")
    shown = {name: state[name] for name in names if name in state}
    for name in ("pluggedInSince", "chargingSince", "stateOfChargeAt", "chargePowerAt"):
        if name in state:
            shown[name] = ms_of(state[name])
    if last := state.get("lastEvent"):
        shown["lastEvent"] = (last["type"].removeprefix("VEHICLE_"), ms_of(last["timestamp"]))
    return shown


def test_a_thousand_dirty_streams_mean_what_the_reference_says(client: httpx.Client) -> None:
    random = Random(5)
    streams = {f"V{number}": stream(random, f"V{number}") for number in range(STREAMS)}
    prepare(client, list(streams))
    send(client, [body for bodies in streams.values() for body in bodies], random, 3000)

    sessions = defaultdict(list)
    for session in read_all(client, "/sessions"):
        sessions[session["vehicleId"]].append(shown_session(session))
    found = {
        vehicle["id"]: shown_state(vehicle["state"])
        for vehicle in read_all(client, "/vehicles", include="state")
    }
    limits = {charger: limit(*values) for charger, values in LIMITS.items()}
    of_vehicle = limit("power-above-vehicle", 22, 11)
    seen: Counter[str] = Counter()
    for vehicle, bodies in streams.items():
        sessions_there = reference.sessions_of(events_of(bodies))
        expected = [
            reference.session_of(one, CAPACITY, [limits[one["charger"]], of_vehicle])
            for one in sessions_there
        ]
        assert sorted(sessions[vehicle], key=order) == sorted(expected, key=order), bodies
        assert found[vehicle] == reference.state_of(sessions_there), bodies
        seen.update(flag for session in expected for flag in session["flags"])
    assert set(seen) == set(FLAGS) - {"periods-merged"}, "each flag has been met"
