"""Sessions as the projector reads and writes them: rows, and what the session builder takes."""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import msgspec

from tether.domain.charge_period import Report
from tether.domain.course import Step, readings_beside, steps_of
from tether.domain.earlier_sessions import SessionContext, Start
from tether.domain.models import Event, to_json
from tether.domain.session_record import OrderedEvent, Seen, SessionRecord, ordered_event
from tether.domain.session_totals import UNKNOWN, SessionTotals, totals_of
from tether.storage.engine import Engine, Statement, batch, batch_of, columns_of
from tether.storage.log_positions import Position

ROWS = 1_000  # of a statement, which the database has in memory several times
LONGEST_COURSE = 800  # characters: it is in an index, and PostgreSQL has 2,700 for an entry

Derived = tuple[SessionRecord, SessionContext]
"""A session, and what it knows of the time before it."""

# Rows ---------------------------------------------------------------------------------------------


class SessionRow(NamedTuple):
    """The columns of a session, but for the partner: see migrations/0002."""

    vehicle_id: str
    start_ms: int
    start_rank: int
    charger_id: str
    id: str
    live: int
    end_ms: int | None
    span: int | None
    rest_ms: int | None
    last_seq: int
    here_seq: int
    energy: int | None
    estimated: int | None
    charged: int | None
    measured: int | None
    unmeasured: int | None
    power: int | None
    charge_ms: int | None
    stop_ms: int | None
    body: str
    before: str
    seen: str | None
    course: str | None

    @property
    def shown(self) -> "SessionRow":
        """The row with nothing but what partners are shown, and what that is found by."""
        return self._replace(before="", seen=None, course=None, **UNKNOWN._asdict())

    @property
    def start(self) -> Start:
        """What tells it from the vehicle's others."""
        return self.start_ms, self.start_rank, self.charger_id

    @property
    def ties(self) -> "Ties":
        """What ties it to others."""
        return _ties.decode(self.body)

    @property
    def derived(self) -> Derived:
        """The session, and what it knows of the time before it."""
        return record_of(self.body, self.seen), _context.decode(self.before)


class Stored(NamedTuple):
    """A session as it is stored; it has a version unless its row is damaged."""

    row: SessionRow
    version: int | None


class Ties(msgspec.Struct):
    """What ties a session to others: of which earlier ones its events told, and what later ones
    told of it.
    """

    told: list[Start] = []
    reports: list[Report] = []


class Change(NamedTuple):
    """A session that differs from what is stored. Not `visible`: only in what it knows of before.

    `grown`: it lasts, and is stored as one that lasts.
    """

    record: SessionRecord
    before: SessionContext
    live: bool = True
    visible: bool = True
    grown: bool = False

    @property
    def row(self) -> SessionRow:
        """The session as it is to be stored."""
        record, before = self.record, self.before
        if not self.live:  # what it knew of others may be erased meanwhile
            record, before = record.alone, SessionContext()
        here = record.newest_here
        span = rest_ms = None
        if record.end_ms is not None:
            span, rest_ms = (record.end_ms - record.start_ms).bit_length(), here.at_ms
        return SessionRow(
            record.vehicle_id, *record.start, record.id, int(self.live),
            record.end_ms, span, rest_ms, record.last.seq, here.seq,
            *totals_of(record), text_of(msgspec.structs.replace(record, seen=[])),
            text_of(before), None if record.seen is None else text_of(record.seen),
            _course_of(record),
        )  # fmt: skip


def text_of(value: SessionRecord | SessionContext | list[Seen] | list[Step]) -> str:
    """The JSON as it is stored."""
    return to_json(value).decode()


def _course_of(record: SessionRecord) -> str | None:
    """How its vehicle was, once it has ended; None if that is too long, or not known."""
    readings = readings_beside(record)
    if record.end_ms is None or readings is None:
        return None
    text = text_of(steps_of(record, readings))
    return text if len(text) <= LONGEST_COURSE else None


def record_of(body: str, seen: str | None) -> SessionRecord:
    """The session as it is stored."""
    return _record.decode(body).with_seen(None if seen is None else _seen.decode(seen))


_record = msgspec.json.Decoder(SessionRecord)
_seen = msgspec.json.Decoder(list[Seen])
_context = msgspec.json.Decoder(SessionContext)
_ties = msgspec.json.Decoder(Ties)
_derived = msgspec.json.Decoder(tuple[SessionRecord, SessionContext, list[Seen] | None])
_events = msgspec.json.Decoder(list[tuple[int, int, Event]])
_rows = msgspec.json.Decoder(
    list[tuple[str, int, int, str, str, int, int | None, int | None, int | None, int, int,
               int | None, int | None, int | None, int | None, int | None, int | None, int | None,
               int | None, msgspec.Raw, msgspec.Raw, msgspec.Raw, msgspec.Raw, int | None]]
)  # fmt: skip


def ordered_events_in(text: str | None) -> list[OrderedEvent]:
    """The events of a list of JSON arrays, in order."""
    return sorted(ordered_event(*one) for one in _events.decode(f"[{text or ''}]"))


def _stored_in(text: str | None) -> list[Stored]:
    return [
        Stored(SessionRow._make((*columns, *map(_text_in, raw))), version)
        for *columns, body, before, seen, course, version in _rows.decode(f"[{text or ''}]")
        for raw in [(body, before, seen, course)]
    ]


def _text_in(raw: msgspec.Raw) -> str | None:
    text = bytes(raw).decode()
    return None if text == "null" else text


# Statements ---------------------------------------------------------------------------------------

_COLUMNS = columns_of(SessionRow)
_NAMES = SessionRow._fields
_KEY = _COLUMNS[:4]

# A session, what it knows of the time before it, and what its events read, as one JSON array.
_DERIVED = "'[' || s.body || ',' || s.before || ',' || coalesce(s.seen, 'null') || ']'"
# All columns, and the version.
_STORED = f"""
{", ".join(f"s.{name}" for name in _NAMES)},
(SELECT u.version FROM session_versions u WHERE u.partner = $1 AND u.id = s.id) AS version
"""
NEWEST_FIRST = "ORDER BY s.start_ms DESC, s.start_rank DESC, s.charger_id DESC LIMIT 1"

# Of each vehicle in $2.
LAST = f"""
WITH {batch("wanted", "vehicle_id")}
SELECT w.vehicle_id, (
    SELECT {_DERIVED} FROM sessions s
    WHERE s.partner = $1 AND s.vehicle_id = w.vehicle_id AND s.live = 1 {NEWEST_FIRST}
) FROM wanted w
"""

LAST_BEFORE = f"""
SELECT {_DERIVED} FROM sessions s
WHERE s.partner = $1 AND s.vehicle_id = $2 AND s.live = 1 AND s.start_ms < $3 {NEWEST_FIRST}
"""

OF_STARTS = f"""
WITH {batch("wanted", *_KEY)}
SELECT (
    SELECT {_DERIVED} FROM sessions s
    WHERE s.partner = $1 AND s.vehicle_id = w.vehicle_id AND s.start_ms = w.start_ms
      AND s.start_rank = w.start_rank AND s.charger_id = w.charger_id AND s.live = 1
) FROM wanted w
"""

BETWEEN_STARTS = f"""
SELECT {_STORED} FROM sessions s
WHERE s.partner = $1 AND s.vehicle_id = $2 AND s.live = 1
  AND (s.start_ms, s.start_rank, s.charger_id) >= ($3, $4, $5)
  AND (s.start_ms, s.start_rank, s.charger_id) < ($6, $7, $8)
ORDER BY s.start_ms, s.start_rank, s.charger_id LIMIT $9
"""

START_BEHIND = """
SELECT s.start_ms, s.start_rank, s.charger_id FROM sessions s
WHERE s.partner = $1 AND s.vehicle_id = $2 AND s.live = 1
  AND (s.start_ms, s.start_rank, s.charger_id) >= ($3, $4, $5)
ORDER BY s.start_ms, s.start_rank, s.charger_id LIMIT 1 OFFSET $6
"""

# For many vehicles: the newest session that began before an instant, and the start of the second
# behind another instant, as the first knows when the one before it ended.
AROUND = f"""
WITH {batch("wanted", "vehicle_id", "first_ms BIGINT", "last_ms BIGINT")}
SELECT w.vehicle_id, (
    SELECT {_DERIVED} FROM sessions s
    WHERE s.partner = $1 AND s.vehicle_id = w.vehicle_id AND s.live = 1
      AND s.start_ms < w.first_ms {NEWEST_FIRST}
), (
    SELECT s.start_ms FROM sessions s
    WHERE s.partner = $1 AND s.vehicle_id = w.vehicle_id AND s.live = 1 AND s.start_ms > w.last_ms
    ORDER BY s.start_ms, s.start_rank, s.charger_id LIMIT 1 OFFSET 1
) FROM wanted w
"""


def _in_json(name: str) -> str:
    """The column in a JSON array. Ids need no escapes there."""
    if name in ("body", "before", "seen", "course"):
        return f"coalesce(x.{name}, 'null')"
    is_text = f"{name} BIGINT" not in (*_COLUMNS, "version BIGINT")
    return f"'\"' || x.{name} || '\"'" if is_text else f"coalesce(CAST(x.{name} AS TEXT), 'null')"


# Of each vehicle its events from an instant to another, and its sessions from a start to that
# instant, each as a list of JSON arrays, but not more than $4 of either. Not written as joins: see
# events.py.
BETWEEN = f"""
WITH {batch("wanted", *_KEY, "until_ms BIGINT")}
SELECT w.vehicle_id, (
    SELECT string_agg('[' || x.seq || ',' || x.at_ms || ',' || x.body || ']', ',') FROM (
        SELECT e.seq, e.at_ms, e.body FROM vehicle_history e
        WHERE e.partner = $1 AND e.vehicle_id = w.vehicle_id
          AND e.at_ms >= w.start_ms AND e.at_ms <= w.until_ms AND e.seq + 0 <= $3
        ORDER BY e.at_ms, e.type, e.charger_id, e.stamp LIMIT $4
    ) x
), (
    SELECT string_agg(
        '[' || {" || ',' || ".join(map(_in_json, (*_NAMES, "version")))} || ']', ','
    ) FROM (
        SELECT {_STORED} FROM sessions s
        WHERE s.partner = $1 AND s.vehicle_id = w.vehicle_id AND s.live = 1
          AND (s.start_ms, s.start_rank, s.charger_id) >= (w.start_ms, w.start_rank, w.charger_id)
          AND s.start_ms <= w.until_ms
        ORDER BY s.start_ms, s.start_rank, s.charger_id LIMIT $4
    ) x
) FROM wanted w
"""


def _write(*changed: str) -> str:
    """Inserts a batch of rows, or sets these columns of those that are there, if the mark is $3.

    SQLite writes anew all indexes of columns that are named here.
    """
    return f"""
WITH {batch("batch", *_COLUMNS)}
INSERT INTO sessions (partner, {", ".join(_NAMES)})
SELECT $1, {", ".join(f"b.{name}" for name in _NAMES)} FROM batch b
WHERE (SELECT d.mark FROM derivations d WHERE d.partner = $1) = $3
ON CONFLICT (partner, vehicle_id, start_ms, start_rank, charger_id) DO UPDATE
SET {", ".join(f"{name} = excluded.{name}" for name in changed)}
"""


# Most changes of a session concern what no index has.
_UNINDEXED = ("last_seq", "here_seq", "body", "before", "seen")
WRITE_GROWN = _write(*_UNINDEXED)
WRITE = _write(*_UNINDEXED, "live", "end_ms", "span", "rest_ms", "course", *SessionTotals._fields)

WRITE_VERSIONS = f"""
WITH {batch("batch", "id")}
INSERT INTO session_versions (partner, id, version, updated_ms, created_ms)
SELECT $1, b.id, 1, $4, $4 FROM batch b
WHERE (SELECT d.mark FROM derivations d WHERE d.partner = $1) = $3
ON CONFLICT (partner, id) DO UPDATE
SET version = session_versions.version + 1, updated_ms = excluded.updated_ms
"""


def writing(
    partner: int, to: Position, grown: Sequence[SessionRow], others: Sequence[SessionRow],
    visible: Sequence[str],
) -> list[Statement]:  # fmt: skip
    """The statements that store these rows, and give the sessions of these ids their next version.

    They belong behind the one that moves to the position, in its transaction: they do nothing if
    that did nothing.
    """
    statements = [
        Statement(sql, (partner, batch_of(rows[start : start + ROWS]), to.mark))
        for sql, rows in ((WRITE, others), (WRITE_GROWN, grown))
        for start in range(0, len(rows), ROWS)
    ]
    if visible:
        ids = batch_of([id] for id in visible)
        statements.append(Statement(WRITE_VERSIONS, (partner, ids, to.mark, to.updated_ms)))
    return statements


class Around(NamedTuple):
    """The last session before an instant, and the start of the second behind another."""

    before: Derived | None
    until_ms: int | None


class SessionRecords:
    """The sessions of all partners' vehicles. Every method raises Unavailable."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def last(
        self, partner: int, vehicles: Iterable[str]
    ) -> Iterator[tuple[str, Derived | None]]:
        """Of each vehicle the newest session."""
        wanted = batch_of([vehicle] for vehicle in vehicles)
        rows = await self._engine.scan(LAST, partner, wanted)
        return ((vehicle, _derived_in(text)) for vehicle, text in rows)

    async def last_before(self, partner: int, vehicle: str, at_ms: int) -> Derived | None:
        """The vehicle's newest session that began before this instant."""
        rows = await self._engine.scan(LAST_BEFORE, partner, vehicle, at_ms)
        return _derived_in(rows[0][0]) if rows else None

    async def of_starts(
        self, partner: int, wanted: Iterable[tuple[str, Start]]
    ) -> dict[tuple[str, Start], Derived]:
        """Those of these vehicles and starts."""
        keys = [(vehicle, *start) for vehicle, start in wanted]
        rows = await self._engine.scan(OF_STARTS, partner, batch_of(keys)) if keys else []
        found = [derived for (text,) in rows if (derived := _derived_in(text)) is not None]
        return {(record.vehicle_id, record.start): (record, before) for record, before in found}

    async def between_starts(
        self, partner: int, vehicle: str, start: Start, end: Start, limit: int
    ) -> list[Stored]:
        """The vehicle's sessions in the order of their start, from this one to before that one."""
        rows = await self._engine.scan(BETWEEN_STARTS, partner, vehicle, *start, *end, limit)
        return [Stored(SessionRow._make(columns), version) for *columns, version in rows]

    async def start_behind(
        self, partner: int, vehicle: str, start: Start, count: int
    ) -> Start | None:
        """The start of the session that lies so many behind this one, if there is one."""
        rows = await self._engine.scan(START_BEHIND, partner, vehicle, *start, count)
        return (*rows[0],) if rows else None

    async def around(
        self, partner: int, wanted: Iterable[tuple[str, int, int]]
    ) -> dict[str, Around]:
        """Of each vehicle what lies before its first instant and behind its last one."""
        rows = await self._engine.scan(AROUND, partner, batch_of(wanted))
        return {vehicle: Around(_derived_in(text), until) for vehicle, text, until in rows}

    async def between(
        self, partner: int, seq: int, limit: int, wanted: Iterable[tuple[str, Start, int]]
    ) -> Iterator[tuple[str, list[OrderedEvent], list[Stored]]]:
        """Of each vehicle its events, of those up to the number `seq`, and its sessions, from a
        start to an instant; if either are as many as the limit there may be more.
        """
        places = batch_of((vehicle, *start, until_ms) for vehicle, start, until_ms in wanted)
        rows = await self._engine.scan(BETWEEN, partner, places, seq, limit)
        return (
            (vehicle, ordered_events_in(events), _stored_in(sessions))
            for vehicle, events, sessions in rows
        )


def _derived_in(text: str | None) -> Derived | None:
    if text is None:
        return None
    record, before, seen = _derived.decode(text)
    return record.with_seen(seen), before
