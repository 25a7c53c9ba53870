"""Makes events from a list of charging sessions, as operators export it.

A row is one session of a vehicle at a charger with at most one charge. By default a charge starts
with the plug-in, and stops after its `chargedTime`, or with the unplug. A row without a vehicle
gets its own vehicle, named by charger and plug-in, so that reading the list again gives the same
vehicle. Nothing here opens a file.
"""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from tether.domain.errors import Invalid
from tether.domain.models import ENTITY_ID_RULE, Event, EventType, is_entity_id
from tether.domain.timestamps import format_instant
from tether.domain.validation import check_duration, check_instant, new_event

TIMES = ("connectedAt", "startedAt", "stoppedAt", "disconnectedAt")
NUMBERS = ("chargedEnergy", "chargedTime", "stateOfChargeStart", "stateOfChargeEnd")
COLUMNS = ("chargerId", "vehicleId", *TIMES, *NUMBERS)
_MAX_ID_LENGTH = 128


def events_of_session(document: Mapping[str, Any], latest_ms: int) -> tuple[Event, ...]:
    """The events of a row with these members, in order. Times are RFC 3339, up to `latest_ms`.

    Raises Invalid.
    """
    for name in document:
        if name not in COLUMNS:
            raise Invalid(name, f"A session of a list has {', '.join(COLUMNS)}.")
    charger_id, _ = _required(document, "chargerId"), _required(document, "connectedAt")
    if not isinstance(charger_id, str) or not is_entity_id(charger_id):
        raise Invalid("chargerId", ENTITY_ID_RULE)
    times = {name: check_instant(name, document[name]) for name in TIMES if name in document}
    connected_ms, disconnected_ms = times["connectedAt"], times.get("disconnectedAt")
    energy, charged_time = document.get("chargedEnergy"), document.get("chargedTime")
    charges = energy or charged_time or "startedAt" in times or "stoppedAt" in times
    started_ms = times.get("startedAt", connected_ms)
    stopped_ms = times.get("stoppedAt", disconnected_ms)
    if "stoppedAt" not in times and charged_time is not None:
        over_ms = started_ms + int(check_duration("chargedTime", charged_time) * 1000)
        stopped_ms = over_ms if disconnected_ms is None else min(over_ms, disconnected_ms)
    if charges and stopped_ms is None and energy:
        raise Invalid("disconnectedAt", "Something must tell when the charge ended.")
    if document.get("stateOfChargeEnd") is not None and stopped_ms is disconnected_ms is None:
        raise Invalid("disconnectedAt", "Something must tell when stateOfChargeEnd was reached.")
    _check_order(times)
    known = {
        "chargerId": charger_id,
        "vehicleId": document.get("vehicleId") or _guest_vehicle_id(charger_id, connected_ms),
    }
    at_start = {"stateOfCharge": document.get("stateOfChargeStart")}
    at_end = {"stateOfCharge": document.get("stateOfChargeEnd")}
    events: list[tuple[EventType, int | None, dict[str, Any]]] = [
        (EventType.VEHICLE_CONNECTED, connected_ms, at_start)
    ]
    if charges:
        reported = {"chargedEnergy": energy, "chargedTime": charged_time, **at_end}
        events.append((EventType.VEHICLE_CHARGE_STARTED, started_ms, at_start))
        events.append((EventType.VEHICLE_CHARGE_STOPPED, stopped_ms, reported))
    events.append((EventType.VEHICLE_DISCONNECTED, disconnected_ms, at_end))
    return tuple(
        _event(kind, at_ms, {**known, **members}, latest_ms)
        for kind, at_ms, members in events
        if at_ms is not None
    )


def _event(kind: EventType, at_ms: int, members: dict[str, Any], latest_ms: int) -> Event:
    given = {name: value for name, value in members.items() if value is not None}
    return new_event({"type": kind, "timestamp": format_instant(at_ms), **given}, latest_ms)


def _required(document: Mapping[str, Any], name: str) -> Any:
    if name not in document:
        raise Invalid(name, "It is required.")
    return document[name]


def _check_order(times: Mapping[str, int]) -> None:
    given = [name for name in TIMES if name in times]
    for earlier, later in pairwise(given):
        if times[later] < times[earlier]:
            raise Invalid(later, f"It must not be before {earlier}.")


def _guest_vehicle_id(charger_id: str, connected_ms: int) -> str:
    at = format_instant(connected_ms)
    return f"guest-{at[:19].replace(':', '')}-{charger_id}"[:_MAX_ID_LENGTH]
