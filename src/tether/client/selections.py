"""Filters of lists, and the parameters of the API for them."""

from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeAlias, TypedDict

from tether.client.models import Instant, Number
from tether.client.values import box_text, instant_or_none, instant_text

Unit: TypeAlias = Literal["hour", "day", "week", "month"]
By: TypeAlias = Literal["charger", "area"]
Ids: TypeAlias = str | Iterable[str] | None

_INSTANTS = frozenset({
    "from", "to", "endedFrom", "endedTo", "overlappingFrom", "overlappingTo", "updatedFrom",
})  # fmt: skip


class SessionSelection(TypedDict, total=False):
    """Filters of sessions. All that are given must hold; None is no filter.

    `charger_id` and `vehicle_id` may be several, up to 50. Sessions began from `from_` to before
    `to`, ended from `ended_from` to before `ended_to`, or were plugged in at some time from
    `overlapping_from` to before `overlapping_to`. `flag` is the name of a flag of the session.
    `estimated` says whether some of its energy is estimated. `updated_from` gives the sessions that
    changed at that instant or later, with removed ones: it goes only together with `charger_id`,
    `vehicle_id`, `from_` and `to`.
    """

    charger_id: Ids
    vehicle_id: Ids
    from_: Instant | None
    to: Instant | None
    ended_from: Instant | None
    ended_to: Instant | None
    overlapping_from: Instant | None
    overlapping_to: Instant | None
    status: Literal["active", "ended"] | None
    flag: str | None
    estimated: bool | None
    updated_from: Instant | None


class CurveSelection(TypedDict, total=False):
    """Filters of a load curve: up to 50 chargers, up to 50 vehicles. `by` gives a curve for each
    charger or area. `time_zone` is the zone of a calendar's steps; without it that is UTC.
    """

    by: By | None
    time_zone: str | None
    charger_id: Ids
    vehicle_id: Ids


class AuditSelection(TypedDict, total=False):
    """Filters of the audit trail: an action such as `key.revoke`, from `from_` to before `to`."""

    action: str | None
    from_: Instant | None
    to: Instant | None


class CapacitySelection(TypedDict, total=False):
    """Filters of capacity: one charger, or the chargers in a box. `max_age` is the age in seconds
    up to which the last event of a vehicle counts. `stale_allowed`: the answer may be stale.
    """

    charger_id: str | None
    bbox: tuple[Number, Number, Number, Number] | None
    max_age: int | None
    stale_allowed: bool


def query_of(selection: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of a request for this selection. Raises Invalid."""
    query: dict[str, Any] = {}
    for member, value in selection.items():
        if value is None:
            continue
        name = api_name(member)
        if name in _INSTANTS:
            query[name] = instant_text(name, value)
        elif name in ("chargerId", "vehicleId"):
            # An empty list is sent as an empty id, which is refused: no id would mean all sessions.
            query[name] = value if isinstance(value, str) else list(value) or ""
        else:
            query[name] = str(bool(value)).lower() if name == "estimated" else value
    return query


def capacity_query(
    charger_id: str | None = None,
    bbox: tuple[Number, Number, Number, Number] | None = None,
    max_age: int | None = None,
    *,
    stale_allowed: bool = False,
) -> dict[str, str | int | None]:
    """The parameters of a request for this selection of capacity. Raises Invalid."""
    return {
        "chargerId": charger_id,
        "bbox": None if bbox is None else box_text("bbox", bbox),
        "maxAge": max_age,
        "stale": stale(stale_allowed),
    }


def window_query(from_: Instant, to: Instant | None, step: int) -> dict[str, Any]:
    """The parameters of a request for the moments from `from_` to before `to`, every `step` s."""
    return {"from": instant_text("from", from_), "to": instant_or_none("to", to), "step": step}


def stale(allowed: bool) -> str | None:
    """The value of the parameter `stale`."""
    return "allowed" if allowed else None


def api_name(name: str) -> str:
    """The API's name of a member: `chargerId` for `charger_id`, `from` for `from_`."""
    first, *others = name.split("_")
    return first + "".join(map(str.capitalize, others))
