"""What can be asked about events: one, many in one request, lists."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

from tether.client.bulk import BulkCalls, event_result, withdraw_result
from tether.client.entities import Pages
from tether.client.errors import TetherError
from tether.client.exchange import (
    Created,
    Request,
    RetryPolicy,
    Script,
    ask,
    epoch_of,
    exchange,
    next_cursor,
    path,
    read,
    with_query,
)
from tether.client.following import cursor_behind
from tether.client.models import BulkResult, Event, Instant, Withdrawal, WithdrawResult
from tether.client.stamps import Stamps
from tether.client.units import Tell, doubts_in, tell_user
from tether.client.values import instant_or_none, sendable
from tether.domain import models
from tether.domain.models import to_json

EventFilters: TypeAlias = Mapping[str, str | None]


def event_filters(type: str | None, charger_id: str | None, vehicle_id: str | None) -> EventFilters:
    """The parameters that say which events are wanted; None does not narrow it down."""
    return {"type": type, "chargerId": charger_id, "vehicleId": vehicle_id}


class EventCalls:
    """Scripts for events; `AsyncEvents` says what they do."""

    def __init__(self, policy: RetryPolicy, stamps: Stamps, tell: Tell = tell_user) -> None:
        self._policy = policy
        self._stamps = stamps
        self._tell = tell
        self._bulk = BulkCalls("event", policy, self.ready, event_result, tell)
        self._withdrawals = BulkCalls(
            "event id", policy, str, withdraw_result, tell, path="/events/withdraw"
        )

    def ready(self, event: models.Event) -> models.Event:
        """The event as it is sent: exact, stamped, and without the id of a stored one."""
        event = sendable(event)
        return event if event.timestamp else event.stamped(self._stamps.next(event.vehicle_id))

    def post(self, event: models.Event) -> Script[str]:
        event = self.ready(event)
        request = Request("POST", "/events", to_json(event), may_share=True)
        try:
            answer = yield from exchange(request, self._policy, 201)
            event_id = read(Created, answer, request).id
        except TetherError as error:
            error.event = event  # type: ignore[assignment]  # the same class at run time
            raise
        self._tell(doubts_in(answer))
        return event_id

    def get(self, event_id: str) -> Script[Event]:
        return ask(Event, Request("GET", path("events", event_id)), self._policy)

    def now(self) -> Script[str]:
        """The place behind the last event that there is."""
        request = Request("GET", with_query("/events", order="desc", limit=1))
        answer = yield from exchange(request, self._policy, 200)
        last = read(list[Event], answer, request)
        # Its cursor leads to what comes before it, and read in the other direction to what follows.
        # There is none if no event comes before it.
        cursor = next_cursor(answer)
        taken = last[0].id if last and not cursor else None
        return cursor_behind(taken or 0, cursor, epoch_of(answer))

    def pages(
        self,
        filters: EventFilters,
        from_: Instant | None,
        to: Instant | None,
        order: str,
        page_size: int,
    ) -> Pages[Event]:
        return Pages(
            Event,
            self._policy,
            "/events",
            **filters,
            order=order,
            limit=page_size,
            from_=instant_or_none("from", from_),
            to=instant_or_none("to", to),
        )

    def withdraw(self, event_id: str) -> Script[None]:
        request = Request("DELETE", path("events", event_id))
        yield from exchange(request, self._policy, 204)

    def withdraw_many(self, ids: Iterable[str]) -> Script[list[WithdrawResult]]:
        return self._withdrawals.all(ids)

    def withdrawn(self, filters: EventFilters, order: str, page_size: int) -> Pages[Withdrawal]:
        path = "/events/withdrawn"
        return Pages(Withdrawal, self._policy, path, **filters, order=order, limit=page_size)

    def bulk(self, events: Iterable[models.Event]) -> Script[list[BulkResult]]:
        return self._bulk.all(events)

    def bulk_once(self, events: Sequence[models.Event]) -> Script[tuple[list[BulkResult], float]]:
        """One request with these ready events; what it says of each, and how long to wait."""
        return self._bulk.once(events)
