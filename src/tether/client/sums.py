"""What can be asked about sessions together: their sums, and load curves."""

from collections.abc import Iterable
from typing import Literal, TypeAlias, TypedDict

from tether.client.entities import Pages
from tether.client.exchange import RetryPolicy, stale
from tether.client.models import Instant
from tether.client.sessions import SessionSelection, query_of
from tether.client.values import instant_text
from tether.domain.views import EnergyStep, SessionSummary

Unit: TypeAlias = Literal["hour", "day", "week", "month"]
Ids: TypeAlias = str | Iterable[str] | None


class Division(TypedDict, total=False):
    """How sums are told apart: by time, on the clocks of a zone such as Europe/Berlin, which is UTC
    unless it is given, and by groups.
    """

    bucket: Unit | None
    time_zone: str | None
    by: Literal["charger", "vehicle", "flag", "area"] | None


def summaries(
    policy: RetryPolicy,
    selection: SessionSelection,
    division: Division,
    page_size: int,
    stale_allowed: bool,
) -> Pages[SessionSummary]:
    """The sums of the sessions that pass the filters."""
    return Pages(
        SessionSummary,
        policy,
        "/sessions/summary",
        **query_of(selection),
        bucket=division.get("bucket"),
        timeZone=division.get("time_zone"),
        by=division.get("by"),
        stale=stale(stale_allowed),
        limit=page_size,
    )


class CurveSelection(TypedDict, total=False):
    """Whose load curve is wanted: of chargers, of vehicles, up to 50 of each; in total, or by
    charger or area. `time_zone` is that of a calendar's steps, UTC unless it is given.
    """

    by: Literal["charger", "area"] | None
    time_zone: str | None
    charger_id: Ids
    vehicle_id: Ids


def curve(
    policy: RetryPolicy,
    window: tuple[Instant, Instant],
    step: int | Unit,
    selection: CurveSelection,
    page_size: int,
    *,
    stale_allowed: bool,
) -> Pages[EnergyStep]:
    """The steps of a load curve."""
    ids: SessionSelection = {
        "charger_id": selection.get("charger_id"),
        "vehicle_id": selection.get("vehicle_id"),
    }
    return Pages(
        EnergyStep,
        policy,
        "/energy",
        **query_of(ids),
        from_=instant_text("from", window[0]),
        to=instant_text("to", window[1]),
        step=step,
        timeZone=selection.get("time_zone"),
        by=selection.get("by"),
        stale=stale(stale_allowed),
        limit=page_size,
    )
