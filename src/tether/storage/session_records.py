"""Sessions for the projector: as rows, and as records of the session builder."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, get_type_hints

import msgspec

from tether.domain.earlier_sessions import LateReport, SessionContext, Start
from tether.domain.models import Event, to_json
from tether.domain.session_record import EventReading, OrderedEvent, SessionRecord, ordered_event
from tether.domain.session_totals import UNKNOWN, SessionTotals, totals_of
from tether.domain.timeline import Step, steps_of, stored_readings
from tether.storage.engine import (
    Repository,
    Statement,
    batch,
    batch_of,
    columns,
    columns_of,
    json_array,
    json_id,
    json_list,
)
from tether.storage.log_positions import HAS_MARK, Position

ROWS = 1_000  # in a statement: the database holds them in memory several times
LONGEST_TIMELINE = 800  # characters: an index has it, where PostgreSQL allows 2,700 bytes

DerivedSession = tuple[SessionRecord, SessionContext]
"""A session, and its context: earlier sessions."""

# Rows ---------------------------------------------------------------------------------------------


class SessionRow(NamedTuple):
    """The columns of a session without the partner: see migrations/0002."""

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

    @classmethod
    def of(
        cls, record: SessionRecord, context: SessionContext, *, live: bool = True
    ) -> "SessionRow":
        """The session as it is stored; not `live`: it was removed."""
        if not live:  # it may refer to a vehicle or charger that was erased
            record, context = record.without_references, SessionContext()
        here = record.newest_here
        span = rest_ms = None
        if record.end_ms is not None:
            span, rest_ms = (record.end_ms - record.start_ms).bit_length(), here.at_ms
        return cls(
            record.vehicle_id, *record.start, record.id, int(live),
            record.end_ms, span, rest_ms, record.last.seq, here.seq,
            *totals_of(record), text_of(msgspec.structs.replace(record, readings=[])),
            text_of(context), None if record.readings is None else text_of(record.readings),
            _timeline_of(record),
        )  # fmt: skip

    @property
    def visible_part(self) -> "SessionRow":
        """The row with only what partners see, and the keys by which they find it."""
        body = text_of(msgspec.structs.replace(self.derived[0], readings=[], continues=()))
        return self._replace(before="", body=body, seen=None, course=None, **UNKNOWN._asdict())

    @property
    def start(self) -> Start:
        """Identifies the session among those of its vehicle."""
        return self.start_ms, self.start_rank, self.charger_id

    @property
    def references(self) -> "References":
        """Its references to other sessions."""
        return _references.decode(self.body)

    @property
    def derived(self) -> DerivedSession:
        """The session and its context."""
        return _derived_in(f"[{self.body},{self.before},{self.seen or 'null'}]")


class StoredRow(NamedTuple):
    """A session as it is stored. It has a version unless its row is damaged."""

    row: SessionRow
    version: int | None


class References(msgspec.Struct):
    """References between sessions: the earlier sessions that events of this one report on, and the
    reports of later events on this one.
    """

    reports_on: list[Start] = msgspec.field(default_factory=list, name="told")
    reports: list[LateReport] = []


class Change(NamedTuple):
    """A session that differs from the stored one.

    `visible` is False if partners cannot see the difference. `grown` means that the session is
    still active, as before.
    """

    row: SessionRow
    visible: bool = True
    grown: bool = False


def text_of(value: SessionRecord | SessionContext | list[EventReading] | list[Step]) -> str:
    """The JSON that is stored."""
    return to_json(value).decode()


def _timeline_of(record: SessionRecord) -> str | None:
    """The timeline of an ended session; None if it is unknown or too long."""
    readings = stored_readings(record)
    if record.end_ms is None or readings is None:
        return None
    text = text_of(steps_of(record, readings))
    return text if len(text) <= LONGEST_TIMELINE else None


_references = msgspec.json.Decoder(References)
_derived = msgspec.json.Decoder(tuple[SessionRecord, SessionContext, list[EventReading] | None])
_events = msgspec.json.Decoder(list[tuple[int, int, Event]])
_JSON_COLUMNS = ("body", "before", "seen", "course")
_row_types = [
    msgspec.Raw if name in _JSON_COLUMNS else kind
    for name, kind in get_type_hints(SessionRow).items()
]
_rows: "msgspec.json.Decoder[list[tuple[Any, ...]]]" = msgspec.json.Decoder(
    list[tuple[(*_row_types, int | None)]]  # type: ignore[valid-type]
)


def _derived_in(text: str) -> DerivedSession:
    record, context, readings = _derived.decode(text)
    return record.with_readings(readings), context


def event_list(rows: str) -> str:
    """SQL for the events of a query as one text, which `ordered_events_in` reads."""
    return json_list(json_array("x.seq", "x.at_ms", "x.body"), rows)


def ordered_events_in(text: str) -> list[OrderedEvent]:
    """The events of an `event_list`, in order."""
    return sorted(ordered_event(*event) for event in _events.decode(text))


def _stored_in(text: str) -> list[StoredRow]:
    return [
        StoredRow(SessionRow._make(map(_text_in, columns)), version)
        for *columns, version in _rows.decode(text)
    ]


def _text_in(value: Any) -> Any:
    """The text of JSON that is not decoded; other values as they are."""
    if not isinstance(value, msgspec.Raw):
        return value
    text = bytes(value).decode()
    return None if text == "null" else text


# Statements ---------------------------------------------------------------------------------------

_COLUMNS = columns_of(SessionRow)
_NAMES = SessionRow._fields
_KEY = _COLUMNS[:4]

# A session, its context, and the readings of its events.
_DERIVED = json_array("s.body", "s.before", "coalesce(s.seen, 'null')")
# All columns, and the version.
_STORED = f"""
{columns("s", _NAMES)},
(SELECT u.version FROM session_versions u WHERE u.partner = $1 AND u.id = s.id) AS version
"""
_OF_VEHICLE = "s.partner = $1 AND s.vehicle_id = w.vehicle_id AND s.live = 1"
_START = "s.start_ms, s.start_rank, s.charger_id"
NEWEST_FIRST = "ORDER BY s.start_ms DESC, s.start_rank DESC, s.charger_id DESC LIMIT 1"

# The newest session of each vehicle in $2.
LAST = f"""
WITH {batch("wanted", "vehicle_id")}
SELECT w.vehicle_id, (SELECT {_DERIVED} FROM sessions s WHERE {_OF_VEHICLE} {NEWEST_FIRST})
FROM wanted w
"""

OF_STARTS = f"""
WITH {batch("wanted", *_KEY)}
SELECT (
    SELECT {_DERIVED} FROM sessions s
    WHERE {_OF_VEHICLE} AND s.start_ms = w.start_ms
      AND s.start_rank = w.start_rank AND s.charger_id = w.charger_id
) FROM wanted w
"""

BETWEEN_STARTS = f"""
SELECT {_STORED} FROM sessions s
WHERE s.partner = $1 AND s.vehicle_id = $2 AND s.live = 1
  AND ({_START}) >= ($3, $4, $5) AND ({_START}) < ($6, $7, $8)
ORDER BY {_START} LIMIT $9
"""

START_AFTER = f"""
SELECT {_START} FROM sessions s
WHERE s.partner = $1 AND s.vehicle_id = $2 AND s.live = 1 AND ({_START}) >= ($3, $4, $5)
ORDER BY {_START} LIMIT 1 OFFSET $6
"""

# For each vehicle the newest session that began before `first_ms`, and the start of the second one
# after `last_ms`. The first one depends on the end of the session before it.
AROUND = f"""
WITH {batch("wanted", "vehicle_id", "first_ms BIGINT", "last_ms BIGINT")}
SELECT w.vehicle_id, (
    SELECT {_DERIVED} FROM sessions s
    WHERE {_OF_VEHICLE} AND s.start_ms < w.first_ms {NEWEST_FIRST}
), (
    SELECT s.start_ms FROM sessions s
    WHERE {_OF_VEHICLE} AND s.start_ms > w.last_ms ORDER BY {_START} LIMIT 1 OFFSET 1
) FROM wanted w
"""


def _in_json(name: str) -> str:
    """The column as an element of a JSON array."""
    if name in _JSON_COLUMNS:
        return f"coalesce(x.{name}, 'null')"
    if name in _COLUMNS:  # text: only numbers have their type behind their name there
        return json_id(f"x.{name}")
    return f"coalesce(CAST(x.{name} AS TEXT), 'null')"


# For each vehicle its events between two instants, and its sessions from a start to the second
# instant: at most $4 of each. Not written as joins: see events.py.
_EVENTS_BETWEEN = """
    SELECT e.seq, e.at_ms, e.body FROM vehicle_history e
    WHERE e.partner = $1 AND e.vehicle_id = w.vehicle_id
      AND e.at_ms >= w.start_ms AND e.at_ms <= w.until_ms AND e.seq + 0 <= $3
    ORDER BY e.at_ms, e.type, e.charger_id, e.stamp LIMIT $4
"""
_SESSIONS_BETWEEN = f"""
    SELECT {_STORED} FROM sessions s
    WHERE {_OF_VEHICLE} AND ({_START}) >= (w.start_ms, w.start_rank, w.charger_id)
      AND s.start_ms <= w.until_ms
    ORDER BY {_START} LIMIT $4
"""
BETWEEN = f"""
WITH {batch("wanted", *_KEY, "until_ms BIGINT")}
SELECT w.vehicle_id, {event_list(_EVENTS_BETWEEN)},
       {json_list(json_array(*map(_in_json, (*_NAMES, "version"))), _SESSIONS_BETWEEN)}
FROM wanted w
"""


def _write(*changed: str) -> str:
    """Inserts a batch of rows if the mark is $3. If a row exists, it updates these columns.

    SQLite rewrites every index that has one of the columns named here.
    """
    return f"""
WITH {batch("batch", *_COLUMNS)}
INSERT INTO sessions (partner, {", ".join(_NAMES)})
SELECT $1, {columns("b", _NAMES)} FROM batch b WHERE {HAS_MARK}
ON CONFLICT (partner, vehicle_id, start_ms, start_rank, charger_id) DO UPDATE
SET {", ".join(f"{name} = excluded.{name}" for name in changed)}
"""


# Most changes of a session are in columns that no index has.
_UNINDEXED = ("last_seq", "here_seq", "body", "before", "seen")
WRITE_GROWN = _write(*_UNINDEXED)
WRITE = _write(*_UNINDEXED, "live", "end_ms", "span", "rest_ms", "course", *SessionTotals._fields)

WRITE_VERSIONS = f"""
WITH {batch("batch", "id")}
INSERT INTO session_versions (partner, id, version, updated_ms, created_ms)
SELECT $1, b.id, 1, $4, $4 FROM batch b WHERE {HAS_MARK}
ON CONFLICT (partner, id) DO UPDATE
SET version = session_versions.version + 1, updated_ms = excluded.updated_ms
"""


def writing(partner: int, to: Position, changes: Sequence[Change]) -> list[Statement]:
    """The statements that store these changes, and give visibly changed sessions a new version.

    Run them in one transaction, after the statement that moves to the position. If that statement
    changed nothing, they change nothing.
    """
    others = [change.row for change in changes if not change.grown]
    grown = [change.row for change in changes if change.grown]
    statements = [
        Statement(sql, (partner, batch_of(rows[start : start + ROWS]), to.mark))
        for sql, rows in ((WRITE, others), (WRITE_GROWN, grown))
        for start in range(0, len(rows), ROWS)
    ]
    if ids := [[change.row.id] for change in changes if change.visible]:
        versions = (partner, batch_of(ids), to.mark, to.updated_ms)
        statements.append(Statement(WRITE_VERSIONS, versions))
    return statements


class Neighbours(NamedTuple):
    """The last session before an instant, and the start of the second one after another instant."""

    before: DerivedSession | None
    until_ms: int | None


class SessionRecords(Repository):
    """The sessions of all partners' vehicles. Every method raises Unavailable."""

    async def last(
        self, partner: int, vehicles: Iterable[str]
    ) -> Iterator[tuple[str, DerivedSession | None]]:
        """The newest session of each vehicle, decoded when the iterator reaches it."""
        wanted = batch_of([vehicle] for vehicle in vehicles)
        rows = await self._engine.scan(LAST, partner, wanted)
        return ((vehicle, _derived_in(text) if text else None) for vehicle, text in rows)

    async def of_starts(
        self, partner: int, wanted: Iterable[tuple[str, Start]]
    ) -> dict[tuple[str, Start], DerivedSession]:
        """The sessions with these vehicles and starts."""
        keys = [(vehicle, *start) for vehicle, start in wanted]
        rows = await self._engine.scan(OF_STARTS, partner, batch_of(keys)) if keys else []
        found = [_derived_in(text) for (text,) in rows if text]
        return {(record.vehicle_id, record.start): (record, context) for record, context in found}

    async def between_starts(
        self, partner: int, vehicle: str, start: Start, end: Start, limit: int
    ) -> list[StoredRow]:
        """The vehicle's sessions from one start to before another, in this order."""
        rows = await self._engine.scan(BETWEEN_STARTS, partner, vehicle, *start, *end, limit)
        return [StoredRow(SessionRow._make(columns), version) for *columns, version in rows]

    async def start_after(
        self, partner: int, vehicle: str, start: Start, count: int
    ) -> Start | None:
        """The start of the session `count` places after this start, if there is one."""
        rows = await self._engine.scan(START_AFTER, partner, vehicle, *start, count)
        return (*rows[0],) if rows else None

    async def around(
        self, partner: int, wanted: Iterable[tuple[str, int, int]]
    ) -> dict[str, Neighbours]:
        """For each vehicle the sessions before its first instant and after its last one."""
        rows = await self._engine.scan(AROUND, partner, batch_of(wanted))
        return {
            vehicle: Neighbours(_derived_in(text) if text else None, until_ms)
            for vehicle, text, until_ms in rows
        }

    async def between(
        self, partner: int, seq: int, limit: int, wanted: Iterable[tuple[str, Start, int]]
    ) -> Iterator[tuple[str, list[OrderedEvent], list[StoredRow]]]:
        """For each vehicle its events up to the number `seq`, and its sessions, from a start to an
        instant. If there are `limit` of either, there may be more.
        """
        places = batch_of((vehicle, *start, until_ms) for vehicle, start, until_ms in wanted)
        rows = await self._engine.scan(BETWEEN, partner, places, seq, limit)
        return (
            (vehicle, ordered_events_in(events), _stored_in(sessions))
            for vehicle, events, sessions in rows
        )
