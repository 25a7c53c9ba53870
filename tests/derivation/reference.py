"""What the events of a vehicle mean, written once more from the rules: slow, and obvious.

It shares nothing with the server but the docs: all events are at hand, sorted, and each is looked
at with everything that came before it.
"""

from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from typing import Any

LATE = 10 * 60_000
SLACK = 2 * 60_000
ORDER = ["CONNECTED", "CHARGE_STARTED", "CHARGE_UPDATED", "CHARGE_STOPPED", "DISCONNECTED"]

Stay = dict[str, Any]
Period = dict[str, Any]


def stays_of(events: list[dict[str, Any]]) -> list[Stay]:
    """The stays of one vehicle; `ms` is an event's instant, `kind` its type without VEHICLE_."""
    stays: list[Stay] = []
    for event in sorted(events, key=lambda e: (e["ms"], ORDER.index(e["kind"]), e["chargerId"])):
        begins, stray = place(stays, event)
        if begins:
            stray = None
            if stays and stays[-1]["end"] is None:
                unplug(stays[-1], event["ms"])
                stays[-1]["flags"].add("disconnect-missing")
            flags = set() if event["kind"] == "CONNECTED" else {"connect-missing"}
            stays.append({"charger": event["chargerId"], "start": event["ms"], "end": None,
                          "periods": [], "flags": flags, "socs": [], "events": []})  # fmt: skip
        stay = stays[-1]
        stay["events"].append(event)
        charging = None if stray else under_way(stay)
        if stray:
            stay["flags"].add(stray)
            if (stray, event["kind"]) == ("event-after-disconnect", "CHARGE_STOPPED"):
                for period in stay["periods"][-1:]:
                    tell(period, event)
        elif event["kind"] == "DISCONNECTED":
            unplug(stay, event["ms"])
        elif event["kind"] != "CONNECTED":
            charge(stay, event)
        if "stateOfCharge" in event:
            note_soc(stay, event, charging)
    return stays


def place(stays: list[Stay], event: dict[str, Any]) -> tuple[bool, str | None]:
    """Whether the event begins a stay; else the flag, if it changes nothing about the last one."""
    if not stays:
        return True, None
    last, kind, ms = stays[-1], event["kind"], event["ms"]
    here = last["charger"] == event["chargerId"]
    if kind == "CONNECTED":
        return True, None
    before = stays if last["end"] is not None else stays[:-1]
    left = {stay["charger"]: stay["end"] for stay in before}.get(event["chargerId"])
    if last["end"] is None and here:
        again = kind == "DISCONNECTED" and ms == last["start"] == left
        return False, "same-instant" if again else None
    late = (last["end"] is None and kind == "DISCONNECTED") or (
        kind != "CHARGE_STARTED" and left is not None and ms - left <= LATE
    )
    return not late, "event-after-disconnect" if here else "event-elsewhere"


def under_way(stay: Stay) -> Period | None:
    periods = stay["periods"]
    return periods[-1] if periods and periods[-1]["stop"] is None else None


def unplug(stay: Stay, ms: int) -> None:
    if period := under_way(stay):
        period["stop"] = ms
        stay["flags"].add("stop-missing")
    stay["end"] = ms


def tell(period: Period, event: dict[str, Any]) -> None:
    for name in ("chargedEnergy", "chargedTime"):
        if period[name] is None:
            period[name] = event.get(name)


def begin_charge(stay: Stay, ms: int, flag: str | None = None) -> Period:
    if flag:
        stay["flags"].add(flag)
    stay["periods"].append({"start": ms, "stop": None, "cut": False, "chargedEnergy": None,
                            "chargedTime": None, "meter": None, "powers": [],
                            "soc0": stay["socs"][-1][1] if stay["socs"] else None,
                            "soc1": None, "final": False})  # fmt: skip
    period: Period = stay["periods"][-1]
    return period


def charge(stay: Stay, event: dict[str, Any]) -> None:  # noqa: PLR0912 - all of it at a glance
    kind, ms = event["kind"], event["ms"]
    period: Any = under_way(stay)
    energy, time, power = (event.get(n) for n in ("chargedEnergy", "chargedTime", "chargePower"))
    last: Any = stay["periods"][-1] if stay["periods"] else None
    free = last["stop"] if last else stay["start"]
    if kind == "CHARGE_STARTED":
        if period:
            period.update(stop=ms, cut=True)
            stay["flags"].add("start-repeated")
        period = begin_charge(stay, ms)
    elif kind == "CHARGE_UPDATED" and not period:
        if last and ms - last["stop"] <= LATE:
            last["meter"] = last["meter"] if energy is None else energy
            if power != 0:
                stay["flags"].add("update-after-stop")
            return
        if power == 0:
            return
        start = ms if time is None else max(free, ms - int(time * 1000))
        period = begin_charge(stay, start, "start-missing")
    elif kind == "CHARGE_STOPPED" and not period:
        start = free if time is None else max(free, ms - int(time * 1000))
        same = last and energy is not None
        same = same and (last["chargedEnergy"], last["chargedTime"]) == (energy, time)
        if last and (start == last["stop"] or same):
            stay["flags"].add("stop-repeated")
            tell(last, event)
            return
        period = begin_charge(stay, start, "start-missing")
    elif kind == "CHARGE_STOPPED" and len(stay["periods"]) > 1:
        earlier = stay["periods"][-2]
        if period["start"] == ms and earlier["cut"]:
            stay["flags"].add("same-instant")
            earlier["cut"] = False
            tell(earlier, event)
            return
    if kind != "CHARGE_STARTED":
        period = joined(stay, event)
    if power is not None:
        period["powers"].append((ms, power))
    if kind == "CHARGE_UPDATED" and energy is not None:
        period["meter"] = energy
    if kind == "CHARGE_STOPPED":
        if (time or 0) * 1000 > ms - period["start"] + SLACK:
            stay["flags"].add("charged-time-too-long")
        period["stop"] = ms
        tell(period, event)


def joined(stay: Stay, event: dict[str, Any]) -> Period:
    """What repeated starts have cut is put together again if the event shows that it is one."""
    periods = stay["periods"]
    while len(periods) > 1 and periods[-2]["cut"]:
        one, two = periods[-2:]
        if "chargedTime" in event:
            begun = event["ms"] - event["chargedTime"] * 1000
            same = abs(begun - one["start"]) < abs(begun - two["start"])
        else:
            meters = (one["meter"], event.get("chargedEnergy"))
            same = None not in meters and two["meter"] is None and meters[1] >= meters[0]
        if not same:
            break
        if one["soc0"] is None:
            socs = {"soc0": two["soc0"], "soc1": two["soc1"]}
        else:
            newest = [s for s in (one["soc1"], two["soc0"], two["soc1"]) if s is not None]
            socs = {"soc1": newest[-1] if newest else None}
        one.update(socs, stop=two["stop"], cut=False, final=two["final"],
                   powers=one["powers"] + two["powers"],
                   meter=one["meter"] if two["meter"] is None else two["meter"])  # fmt: skip
        periods.pop()
    last: Period = periods[-1]
    return last


def note_soc(stay: Stay, event: dict[str, Any], charging: Period | None) -> None:
    soc = event["stateOfCharge"]
    if charging and stay["socs"] and soc < stay["socs"][-1][1]:
        powers = [power for _, power in charging["powers"][-1:]] + [event.get("chargePower", 0)]
        if min(powers) >= 0:
            stay["flags"].add("state-of-charge-fell")
    stay["socs"].append((event["ms"], soc))
    for period in stay["periods"][-1:]:
        unread = period["soc0"] is None and period["stop"] is None
        if unread or event["kind"] == "CHARGE_STARTED":
            period["soc0"] = soc
        elif not period["final"]:
            period.update(soc1=soc, final=period["stop"] is not None)


# As the API shows it ------------------------------------------------------------------------------


def energy_of(period: Period, stop: int, capacity: Decimal) -> tuple[Decimal | None, str | None]:
    if period["chargedEnergy"] is not None:
        return period["chargedEnergy"], "reported"
    if period["meter"] is not None:
        return period["meter"], "meter"
    if powers := period["powers"]:
        line = [(period["start"], powers[0][1]), *powers, (stop, powers[-1][1])]
        area = sum(
            Fraction(one + two) / 2 * (later - earlier)
            for (earlier, one), (later, two) in pairwise(line)
        )
        return Decimal(round(area / 3_600_000 * 10**6)) / 10**6, "power"
    if None not in (period["soc0"], period["soc1"]):
        return (period["soc1"] - period["soc0"]) * capacity / 100, "stateOfCharge"
    return None, None


def session_of(stay: Stay, capacity: Decimal, limits: list[tuple[str, int, int]]) -> dict[str, Any]:
    """What there is to compare; `limits` has each flag of a power and the kW each way."""
    until = stay["events"][-1]["ms"] if stay["end"] is None else stay["end"]
    periods, flags = [], set(stay["flags"])
    for period in stay["periods"]:
        stop = until if period["stop"] is None else period["stop"]
        energy, source = energy_of(period, stop, capacity)
        time = period["chargedTime"]
        time = Decimal(stop - period["start"]) / 1000 if time is None else time
        periods.append((period["start"], period["stop"], energy, time, source))
        if energy is not None and energy > capacity:
            flags.add("energy-above-capacity")
        for flag, charge_kw, discharge_kw in limits:
            if any(kw > charge_kw or -kw > discharge_kw for _, kw in period["powers"]):
                flags.add(flag)
    known = [energy for _, _, energy, _, _ in periods if energy is not None]
    socs = [soc for _, soc in stay["socs"]]
    return {
        "chargerId": stay["charger"],
        "connectedAt": stay["start"],
        "disconnectedAt": stay["end"],
        "periods": periods,
        "chargedEnergy": sum(known, Decimal(0)) if known else None,
        "chargedTime": sum((time for *_, time, _ in periods), Decimal(0)),
        "stateOfCharge": (socs[0], socs[-1]) if socs else (None, None),
        "flags": sorted(flags),
    }


def state_of(stays: list[Stay]) -> dict[str, Any]:
    """Where the vehicle is, whether it is charged, and the newest that is known of it."""
    if not stays:
        return {"pluggedIn": False, "charging": False}
    last = stays[-1]
    here, period = last["end"] is None, under_way(last)
    # A stay knows of the one before it, and that of the one before, and so on.
    socs = [reading for stay in stays for reading in stay["socs"]]
    powers = period["powers"] if period else []
    return {
        "pluggedIn": here,
        "charging": period is not None,
        **({"chargerId": last["charger"], "pluggedInSince": last["start"]} if here else {}),
        **({"chargingSince": period["start"]} if period else {}),
        **({"stateOfChargeAt": socs[-1][0], "stateOfCharge": socs[-1][1]} if socs else {}),
        **({"chargePowerAt": powers[-1][0], "chargePower": powers[-1][1]} if powers else {}),
        "lastEvent": (last["events"][-1]["kind"], last["events"][-1]["ms"]),
    }
