"""Writes incoming events in batches: the waiting events of a partner go in one statement.

While events of a partner are being committed, its next events wait. After the commit they all go
in the next statement. So a single event is written at once, and under load one commit has many
events, on both engines.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import TypeAlias

import msgspec
from uuid_utils import uuid7

from tether.domain.errors import Code, Conflict, Refusal, Unavailable, for_another
from tether.domain.models import Event, from_json, to_json
from tether.domain.timestamps import format_instant, parse_instant
from tether.storage.engine import Row
from tether.storage.events import EventRow, Events
from tether.storage.turns import map_in_steps

MAX_EVENTS = 10_000  # in one statement
MAX_EVENTS_SHARED = 1_000  # … while other partners also report, and wait for the writer
SHARED_S = 1.0  # after the reporting partner has changed
SLOW_S = 2.0  # after a slower statement the next ones have fewer events
MAX_EXPLAINED = 100  # events, in the event loop: more are looked up in a thread

WriteResult: TypeAlias = str | Refusal  # the event's id, or why it is not stored
_OTHER_VALUES = Refusal(
    Code.EVENT_CONTRADICTS,
    "An event of this type, charger, vehicle and timestamp is recorded with other values.",
)
_NO_CHARGER, _NO_VEHICLE = (
    Refusal(
        code,
        f"Parameter {{{kind}Id}} is invalid. It must refer to an existing {kind}.",
        parameter=f"{kind}Id",
    )
    for kind, code in (("charger", Code.CHARGER_UNKNOWN), ("vehicle", Code.VEHICLE_UNKNOWN))
)


@dataclass(slots=True, eq=False)
class _Group:
    """Events of one request, which are written together."""

    rows: Sequence[EventRow]
    stored: "asyncio.Future[list[WriteResult]]"


class EventBatcher:
    """Stores all incoming events."""

    def __init__(
        self,
        events: Events,
        now_ms: Callable[[], int],
        on_progress: Callable[[int, int], None],
        on_stored: Callable[[int], None],
        *,
        apply_backpressure: Callable[[int, int], Awaitable[None]],
        on_added: Callable[[int, int], None],
    ) -> None:
        """`on_stored` gets the partner after each write, `on_added` also the number of new events.
        `apply_backpressure` gets the number of events; the partner's next events wait for it.
        """
        self._on_added = on_added
        self._events = events
        self._apply_backpressure = apply_backpressure
        self._on_stored = on_stored
        self._on_progress = on_progress
        self._now_ms = now_ms
        self._max_events = MAX_EVENTS  # adapts to the speed of the database
        self._partner: int | None = None  # that reported last
        self._changed_at = -SHARED_S  # when another partner began to report
        self._waiting: dict[int, list[_Group]] = {}
        self._writers: set[asyncio.Task[None]] = set()

    @property
    def waiting(self) -> int:
        """How many events wait for a commit."""
        return sum(map(_count, self._waiting.values()))

    def row_of(self, event: Event) -> EventRow:
        """The event with an id and, if it has none, a timestamp of the server."""
        if (timestamp := event.timestamp) is None:
            at_ms = stamped_ms = self._now_ms()
            timestamp = format_instant(at_ms)
        else:
            at_ms, stamped_ms = parse_instant(timestamp), 0
        event_id = str(uuid7())  # unique, and roughly in the order of receipt
        body = to_json(msgspec.structs.replace(event, id=event_id, timestamp=timestamp))
        return EventRow(
            event_id, event.type, event.charger_id, event.vehicle_id, at_ms, stamped_ms,
            body.decode(),
        )  # fmt: skip

    async def add(self, partner: int, event: Event) -> str:
        """Stores the event and returns its id: a new one, or the id of the same event if that was
        stored before.

        An event without a timestamp gets the server's time and is always new. Raises Conflict if
        the charger or vehicle is unknown, or the event contradicts a stored one or is too old.
        """
        (result,) = await self._add(partner, [self.row_of(event)])
        if isinstance(result, Refusal):
            raise Conflict(result)
        return result

    async def add_all(self, partner: int, rows: Sequence[EventRow]) -> list[WriteResult]:
        """Stores many events, in portions. Returns the id of each, or why it was not stored.

        Raises Unavailable if none could be stored.
        """
        results: list[WriteResult] = []
        while len(results) < len(rows):
            some = rows[len(results) : len(results) + self._portion()]
            try:
                results += await self._add(partner, some)
            except Unavailable as error:
                if not results:
                    raise
                results += [error.refusal()] * (len(rows) - len(results))
        return results

    def _portion(self) -> int:
        """The most events of a partner in one statement now."""
        beside_others = monotonic() - self._changed_at < SHARED_S
        return min(self._max_events, MAX_EVENTS_SHARED) if beside_others else self._max_events

    def _adapt(self, seconds: float, count: int) -> None:
        """Adapts the size of statements to the time that one of `count` events took."""
        if seconds > SLOW_S:
            self._max_events = max(min(self._max_events, count) // 2, MAX_EVENTS_SHARED)
        elif seconds < SLOW_S / 4 and 2 * count > self._max_events:
            self._max_events = min(2 * self._max_events, MAX_EVENTS)

    def _add(self, partner: int, rows: Sequence[EventRow]) -> "asyncio.Future[list[WriteResult]]":
        if partner != self._partner:
            self._partner, self._changed_at = partner, monotonic()
        stored = asyncio.get_running_loop().create_future()
        group = _Group(rows, stored)
        waiting = self._waiting.get(partner)
        if waiting is None:
            self._waiting[partner] = [group]
            writer = asyncio.create_task(self._write_all(partner))
            self._writers.add(writer)
            writer.add_done_callback(self._writers.discard)
        else:
            waiting.append(group)
        return stored

    async def drain(self) -> None:
        """Returns when no event waits any more."""
        while self._writers:
            await asyncio.wait(self._writers)

    async def _write_all(self, partner: int) -> None:
        while waiting := self._waiting[partner]:
            batch = _first(waiting, self._portion())
            self._waiting[partner] = waiting[len(batch) :]
            try:
                await self._write(partner, batch)
                await self._apply_backpressure(partner, _count(batch))
            except Unavailable as error:
                # The events that came meanwhile would wait in vain, too.
                _fail([*batch, *self._waiting[partner]], error)
                self._waiting[partner] = []
            except Exception as error:
                _fail(batch, error)
        del self._waiting[partner]
        self._on_progress(0, self.waiting)

    async def _write(self, partner: int, batch: list[_Group]) -> None:
        _stamp_in_order(batch, {})
        rows = [row for group in batch for row in group.rows]
        began = monotonic()
        try:
            added = await self._events.add(partner, rows)
        finally:
            self._adapt(monotonic() - began, len(rows))
        if added == len(rows):
            for group in batch:
                _set_results(group, [row.id for row in group.rows])
        await asyncio.sleep(0)  # the waiting requests get their answers first
        self._on_progress(len(rows), self.waiting)
        self._on_stored(partner)
        self._on_added(partner, added)
        if added == len(rows):
            return
        few = len(rows) <= MAX_EXPLAINED
        explanations = await self._events.explain(partner, rows, few=few)
        _stamp_in_order(batch, _newest_stamps(rows, explanations))
        explained = iter(explanations)
        for group in batch:
            results = await map_in_steps(_result, group.rows, explained)
            known = [result for result in results if result is not None]
            if len(known) == len(results):
                _set_results(group, known)
            else:
                self._waiting[partner].append(group)


def _count(groups: Iterable[_Group]) -> int:
    return sum(len(group.rows) for group in groups)


def _first(waiting: Sequence[_Group], most: int) -> list[_Group]:
    """The next groups with at most `most` events together, or one larger group."""
    count = 0
    for number, group in enumerate(waiting):
        count += len(group.rows)
        if count > most and number:
            return list(waiting[:number])
    return list(waiting)


def _stamp_in_order(groups: Iterable[_Group], newest: dict[str, int]) -> None:
    """Makes the server's timestamps of a vehicle's events strictly increasing, even if the clock
    went back. `newest` has the last timestamp of each vehicle.
    """
    first: dict[str, int] = {}
    for group in groups:
        if any(row.stamped_ms for row in group.rows):
            group.rows = [_stamped_after(newest, first, row) for row in group.rows]


def _stamped_after(newest: dict[str, int], first: dict[str, int], row: EventRow) -> EventRow:
    if not row.stamped_ms:
        return row
    at_ms = max(row.at_ms, newest.get(row.vehicle_id, row.at_ms - 1) + 1)
    newest[row.vehicle_id] = at_ms
    first_ms = first.setdefault(row.vehicle_id, at_ms)
    if at_ms == row.at_ms:
        if first_ms == row.stamped_ms:
            return row
        return msgspec.structs.replace(row, stamped_ms=first_ms)
    body = to_json(from_json(Event, row.body).stamped(at_ms)).decode()
    return msgspec.structs.replace(row, at_ms=at_ms, stamped_ms=first_ms, body=body)


def _newest_stamps(rows: Iterable[EventRow], explanations: Iterable[Row]) -> dict[str, int]:
    """The newest stored timestamp of the server for each vehicle."""
    newest: dict[str, int] = {}
    for row, (_, _, itself, _, stamped_ms, _) in zip(rows, explanations, strict=True):
        if stamped_ms is not None and itself is None:
            newest[row.vehicle_id] = max(stamped_ms, newest.get(row.vehicle_id, 0))
    return newest


def _result(row: EventRow, explanation: Row) -> WriteResult | None:
    """The id of the stored event, or why it is not stored; None if it should be tried again."""
    has_charger, has_vehicle, itself, recorded_body, _, horizon_ms = explanation
    if itself is not None:
        return row.id
    if recorded_body is not None:
        recorded = from_json(Event, recorded_body)
        if recorded.id and recorded == from_json(Event, row.body).identified(recorded.id):
            return recorded.id
        return _OTHER_VALUES
    if horizon_ms is not None:
        return _expired(horizon_ms)
    if not (has_charger and has_vehicle):
        return _NO_VEHICLE if has_charger else _NO_CHARGER
    return None  # its charger or vehicle was just created, or it needs another timestamp


def _expired(horizon_ms: int) -> Refusal:
    since = format_instant(horizon_ms)
    message = f"Events before {since} are not kept any more: this one is not stored."
    return Refusal(Code.EVENT_EXPIRED, message, parameter="timestamp")


def _fail(groups: Iterable[_Group], error: Exception) -> None:
    for group in groups:
        if not group.stored.done():
            group.stored.set_exception(for_another(error))


def _set_results(group: _Group, results: list[WriteResult]) -> None:
    if not group.stored.done():  # the client may be gone
        group.stored.set_result(results)
