"""Every SQL statement on what is derived from events. As in queries.py, $1 is the partner."""

from functools import lru_cache
from typing import NamedTuple

# Deriving ----------------------------------------------------------------------------------------

BEGIN = """
INSERT INTO derivations (partner, seq, updated_ms, mark)
SELECT $1, 0, 0, 0 WHERE EXISTS (SELECT 1 FROM partners WHERE id = $1)
ON CONFLICT (partner) DO NOTHING
"""

_HEAD = """
coalesce((SELECT e.seq FROM events e WHERE e.partner = $1 ORDER BY e.seq DESC LIMIT 1), 0)
"""
_DERIVED = "coalesce((SELECT d.seq FROM derivations d WHERE d.partner = $1), 0)"

PROGRESS = f"SELECT {_HEAD}, {_DERIVED}"

POSITION = "SELECT seq, updated_ms, mark FROM derivations WHERE partner = $1"

EVENTS_AFTER = """
SELECT seq, at_ms, vehicle_id, body FROM events WHERE partner = $1 AND seq > $2
ORDER BY seq LIMIT $3
"""

# Of each vehicle, in the order of their ids, how many events came behind $2 up to $3, and when the
# first and the last of them were.
VEHICLES_AFTER = """
SELECT vehicle_id, count(*), min(at_ms), max(at_ms) FROM events
WHERE partner = $1 AND seq > $2 AND seq <= $3 AND vehicle_id > $4
GROUP BY vehicle_id ORDER BY vehicle_id LIMIT $5
"""

# `+ 0` keeps the number out of the choice of an index, and the order, which only one index has,
# makes it that one also while the tables are young.
EVENTS_OF_VEHICLE = """
SELECT seq, at_ms, body FROM vehicle_history
WHERE partner = $1 AND vehicle_id = $2 AND at_ms >= $3 AND seq + 0 <= $5
ORDER BY at_ms, type, charger_id, stamp LIMIT $4
"""

# A stay and what it knows of the time before it, as one JSON array.
_STAY = "'[' || s.body || ',' || s.before || ']'"

_NEWEST_FIRST = "ORDER BY s.start_ms DESC, s.start_rank DESC, s.charger_id DESC LIMIT 1"

# Of each vehicle in $2, a JSON object of arrays that hold one id.
LAST_STAYS = f"""
WITH wanted AS MATERIALIZED (SELECT value ->> 0 AS vehicle_id FROM jsonb_each($2))
SELECT w.vehicle_id, (
    SELECT {_STAY} FROM sessions s
    WHERE s.partner = $1 AND s.vehicle_id = w.vehicle_id AND s.live = 1 {_NEWEST_FIRST}
) FROM wanted w
"""

# The newest stay that began before a place.
STAY_AT = f"""
SELECT {_STAY} FROM sessions s
WHERE s.partner = $1 AND s.vehicle_id = $2 AND s.live = 1
  AND (s.start_ms, s.start_rank, s.charger_id) < ($3, $4, $5) {_NEWEST_FIRST}
"""

# Those in $2, a JSON object of arrays: vehicle, instant, rank, charger of the start.
STAYS_OF = f"""
WITH wanted AS MATERIALIZED (
    SELECT value ->> 0 AS vehicle_id, CAST(value ->> 1 AS BIGINT) AS start_ms,
           CAST(value ->> 2 AS BIGINT) AS start_rank, value ->> 3 AS charger_id
    FROM jsonb_each($2)
)
SELECT (
    SELECT {_STAY} FROM sessions s
    WHERE s.partner = $1 AND s.vehicle_id = w.vehicle_id AND s.start_ms = w.start_ms
      AND s.start_rank = w.start_rank AND s.charger_id = w.charger_id AND s.live = 1
) FROM wanted w
"""

# All columns of a stay, and its version.
_ROW = """
s.vehicle_id, s.start_ms, s.start_rank, s.charger_id, s.id, s.live, s.end_ms, s.span, s.rest_ms,
s.last_seq, s.here_seq, s.body, s.before,
(SELECT u.version FROM session_versions u WHERE u.partner = $1 AND u.id = s.id) AS version
"""

STAYS_FROM = f"""
SELECT {_ROW} FROM sessions s
WHERE s.partner = $1 AND s.vehicle_id = $2 AND s.live = 1
  AND (s.start_ms, s.start_rank, s.charger_id) >= ($3, $4, $5)
ORDER BY s.start_ms, s.start_rank, s.charger_id LIMIT $6
"""

# The same for many vehicles: the newest stay that began before an instant, and the start of the
# second behind another, as the first knows when the one before it ended. $2 is a JSON object of
# arrays: vehicle, first instant, last instant.
LATE_BOUNDS = f"""
WITH wanted AS MATERIALIZED (
    SELECT value ->> 0 AS vehicle_id, CAST(value ->> 1 AS BIGINT) AS first_ms,
           CAST(value ->> 2 AS BIGINT) AS last_ms
    FROM jsonb_each($2)
)
SELECT w.vehicle_id, (
    SELECT {_STAY} FROM sessions s
    WHERE s.partner = $1 AND s.vehicle_id = w.vehicle_id AND s.live = 1
      AND s.start_ms < w.first_ms {_NEWEST_FIRST}
), (
    SELECT s.start_ms FROM sessions s
    WHERE s.partner = $1 AND s.vehicle_id = w.vehicle_id AND s.live = 1 AND s.start_ms > w.last_ms
    ORDER BY s.start_ms, s.start_rank, s.charger_id LIMIT 1 OFFSET 1
) FROM wanted w
"""

# Of each vehicle its events from an instant to another, and its stays from a start to that instant
# with their columns as above, each as a list of JSON arrays, but not more than $4 of either. $2 is
# a JSON object of arrays: vehicle, start (instant, rank, charger), last instant. Ids need no
# escapes in JSON. Not written as joins: see queries.py.
LATE_CONTENTS = f"""
WITH wanted AS MATERIALIZED (
    SELECT value ->> 0 AS vehicle_id, CAST(value ->> 1 AS BIGINT) AS start_ms,
           CAST(value ->> 2 AS BIGINT) AS start_rank, value ->> 3 AS charger_id,
           CAST(value ->> 4 AS BIGINT) AS until_ms
    FROM jsonb_each($2)
)
SELECT w.vehicle_id, (
    SELECT string_agg('[' || x.seq || ',' || x.at_ms || ',' || x.body || ']', ',') FROM (
        SELECT e.seq, e.at_ms, e.body FROM vehicle_history e
        WHERE e.partner = $1 AND e.vehicle_id = w.vehicle_id
          AND e.at_ms >= w.start_ms AND e.at_ms <= w.until_ms AND e.seq + 0 <= $3
        ORDER BY e.at_ms, e.type, e.charger_id, e.stamp LIMIT $4
    ) x
), (
    SELECT string_agg(
        '["' || x.vehicle_id || '",' || x.start_ms || ',' || x.start_rank || ',"' || x.charger_id
        || '","' || x.id || '",' || x.live || ',' || coalesce(CAST(x.end_ms AS TEXT), 'null')
        || ',' || coalesce(CAST(x.span AS TEXT), 'null')
        || ',' || coalesce(CAST(x.rest_ms AS TEXT), 'null') || ',' || x.last_seq
        || ',' || x.here_seq || ',' || x.body || ',' || x.before
        || ',' || coalesce(CAST(x.version AS TEXT), 'null') || ']', ','
    ) FROM (
        SELECT {_ROW} FROM sessions s
        WHERE s.partner = $1 AND s.vehicle_id = w.vehicle_id AND s.live = 1
          AND (s.start_ms, s.start_rank, s.charger_id) >= (w.start_ms, w.start_rank, w.charger_id)
          AND s.start_ms <= w.until_ms
        ORDER BY s.start_ms, s.start_rank, s.charger_id LIMIT $4
    ) x
) FROM wanted w
"""

# The three run in one transaction; the others do nothing if the first did not find the mark.
ADVANCE = """
UPDATE derivations SET seq = $3, updated_ms = $4, mark = $5 WHERE partner = $1 AND mark = $2
"""

# $2 is a JSON object of arrays with the columns in this order.
_WRITE = """
WITH batch AS MATERIALIZED (
    SELECT value ->> 0 AS vehicle_id, CAST(value ->> 1 AS BIGINT) AS start_ms,
           CAST(value ->> 2 AS BIGINT) AS start_rank, value ->> 3 AS charger_id, value ->> 4 AS id,
           CAST(value ->> 5 AS BIGINT) AS live, CAST(value ->> 6 AS BIGINT) AS end_ms,
           CAST(value ->> 7 AS BIGINT) AS span, CAST(value ->> 8 AS BIGINT) AS rest_ms,
           CAST(value ->> 9 AS BIGINT) AS last_seq, CAST(value ->> 10 AS BIGINT) AS here_seq,
           value ->> 11 AS body, value ->> 12 AS before
    FROM jsonb_each($2)
)
INSERT INTO sessions (partner, vehicle_id, start_ms, start_rank, charger_id, id, live, end_ms, span,
                      rest_ms, last_seq, here_seq, body, before)
SELECT $1, b.vehicle_id, b.start_ms, b.start_rank, b.charger_id, b.id, b.live, b.end_ms, b.span,
       b.rest_ms, b.last_seq, b.here_seq, b.body, b.before
FROM batch b
WHERE (SELECT d.mark FROM derivations d WHERE d.partner = $1) = $3
ON CONFLICT (partner, vehicle_id, start_ms, start_rank, charger_id) DO UPDATE
SET last_seq = excluded.last_seq, here_seq = excluded.here_seq, body = excluded.body,
    before = excluded.before
"""

# Most changes of a stay concern what no index has. SQLite writes anew all indexes of columns that
# are named here, so these have a statement of their own.
WRITE_GROWN_SESSIONS = _WRITE

WRITE_SESSIONS = f"""
{_WRITE.rstrip()}, live = excluded.live, end_ms = excluded.end_ms, span = excluded.span,
    rest_ms = excluded.rest_ms
"""

# $2 is a JSON object of arrays that hold one id.
WRITE_VERSIONS = """
WITH batch AS MATERIALIZED (SELECT value ->> 0 AS id FROM jsonb_each($2))
INSERT INTO session_versions (partner, id, version, updated_ms)
SELECT $1, b.id, 1, $4 FROM batch b
WHERE (SELECT d.mark FROM derivations d WHERE d.partner = $1) = $3
ON CONFLICT (partner, id) DO UPDATE
SET version = session_versions.version + 1, updated_ms = excluded.updated_ms
"""

COUNT_VEHICLES = "SELECT count(*) FROM vehicles WHERE partner = $1"

# Reading -----------------------------------------------------------------------------------------

# A vehicle's newest stay, what it knows of before, and the newest event of it, as a JSON array.
_MOMENT = f"""
(SELECT '[' || s.body || ',' || s.before || ',' || (
    SELECT e.body FROM events e WHERE e.partner = $1 AND e.seq = s.last_seq
 ) || ']' FROM sessions s
 WHERE s.partner = $1 AND s.vehicle_id = {{vehicle}} AND s.live = 1 {_NEWEST_FIRST})
"""

# Whether there is the vehicle, whether events of it wait to be derived, and what is newest of it.
# The order makes it that index also while the tables are young which ends in the number.
VEHICLE_STATE = f"""
SELECT (SELECT 1 FROM vehicles v WHERE v.partner = $1 AND v.id = $2),
       (SELECT e.seq FROM vehicle_events e WHERE e.partner = $1 AND e.vehicle_id = $2
        ORDER BY e.seq DESC LIMIT 1) > {_DERIVED},
       {_MOMENT.format(vehicle="$2")}
"""

# What is newest of each vehicle in $2, a JSON object of arrays that hold one id.
VEHICLE_STATES = f"""
WITH wanted AS MATERIALIZED (SELECT value ->> 0 AS vehicle_id FROM jsonb_each($2))
SELECT w.vehicle_id, {_MOMENT.format(vehicle="w.vehicle_id")} FROM wanted w
"""

AT_CHARGER = 100  # stays that are shown of those that last at a charger
FEW_AT_CHARGER = 5  # … if it is asked for this one charger, in the event loop

# The newest stays that last at a charger, with what they know of before, their newest events and
# those there, as a list of JSON arrays, one more than is shown; the newest event there of the stays
# that have ended. Not written as joins: see queries.py.
_AT_CHARGER = """
(SELECT string_agg(
    '[' || x.body || ',' || x.before || ',' || x.last || ',' || x.here || ']', ','
 ) FROM (
    SELECT s.body, s.before,
           (SELECT e.body FROM events e WHERE e.partner = $1 AND e.seq = s.last_seq) AS last,
           (SELECT e.body FROM events e WHERE e.partner = $1 AND e.seq = s.here_seq) AS here
    FROM sessions s
    WHERE s.partner = $1 AND s.charger_id = {charger} AND s.end_ms IS NULL AND s.live = 1
    ORDER BY s.start_ms DESC, s.id DESC LIMIT {most} + 1
 ) x),
(SELECT e.body FROM events e WHERE e.partner = $1 AND e.seq = (
    SELECT s.here_seq FROM sessions s
    WHERE s.partner = $1 AND s.charger_id = {charger} AND s.end_ms IS NOT NULL AND s.live = 1
    ORDER BY s.rest_ms DESC LIMIT 1))
"""

# Whether there is the charger, whether any events wait to be derived (those of other chargers may
# say that a vehicle has left this one), and what is there.
CHARGER_STATE = f"""
SELECT (SELECT 1 FROM chargers c WHERE c.partner = $1 AND c.id = $2), {_HEAD} > {_DERIVED},
       {_AT_CHARGER.format(charger="$2", most=FEW_AT_CHARGER)}
"""

# What is at each charger in $2, which is as above.
CHARGER_STATES = f"""
WITH wanted AS MATERIALIZED (SELECT value ->> 0 AS charger_id FROM jsonb_each($2))
SELECT w.charger_id, {_AT_CHARGER.format(charger="w.charger_id", most=AT_CHARGER)} FROM wanted w
"""

_SESSION = """
SELECT s.id, s.body, s.live,
       (SELECT v.body FROM vehicles v WHERE v.partner = $1 AND v.id = s.vehicle_id),
       (SELECT c.body FROM chargers c WHERE c.partner = $1 AND c.id = s.charger_id),
"""

GET_SESSION = f"""
{_SESSION} u.version, u.updated_ms
FROM sessions s JOIN session_versions u ON u.partner = $1 AND u.id = s.id
WHERE s.partner = $1 AND s.id = $2 AND s.live = 1
"""


class SessionFilter(NamedTuple):
    """Which sessions of a partner a list shows; None means all. Instants in ms since 1970.

    A session is in the window from `from_ms` to before `to_ms` in which it began. `active` is not
    for lists of changes.
    """

    charger_id: str | None = None
    vehicle_id: str | None = None
    from_ms: int | None = None
    to_ms: int | None = None
    active: bool | None = None
    updated_from_ms: int | None = None


_CONDITIONS = ("s.charger_id = ", "s.vehicle_id = ", "s.start_ms >= ", "s.start_ms < ")


READ_AT_ONCE = 2_000  # sessions that a portion of a list may read


def sessions_page(wanted: SessionFilter, after: tuple[int, str] | None) -> tuple[str, list[object]]:
    """The statement for a page of sessions and its parameters from $3 on; $1 partner, $2 limit.

    They are in the order of their start, or of their last change where changes are asked for, and
    then those are among them that were removed.

    It reads READ_AT_ONCE sessions at most. If there are as many, it adds a row for the place of the
    last of them, without a body: its id, and its instant as the last column.
    """
    given = tuple(value is not None for value in wanted[:4])
    changes = wanted.updated_from_ms is not None
    sql = _sessions_page(given, wanted.active, changes, after is not None)
    parameters: list[object] = [value for value in wanted[:4] if value is not None]
    if after is not None:
        return sql, [*parameters, *after]
    return sql, [*parameters, wanted.updated_from_ms] if changes else parameters


@lru_cache
def _sessions_page(
    given: tuple[bool, ...], active: bool | None, changes: bool, resumed: bool
) -> str:
    names = [start for start, used in zip(_CONDITIONS, given, strict=True) if used]
    conditions = [f"{start}${place}" for place, start in enumerate(names, start=3)]
    instant, id = ("u.updated_ms", "u.id") if changes else ("s.start_ms", "s.id")
    if given[1] and not changes:
        # No index of a vehicle's sessions has the id, which orders those of one instant. `|| ''`:
        # else SQLite reads all vehicles' sessions in an index that has it.
        id = "s.id || ''"
    # What is read is what an index has one after the other; of these the others are chosen.
    read, chosen = (["u.partner = $1"], conditions) if changes else (["s.partner = $1"], [])
    if not changes:
        key = "s.vehicle_id" if given[1] else "s.charger_id"
        read += [text for text in conditions if text.startswith((key, "s.start_ms"))]
        chosen += [text for text in conditions if text not in read]
        if active and not given[1]:
            read += ["s.end_ms IS NULL", "s.live = 1"]
        else:
            chosen.append("s.live = 1")
    if active is not None and "s.end_ms IS NULL" not in read:
        # `+ 0`: else PostgreSQL may read all that have ended, in an index without this order.
        chosen.append("s.end_ms IS NULL" if active else "s.end_ms + 0 IS NOT NULL")
    next_place = 3 + len(names)
    if resumed:
        read.append(f"({instant}, {id}) > (${next_place}, ${next_place + 1})")
    elif changes:
        read.append(f"{instant} >= ${next_place}")
    order = f"ORDER BY {instant}, {id}"
    table = "session_versions u" if changes else "sessions s"
    return f"""
WITH stop AS MATERIALIZED (
    SELECT {instant} AS instant, {id} AS id FROM {table} WHERE {" AND ".join(read)}
    {order} LIMIT 1 OFFSET {READ_AT_ONCE - 1}
)
SELECT * FROM (
    {_SESSION} u.version, u.updated_ms
    FROM sessions s JOIN session_versions u ON u.partner = $1 AND u.id = s.id
    WHERE {" AND ".join(["s.partner = $1", *read, *chosen])}
      AND ({instant}, {id}) <= (coalesce((SELECT instant FROM stop), {2**62}),
                                coalesce((SELECT id FROM stop), '~'))
    {order} LIMIT $2
) page
UNION ALL SELECT id, NULL, 0, NULL, NULL, 0, instant FROM stop
"""
