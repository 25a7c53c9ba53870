"""Events: inserts in batches; reads by id, in pages and for deriving sessions."""

from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple

import msgspec

from tether.domain.errors import NotFound
from tether.domain.filters import EventFilter
from tether.domain.models import Event, from_json, to_json
from tether.domain.session_record import OrderedEvent, ordered_event
from tether.storage.engine import Engine, Repository, Row, batch, columns_of

READ_AT_ONCE = 20_000  # events that one portion of a page may read
WINDOW_AT_ONCE = 100_000  # index entries by time that are read to find the ends of a window
PORTIONS = 20  # that one request may read
END_OF_TIME = 2**62  # also above every sequence number
EVENTS, WITHDRAWALS = "events", "withdrawals"  # tables that are listed in pages

# Adding -------------------------------------------------------------------------------------------


class EventRow(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """An event in a batch. `stamped_ms` is 0 if the partner gave the timestamp. Otherwise it is the
    first timestamp that the server gave to an event of the vehicle in the batch.
    """

    id: str
    type: str
    charger_id: str
    vehicle_id: str
    at_ms: int
    stamped_ms: int
    body: str


_BATCH = batch("batch", *columns_of(EventRow))

# Each event of a batch is looked up in an index. These are scalar subqueries, because PostgreSQL
# turns EXISTS and LEFT JOIN into joins, and with the estimates of a new table such a join reads all
# events of the partner. ORDER BY stamp selects the only index that ends in it.
_HAS_CHARGER = """
(SELECT 1 FROM chargers c WHERE c.partner = $1 AND c.id = b.charger_id LIMIT 1) IS NOT NULL
"""
_HAS_VEHICLE = """
(SELECT 1 FROM vehicles v WHERE v.partner = $1 AND v.id = b.vehicle_id LIMIT 1) IS NOT NULL
"""
_SAME_EVENT = """
(SELECT e.body FROM events e
 WHERE e.partner = $1 AND e.vehicle_id = b.vehicle_id AND e.at_ms = b.at_ms
   AND e.type = b.type AND e.charger_id = b.charger_id
 ORDER BY e.stamp LIMIT 1)
"""
# Earlier events of the partner are refused: see retention.py. It is read once for a batch.
_HORIZON = "(SELECT r.horizon_ms FROM retention r WHERE r.partner = $1)"

# The newest stored timestamp that the server gave to an event of the vehicle, unless it is before
# the timestamps in the batch. If there is one, no event of the vehicle is added: they first get
# later timestamps. Events whose partner sent a future timestamp are skipped, up to a hundred. Much
# later timestamps are skipped, too: they are of a clock that was wrong.
LONGEST_SET_BACK_MS = 600_000
_STAMPED_SINCE = f"""
(SELECT max(x.at_ms) FROM (
    SELECT e.at_ms, e.stamp FROM events e
    WHERE e.partner = $1 AND e.vehicle_id = b.vehicle_id
      AND e.at_ms >= b.stamped_ms AND e.at_ms < b.stamped_ms + {LONGEST_SET_BACK_MS}
    ORDER BY e.at_ms, e.type, e.charger_id, e.stamp LIMIT 100
 ) x WHERE x.stamp > 0)
"""

# The events are checked before they get numbers. From then on, on PostgreSQL, other writers of the
# partner wait. `WHERE true` tells SQLite that ON does not belong to the join.
ADD = f"""
WITH {_BATCH}, ready AS (
    SELECT * FROM batch b
    WHERE {_HAS_CHARGER} AND {_HAS_VEHICLE} AND (b.at_ms < {_HORIZON}) IS NOT TRUE
      AND CASE b.stamped_ms WHEN 0 THEN {_SAME_EVENT} IS NULL ELSE {_STAMPED_SINCE} IS NULL END
), numbers (base) AS ({{event_numbers}})
INSERT INTO events (partner, seq, id, type, charger_id, vehicle_id, at_ms, stamp, body)
SELECT $1, n.base + r.place, r.id, r.type, r.charger_id, r.vehicle_id, r.at_ms,
       CASE r.stamped_ms WHEN 0 THEN 0 ELSE n.base + r.place END, r.body
FROM numbers n CROSS JOIN ready r
WHERE true
ON CONFLICT DO NOTHING
"""

# For each event of a batch that was not inserted completely: whether its charger and its vehicle
# exist, its id if it was inserted (it may be withdrawn by now), the stored event of the same
# identity, the newest timestamp of the server, and the horizon if the event is before it.
EXPLAIN = f"""
WITH {_BATCH}
SELECT {_HAS_CHARGER}, {_HAS_VEHICLE},
       coalesce((SELECT e.id FROM events e WHERE e.partner = $1 AND e.id = b.id),
                (SELECT w.id FROM withdrawals w WHERE w.partner = $1 AND w.id = b.id)),
       CASE WHEN b.stamped_ms = 0 THEN {_SAME_EVENT} END,
       CASE WHEN b.stamped_ms > 0 THEN {_STAMPED_SINCE} END,
       CASE WHEN b.at_ms < {_HORIZON} THEN {_HORIZON} END
FROM batch b
ORDER BY b.place
"""

# Reading ------------------------------------------------------------------------------------------

GET = "SELECT body FROM events WHERE partner = $1 AND id = $2"

# The number of an event, also if it was withdrawn, and the number of its withdrawal.
SEQ = """
SELECT coalesce((SELECT e.seq FROM events e WHERE e.partner = $1 AND e.id = $2),
                (SELECT w.event_seq FROM withdrawals w WHERE w.partner = $1 AND w.id = $2))
"""
SEQ_OF_WITHDRAWAL = "SELECT seq FROM withdrawals WHERE partner = $1 AND id = $2"

# Events and withdrawals; withdrawals have no body here.
FOLLOWING = """
SELECT seq, at_ms, vehicle_id, body FROM events WHERE partner = $1 AND seq > $2
UNION ALL
SELECT seq, at_ms, vehicle_id, NULL FROM withdrawals WHERE partner = $1 AND seq > $2
ORDER BY seq LIMIT $3
"""

# The vehicles with events or withdrawals after $2 and up to $3, in the order of their ids, with
# their count and the timestamps of the first and the last one.
VEHICLES_FOLLOWING = """
SELECT vehicle_id, count(*), min(at_ms), max(at_ms) FROM (
    SELECT vehicle_id, at_ms FROM events
    WHERE partner = $1 AND seq > $2 AND seq <= $3 AND vehicle_id > $4
    UNION ALL
    SELECT vehicle_id, at_ms FROM withdrawals
    WHERE partner = $1 AND seq > $2 AND seq <= $3 AND vehicle_id > $4
) following
GROUP BY vehicle_id ORDER BY vehicle_id LIMIT $5
"""

# `+ 0` prevents the use of an index for the number. The order selects the only index that has it,
# also while the tables are new.
OF_VEHICLE = """
SELECT seq, at_ms, body FROM vehicle_history
WHERE partner = $1 AND vehicle_id = $2 AND at_ms >= $3 AND at_ms <= $4 AND seq + 0 <= $5
ORDER BY at_ms, type, charger_id, stamp LIMIT $6
"""

_CONDITIONS = ("type = ", "charger_id = ", "vehicle_id = ", "at_ms >= ", "at_ms < ")


def page_statement(
    wanted: EventFilter, after: int | None, descending: bool, table: str = EVENTS
) -> tuple[str, list[object]]:
    """The statement for a page of events, or of withdrawals, and its parameters from $3 on; $1
    partner, $2 limit.

    It reads at most READ_AT_ONCE events. If it reads so many, it adds a row with the number of the
    last one and no body.
    """
    given = [pair for pair in zip(_CONDITIONS, wanted, strict=True) if pair[1] is not None]
    conditions = [f"{start}${number}" for number, (start, _) in enumerate(given, start=3)]
    parameters: list[object] = [value for _, value in given]
    selective, relation, key = wanted != EventFilter(), table, ""
    if table == EVENTS:
        selective = wanted.is_selective
        if wanted.vehicle_id is not None:
            relation, key = "vehicle_events", "vehicle_id"
        elif wanted.charger_id is not None:
            relation, key = "charger_events", "charger_id"
    indexed = ["partner = $1", *(text for text in conditions if key and text.startswith(key))]
    if after is not None:
        parameters.append(after)
        indexed.append(f"seq {'<' if descending else '>'} ${2 + len(parameters)}")
    others = [text for text in conditions if text not in indexed]
    order = f"ORDER BY seq {'DESC' if descending else 'ASC'}"
    page = f"SELECT seq, body FROM {relation} WHERE {' AND '.join([*indexed, *others])}"
    if not selective:
        return f"{page} {order} LIMIT $2", parameters
    # `seq` alone in the comparison, so that both engines stop there in the index.
    end, comparison = ("0", ">=") if descending else (str(2**62), "<=")
    sql = f"""
WITH stop AS MATERIALIZED (
    SELECT seq FROM {relation} WHERE {" AND ".join(indexed)}
    {order} LIMIT 1 OFFSET {READ_AT_ONCE - 1}
)
SELECT seq, body FROM (
    {page} AND seq {comparison} coalesce((SELECT seq FROM stop), {end}) {order} LIMIT $2
) page
UNION ALL SELECT seq, NULL FROM stop
"""
    return sql, parameters


def window_statement(
    wanted: EventFilter, beyond: int, descending: bool
) -> tuple[str, list[object]]:
    """The statement for the ends of a window of time, and its parameters; $1 is the partner.

    It counts the events in the window, at most WINDOW_AT_ONCE, and finds the one that comes next
    after the number `beyond` (or before it, if `descending`).
    """
    window = (("at_ms >= ", wanted.from_ms), ("at_ms < ", wanted.to_ms))
    given = [(start, at_ms) for start, at_ms in window if at_ms is not None]
    inside = " AND ".join(f"{start}${number}" for number, (start, _) in enumerate(given, start=3))
    nearest, comparison = ("max", "<") if descending else ("min", ">")
    sql = f"""
SELECT count(*), {nearest}(CASE WHEN seq {comparison} $2 THEN seq END) FROM (
    SELECT seq FROM events WHERE partner = $1 AND {inside} ORDER BY at_ms LIMIT {WINDOW_AT_ONCE}
) inside
"""
    return sql, [beyond, *(at_ms for _, at_ms in given)]


def _batch_text(rows: Sequence[EventRow]) -> str:
    """The parameter of a batch, in the form of `batch_of`."""
    return to_json(dict(enumerate(rows, start=1))).decode()


class EventPage(NamedTuple):
    """A page of events or withdrawals: sequence number and JSON of each.

    If `stop` is given, there may be more beyond that number, which were not read.
    """

    events: list[tuple[int, str]]
    stop: int | None


class VehicleEvents(NamedTuple):
    """Some events or withdrawals of a vehicle: their number, and the instants of the first and the
    last one.
    """

    vehicle: str
    events: int
    first_ms: int
    last_ms: int

    @classmethod
    def of(cls, vehicle: str, events: Sequence[OrderedEvent]) -> "VehicleEvents":
        """These events of the vehicle, which are in order."""
        return cls(vehicle, len(events), events[0].position.at_ms, events[-1].position.at_ms)


class Events(Repository):
    """The events of all partners. Every method raises Unavailable."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self._add = ADD.format(event_numbers=engine.dialect.event_numbers)

    async def add(self, partner: int, rows: Sequence[EventRow]) -> int:
        """Inserts the events that are new and valid. Returns their number."""
        return await self._engine.write(self._add, partner, _batch_text(rows), len(rows))

    async def explain(self, partner: int, rows: Sequence[EventRow], *, few: bool) -> list[Row]:
        """The row of EXPLAIN for each event. `few`: the query is short."""
        read = self._engine.read if few else self._engine.scan
        return await read(EXPLAIN, partner, _batch_text(rows))

    async def get(self, partner: int, event_id: str) -> bytes:
        """The JSON of the event. Raises NotFound."""
        row = await self._engine.look_up(GET, partner, event_id)
        if row is None:
            raise NotFound
        body: str = row[0]
        return body.encode()

    async def seq_of(self, partner: int, event_id: str, *, table: str) -> int | None:
        """The number of the event, also if it was withdrawn, or of its withdrawal."""
        sql = SEQ if table == EVENTS else SEQ_OF_WITHDRAWAL
        rows = await self._engine.read(sql, partner, event_id)
        return int(rows[0][0]) if rows and rows[0][0] is not None else None

    async def page(
        self,
        partner: int,
        wanted: EventFilter,
        *,
        after: int | None,
        limit: int,
        descending: bool = False,
        table: str = EVENTS,
    ) -> EventPage:
        """The next events, or withdrawals, after the number `after`, in the order of commits.

        It reads at most PORTIONS portions. So it may find none if few events match.
        """
        for portion in range(PORTIONS):
            events, stop = await self.portion(
                partner, wanted, after, limit, descending=descending, table=table
            )
            if events or stop is None:
                return EventPage(events, stop if len(events) < limit else None)
            after = stop
            if portion == 0 and wanted.has_window:
                nearest = await self._nearest(partner, wanted, stop, descending=descending)
                if nearest is None:
                    return EventPage([], None)
                after = nearest
        return EventPage([], after)

    async def portion(
        self,
        partner: int,
        wanted: EventFilter,
        after: int | None,
        limit: int,
        *,
        descending: bool = False,
        table: str = EVENTS,
    ) -> EventPage:
        """The part of a page that one statement finds."""
        # Without a filter it reads the index in order, which is faster than changing to a thread.
        read = self._engine.read if wanted == EventFilter() else self._engine.scan
        sql, parameters = page_statement(wanted, after, descending, table)
        rows = await read(sql, partner, limit, *parameters)
        stop = rows.pop()[0] if rows and rows[-1][1] is None else None
        return EventPage([(seq, body) for seq, body in rows], stop)

    async def _nearest(
        self, partner: int, wanted: EventFilter, beyond: int, *, descending: bool
    ) -> int | None:
        """The number from which to go on, to reach the next events of the window behind `beyond`.

        None if there are none. `beyond` itself if the window has too many events to search.
        """
        sql, parameters = window_statement(wanted, beyond, descending)
        ((count, nearest),) = await self._engine.scan(sql, partner, *parameters)
        if count >= WINDOW_AT_ONCE:
            return beyond
        if nearest is None:
            return None
        return int(nearest) + (1 if descending else -1)

    async def following(self, partner: int, seq: int, limit: int) -> list[Row]:
        """The next events and withdrawals after that number: number, timestamp, vehicle, and the
        JSON of an event or None for a withdrawal.
        """
        return await self._engine.scan(FOLLOWING, partner, seq, limit)

    async def vehicles_following(
        self, partner: int, seq: int, until: int, after: str, limit: int
    ) -> list[VehicleEvents]:
        """The vehicles with events or withdrawals after one number and up to another."""
        rows = await self._engine.scan(VEHICLES_FOLLOWING, partner, seq, until, after, limit)
        return [VehicleEvents(*row) for row in rows]

    async def of_vehicle(
        self,
        partner: int,
        vehicle_id: str,
        from_ms: int,
        limit: int,
        *,
        until_ms: int = END_OF_TIME,
        until: int = END_OF_TIME,
    ) -> list[OrderedEvent]:
        """The vehicle's first events in a window of time, up to the number `until`."""
        bounds = (from_ms, until_ms, until)
        rows = await self._engine.scan(OF_VEHICLE, partner, vehicle_id, *bounds, limit)
        return [ordered_event(seq, at_ms, from_json(Event, body)) for seq, at_ms, body in rows]

    async def portions_of_vehicle(
        self,
        partner: int,
        vehicle_id: str,
        from_ms: int,
        limit: int,
        *,
        until_ms: int,
        until: int = END_OF_TIME,
    ) -> AsyncIterator[list[OrderedEvent]]:
        """All of these events, about `limit` at a time, events of one instant together."""
        most = limit
        while True:
            read = await self.of_vehicle(
                partner, vehicle_id, from_ms, most, until_ms=until_ms, until=until
            )
            # There may be more events of the last instant, so it is read again from its beginning.
            again_ms = read[-1].position.at_ms if len(read) == most else None
            yield [event for event in read if event.position.at_ms != again_ms]
            if again_ms is None:
                return
            most = 2 * most if again_ms == from_ms else limit
            from_ms = again_ms
