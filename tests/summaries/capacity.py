"""A slow implementation of docs/capacity.md: for each moment it asks every vehicle where it is.

The sessions and charge periods come from the slow implementation of docs/sessions.md, with all
events. Instants are in ms since 1970, powers in kW, energies in kWh.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from tests.derivation.reference import sessions_of

Body = Mapping[str, Any]
EVER = 2**62


def common(one: Body, other: Body, use: str) -> Decimal | None:
    """The highest common power; 0 if one has no power at all, None if they have none in common."""
    lists = [side.get(f"{use}Powers", []) for side in (one, other)]
    ranges = [
        (side[f"{use}PowerMin"], side[f"{use}PowerMax"])
        for side in (one, other)
        if f"{use}PowerMin" in side
    ]
    if len([powers for powers in lists if powers]) + len(ranges) < len(lists):
        return Decimal(0)
    if not any(lists):
        (low, high), (other_low, other_high) = ranges
        least: Decimal = min(high, other_high)
        return least if least >= max(low, other_low) else None
    if all(lists):
        both = [power for power in lists[0] if power in lists[1]]
    else:
        ((low, high),) = ranges
        both = [power for power in lists[0] or lists[1] if low <= power <= high]
    return max(both, default=None)


def highest(side: Body, use: str) -> Decimal:
    """The highest power that it supports; 0 if it has none."""
    powers: list[Decimal] = side.get(f"{use}Powers", [])
    most: Decimal = side.get(f"{use}PowerMax", Decimal(0))
    return max([*powers, most])


def newest(readings: Iterable[tuple[int, Decimal]], at_ms: int) -> Decimal | None:
    """The last reading up to that moment."""
    known = [value for ms, value in readings if ms <= at_ms]
    return known[-1] if known else None


class Fleet:
    """Chargers and vehicles, and what the events say of them: `ms` is the instant of an event,
    `kind` its type without VEHICLE_.
    """

    def __init__(
        self, chargers: Iterable[Body], vehicles: Iterable[Body], events: Sequence[Any]
    ) -> None:
        self.first_ms: int = min(event["ms"] for event in events)
        self._chargers = {charger["id"]: charger for charger in chargers}
        self._stays: dict[str, list[tuple[Body, Any]]] = defaultdict(list)
        told = defaultdict(list)
        for event in events:
            told[event["vehicleId"]].append(event)
        for vehicle in vehicles:
            for stay in sessions_of(told[vehicle["id"]]):
                self._stays[stay["charger"]].append((vehicle, stay))

    def at(self, at_ms: int) -> dict[str, dict[str, Decimal]]:
        """The figures of each charger with a vehicle plugged in then; those that are 0 left out."""
        found = {}
        for charger_id, stays in self._stays.items():
            there = [
                (vehicle, stay)
                for vehicle, stay in stays
                if stay["start"] <= at_ms < (EVER if stay["end"] is None else stay["end"])
            ]
            if there:
                figures = figures_of(self._chargers[charger_id], there, at_ms)
                found[charger_id] = {name: value for name, value in figures.items() if value}
        return found


def figures_of(charger: Body, there: list[tuple[Body, Any]], at_ms: int) -> dict[str, Any]:
    """The figures of one charger with these vehicles; unknown values are counted as `unknown.…`."""
    found: dict[str, Any] = defaultdict(Decimal, chargersOccupied=Decimal(1))
    may = {"charge": Decimal(0), "discharge": Decimal(0)}  # run, though no event says so
    for vehicle, stay in there:
        found["vehiclesPluggedIn"] += 1
        soc = newest(stay["socs"], at_ms)
        if soc is None:
            found["unknown.stateOfCharge"] += 1
        else:
            found["energyStored"] += vehicle["chargeCapacity"] * soc / 100
            found["energyRoom"] += vehicle["chargeCapacity"] * (100 - soc) / 100
        charges = [
            one for one in stay["periods"]
            if one["start"] <= at_ms < (EVER if one["stop"] is None else one["stop"])
        ]  # fmt: skip
        found["vehiclesCharging"] += bool(charges)
        power = newest(charges[-1]["powers"], at_ms) if charges else Decimal(0)
        if power is None:
            found["unknown.chargePower"] += 1
        for use, sign, lacks in (("charge", 1, 100), ("discharge", -1, 0)):
            most = common(charger, vehicle, use)
            if most is None:
                found[f"unknown.common{use.capitalize()}Power"] += 1
            if power is None:
                may[use] += highest(charger, use) if most is None else most
                continue
            flow = max(sign * power, Decimal(0))
            found[f"{use}Power"] += flow
            if soc is not None and soc != lacks and most is not None:
                found[f"{use}PowerAvailable"] += max(most - flow, Decimal(0))
    above = False
    for use in ("charge", "discharge"):
        left = highest(charger, use) - found[f"{use}Power"]
        above = above or left < 0
        most = max(left - may[use], Decimal(0))
        found[f"{use}PowerAvailable"] = min(found[f"{use}PowerAvailable"], most)
    found["unknown.powerAboveCharger"] = Decimal(above)
    return found


def shown(capacity: Body) -> dict[str, Decimal]:
    """The figures of an answer of the API, those that are 0 left out."""
    figures = {**capacity, **{f"unknown.{name}": n for name, n in capacity["unknown"].items()}}
    return {
        name: value for name, value in figures.items()
        if name not in ("asOf", "chargerId", "unknown") and value
    }  # fmt: skip
