"""Random dirty streams of events, like those of real chargers, vehicles and clocks."""

from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

CHARGERS = {"A": {"chargePowers": [11, 22]},
            "B": {"chargePowerMin": 1.4, "chargePowerMax": 50, "dischargePowers": [10]},
            "C": {"chargePowers": [3]}}  # fmt: skip
VEHICLE = {"chargeCapacity": 40.5, "chargePowers": [22], "dischargePowers": [11]}
# Flag, and the highest power in kW each way.
LIMITS = {"A": ("power-above-charger", 22, 0), "B": ("power-above-charger", 50, 10),
          "C": ("power-above-charger", 3, 0)}  # fmt: skip

BEGIN = datetime(2026, 1, 5, tzinfo=UTC)
Body = dict[str, Any]


def stream(random: Random, vehicle: str) -> list[Body]:
    """The events of a vehicle; no two have one identity."""
    bodies: list[Body] = []
    at_ms, soc = 0, random.uniform(5, 60)
    for _ in range(random.choice((1, 1, 2, 3, 5))):
        charger = random.choice("AAABC")
        at_ms, soc = _session(random, bodies, charger, at_ms, soc)
        at_ms += random.choice((0, 1, 60_000, 599_999, 3_600_000, 90_000_000))
        soc = max(1, soc - random.uniform(-5, 40))
    if random.random() < 0.3:  # stamps have minutes
        for body in bodies:
            body["ms"] = body["ms"] // 60_000 * 60_000
    for body in list(bodies):
        _report_late(random, bodies, body)
    for body in bodies:
        body["vehicleId"] = vehicle
        _spoil(random, body)
    bodies = [body for body in bodies if random.random() > 0.12]
    known = {}
    for body in bodies:
        body["timestamp"] = _instant(body.pop("ms"))
        known[body["type"], body["chargerId"], body["timestamp"]] = body
    return list(known.values())


def _session(
    random: Random, bodies: list[Body], charger: str, at_ms: int, soc: float
) -> tuple[int, float]:
    def add(kind: str, **members: Any) -> None:
        if random.random() < 0.5 or kind == "CHARGE_UPDATED":
            members["stateOfCharge"] = round(min(max(soc, 0), 100), 1)
        bodies.append({"type": f"VEHICLE_{kind}", "chargerId": charger, "ms": at_ms, **members})
        if random.random() < 0.1:  # once more, a little later or at the same time elsewhere
            again = {**bodies[-1], "ms": at_ms + random.choice((0, 1, 30_000, 700_000))}
            bodies.append({**again, "chargerId": random.choice("ABC")})

    def wait() -> int:
        return random.choice((0, 0, 1, 999, 60_000, 600_000, 1_800_000))

    add("CONNECTED")
    for _ in range(random.choice((0, 1, 1, 1, 2, 3))):
        at_ms += wait()
        started_ms, energy = at_ms, 0.0
        add("CHARGE_STARTED", **_sometimes(random, chargePower=random.choice((11, 22, -5))))
        for _ in range(random.choice((0, 0, 1, 2, 4))):
            at_ms += wait()
            energy *= random.choice((1, 1, 1, 1, 0))
            soc += random.uniform(-1, 8)
            energy += random.uniform(0, 9)
            add("CHARGE_UPDATED",
                **_sometimes(random, chargePower=random.choice((0, 3.6, 11, 22, 60, -9.5, -12))),
                **_sometimes(random, chargedEnergy=round(energy, 3)))  # fmt: skip
        at_ms += wait()
        seconds = (at_ms - started_ms) / 1000 + random.choice((0, 0, 0, -1, 119, 121, 1800))
        add("CHARGE_STOPPED",
            **_sometimes(random, chargedEnergy=round(energy * random.choice((1, 1, 9)), 3)),
            **_sometimes(random, chargedTime=max(0, round(seconds, 1))))  # fmt: skip
    at_ms += wait()
    add("DISCONNECTED")
    return at_ms, soc


def _report_late(random: Random, bodies: list[Body], body: Body) -> None:
    """Repeats or delays an event, or repeats a plug-in."""
    kind, chance = body["type"].removeprefix("VEHICLE_"), random.random()
    later = body["ms"] + random.choice((1, 5_000, 119_000, 600_000, 7_200_000, 90_000_000))
    if kind == "CHARGE_STOPPED" and chance < 0.25:
        again = {**body, "ms": later, "type": random.choice(
            ("VEHICLE_CHARGE_STOPPED", "VEHICLE_CHARGE_UPDATED"))}  # fmt: skip
        again.setdefault("stateOfCharge", 50)
        bodies.append(again)
    if kind == "CHARGE_STOPPED" and 0.15 < chance < 0.35:
        body["ms"] = later
    elif kind == "CONNECTED" and chance < 0.25:
        bodies.append({**body, "ms": later})
    elif kind == "CHARGE_STARTED" and chance < 0.2:
        body["ms"] -= random.choice((0, 1, 5_000, 119_000))


def _sometimes(random: Random, **members: Any) -> dict[str, Any]:
    return members if random.random() < 0.6 else {}


def _spoil(random: Random, body: Body) -> None:
    if random.random() < 0.04:  # a clock that jumps
        body["ms"] += random.choice((-3_600_000, -86_400_000, 3_600_000, 5))
    if random.random() < 0.03:
        body["chargerId"] = random.choice("ABC")
    if random.random() < 0.03 and body["type"].endswith(("_CONNECTED", "_DISCONNECTED")):
        other = {"VEHICLE_CONNECTED": "VEHICLE_DISCONNECTED"}
        body["type"] = other.get(body["type"], "VEHICLE_CONNECTED")


def _instant(ms: int) -> str:
    moment = BEGIN + timedelta(milliseconds=ms)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def ms_of(instant: str) -> int:
    """The milliseconds since 1970 of an instant as the API writes it."""
    return round((datetime.fromisoformat(instant) - datetime(1970, 1, 1, tzinfo=UTC))
                 / timedelta(milliseconds=1))  # fmt: skip
