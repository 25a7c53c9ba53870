"""What can be asked about available flexibility: at a moment, over time, by charger."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Literal, TypeAlias, TypedDict

from tether.client.entities import Pages
from tether.client.exchange import Patience, Request, Script, exchange, read, stale, with_query
from tether.client.models import Instant, Number
from tether.client.values import box_text, instant_text
from tether.domain.views import Capacity

By: TypeAlias = Literal["charger", "area"]
Box: TypeAlias = tuple[Number, Number, Number, Number]


class Selection(TypedDict, total=False):
    """Which chargers are asked about, how long ago vehicles were heard of at most, in seconds, and
    whether the answer may be stale.
    """

    charger_id: str | None
    bbox: Box | None
    max_age: int | None
    stale_allowed: bool


class CapacityCalls:
    """Scripts for available flexibility."""

    def __init__(self, patience: Patience) -> None:
        self._patience = patience

    def get(self, at: Instant | None, selection: Selection) -> Script[Capacity]:
        """The figures of a moment."""
        request = _request(**_selection(**selection), at=_instant("at", at))
        answer = yield from exchange(request, self._patience, 200)
        return read(Capacity, answer, request)

    def series(
        self, from_: Instant, to: Instant | None, step: int, selection: Selection
    ) -> Script[list[Capacity]]:
        """The figures of some moments."""
        window = {"from": _instant("from", from_), "to": _instant("to", to), "step": step}
        request = _request(**_selection(**selection), **window)
        answer = yield from exchange(request, self._patience, 200)
        return read(list[Capacity], answer, request)

    def lines(
        self, from_: Instant, to: Instant | None, step: int, selection: Selection
    ) -> Script[Iterator[Capacity]]:
        """The figures of many moments, in one answer of which each line is read when it is due."""
        window = {"from": _instant("from", from_), "to": _instant("to", to), "step": step}
        target = with_query("/capacity", **_selection(**selection), **window)
        request = Request("GET", target, headers={"Accept": "application/x-ndjson"})
        answer = yield from exchange(request, self._patience, 200)
        return (
            read(Capacity, replace(answer, body=line), request) for line in answer.body.splitlines()
        )

    def pages(
        self, by: By, page_size: int, selection: Selection, **moments: Any
    ) -> Pages[Capacity]:
        """The figures of each charger or area, at a moment or over time."""
        return Pages(
            Capacity,
            self._patience,
            "/capacity",
            by=by,
            **_selection(**selection),
            **{
                name: value if name == "step" else _instant(name, value)
                for name, value in moments.items()
            },
            limit=page_size,
        )


def _request(**query: Any) -> Request:
    return Request("GET", with_query("/capacity", **query))


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


def _instant(name: str, value: Instant | None) -> str | None:
    return None if value is None else instant_text(name, value)
