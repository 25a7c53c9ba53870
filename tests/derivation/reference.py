"""The meaning of a vehicle's events, implemented again from docs/sessions.md: slow, and simple.

It shares no code with the server. It has all events at once, looks at each together with all
earlier ones, and writes late reports where they belong.
"""

from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from typing import Any

ABOUT = 2 * 60_000
HELD = 15 * 60_000
REMEMBERED = 8
UPDATED = 2
ORDER = ["CONNECTED", "CHARGE_STARTED", "CHARGE_UPDATED", "CHARGE_STOPPED", "DISCONNECTED"]

Event = dict[str, Any]
SessionRecord = dict[str, Any]
Period = dict[str, Any]
Limits = tuple[str, Decimal, Decimal]
"""A flag of a power, and the kW each way above which it is set."""


def sessions_of(events: list[Event]) -> list[SessionRecord]:
    """The sessions of one vehicle; `ms` is an event's instant, `kind` its type without VEHICLE_."""
    sessions: list[SessionRecord] = []
    for ms in sorted({event["ms"] for event in events}):
        for event in in_order(sessions, [event for event in events if event["ms"] == ms]):
            take(sessions, event)
    return sessions


def in_order(sessions: list[SessionRecord], events: list[Event]) -> list[Event]:
    """The order of events of one instant: first ends, then beginnings, charger by charger."""
    first: list[Event] = []
    if sessions and sessions[-1]["end"] is None:
        here = [event for event in events if event["chargerId"] == sessions[-1]["charger"]]
        here.sort(key=lambda event: ORDER.index(event["kind"]))
        kinds = {event["kind"] for event in here}
        again, leaves = "CONNECTED" in kinds, "DISCONNECTED" in kinds
        if not under_way(sessions[-1]) and not again:
            first = here  # a charge of no length, before the unplug
        elif leaves:
            first = [event for event in here if ORDER.index(event["kind"]) >= UPDATED]
        elif under_way(sessions[-1]):
            if "CHARGE_STOPPED" in kinds:
                first = [event for event in here if event["kind"] in ORDER[UPDATED:]]
            if not again:
                first += [event for event in here if event not in first]
    rest = [event for event in events if event not in first]
    chargers = {event["chargerId"] for event in rest}
    lowest = {
        charger: min(ORDER.index(e["kind"]) for e in rest if e["chargerId"] == charger)
        for charger in chargers
    }
    return first + sorted(
        rest,
        key=lambda e: (lowest[e["chargerId"]], e["chargerId"], ORDER.index(e["kind"])),
    )


# Where the vehicle is -----------------------------------------------------------------------------


def take(sessions: list[SessionRecord], event: Event) -> None:
    begins = plugs_in(sessions, event)
    if begins:
        if sessions and sessions[-1]["end"] is None:
            unplug(sessions[-1], event["ms"])
            sessions[-1]["flags"].add("disconnect-missing")
        if sessions:
            sessions[-1].update(
                told=accounts(sessions[-1]),
                power=highest(sessions[-1]),
                silent=silent(sessions[-1]),
            )
        sessions.append({"charger": event["chargerId"], "start": event["ms"], "end": None,
                      "periods": [], "flags": set(), "socs": [], "events": [],
                      "told": None, "answered": False, "shared": False,
                      "before": may_go_on(sessions, event)})  # fmt: skip
        if event["kind"] != "CONNECTED":
            sessions[-1]["flags"].add("connect-missing")
    session = sessions[-1]
    session["events"].append(event)
    elsewhere = session["charger"] != event["chargerId"]
    charging = None
    if elsewhere or session["end"] is not None:
        after_leaving(sessions, event)
    elif earlier := of_earlier_session(sessions, event):
        report_late(sessions, earlier, event)
    elif not (begins and event["kind"] == "CONNECTED"):
        charging = under_way(session)
        happen(session, event)
    if "stateOfCharge" in event:
        read_soc(session, event, charging, elsewhere)


def newest_soc(sessions: list[SessionRecord]) -> Decimal | None:
    return next((session["socs"][-1][1] for session in reversed(sessions) if session["socs"]), None)


def left_at(sessions: list[SessionRecord], event: Event) -> Any:
    """The session at this charger that has ended and that the event is of: the current one or the
    last eight: of which it was reported already, that had time for it, or the newest.
    """
    energy, time = event.get("chargedEnergy"), event.get("chargedTime")
    known = [one for one in sessions[-1 - REMEMBERED :] if one["end"] is not None]
    known = [one for one in reversed(known) if one["charger"] == event["chargerId"]]
    if event["kind"] in ("CHARGE_UPDATED", "CHARGE_STOPPED"):
        for one in known:
            if is_known(one, energy, time):
                return one
            if None in (energy, time):
                break
        fits = [one for one in known if spare(one, time) is not None]
        if fits:
            return fits[0] if time is None else min(fits, key=lambda one: spare(one, time) or 0)
    return known[0] if known else None


def accounts(session: SessionRecord) -> list[tuple[Any, Any, Any]]:
    """What was reported of its charges: energy, time, and the last meter if it began anew."""
    if session["told"] is not None:
        return session["told"]  # type: ignore[no-any-return]
    told = [account(period) for period in session["periods"]]
    return [one for one in told if one != (None, None, None)]


def account(period: Period) -> tuple[Any, Any, Any]:
    anew = period["meters"][-1] if period["energy"] is None and len(period["meters"]) > 1 else None
    return (*told_of(period), anew)


def is_again(told: tuple[Any, Any, Any], energy: Any, time: Any) -> bool:
    """Whether a report repeats an earlier report, or a part of it."""
    if energy is None and time is None:
        return False
    same = energy is None or energy in (told[0], told[2])
    return bool(same and time in (None, told[1]))


def is_known(session: SessionRecord, energy: Any, time: Any) -> bool:
    """An energy or a time alone may belong to another charge: then the last charge counts."""
    told = accounts(session)
    if energy is None or time is None:
        told = told[-1:]
    return any(is_again(one, energy, time) for one in told)


def had_more(sessions: list[SessionRecord], event: Event) -> bool:
    """Whether a known charge at this charger told at least the energy and the time of an update."""
    energy, time = event.get("chargedEnergy"), event.get("chargedTime")
    if event["kind"] != "CHARGE_UPDATED" or (energy, time) == (None, None):
        return False
    here = [
        one
        for one in sessions[-1 - REMEMBERED :]
        if one["charger"] == event["chargerId"] and one["end"] is not None
    ]
    told = [account for one in here for account in accounts(one)[-REMEMBERED:]]
    return any(
        (energy is None or (one[0] is not None and energy <= one[0]))
        and (time is None or (one[1] is not None and time <= one[1]))
        for one in told
    )


def charges_of(session: SessionRecord) -> list[tuple[int, int]]:
    """Start and stop of the charges of which no STOPPED told; if none is known, there may have
    been one all the time.
    """
    if not session["periods"]:
        return [] if session["answered"] else [(session["start"], session["end"])]
    return [
        (free_from(session, one) if one["start_missing"] else one["start"], one["stop"])
        for one in session["periods"]
        if is_unreported(one)
    ]


def free_from(session: SessionRecord, period: Period) -> int:
    """When a charge without a known start can have begun: after the one before, or the plug-in."""
    place = next(n for n, one in enumerate(session["periods"]) if one is period)
    free: int = session["periods"][place - 1]["stop"] if place else session["start"]
    return free


def move_start(session: SessionRecord, period: Period, time: Decimal | None, ms: int) -> None:
    """A charge without a known start began when its own report says."""
    if period["start_missing"] and time is not None:
        began = max(free_from(session, period), ms - whole(time))
        period["start"] = min(period["start"], began)


def meant(charges: list[tuple[int, int]], time: Decimal | None) -> tuple[int, int]:
    """Start and stop of what a report is of: the newest charge, or the one that is as long, or two
    that only a repeated start parts.
    """
    if time is None:
        return charges[-1]
    newest_first = charges[::-1]
    both = [(one[0], two[1]) for two, one in pairwise(newest_first) if one[1] == two[0]]
    return min(newest_first + both, key=lambda c: abs(c[1] - c[0] - time * 1000))


def spare(session: SessionRecord, time: Decimal | None) -> int | None:
    """By how much a charge of which no STOPPED told can have been longer; None: not so long."""
    if not (charges := charges_of(session)):
        return None
    time = time or Decimal(0)
    start, stop = meant(charges, time)
    before: int = session["before"][-1]["start"] if session["before"] else session["start"]
    left: int = stop - start - whole(time)
    if left < -ABOUT:
        left += session["start"] - before
    return None if left < -ABOUT else abs(left)


def had_time_for(session: SessionRecord, time: Decimal) -> bool:
    return spare(session, time) is not None


def plugs_in(sessions: list[SessionRecord], event: Event) -> bool:
    """Whether the event is evidence that the vehicle was plugged in there anew."""
    if not sessions:
        return True
    session, kind, ms = sessions[-1], event["kind"], event["ms"]
    lasts = session["end"] is None
    if lasts and session["charger"] == event["chargerId"]:
        return kind == "CONNECTED" and was_away(session, event)
    if kind in ("CONNECTED", "CHARGE_STARTED"):
        return True
    left = left_at(sessions, event)
    shows = kind == "CHARGE_STOPPED" or (
        kind == "CHARGE_UPDATED" and shows_charge(newest_soc(sessions), event)
    )
    if left is None:
        return not lasts or shows
    late = kind == "DISCONNECTED" or ms - left["end"] <= ABOUT
    goes_on = "disconnect-missing" in left["flags"] and charges_of(left)
    known = is_of(left, event) or had_more(sessions, event)
    return not late and not goes_on and shows and not known


def was_away(session: SessionRecord, event: Event) -> bool:
    """Less charge than before, but neither 0 nor fed back."""
    soc = event.get("stateOfCharge")
    fed_back = any(kw < 0 for period in session["periods"] for _, kw in period["powers"])
    return bool(soc and session["socs"] and not fed_back and soc < session["socs"][-1][1] - 1)


def is_of(left: SessionRecord, event: Event) -> bool:
    """Whether a report is of a charge of this session, which has ended, by its own account."""
    energy, time, ms = event.get("chargedEnergy"), event.get("chargedTime"), event["ms"]
    if energy is None and time is None:
        return bool(event["kind"] == "CHARGE_STOPPED")
    if is_known(left, energy, time):
        return True
    if time is not None:
        last = silent(left)
        if last and energy is not None and abs(last["stop"] - last["start"] - time * 1000) <= ABOUT:
            return True
        return ms - time * 1000 < left["end"] - ABOUT or had_time_for(left, time)
    told = accounts(left)
    if energy is None or charges_of(left) or silent(left) or (told and energy == told[-1][0]):
        return True
    power = left.get("power", highest(left))
    return power is not None and not allows(power, energy, ms - left["end"])


def silent(session: SessionRecord) -> Period | None:
    """The last charge, if it stopped without an energy and no late report told it."""
    last = session["periods"][-1] if session["periods"] else None
    if "silent" in session:  # as it was when the next session began
        return session["silent"]  # type: ignore[no-any-return]
    return None if last is None or last["energy"] is not None or is_unreported(last) else last


def highest(session: SessionRecord) -> Decimal | None:
    """The highest power of its last charge."""
    powers = [kw for _, kw in session["periods"][-1]["powers"]] if session["periods"] else []
    return max(powers, default=None)


def is_unreported(period: Period) -> bool:
    return period["energy"] is None and (period["stop_missing"] or period["cut"])


def of_earlier_session(sessions: list[SessionRecord], event: Event) -> SessionRecord | None:
    """The earlier session of which a report is though the vehicle is back at the charger: what it
    tells does not fit into this session, or into what follows its last reported charge.
    """
    session, time, energy = sessions[-1], event.get("chargedTime"), event.get("chargedEnergy")
    period, ms = under_way(session), event["ms"]
    if not time and not energy:
        return None
    if included := of_earlier_charges(session, period, event, ms):
        longer = 0 if time is None else (time - included["time"]) * 1000
        if (period or not session["periods"]) and (time is None or longer > ABOUT):
            return None
    free = session["start"] if time is not None else first_start(session)
    ended = session["periods"][:-1] if period else session["periods"]
    if ended and ended[-1]["energy"] is not None:
        last = ended[-1]
        free = max(free, last["stop"])
        same_start = abs(ms - whole(time or Decimal(0)) - last["start"]) <= ABOUT
        if same_start or is_again(account(last), energy, time):
            return None
    left: Any = left_at(sessions, event)
    if left is None:
        return None
    if time is None:
        power = left.get("power", highest(left))
        if period and period["powers"]:
            power = max(kw for _, kw in period["powers"])
        told = power is not None and energy is not None
        known = told and (charges_of(left) or is_known(left, energy, None))
        fits = bool(known) and not allows(power, energy or Decimal(0), ms - free)
    else:
        again = energy is not None and is_known(left, energy, time)
        if time * 1000 > ms - free + ABOUT:
            fits = again or had_time_for(left, time)
        else:
            stopped, longer = event["kind"] == "CHARGE_STOPPED", spare(left, time)
            own = period or (stopped and as_long(session["periods"], time))
            fits = longer is not None and longer <= ABOUT if stopped else again
            fits = fits and not own and energy is not None and not event.get("chargePower")
    return left if fits else None


def first_start(session: SessionRecord) -> int:
    """When the charge under way first started: starts may be repeated."""
    start: int = session["start"]
    for one in session["periods"][::-1]:
        if one["stop"] is not None and not one["cut"]:
            break
        start = one["start"]
    return start


def after_leaving(sessions: list[SessionRecord], event: Event) -> None:
    """An event of a session that has ended, or at a charger where the vehicle is not."""
    session, left = sessions[-1], left_at(sessions, event)
    late = left is None or event["ms"] - left["end"] > ABOUT
    here = session["charger"] == event["chargerId"]
    if here and late:
        session["flags"].add("event-after-disconnect")
    if left is session:
        if event["kind"] in ("CHARGE_UPDATED", "CHARGE_STOPPED"):
            tell_late(session, event)
        return
    leaves = left and event["kind"] == "DISCONNECTED" and "disconnect-missing" in left["flags"]
    shared = left and report_late(sessions, left, event)
    if late and not leaves and not here:
        session["flags"].add("vehicle-shared" if shared else "event-elsewhere")


def report_late(sessions: list[SessionRecord], left: SessionRecord, event: Event) -> bool:
    """Tells an earlier session what the event says of it; whether the vehicle seems there still,
    after it seemed to have left.
    """
    charges, time, energy = charges_of(left), event.get("chargedTime"), event.get("chargedEnergy")
    if event["kind"] in ORDER[:UPDATED]:
        return False
    if event["kind"] != "DISCONNECTED" and is_known(left, energy, time):
        return False
    late = event["ms"] - left["end"] > ABOUT
    if event["kind"] == "DISCONNECTED":
        left["flags"].discard("disconnect-missing")
        return False
    there = False
    if late and "disconnect-missing" in left["flags"]:
        there = bool(event.get("chargePower"))
        if event["kind"] == "CHARGE_STOPPED" and charges:
            lasted = event["ms"] - charges[-1][0]
            there = time is None or abs(lasted - time * 1000) <= ABOUT
    told = accounts(left)
    told_now = event["kind"] == "CHARGE_STOPPED" and energy is not None and silent(left)
    new = bool(charges) or bool(told_now)
    if event["kind"] == "CHARGE_UPDATED":
        new = new and energy is not None and energy != (told[-1][0] if told else None)
    if new or (there and not left["shared"]):
        left["shared"] = left["shared"] or there
        if late:
            left["flags"].add("vehicle-shared" if there else "event-after-disconnect")
        tell_late(left, event)
        if energy is not None and sessions[-1]["before"] and left is sessions[-2]:
            sessions[-1]["before"][0] = {**sessions[-1]["before"][0], "energy": energy}
        if energy is not None and not charges and left is not sessions[-1]:
            left["silent"] = None
        left["answered"] = left["answered"] or event["kind"] == "CHARGE_STOPPED"
        if (energy, time) != (None, None):
            told.append((energy, time, None))
    return there


def tell_late(session: SessionRecord, event: Event) -> None:
    """Applies what an event says about a charge after the vehicle has left."""
    energy, time, ms = event.get("chargedEnergy"), event.get("chargedTime"), event["ms"]
    if not session["periods"]:
        if energy is None and time is None:
            return
        start = session["start"]
        if time is not None:
            start = max(start, session["end"] - whole(time))
        begin(session, start, missing=True)
        session["periods"][-1].update(
            stop=session["end"],
            stop_missing=True,
            soc0=session["socs"][0][1] if session["socs"] else None,
        )
    known = [account(period) for period in session["periods"]]
    if None not in (energy, time) and any(is_again(one, energy, time) for one in known):
        return
    period = session["periods"][-1]
    if unseen(session, event):
        long = whole(time or Decimal(0))
        period = begin(session, max(period["stop"], session["end"] - long), missing=True)
        period["stop"] = session["end"]
    elif charges := charges_of(session):
        start, stop = meant(charges, time)
        missing = [one for one in session["periods"] if is_unreported(one)]
        starts = [one for one, _ in charges]
        period = next(
            one
            for one, begin_ms in zip(missing[::-1], starts[::-1], strict=True)
            if begin_ms == start and one["stop"] <= stop
        )
        if period["stop"] != stop:
            place = session["periods"].index(period)
            join(period, session["periods"].pop(place + 1))
    leave_out_earlier(session, period, event)
    if event["kind"] == "CHARGE_UPDATED":
        if period["energy"] is None and energy is not None:
            read_meter(period, energy)
        return
    move_start(session, period, time, period["stop"])
    if period["energy"] is None and is_too_long(period, event):
        session["flags"].add("charged-time-too-long")
    period.update(stop_missing=False, cut=False, reported=ms)
    tell(period, energy, time)


def unseen(session: SessionRecord, event: Event) -> bool:
    """Whether a late report is of a charge between the last one and the unplug that nothing else
    told of.
    """
    energy, time = event.get("chargedEnergy"), event.get("chargedTime")
    if charges_of(session) or event["kind"] != "CHARGE_STOPPED" or not energy or time is None:
        return False
    free = session["periods"][-1]["stop"] - ABOUT
    new = all(one["time"] != time for one in session["periods"])
    long = whole(time)
    return new and event["ms"] - long >= free and session["end"] - long >= free


def unplug(session: SessionRecord, ms: int) -> None:
    if period := under_way(session):
        period.update(stop=ms, stop_missing=True)
    session["end"] = ms


# Charges ------------------------------------------------------------------------------------------


def under_way(session: SessionRecord) -> Period | None:
    periods = session["periods"]
    return periods[-1] if periods and periods[-1]["stop"] is None else None


def begin(session: SessionRecord, ms: int, *, missing: bool = False) -> Period:
    session["periods"].append({"start": ms, "stop": None, "cut": False, "stop_missing": False,
                            "start_missing": missing, "by_soc": False, "energy": None,
                            "time": None, "meters": [], "powers": [], "reported": ms,
                            "soc0": session["socs"][-1][1] if session["socs"] else None,
                            "soc1": None, "soc1_ms": 0, "final": False,
                            "less": None, "less_s": None, "fell": None,
                            "read": 0, "previous": None})  # fmt: skip
    period: Period = session["periods"][-1]
    return period


def happen(session: SessionRecord, event: Event) -> None:
    kind, ms = event["kind"], event["ms"]
    if kind == "CONNECTED":
        if "connect-missing" in session["flags"] and ms - session["start"] <= ABOUT:
            session["flags"].remove("connect-missing")
        else:
            session["flags"].add("connect-repeated")
    elif kind == "CHARGE_STARTED":
        started(session, event)
    elif kind == "CHARGE_UPDATED":
        updated(session, event)
    elif kind == "CHARGE_STOPPED":
        stopped(session, event)
    else:
        unplug(session, ms)


def started(session: SessionRecord, event: Event) -> None:
    period, ms = under_way(session), event["ms"]
    if period and ms - period["start"] <= ABOUT:
        if not period["start_missing"]:
            session["flags"].add("start-repeated")
        period["start_missing"] = False
    else:
        if period:
            period.update(stop=ms, cut=True)
            session["flags"].add("start-repeated")
        period = begin(session, ms)
    if "chargePower" in event:
        period["powers"].append((ms, event["chargePower"]))


def updated(session: SessionRecord, event: Event) -> None:
    period, ms, energy = under_way(session), event["ms"], event.get("chargedEnergy")
    if is_older(session, event):
        session["flags"].add("update-after-stop")
        return
    if ended := of_ended(session, event):
        session["flags"].add("update-after-stop")
        if period is None and went_on(ended, event):
            ended.update(energy=energy, time=event.get("chargedTime"), stop=ms, final=False)
            if event.get("chargePower"):  # it is under way again
                ended.update(fell=None, meters=[energy], energy=None, time=None, stop=None,
                             read=ms, previous=None)  # fmt: skip
                ended["powers"].append((ms, event["chargePower"]))
        elif energy is not None and ended["energy"] is None:
            ended["meters"][-1:] = [energy]
        return
    soc = session["socs"][-1][1] if session["socs"] else None
    if period is None:
        last = session["periods"][-1] if session["periods"] else None
        if last and ms - last["stop"] <= ABOUT:
            if event.get("chargePower"):
                session["flags"].add("update-after-stop")
            return
        if not shows_charge(soc, event):
            return
        period = begin(session, start_of(session, event), missing=True)
        period["by_soc"] = not event.get("chargePower") and energy is None
    elif period["by_soc"] and not shows_charge(soc, event):
        period["stop"] = max(period["start"], session["socs"][-1][0] if session["socs"] else 0)
        return
    period = joined(session, event)
    move_start(session, period, event.get("chargedTime"), ms)
    if "chargePower" in event:
        period["powers"].append((ms, event["chargePower"]))
    leave_out_earlier(session, period, event)
    forget_fall(period, event)
    if energy is not None and read_meter(period, energy, ms):
        session["flags"].add("meter-began-anew")


def stopped(session: SessionRecord, event: Event) -> None:
    period, ms = under_way(session), event["ms"]
    energy, time = event.get("chargedEnergy"), event.get("chargedTime")
    if ended := of_ended(session, event):
        if ended["energy"] is not None or not ended["cut"]:
            session["flags"].add("stop-repeated")
        ended["cut"] = False
        if period is None and went_on(ended, event):
            ended.update(energy=energy, time=time, stop=ms, final=False)
        else:
            tell(ended, energy, time)
        return
    if period is None:
        begin(session, start_of(session, event), missing=True)
    period = joined(session, event)
    move_start(session, period, event.get("chargedTime"), ms)
    leave_out_earlier(session, period, event)
    forget_fall(period, event)
    if is_too_long(period, event):
        session["flags"].add("charged-time-too-long")
    period["stop"] = ms
    if tell(period, energy, time):
        session["flags"].add("meter-began-anew")


def shows_charge(soc: Decimal | None, event: Event) -> bool:
    """By its power, or by its energy and time, or because the state of charge rose."""
    if event.get("chargePower") or event.get("chargedEnergy"):
        return True
    if "chargePower" in event:
        return False
    return bool(event.get("chargedTime")) or (soc is not None and event["stateOfCharge"] > soc)


def start_of(session: SessionRecord, event: Event) -> int:
    """The beginning of a charge without STARTED."""
    free: int = session["periods"][-1]["stop"] if session["periods"] else session["start"]
    ms: int = event["ms"]
    if "chargedTime" in event:
        return max(free, ms - whole(event["chargedTime"]))
    if event["kind"] == "CHARGE_STOPPED":
        return free
    unread = event.get("chargePower") or not session["socs"]
    return ms if unread else max(free, session["socs"][-1][0])


def of_ended(session: SessionRecord, event: Event) -> Period | None:
    """The charge that ended and that a report is of, by its own account."""
    period = under_way(session)
    ended = session["periods"][:-1] if period else session["periods"]
    energy, time = event.get("chargedEnergy"), event.get("chargedTime")
    if not ended:
        return None
    if time is None:
        return ended[-1] if of_it_by_energy(ended[-1], period, event) else None
    if energy is not None and not (period and event["kind"] == "CHARGE_STOPPED"):
        for one in reversed(ended):
            if is_again(account(one), energy, time):
                return one  # type: ignore[no-any-return]
    shorter = period and event["ms"] - period["start"] - time * 1000 > ABOUT
    if period is None or (shorter and event["kind"] == "CHARGE_STOPPED"):
        one = as_long(ended, time)
        if one is not None:
            return one
    return ended[-1] if of_it_by_time(ended[-1], period, event) else None


def as_long(charges: list[Period], time: Decimal) -> Period | None:
    """The newest of these charges of which no energy was told and that took about so long."""
    for one in reversed(charges):
        if one["energy"] is None and abs(one["stop"] - one["start"] - time * 1000) <= ABOUT:
            return one
    return None


def of_it_by_time(last: Period, period: Period | None, event: Event) -> bool:
    ms, length = event["ms"], event["chargedTime"] * 1000
    since = ms - (period["start"] if period else last["stop"])
    own = last["stop"] - last["start"]
    again = is_again(account(last), event.get("chargedEnergy"), event["chargedTime"])
    if again and not (period and event["kind"] == "CHARGE_STOPPED"):
        return True
    if length <= since + ABOUT:
        sits = event["kind"] == "CHARGE_UPDATED" and not event.get("chargePower")
        return bool(period is None and sits and event["chargedTime"] == last["time"])
    if again or period is None:
        return True
    lengths = since, ms - last["start"]
    nearest = all(abs(own - length) < abs(other - length) for other in lengths)
    return last["energy"] is None and nearest


def of_it_by_energy(last: Period, period: Period | None, event: Event) -> bool:
    energy, ms = event.get("chargedEnergy"), event["ms"]
    told = told_of(last)[0]
    if energy is None:
        return period is None and event["kind"] == "CHARGE_STOPPED"
    if period:
        return energy == told and not power_allows(period, energy, ms - period["start"], last)
    if energy == told:
        return True
    if last["energy"] is None:
        return not event.get("chargePower")
    since, stopped = ms - last["stop"], event["kind"] == "CHARGE_STOPPED"
    if not allows_since(last, event) or (stopped and since <= ABOUT):
        return True
    return bool(not stopped and energy > last["energy"] and not event.get("chargePower"))


def joined(session: SessionRecord, event: Event) -> Period:
    """Joins charges that repeated starts have cut, if the event shows that they are one."""
    periods, energy = session["periods"], event.get("chargedEnergy")
    if "chargedTime" in event:
        part(periods, event)
    while len(periods) > 1 and periods[-2]["cut"]:
        one, two = periods[-2:]
        before = None
        if "chargedTime" in event:
            begun = event["ms"] - event["chargedTime"] * 1000
            same = abs(begun - one["start"]) < abs(begun - two["start"])
        elif energy is None or two["meters"]:
            same = False
        else:
            possible = power_allows(two, energy, event["ms"] - two["start"], one)
            same = energy >= one["meters"][-1] if one["meters"] else not possible
            before = {**one, "meters": [*one["meters"]], "before": None} if possible else None
        if not same:
            break
        join(one, periods.pop())
        one["before"] = before
    last: Period = periods[-1]
    return last


def part(periods: list[Period], event: Event) -> None:
    """Parts what only the meter joined, if the report's time goes back to the second start only."""
    last, begun = periods[-1], event["ms"] - event["chargedTime"] * 1000
    one = last.get("before")
    last["before"] = None
    if one and abs(begun - one["start"]) >= abs(begun - one["stop"]):
        if one["meters"][:-1] == last["meters"][:-1]:
            last["meters"] = last["meters"][-1:]
        last.update(start=one["stop"], start_missing=False, soc0=one["soc1"])
        periods.insert(-1, one)


def join(one: Period, two: Period) -> None:
    """Joins two charges."""
    if one["soc0"] is None:
        socs = {"soc0": two["soc0"], "soc1": two["soc1"], "soc1_ms": two["soc1_ms"]}
    elif two["soc1"] is not None:
        socs = {"soc1": two["soc1"], "soc1_ms": two["soc1_ms"]}
    elif two["soc0"] is not None:
        socs = {"soc1": two["soc0"], "soc1_ms": two["start"]}
    else:
        socs = {}
    one.update(socs, stop=two["stop"], cut=two["cut"], final=two["final"],
               stop_missing=two["stop_missing"],
               powers=one["powers"] + two["powers"],
               **{name: (two if two["meters"] else one)[name]
                  for name in ("fell", "read", "previous")},
               meters=two["meters"] or one["meters"])  # fmt: skip


# Reports that include earlier charges -------------------------------------------------------------


def may_go_on(sessions: list[SessionRecord], event: Event) -> list[Event]:
    """The charges of the session before, the newest first, if the last one was under way at its
    end, or until just before this plug-in at the same charger.
    """
    if not sessions or sessions[-1]["charger"] != event["chargerId"]:
        return []
    session = sessions[-1]
    last = session["periods"][-1] if session["periods"] else None
    if last is None or not (last["stop_missing"] or event["ms"] - last["stop"] <= ABOUT):
        return []
    return charges_before(session, len(session["periods"]))


def charges_before(session: SessionRecord, place: int) -> list[Event]:
    """The charges of a session before the one in this place, and those that may have gone on."""
    found: list[Event] = []
    for one in session["periods"][:place][::-1]:
        length = Decimal(one["stop"] - one["start"]) / 1000
        energy, time = own_of(one, one["stop"])
        if energy is None and None in (one["soc0"], one["soc1"]):
            energy = Decimal(0)
        kw = max((kw for _, kw in one["powers"]), default=None)
        length = length if time is None else time
        found.append({"start": one["start"], "energy": energy, "time": length, "kw": kw})
    return [*found, *session["before"]][:REMEMBERED]


def own_of(period: Period, until: int) -> tuple[Decimal | None, Decimal | None]:
    """The energy and the time of a period by its events, without those of earlier charges."""
    energy, time = told_of(period)
    if energy is not None:
        energy -= period["less"] or 0
    elif period["powers"]:
        energy = Decimal(round(by_power(period, until) * 10**6)) / 10**6
    return energy, None if time is None else time - (period["less_s"] or 0)


def sums_of(charges: list[Event]) -> list[Event]:
    """The first, the first two together, and so on."""
    found = []
    for count in range(1, len(charges) + 1):
        some = charges[:count]
        energies = [one["energy"] for one in some]
        found.append({
            "start": some[-1]["start"],
            "energy": None if None in energies else sum(energies, Decimal(0)),
            "time": sum((one["time"] for one in some), Decimal(0)),
            "kw": some[0]["kw"],
        })  # fmt: skip
    return found


def of_earlier_charges(
    session: SessionRecord, period: Period | None, event: Event, until: int
) -> Event | None:
    """The earlier charges that a report includes, by its time, or else by its energy."""
    energy, time = event.get("chargedEnergy"), event.get("chargedTime")
    start = period["start"] if period else session["start"]
    place = next((n for n, one in enumerate(session["periods"]) if one is period), 0)
    if time is not None:
        long = whole(time)
        sums = sums_of(charges_before(session, place))[::-1]
        apart = [
            min(abs(until - long - one["start"]), abs(long - whole(one["time"]) - until + start))
            for one in sums
        ]
        near = not sums or min(apart) > ABOUT or long <= until - start + ABOUT
        return None if near else sums[apart.index(min(apart))]
    if energy is None:
        return None
    since = until - (session["start"] if not period or period["start_missing"] else start)
    told = [kw for _, kw in period["powers"]] if period else []
    for one in sums_of(charges_before(session, place)):
        now = max(told, default=one["kw"])
        before = now if one["kw"] is None else one["kw"]
        own = one["energy"]
        if own is None or now is None:
            return None
        most = now + Decimal("0.5") if now % 1 == 0 else now
        if allows(most, energy, since):
            return None
        if 0 < own <= energy and allows(now, energy - own, since):
            return None if allows(before, energy, whole(one["time"])) else one
    return None


def is_older(session: SessionRecord, event: Event) -> bool:
    """Whether it tells an earlier reading of an earlier charge, by its start, time and energy."""
    period, energy, time = under_way(session), event.get("chargedEnergy"), event.get("chargedTime")
    if None in (energy, time) or (period is None and session["periods"]):
        return False
    included = of_earlier_charges(session, period, event, event["ms"])
    if included is None or included["energy"] is None:
        return False
    longer = (event["chargedTime"] - included["time"]) * 1000 > ABOUT
    return not longer and abs(event["chargedEnergy"]) <= abs(included["energy"])


def leave_out_earlier(session: SessionRecord, period: Period, event: Event) -> None:
    energy, time = event.get("chargedEnergy"), event.get("chargedTime")
    until = event["ms"] if period["stop"] is None else min(event["ms"], period["stop"])
    included = of_earlier_charges(session, period, event, until)
    if time is not None:
        period["less_s"] = included["time"] if included else None
    if included is None:
        return
    session["flags"].add("earlier-charge-included")
    if period["less"] is None and energy is not None:
        own = included["energy"]
        if own is None:
            share = Fraction(energy) * Fraction(included["time"]) / Fraction(time or 1)
            own = Decimal(round(share * 10**6)) / 10**6
        same_way = (own <= 0 and energy <= 0) or (own >= 0 and energy >= 0)
        period["less"] = own if same_way and abs(own) <= abs(energy) else Decimal(0)


# What is told of a charge -------------------------------------------------------------------------


def whole(seconds: Decimal) -> int:
    return int(seconds * 1000)


def allows(kw: Decimal, energy: Decimal, ms: int) -> bool:
    """With a tolerance of 10 % and one minute."""
    return energy * 3_600_000 <= kw * Decimal("1.1") * (ms + 60_000)


def power_allows(period: Period, energy: Decimal, ms: int, before: Period | None = None) -> bool:
    """By the highest power that was told of it, or else of the charge before it."""
    powers = period["powers"] or (before["powers"] if before else [])
    return not powers or allows(max(kw for _, kw in powers), energy, ms)


def allows_since(period: Period, event: Event) -> bool:
    """By the highest power that was told of it, or that the event tells, since its stop."""
    told = [kw for _, kw in period["powers"]]
    if "chargePower" in event:
        told.append(event["chargePower"])
    return not told or allows(max(told), event["chargedEnergy"], event["ms"] - period["stop"])


def counted(period: Period) -> Decimal | None:
    """What the meter has counted; `meters` are its last readings before it began anew each time."""
    return sum(period["meters"], Decimal(0)) if period["meters"] else None


def gives(period: Period, gained: Decimal, ms: int, counted: Decimal, by: int) -> bool:
    """Whether the power allows this in that time: the highest that was told, or twice the average
    up to that instant.
    """
    told = [kw for _, kw in period["powers"]]
    if not told and by <= period["start"]:
        return True
    kw = max(told) if told else 2 * counted * 3_600_000 / (by - period["start"])
    return allows(kw, gained, ms)


def forget_jump(period: Period, energy: Decimal) -> bool:
    """A reading over twice the power after which the meter fell below half was wrong."""
    meters, previous = period["meters"], period["previous"]
    if previous is None or not 0 <= 2 * energy < meters[-1]:
        return False
    last, read = previous
    gained, sofar = (meters[-1] - last) / 2, sum(meters[:-1], last)
    wrong = not gives(period, gained, period["read"] - read, sofar, read)
    if wrong:
        meters[-1], period["read"] = previous
    return wrong


def forget_fall(period: Period, event: Event) -> None:
    """A meter that is back where it fell from, sooner than the power allows, had not begun anew."""
    energy, meters = event.get("chargedEnergy"), period["meters"]
    if energy is None or period["fell"] is None or len(meters) < 2 or energy < meters[-2]:
        return
    fell, reading = period["fell"]
    if not gives(period, energy - reading, event["ms"] - fell, sum(meters[:-1], Decimal(0)), fell):
        meters.pop()
        period["fell"] = None


def read_meter(period: Period, energy: Decimal, ms: int | None = None) -> bool:
    """It began anew if it fell below half; a lesser fall is a correction."""
    wrong = forget_jump(period, energy)
    anew = bool(period["meters"]) and 0 <= 2 * energy < period["meters"][-1]
    known = ms is not None and bool(period["meters"]) and not anew
    period["previous"] = (period["meters"][-1], period["read"]) if known else None
    if anew:
        period["fell"] = None if ms is None else (ms, energy)
    period["read"] = ms or 0
    if anew or not period["meters"]:
        period["meters"].append(energy)
    else:
        period["meters"][-1] = energy
    return anew or wrong


def told_of(period: Period) -> tuple[Decimal | None, Decimal | None]:
    return counted(period) if period["energy"] is None else period["energy"], period["time"]


def tell(period: Period, energy: Decimal | None, time: Decimal | None) -> bool:
    """The first report counts. Returns whether the meter began anew."""
    if period["time"] is None:
        period["time"] = time
    if energy is None or period["energy"] is not None:
        return False
    wrong = forget_jump(period, energy)
    sofar = counted(period)
    fell = sofar is not None and 0 <= 2 * energy < sofar
    if fell or (sofar is not None and energy < sofar and len(period["meters"]) > 1):
        read_meter(period, energy)  # it does not know what was counted before
        return True
    period["energy"] = energy
    return wrong


def went_on(period: Period, event: Event) -> bool:
    """The same start, but longer and with more energy; without a time more than the power allows
    since, while it shows a power.
    """
    energy, time = event.get("chargedEnergy"), event.get("chargedTime")
    if energy is None or period["energy"] is None or energy <= period["energy"]:
        return False
    if time is None:
        stopped = event["kind"] == "CHARGE_STOPPED"
        if stopped and event["ms"] - period["stop"] <= ABOUT:
            return True
        return bool(stopped or event.get("chargePower")) and not allows_since(period, event)
    began = event["ms"] - time * 1000
    first = period["start"] - whole(period["less_s"] or Decimal(0))
    return period["time"] is not None and abs(began - first) <= ABOUT


def is_too_long(period: Period, event: Event) -> bool:
    own = event.get("chargedTime", 0) - (period["less_s"] or 0)
    return bool(own * 1000 > event["ms"] - period["start"] + ABOUT)


def read_soc(
    session: SessionRecord, event: Event, charging: Period | None, elsewhere: bool
) -> None:
    soc = event["stateOfCharge"]
    if charging and session["socs"] and soc < session["socs"][-1][1]:
        powers = [power for _, power in charging["powers"][-1:]] + [event.get("chargePower", 0)]
        if min(powers) >= 0:
            session["flags"].add("state-of-charge-fell")
    session["socs"].append((event["ms"], soc))
    if not session["periods"] or elsewhere:
        return
    period = session["periods"][-1]
    unread = period["soc0"] is None and period["stop"] is None
    if unread or event["kind"] == "CHARGE_STARTED":
        period["soc0"] = soc
    elif not period["final"]:
        if not is_used_since(period, event):
            period.update(soc1=soc, soc1_ms=event["ms"])
        period["final"] = period["stop"] is not None


def is_used_since(period: Period, event: Event) -> bool:
    """It rose, and is over 1 % lower after the stop: that is not of this charge."""
    if period["stop"] is None or event["ms"] <= period["stop"] or period["soc1"] is None:
        return False
    rose = period["soc0"] is not None and period["soc1"] > period["soc0"]
    return bool(rose and event["stateOfCharge"] < period["soc1"] - 1)


# As the API shows it ------------------------------------------------------------------------------


def by_power(period: Period, until: int) -> Fraction:
    """kWh, by lines between readings; over long gaps the reading before is held."""
    readings = [(at, Fraction(kw)) for at, kw in period["powers"]]
    (at, kw), (last_at, last_kw) = readings[0], readings[-1]
    area: Fraction = kw * (at - period["start"]) + last_kw * (until - last_at)
    for (at, kw), (after, next_kw) in pairwise(readings):
        area += (kw + (next_kw if after - at <= HELD else kw)) / 2 * (after - at)
    return area / 3_600_000


def energy_of(
    period: Period, stop: int, capacity: Decimal, most: tuple[Decimal, Decimal], flags: set[str]
) -> tuple[Decimal | None, str | None]:
    def possible(energy: Decimal, ms: int) -> bool:
        powers = [kw for _, kw in period["powers"]]
        if energy > 0:
            return allows(min([most[0], *([max(powers)] if powers else [])]), energy, ms)
        back = [max(-min(powers), Decimal(0))] if powers else []
        return energy == 0 or allows(min([most[1], *back]), -energy, ms)

    if told_of(period)[0] is not None:
        energy, time = own_of(period, stop)
        told = 0 if time is None else whole(time)
        longest = max(stop - period["start"], period["reported"] - period["start"], told)
        if energy is not None and not possible(energy, longest):
            flags.add("energy-above-power")
        return energy, "meter" if period["energy"] is None else "reported"
    gained = None
    if None not in (period["soc0"], period["soc1"]):
        gained = (period["soc1"] - period["soc0"]) * capacity / 100
    if period["powers"]:
        if gained is not None and period["soc1_ms"] >= period["powers"][-1][0]:
            by_then = by_power(period, min(stop, period["soc1_ms"]))
            gap, high = abs(by_then - Fraction(gained)), max(abs(by_then), abs(Fraction(gained)))
            if 5 * gap > high and 50 * gap > capacity:
                flags.add("state-of-charge-differs")
        return Decimal(round(by_power(period, stop) * 10**6)) / 10**6, "power"
    if gained is None:
        return None, None
    if not possible(gained, stop - period["start"]):
        flags.add("state-of-charge-jumped")
        return None, None
    return gained, "stateOfCharge"


def session_of(session: SessionRecord, capacity: Decimal, limits: list[Limits]) -> dict[str, Any]:
    """The values that are compared."""
    until = session["events"][-1]["ms"] if session["end"] is None else session["end"]
    most = min(kw for _, kw, _ in limits), min(kw for _, _, kw in limits)
    periods, flags = [], set(session["flags"])
    for period in session["periods"]:
        stop = until if period["stop"] is None else period["stop"]
        energy, source = energy_of(period, stop, capacity, most, flags)
        _, time = own_of(period, stop)
        time = Decimal(stop - period["start"]) / 1000 if time is None else time
        periods.append((period["start"], period["stop"], energy, time, source))
        if energy is not None and energy > capacity:
            flags.add("energy-above-capacity")
        for flag, charge_kw, discharge_kw in limits:
            if any(kw > charge_kw or -kw > discharge_kw for _, kw in period["powers"]):
                flags.add(flag)
        flags |= {f"{end}-missing" for end in ("start", "stop") if period[f"{end}_missing"]}
    known = [energy for _, _, energy, _, _ in periods if energy is not None]
    socs = [soc for _, soc in session["socs"]]
    if socs and max(socs) <= 1:
        flags.add("state-of-charge-tiny")
    return {
        "chargerId": session["charger"],
        "connectedAt": session["start"],
        "disconnectedAt": session["end"],
        "lastEventAt": until if session["end"] is None else None,
        "periods": periods,
        "chargedEnergy": sum(known, Decimal(0)) if known else None,
        "chargedTime": sum((time for *_, time, _ in periods), Decimal(0)),
        "stateOfCharge": (socs[0], socs[-1]) if socs else (None, None),
        "flags": sorted(flags),
    }


def state_of(sessions: list[SessionRecord]) -> dict[str, Any]:
    """Where the vehicle is, whether it is charging, and its newest values."""
    if not sessions:
        return {"pluggedIn": False, "charging": False}
    last = sessions[-1]
    here, period = last["end"] is None, under_way(last)
    socs = [reading for session in sessions for reading in session["socs"]]
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
