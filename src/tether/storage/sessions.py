"""Reads sessions for partners: one by its id, and lists."""

from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import NamedTuple

import msgspec

from tether.domain.earlier_sessions import EventPosition
from tether.domain.errors import NotFound
from tether.domain.filters import SessionFilter
from tether.domain.models import ERASED, Charger, Vehicle
from tether.domain.session_record import SessionRecord
from tether.domain.session_views import StoredSession, session_of, texts_of_flag
from tether.storage.engine import Engine, Repository, Row, batch, batch_of
from tether.storage.entities import charger_of, vehicle_of
from tether.storage.turns import TimeSlice

PORTION = 50  # sessions that one statement returns
PORTIONS = 100  # for one page
READ_AT_ONCE = 1_000  # sessions that one statement searches
MAX_BYTES = 2_000_000  # stored bytes of a page; a session has up to 1,000 charge periods
LONGEST_SPAN = 48  # bits of ms: some thousand years

SessionPosition = tuple[int, str]
"""The position of a session in a list: the instant by which it is ordered, and its id."""

_SELECTED = f"""
SELECT u.id, s.body, coalesce(s.live, 0),
       {vehicle_of("s")},
       {charger_of("s")},
       u.version, u.updated_ms, u.created_ms
"""
GET = f"""
{_SELECTED}
FROM sessions s JOIN session_versions u ON u.partner = $1 AND u.id = s.id
WHERE s.partner = $1 AND s.id = $2
"""

# The spans of the ended sessions that began after `after_ms` and before $3.
SPANS = f"""
WITH {batch("wanted", "span BIGINT", "after_ms BIGINT")}
SELECT w.span FROM wanted w
WHERE (SELECT 1 FROM sessions s
       WHERE s.partner = $1 AND s.span = w.span AND s.end_ms IS NOT NULL AND s.live = 1
         AND s.start_ms > w.after_ms AND s.start_ms < $3
       LIMIT 1) IS NOT NULL
"""


def page_statement(
    wanted: SessionFilter,
    after: SessionPosition | None,
    *,
    descending: bool = False,
    spans: Iterable[int] = (),
    reads: int = READ_AT_ONCE,
) -> tuple[str, list[object]]:
    """The statement for a page of sessions and its parameters from $3 on; $1 partner, $2 limit.

    The sessions are in the order of their start. A list of changes is in the order of the last
    change, and has removed sessions, too. `spans` are the spans of the sessions that began before
    `_lasting_ms(wanted)`.

    The statement searches at most `reads` sessions. If it searches so many, it adds a row without a
    body for the position of the last one: its id, and its instant in the last column.
    """
    return _PageStatement(wanted, after, descending=descending).text(spans, reads)


class _PageStatement:
    """Builds the statement for a page."""

    def __init__(
        self, wanted: SessionFilter, after: SessionPosition | None, *, descending: bool
    ) -> None:
        self._wanted = wanted
        self._parameters: list[object] = []
        self._down = " DESC" if descending else ""
        self._keys = {
            name: self._add_all(values)
            for name, values in (("s.charger_id", wanted.charger_ids),
                                 ("s.vehicle_id", wanted.vehicle_ids))
            if values
        }  # fmt: skip
        self._after = [self._add(part) for part in after or ()]
        # A session that ended before an instant also began before it.
        bounds = (wanted.to_ms, wanted.overlapping_to_ms, wanted.ended_to_ms)
        self._began = [f"s.start_ms < {self._add(to_ms)}" for to_ms in bounds if to_ms is not None]
        if wanted.from_ms is not None:
            self._began.append(f"s.start_ms >= {self._add(wanted.from_ms)}")

    def text(self, spans: Iterable[int], reads: int) -> tuple[str, list[object]]:
        """The statement and its parameters."""
        if self._wanted.updated_from_ms is None:
            sources, chosen = self._sources(spans), ["s.live = 1", *self._lasted()]
            joined = "CROSS JOIN sessions s"
        else:
            sources, chosen = [self._changed(self._wanted.updated_from_ms)], self._began
            joined = "LEFT JOIN sessions s ON s.partner = $1 AND s.id = n.id"
        chosen += [f"{name} IN ({', '.join(values)})" for name, values in self._keys.items()]
        if self._wanted.flag and (texts := texts_of_flag(self._wanted.flag)):
            likes = [f"s.body LIKE {self._add(f'%{text}%')}" for text in texts]
            chosen.append(f"({' OR '.join(likes)})")
        if self._wanted.updated_from_ms is not None and chosen:
            # It is not known any more whether an erased session matches the filter.
            chosen = [f"(s.id IS NULL OR ({' AND '.join(chosen)}))"]
        elif self._wanted.updated_from_ms is None:
            chosen += ["s.partner = $1", "s.id = n.id"]
        down, most = self._down, self._add(reads)
        sql = f"""
WITH near AS MATERIALIZED (
    {" UNION ALL ".join(sources)}
    ORDER BY instant{down}, id{down} LIMIT {most}
)
SELECT * FROM (
    {_SELECTED}
    FROM near n CROSS JOIN session_versions u {joined}
    WHERE u.partner = $1 AND u.id = n.id
      AND {" AND ".join(chosen or ["true"])}
    ORDER BY n.instant{down}, n.id{down} LIMIT $2
) page
UNION ALL
SELECT id, NULL, 0, NULL, NULL, 0, 0, instant FROM (
    SELECT instant, id FROM near ORDER BY instant{down}, id{down} LIMIT 1 OFFSET {most} - 1
) stop
"""
        return sql, self._parameters

    def _add(self, value: object) -> str:
        """Adds a parameter and returns its name in the statement."""
        self._parameters.append(value)
        return f"${len(self._parameters) + 2}"

    def _add_all(self, values: Sequence[str]) -> list[str]:
        """Adds the values as parameters, and others that match nothing, up to a power of two. So
        there are few different statements.
        """
        missing = (1 << (len(values) - 1).bit_length()) - len(values)
        return [self._add(value) for value in (*values, *[""] * missing)]

    def _following(self, instant: str, id: str) -> list[str]:
        """The condition for rows after the position, if there is one."""
        if not self._after:
            return []
        return [f"({instant}, {id}) {'<' if self._down else '>'} ({', '.join(self._after)})"]

    def _changed(self, since_ms: int) -> str:
        read = ["u.partner = $1", f"u.updated_ms >= {self._add(since_ms)}"]
        where = " AND ".join(read + self._following("u.updated_ms", "u.id"))
        return f"SELECT u.updated_ms AS instant, u.id AS id FROM session_versions u WHERE {where}"

    def _source(self, *read: str, id: str = "s.id") -> str:
        where = " AND ".join(
            ["s.partner = $1", *read, *self._began, *self._following("s.start_ms", id)]
        )
        return f"SELECT s.start_ms AS instant, {id} AS id FROM sessions s WHERE {where}"

    def _sources(self, spans: Iterable[int]) -> list[str]:
        """The statements that read the candidates. Each reads an index in the order of the list."""
        wanted, earlier = self._wanted, list[str]()
        began = list[str]()
        if (lasting_ms := _lasting_ms(wanted)) is not None and not wanted.active:
            lasting = self._add(lasting_ms)
            began.append(f"s.start_ms >= {lasting}")
            earlier = self._earlier(lasting_ms, lasting, spans)
        active = ["s.end_ms IS NULL", "s.live = 1"] if wanted.active else []
        if vehicles := self._keys.get("s.vehicle_id"):
            # The index of a vehicle's sessions does not have the id, by which sessions of one
            # instant are ordered. Without `|| ''` SQLite would use an index of all vehicles that
            # has the id.
            return earlier + [
                self._source(*began, f"s.vehicle_id = {id}", id="s.id || ''") for id in vehicles
            ]
        chargers = self._keys.get("s.charger_id")
        where = [[f"s.charger_id = {id}"] for id in chargers] if chargers else [[]]
        return earlier + [self._source(*began, *active, *here) for here in where]

    def _earlier(self, lasting_ms: int, lasting: str, spans: Iterable[int]) -> list[str]:
        """The statements for sessions that began before an instant and may have lasted until it."""
        wanted, before = self._wanted, f"s.start_ms < {lasting}"
        if wanted.from_ms is not None and wanted.from_ms >= lasting_ms:
            return []
        # A session of a span lasts less than 1 << span.
        sources = [
            self._source(
                "s.end_ms IS NOT NULL",
                "s.live = 1",
                f"s.span = {self._add(span)}",
                f"s.start_ms > {self._add(lasting_ms - (1 << span))}",
                before,
                id="s.id || ''",  # otherwise SQLite uses an index of all spans with the id
            )
            for span in spans
        ]
        if wanted.active is None and wanted.ended_from_ms is None:
            sources.append(self._source("s.end_ms IS NULL", "s.live = 1", before))
        return sources

    def _lasted(self) -> Iterable[str]:
        """The conditions on the end of the sessions."""
        wanted = self._wanted
        if wanted.active is not None:
            # Without `+ 0` PostgreSQL may read all ended sessions in an index without this order.
            yield "s.end_ms IS NULL" if wanted.active else "s.end_ms + 0 IS NOT NULL"
        if wanted.ended_from_ms is not None:
            yield f"s.end_ms + 0 >= {self._add(wanted.ended_from_ms)}"
        if wanted.ended_to_ms is not None:
            yield f"s.end_ms + 0 < {self._add(wanted.ended_to_ms)}"
        if wanted.overlapping_from_ms is not None:
            since = self._add(wanted.overlapping_from_ms)
            yield f"(s.end_ms IS NULL OR s.end_ms > {since} OR s.start_ms >= {since})"


async def spans_before(engine: Engine, partner: int, at_ms: int) -> list[int]:
    """The spans of ended sessions that began before the instant and may have lasted until it."""
    since = batch_of((span, at_ms - (1 << span)) for span in range(1, LONGEST_SPAN))
    return [span for (span,) in await engine.scan(SPANS, partner, since, at_ms)]


class SessionPage(NamedTuple):
    """Sessions; if `stop` is given, more may follow after that position."""

    sessions: list[StoredSession]
    stop: SessionPosition | None


class Sessions(Repository):
    """The derived sessions of all partners. Every method raises Unavailable."""

    async def get(
        self, partner: int, session_id: str, *, with_removed: bool = False
    ) -> StoredSession:
        """The session. Raises NotFound, also for a removed session unless `with_removed`."""
        row = await self._engine.look_up(GET, partner, session_id)
        session = None if row is None else _session(row)
        if session is None or (session.removed and not with_removed):
            raise NotFound
        return session

    async def page(
        self,
        partner: int,
        wanted: SessionFilter,
        after: SessionPosition | None,
        limit: int,
        *,
        descending: bool = False,
    ) -> SessionPage:
        """The next sessions after `after`, in the order of their start or of their last change.

        It may find fewer, or none, if they are large or if few of many match.
        """
        sessions: list[StoredSession] = []
        has_computed = wanted.flag is not None or wanted.estimated is not None
        lasting_ms = _lasting_ms(wanted)
        spans: list[int] = []
        if not (lasting_ms is None or wanted.active or wanted.updated_from_ms is not None):
            spans = await spans_before(self._engine, partner, lasting_ms)
        size, reads, time_slice = 0, PORTION, TimeSlice()
        for _ in range(PORTIONS):
            portion = PORTION if has_computed else min(PORTION, limit - len(sessions))
            reads = max(reads, portion)
            sql, parameters = page_statement(
                wanted, after, descending=descending, spans=spans, reads=reads
            )
            rows = await self._engine.scan(sql, partner, portion, *parameters)
            stop = rows.pop() if rows and not rows[-1][5] else None  # which has no version
            for row in rows:
                if (session := _session(row)) is not None:
                    if not has_computed or _is_wanted(session, wanted):
                        sessions.append(session)
                    size += len(row[1] or "")
                    after = _position_of(session, wanted)
                if size > MAX_BYTES:
                    return SessionPage(sessions, after)
                await time_slice.yield_if_over()
            if len(rows) < portion:
                if stop is None:
                    return SessionPage(sessions, None)
                after = stop[-1], stop[0]
                reads = min(reads * 4, READ_AT_ONCE)  # few of them match
            if len(sessions) >= limit:
                break
        return SessionPage(sessions, after)


def _lasting_ms(wanted: SessionFilter) -> int | None:
    """The earliest instant at which a matching session may have ended."""
    given = (wanted.ended_from_ms, wanted.overlapping_from_ms)
    return max((at_ms for at_ms in given if at_ms is not None), default=None)


def _is_wanted(known: StoredSession, wanted: SessionFilter) -> bool:
    session = session_of(known)
    if wanted.estimated not in (None, session.estimated):
        return False
    return wanted.flag is None or any(flag.name == wanted.flag for flag in session.flags)


def _position_of(session: StoredSession, wanted: SessionFilter) -> SessionPosition:
    changes = wanted.updated_from_ms is not None
    return session.updated_ms if changes else session.record.start_ms, session.id


def _session(row: Row) -> StoredSession | None:
    session_id, body, live, vehicle, charger, version, updated_ms, created_ms = row
    if not (vehicle and charger):
        # The vehicle, the charger or the partner is being deleted.
        return None if live else _erased(session_id, version, updated_ms, created_ms)
    return StoredSession(
        session_id,
        _decode_record(body),
        _decode_vehicle(vehicle),
        _decode_charger(charger),
        version,
        updated_ms,
        not live,
        created_ms,
    )


def _erased(session_id: str, version: int, updated_ms: int, created_ms: int) -> StoredSession:
    """What a list of changes has for a session that was erased with its vehicle or charger."""
    start_ms = int(session_id[:8] + session_id[9:13], 16)  # see SessionRecord.id
    at = EventPosition(start_ms, 0, ERASED, 0)
    record = SessionRecord(ERASED, ERASED, start_ms, 0, at, end_ms=start_ms)
    vehicle = Vehicle(id=ERASED, charge_capacity=Decimal(1))
    return StoredSession(
        session_id, record, vehicle, Charger(id=ERASED), version, updated_ms, True, created_ms
    )


_decode_record = msgspec.json.Decoder(SessionRecord).decode
_decode_vehicle = msgspec.json.Decoder(Vehicle).decode
_decode_charger = msgspec.json.Decoder(Charger).decode
