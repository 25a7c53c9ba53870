"""What can be asked about available flexibility: at a moment, over time, by charger."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Literal, TypeAlias, TypedDict

from tether.client.entities import Pages
from tether.client.exchange import (
    Request,
    RetryPolicy,
    Script,
    ask,
    exchange,
    read,
    stale,
    with_query,
)
from tether.client.models import Instant, Number
from tether.client.values import box_text, instant_or_none, instant_text
from tether.domain.views import Capacity

By: TypeAlias = Literal["charger", "area"]
Box: TypeAlias = tuple[Number, Number, Number, Number]
Window: TypeAlias = tuple[Instant, Instant | None, int]
"""From when on, to before when, which is now if it is None, and every how many seconds."""


class Selection(TypedDict, total=False):
    """Which chargers are asked about, how long ago vehicles were heard of at most, in seconds, and
    whether the answer may be stale.
    """

    charger_id: str | None
    bbox: Box | None
    max_age: int | None
    stale_allowed: bool


class CapacityCalls:
    """Scripts for available flexibility; `AsyncCapacities` says what they do."""

    def __init__(self, policy: RetryPolicy) -> None:
        self._policy = policy

    def get(self, at: Instant | None, selection: Selection) -> Script[Capacity]:
        target = with_query("/capacity", **_selection(**selection), at=instant_or_none("at", at))
        return ask(Capacity, Request("GET", target), self._policy)

    def series(self, window: Window, selection: Selection) -> Script[list[Capacity]]:
        target = with_query("/capacity", **_selection(**selection), **_times(window))
        return ask(list[Capacity], Request("GET", target), self._policy)

    def lines(self, window: Window, selection: Selection) -> Script[Iterator[Capacity]]:
        """The figures of many moments, in one answer of which each line is read when it is due."""
        target = with_query("/capacity", **_selection(**selection), **_times(window))
        request = Request("GET", target, headers={"Accept": "application/x-ndjson"})
        answer = yield from exchange(request, self._policy, 200)
        return (
            read(Capacity, replace(answer, body=line), request) for line in answer.body.splitlines()
        )

    def pages(
        self,
        by: By,
        page_size: int,
        selection: Selection,
        *,
        at: Instant | None = None,
        window: Window | None = None,
    ) -> Pages[Capacity]:
        """The figures of each charger or area, at a moment or over time."""
        times = {"at": instant_or_none("at", at)} if window is None else _times(window)
        query = {"by": by, **_selection(**selection), **times, "limit": page_size}
        return Pages(Capacity, self._policy, "/capacity", **query)


def _times(window: Window) -> dict[str, Any]:
    from_, to, step = window
    return {"from": instant_text("from", from_), "to": instant_or_none("to", to), "step": step}


def _selection(
    charger_id: str | None = None,
    bbox: Box | None = None,
    max_age: int | None = None,
    *,
    stale_allowed: bool = False,
) -> dict[str, str | int | None]:
    return {
        "chargerId": charger_id,
        "bbox": None if bbox is None else box_text("bbox", bbox),
        "maxAge": max_age,
        "stale": stale(stale_allowed),
    }
