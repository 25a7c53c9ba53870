"""What can be asked about events: one, many in one request, lists."""

import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import msgspec

from tether.client.entities import Pages
from tether.client.errors import (
    Invalid,
    RateLimited,
    TetherError,
    TooLarge,
    Unavailable,
    UnexpectedAnswer,
)
from tether.client.exchange import (
    Answer,
    Created,
    Patience,
    Pause,
    Request,
    Script,
    epoch_of,
    exchange,
    log,
    next_cursor,
    path,
    read,
    with_query,
)
from tether.client.following import cursor_behind
from tether.client.models import BulkResult, Doubt, Event, Instant
from tether.client.stamps import Stamps
from tether.client.units import Tell, doubts_in, tell_user
from tether.client.values import instant_text, sendable
from tether.domain import models
from tether.domain.bulk_limits import MAX_BYTES, MAX_EVENTS, MAX_ITEM_BYTES
from tether.domain.errors import Code
from tether.domain.models import to_json

LATER = frozenset({429, 503})  # an item of a bulk answer that is to be sent again
LONGEST_S = 30.0  # a bulk answer says when all would be let in; some are let in before
_GZIP = 31  # zlib's name for that format
_FAST = 1


class _Item(msgspec.Struct):
    status: int
    id: str | None = None
    message: str | None = None
    code: str | None = None
    parameter: str | None = None
    warnings: tuple[Doubt, ...] = ()


@dataclass(slots=True)
class _Chunk:
    """What goes into one request; what cannot be sent has its result already."""

    events: list[models.Event] = field(default_factory=list)
    lines: list[bytes] = field(default_factory=list)
    results: list[BulkResult | None] = field(default_factory=list)
    size: int = 0

    def add(self, event: models.Event, line: bytes, refusal: TetherError | None) -> None:
        """One more event."""
        self.events.append(event)
        self.lines.append(line)
        self.results.append(refused(event, refusal) if refusal else None)
        self.size += len(line) + 1

    def waiting(self) -> list[int]:
        """The places of the events that have to be sent, in order."""
        return [place for place, result in enumerate(self.results) if result is None]

    def known(self, error: TetherError) -> list[BulkResult]:
        """The results, when this error has ended it."""
        return [
            result or refused(event, error)
            for event, result in zip(self.events, self.results, strict=True)
        ]


class EventCalls:
    """Scripts for events."""

    def __init__(self, patience: Patience, stamps: Stamps, tell: Tell = tell_user) -> None:
        self._patience = patience
        self._stamps = stamps
        self._tell = tell

    def ready(self, event: models.Event) -> models.Event:
        """The event as it is sent: exact, stamped, and without the id of a stored one."""
        event = sendable(event)
        return event if event.timestamp else event.stamped(self._stamps.next(event.vehicle_id))

    def post(self, event: models.Event) -> Script[str]:
        """Reports an event; its id."""
        event = self.ready(event)
        request = Request("POST", "/events", to_json(event), may_share=True)
        try:
            answer = yield from exchange(request, self._patience, 201)
            event_id = read(Created, answer, request).id
        except TetherError as error:
            error.event = event  # type: ignore[assignment]  # the same class at run time
            raise
        self._tell(doubts_in(answer))
        return event_id

    def get(self, event_id: str) -> Script[Event]:
        """The event of this id."""
        request = Request("GET", path("events", event_id))
        answer = yield from exchange(request, self._patience, 200)
        return read(Event, answer, request)

    def now(self) -> Script[str]:
        """The place behind the last event that there is."""
        request = Request("GET", with_query("/events", order="desc", limit=1))
        answer = yield from exchange(request, self._patience, 200)
        last = read(list[Event], answer, request)
        # Its cursor leads to what comes before it, and read in the other direction to what follows.
        # There is none if no event comes before it.
        cursor = next_cursor(answer)
        return cursor_behind(0 if cursor else len(last), cursor, epoch_of(answer))

    def pages(
        self,
        *,
        type: str | None,
        charger_id: str | None,
        vehicle_id: str | None,
        from_: Instant | None,
        to: Instant | None,
        order: str,
        page_size: int,
    ) -> Pages[Event]:
        """The events that pass the filters, by order of commit."""
        return Pages(
            Event,
            self._patience,
            "/events",
            type=type,
            chargerId=charger_id,
            vehicleId=vehicle_id,
            order=order,
            limit=page_size,
            **{"from": from_ if from_ is None else instant_text("from", from_)},
            to=to if to is None else instant_text("to", to),
        )

    # Many at once ---------------------------------------------------------------------------------

    def bulk(self, events: Iterable[models.Event]) -> Script[list[BulkResult]]:
        """Reports any number of events, in as few requests as possible; the results, in order."""
        results: list[BulkResult] = []
        for chunk in self._chunks(events):
            try:
                yield from self._deliver(chunk)
            except TetherError as error:
                error.results = results + chunk.known(error)
                raise
            results += (result for result in chunk.results if result is not None)
        return results

    def bulk_once(self, events: Sequence[models.Event]) -> Script[tuple[list[BulkResult], float]]:
        """One request with these ready events; what it says of each, and how long to wait."""
        return (yield from self._send(events, [to_json(event) for event in events]))

    def _chunks(self, events: Iterable[models.Event]) -> Iterator[_Chunk]:
        chunk = _Chunk()
        for given in events:
            event, line = given, b""
            refusal: TetherError | None = None
            try:
                event = self.ready(given)
                line = _line_of(event)
            except (Invalid, TooLarge) as error:
                refusal = error
            full = len(chunk.events) == MAX_EVENTS or chunk.size + len(line) >= MAX_BYTES
            if full and chunk.events:
                yield chunk
                chunk = _Chunk()
            chunk.add(event, line, refusal)
        if chunk.events:
            yield chunk

    def _deliver(self, chunk: _Chunk) -> Script[None]:
        """Sends until each event is stored or refused for good, those that have to wait in order.

        Nothing behind them is sent meanwhile: else a vehicle's events would be stored out of order.
        """
        failures = 0
        while waiting := chunk.waiting():
            results, retry_after = yield from self._send(
                [chunk.events[place] for place in waiting],
                [chunk.lines[place] for place in waiting],
            )
            for place, result in zip(waiting, results, strict=True):
                chunk.results[place] = None if result.status in LATER else result
            left = [result for result in results if result.status in LATER]
            if left:
                failures = 1 if len(left) < len(results) else failures + 1
                seconds = self._patience.pause(failures, retry_after)
                if seconds is None:
                    raise come_back(left[0], retry_after)
                log.info("%d of %d events wait: %.2f s", len(left), len(results), seconds)
                yield Pause(seconds)

    def _send(
        self, events: Sequence[models.Event], lines: Iterable[bytes]
    ) -> Script[tuple[list[BulkResult], float]]:
        request = bulk_request(lines)
        answer: Answer = yield from exchange(request, self._patience, 200)
        items = read(list[_Item], answer, request)
        if len(items) != len(events):
            raise UnexpectedAnswer("A bulk answer must have one item for each event.", status=200)
        results = [
            BulkResult(event, **msgspec.structs.asdict(item))
            for event, item in zip(events, items, strict=True)
        ]
        self._tell({doubt for result in results for doubt in result.warnings})
        return results, min(answer.retry_after or 0, LONGEST_S)


def bulk_request(lines: Iterable[bytes]) -> Request:
    """The request that reports these events, each given as its JSON."""
    zipper = zlib.compressobj(_FAST, wbits=_GZIP)
    body = zipper.compress(b"\n".join(lines)) + zipper.flush()
    headers = {"Content-Type": "application/x-ndjson", "Content-Encoding": "gzip"}
    return Request("POST", "/events/bulk", body, headers)


def _line_of(event: models.Event) -> bytes:
    line = to_json(event)
    if len(line) > MAX_ITEM_BYTES:  # the server would take no such line
        raise TooLarge(
            f"An event must not be larger than {MAX_ITEM_BYTES:,} bytes.",
            status=413,
            code=Code.TOO_LARGE,
        )
    return line


def refused(event: models.Event, error: TetherError) -> BulkResult:
    """The result of an event that met this error."""
    return BulkResult(
        event, error.status, message=error.message, code=error.code, parameter=error.parameter
    )


def come_back(result: BulkResult, retry_after: float) -> RateLimited | Unavailable:
    """What it means that an event has to be sent again later."""
    kind = RateLimited if result.status == 429 else Unavailable
    error = kind(
        result.message or "Some events could not be stored.",
        status=result.status,
        code=result.code,
        parameter=result.parameter,
    )
    error.retry_after = retry_after
    return error
