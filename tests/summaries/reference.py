"""A slow implementation of docs/summaries.md, which reads only the lists of the API.

Instants are in ms since 1970, all other numbers are Fractions or Decimals. For each part of time it
asks every session for its share.
"""

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from math import floor
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

QUARTER = 15 * 60 * 1000
LONG_GAP = 15 * 60 * 1000
RANK = ("CONNECTED", "CHARGE_STARTED", "CHARGE_UPDATED", "CHARGE_STOPPED", "DISCONNECTED")
Bucket = tuple[int, int]
EVER = (0, 2**62)


def ms_of(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000)


def shown(at_ms: int) -> str:
    at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=at_ms)
    return at.strftime("%Y-%m-%dT%H:%M:%S.") + f"{at_ms % 1000:03}Z"


def label(unit: str, zone: ZoneInfo, at_ms: int) -> object:
    """The local date and time, cut to the unit."""
    at = datetime.fromtimestamp(at_ms / 1000, zone)
    match unit:
        case "hour":
            return at.date(), at.hour, at.utcoffset()
        case "day":
            return at.date()
        case "week":
            return at.date().isocalendar()[:2]
    return at.year, at.month


def calendar(unit: str, zone: ZoneInfo, from_ms: int, to_ms: int) -> list[Bucket]:
    """The parts of time that contain these instants: it tries each quarter of an hour."""
    at_ms = from_ms // QUARTER * QUARTER
    while label(unit, zone, at_ms - 1) == label(unit, zone, from_ms):
        at_ms -= QUARTER
    bounds = [at_ms]
    while bounds[-1] <= to_ms:
        at_ms += QUARTER
        if label(unit, zone, at_ms) != label(unit, zone, bounds[-1]):
            bounds.append(at_ms)
    return list(pairwise(bounds))


class Charge(NamedTuple):
    start: int
    end: int
    energy: Decimal | None
    time: Decimal
    reported: bool
    readings: Sequence[tuple[int, Decimal]]

    def part(self, at_ms: int) -> Fraction:
        """The part of its time that is over."""
        return Fraction(at_ms - self.start, self.end - self.start)

    def drawn(self) -> bool:
        """Whether readings show how its energy is spread."""
        if not self.energy or not self.readings:
            return False
        powers = [power for _, power in self.readings]
        area = self.area(self.end)
        return not (min(powers) < 0 < max(powers)) and area * Fraction(self.energy) > 0

    def area(self, at_ms: int) -> Fraction:
        """The area below the line of the readings, up to an instant."""
        (first, power), (last, least) = self.readings[0], self.readings[-1]
        lines = [(self.start, power, first, power)]
        for (a, one), (b, other) in pairwise(self.readings):
            lines.append((a, one, b, one if b - a > LONG_GAP else other))
        lines.append((last, least, self.end, least))
        total = Fraction(0)
        for a, one, b, other in lines:
            until = min(b, at_ms)
            if until > a:
                there = Fraction(one) + Fraction(other - one) * Fraction(until - a, b - a)
                total += (Fraction(one) + there) / 2 * (until - a)
        return total


def divided(
    charge: Charge, total: Decimal, step: str, bucket: Bucket, part: Callable[[int], Fraction]
) -> Decimal:
    """The share in that time: the amount at its end minus the amount at its beginning."""

    def by(at_ms: int) -> Decimal:
        if at_ms > charge.start == charge.end or at_ms >= charge.end > charge.start:
            return total
        if at_ms <= charge.start:
            return Decimal(0)
        whole = floor(abs(Fraction(total)) / Fraction(step) * part(at_ms))
        return Decimal(whole if total > 0 else -whole) * Decimal(step)

    return by(bucket[1]) - by(bucket[0])


def is_in(charge: Charge, bucket: Bucket) -> bool:
    if charge.start == charge.end:
        return bucket[0] <= charge.start < bucket[1]
    return charge.start < bucket[1] and bucket[0] < charge.end


def charges_of(session: Any, end: int, events: Iterable[Any]) -> list[Charge]:
    """The charge periods; `events` are those of the vehicle, in the order in which they came in."""
    found = []
    for period in session["periods"]:
        start = ms_of(period["startedAt"])
        stop = ms_of(period["stoppedAt"]) if "stoppedAt" in period else end
        told = sorted(
            (
                (
                    ms_of(event["timestamp"]),
                    RANK.index(event["type"].removeprefix("VEHICLE_")),
                    event,
                )
                for event in events
                if event["chargerId"] == session["chargerId"]
                and "chargePower" in event
                and "maximumPower" in session
            ),
            key=lambda one: one[:2],
        )
        found.append(Charge(
            start,
            stop,
            period.get("chargedEnergy"),
            period["chargedTime"],
            period.get("energySource") == "reported",
            [(at, event["chargePower"]) for at, rank, event in told
             if (start <= at <= stop and rank == 2) or (start <= at < stop and rank == 1)],
        ))  # fmt: skip
    return found


class Stay(NamedTuple):
    session: Any
    start: int
    end: int
    charges: list[Charge]


def stays_of(
    sessions: Iterable[Any], events: Iterable[Any], last: Callable[[str], int]
) -> list[Stay]:
    """`last` tells the newest event of a vehicle."""
    of_vehicle: dict[str, list[Any]] = {}
    for event in events:
        of_vehicle.setdefault(event["vehicleId"], []).append(event)
    found = []
    for session in sessions:
        vehicle = session["vehicleId"]
        unplugged = session.get("disconnectedAt")
        end = last(vehicle) if unplugged is None else ms_of(unplugged)
        charges = charges_of(session, end, of_vehicle[vehicle])
        found.append(Stay(session, ms_of(session["connectedAt"]), end, charges))
    return found


def groups_of(session: Any, by: str | None, areas: dict[str, str]) -> list[str]:
    match by:
        case "charger":
            return [session["chargerId"]]
        case "vehicle":
            return [session["vehicleId"]]
        case "flag":
            return [flag["name"] for flag in session["flags"]] or [""]
        case "area":
            return [areas.get(session["chargerId"], "")]
    return [""]


class Site(NamedTuple):
    """The number of chargers, and the areas of those with a position."""

    chargers: int
    areas: dict[str, str]


NAMES = {"charger": "chargerId", "vehicle": "vehicleId", "flag": "flag", "area": "area"}


def lies_in(stay: Stay, bucket: Bucket) -> bool:
    """Whether it has something to add up."""
    began = bucket[0] <= stay.start < bucket[1]
    return (
        began
        or (stay.start < bucket[1] and bucket[0] < stay.end)
        or any(is_in(charge, bucket) for charge in stay.charges)
    )


def summaries(
    stays: Sequence[Stay],
    buckets: Iterable[Bucket],
    by: str | None,
    site: Site,
) -> list[dict[str, Any]]:
    """The rows without powers."""
    rows = []
    for bucket in buckets:
        here = [stay for stay in stays if lies_in(stay, bucket)]
        for group in sorted(
            {key for stay in here for key in groups_of(stay.session, by, site.areas)}
        ):
            of_group = [stay for stay in here if group in groups_of(stay.session, by, site.areas)]
            rows.append(_summary(of_group, bucket, by, group, site))
    return rows


def _summary(
    stays: Sequence[Stay],
    bucket: Bucket,
    by: str | None,
    group: str,
    site: Site,
) -> dict[str, Any]:
    began = [stay.session for stay in stays if bucket[0] <= stay.start < bucket[1]]
    charges = [one for stay in stays for one in stay.charges if is_in(one, bucket)]
    energies = [
        (one, divided(one, one.energy, "0.000001", bucket, one.part))
        for one in charges
        if one.energy is not None
    ]
    plugged = sum(max(0, min(stay.end, bucket[1]) - max(stay.start, bucket[0])) for stay in stays)
    row = {
        "sessions": len(began),
        "vehicles": len({session["vehicleId"] for session in began}),
        "chargers": len({session["chargerId"] for session in began}),
        "pluggedTime": Decimal(plugged) / 1000,
        "chargedTime": sum(divided(one, one.time, "0.001", bucket, one.part) for one in charges),
        "chargedEnergy": sum(energy for _, energy in energies),
        "estimatedEnergy": sum(energy for one, energy in energies if not one.reported),
        "periodsWithoutEnergy": sum(
            one.energy is None and bucket[0] <= one.start < bucket[1] for one in charges
        ),
    }
    if by is not None and group:
        row[NAMES[by]] = group
    if bucket != EVER:
        row["from"], row["to"] = shown(bucket[0]), shown(bucket[1])
        there = 1 if by == "charger" else site.chargers
        if by == "area":
            there = _standing(site, group)
        used = Fraction(plugged, there * (bucket[1] - bucket[0]))
        row["utilisation"] = Decimal(round(used * 10**6)) / 10**6
    return row


def _standing(site: Site, area: str) -> int:
    """The number of chargers in the area, or without a position."""
    return list(site.areas.values()).count(area) if area else site.chargers - len(site.areas)


def load_curve(
    stays: Sequence[Stay], buckets: Iterable[Bucket], by: str | None, areas: dict[str, str]
) -> list[dict[str, Any]]:
    """The steps; without groups all of them."""
    rows = []
    for bucket in buckets:
        here = [stay for stay in stays if lies_in(stay, bucket)]
        groups = {key for stay in here for key in groups_of(stay.session, by, areas)}
        for group in sorted(groups if by else {""}):
            charges = [
                one
                for stay in here
                if group in groups_of(stay.session, by, areas)
                for one in stay.charges
                if one.energy is not None and is_in(one, bucket)
            ]
            energies = [(one, _energy(one, bucket)) for one in charges]
            energy = sum((energy for _, energy in energies), Decimal(0))
            rows.append({
                "from": shown(bucket[0]),
                "to": shown(bucket[1]),
                **({NAMES[by]: group} if by and group else {}),
                "chargedEnergy": energy,
                "estimatedEnergy": sum(e for one, e in energies if not one.reported),
                "spreadEnergy": sum(e for one, e in energies if not one.drawn()),
                "averagePower": Decimal(round(
                    Fraction(energy) * 3_600_000 * 1000 / (bucket[1] - bucket[0])
                )) / 1000,
            })  # fmt: skip
    return rows


def _energy(charge: Charge, bucket: Bucket) -> Decimal:
    assert charge.energy is not None
    if not charge.drawn():
        return divided(charge, charge.energy, "0.000001", bucket, charge.part)
    whole = charge.area(charge.end)
    return divided(
        charge, charge.energy, "0.000001", bucket, lambda at_ms: charge.area(at_ms) / whole
    )
