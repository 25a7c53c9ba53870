"""How events come in: those which wait are written together, in one statement for each partner.

While the events of a partner are being committed, its next ones gather; when the commit is done
they all go in the next statement. So a lone event is written at once, and under load one commit
carries many, on either engine.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

import msgspec

from tether.errors import Conflict, Unavailable
from tether.model import Event, from_json, to_json
from tether.store import queries
from tether.store.engine import Engine, Row

MOST_IN_ONE_STATEMENT = 5000


@dataclass(slots=True, eq=False)
class _Arrival:
    event: Event
    event_id: str
    at_ms: int
    stamped: bool
    body: bytes
    stored: "asyncio.Future[str]"


class Intake:
    """The way of all events into the store."""

    def __init__(
        self,
        engine: Engine,
        now_ms: Callable[[], int],
        new_event_id: Callable[[], str],
        on_progress: Callable[[int, int], None],
        on_stored: Callable[[int], None],
        *,
        hold_up: Callable[[int, int], Awaitable[None]],
    ) -> None:
        """`on_stored` is told whose events were stored, `hold_up` also how many: while it does not
        return, the partner's next ones wait.
        """
        self._engine = engine
        self._hold_up = hold_up
        self._on_stored = on_stored
        self._on_progress = on_progress
        self._now_ms = now_ms
        self._new_event_id = new_event_id
        self._add_sql = queries.ADD_EVENTS.format(event_numbers=engine.dialect.event_numbers)
        self._waiting: dict[int, list[_Arrival]] = {}
        self._writers: set[asyncio.Task[None]] = set()

    @property
    def waiting(self) -> int:
        """How many events wait for a commit."""
        return sum(map(len, self._waiting.values()))

    def add(self, partner: int, event: Event) -> "asyncio.Future[str]":
        """The id of the event once it is durable: a new one, or that of the same event before.

        An event without a timestamp gets the server's time and is always new. The future raises
        Conflict if the charger or vehicle is unknown or the event contradicts a recorded one.
        """
        stamped = event.timestamp is None
        if stamped:
            event = event.stamped(self._now_ms())
        event_id = self._new_event_id()
        body = b'{"id":"%b",%b' % (event_id.encode(), to_json(event)[1:])  # the id comes first
        stored = asyncio.get_running_loop().create_future()
        arrival = _Arrival(event, event_id, event.at_ms, stamped, body, stored)
        waiting = self._waiting.get(partner)
        if waiting is None:
            self._waiting[partner] = [arrival]
            writer = asyncio.create_task(self._write_all(partner))
            self._writers.add(writer)
            writer.add_done_callback(self._writers.discard)
        else:
            waiting.append(arrival)
        return stored

    async def drain(self) -> None:
        """Returns when nothing waits any more."""
        while self._writers:
            await asyncio.wait(self._writers)

    async def _write_all(self, partner: int) -> None:
        while waiting := self._waiting[partner]:
            batch, self._waiting[partner] = (
                waiting[:MOST_IN_ONE_STATEMENT],
                waiting[MOST_IN_ONE_STATEMENT:],
            )
            try:
                await self._write(partner, batch)
            except Unavailable as error:
                # What gathered behind it meanwhile would only wait as long again.
                _fail([*batch, *self._waiting[partner]], error)
                self._waiting[partner] = []
            except Exception as error:
                _fail(batch, error)
            else:
                await self._hold_up(partner, len(batch))
        del self._waiting[partner]
        self._on_progress(0, self.waiting)

    async def _write(self, partner: int, batch: list[_Arrival]) -> None:
        rows = _rows(batch)
        added = await self._engine.write(self._add_sql, partner, rows, len(batch))
        self._on_progress(len(batch), self.waiting)
        self._on_stored(partner)
        if added == len(batch):
            for arrival in batch:
                _settle(arrival, arrival.event_id)
            return
        explained = await self._engine.read(queries.EXPLAIN_EVENTS, partner, rows)
        for arrival, found in zip(batch, explained, strict=True):
            fate = _fate(arrival, found)
            if fate is None:
                self._waiting[partner].append(arrival)
            else:
                _settle(arrival, fate)


def _fate(arrival: _Arrival, found: Row) -> str | Conflict | None:
    """The id under which the event is recorded, or why it is not; None if it can be by now."""
    has_charger, has_vehicle, itself, recorded_body = found
    if itself is not None:
        return arrival.event_id
    if recorded_body is not None:
        recorded = from_json(Event, recorded_body)
        if recorded.id is not None and recorded == arrival.event.identified(recorded.id):
            return recorded.id
        return Conflict(
            "An event of this type, charger, vehicle and timestamp is recorded with other values."
        )
    if not has_charger:
        return Conflict("Parameter {chargerId} is invalid. It must refer to an existing charger.")
    if not has_vehicle:
        return Conflict("Parameter {vehicleId} is invalid. It must refer to an existing vehicle.")
    return None  # charger or vehicle were created while the batch was under way


def _fail(batch: Iterable[_Arrival], error: Exception) -> None:
    for arrival in batch:
        if not arrival.stored.done():
            arrival.stored.set_exception(error)


def _settle(arrival: _Arrival, fate: str | Conflict) -> None:
    if arrival.stored.done():  # the client is gone
        return
    if isinstance(fate, Conflict):
        arrival.stored.set_exception(fate)
    else:
        arrival.stored.set_result(fate)


def _rows(batch: Iterable[_Arrival]) -> str:
    return msgspec.json.encode(
        {
            str(place): (
                place,
                arrival.event_id,
                arrival.event.type,
                arrival.event.charger_id,
                arrival.event.vehicle_id,
                arrival.at_ms,
                int(arrival.stamped),
                msgspec.Raw(arrival.body),
            )
            for place, arrival in enumerate(batch, start=1)
        }
    ).decode()
