"""Every SQL statement that Tether runs, once for both engines. Parameters are $1, $2, …

Statements on partner data name the partner as $1. Words in {braces} come from dialect.py.
"""

from functools import lru_cache
from typing import Literal, NamedTuple

Table = Literal["chargers", "vehicles"]

# Chargers and vehicles ---------------------------------------------------------------------------

GET = "SELECT version, body FROM {table} WHERE partner = $1 AND id = $2"

PAGE = "SELECT id, body FROM {table} WHERE partner = $1 AND id > $2 ORDER BY id LIMIT $3"

# A partner may be deleted while a body of its is still arriving: nothing must be left of it.
PUT = """
INSERT INTO {table} (partner, id, version, body)
SELECT $1, $2, 1, $3 WHERE EXISTS (SELECT 1 FROM partners WHERE id = $1)
ON CONFLICT (partner, id) DO UPDATE SET version = {table}.version + 1, body = excluded.body
RETURNING version
"""

CREATE = """
INSERT INTO {table} (partner, id, version, body)
SELECT $1, $2, 1, $3 WHERE EXISTS (SELECT 1 FROM partners WHERE id = $1)
ON CONFLICT (partner, id) DO NOTHING
RETURNING version
"""

REPLACE = """
UPDATE {table} SET version = version + $4, body = $5
WHERE partner = $1 AND id = $2 AND version = $3
RETURNING version
"""

# Events ------------------------------------------------------------------------------------------

# $2 is a JSON object of arrays by the event's place in the batch: each has id, type, charger,
# vehicle, instant, 1 if the server gave the instant, body. jsonb_each means the same to both, and
# reads an array once and not for each of its values; the body is a text in it, and stays as it is.
_BATCH = """
batch AS MATERIALIZED (
    SELECT CAST(key AS BIGINT) AS place, value ->> 0 AS id, value ->> 1 AS type,
           value ->> 2 AS charger_id, value ->> 3 AS vehicle_id,
           CAST(value ->> 4 AS BIGINT) AS at_ms, CAST(value ->> 5 AS BIGINT) AS stamped,
           value ->> 6 AS body
    FROM jsonb_each($2)
)
"""

# Looked up in an index for each event of a batch. Written as scalar subqueries because PostgreSQL
# makes joins of EXISTS and LEFT JOIN, and with the estimates of a young table such a join reads all
# events of the partner. ORDER BY stamp singles out the one index that ends in it.
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

# The newest instant that the server gave to an event of the vehicle, if it is not before this one.
# Partners may have stamped events with instants to come, of which some are looked through.
_STAMPED_SINCE = """
(SELECT max(x.at_ms) FROM (
    SELECT e.at_ms, e.stamp FROM events e
    WHERE e.partner = $1 AND e.vehicle_id = b.vehicle_id AND e.at_ms >= b.at_ms
    ORDER BY e.at_ms, e.type, e.charger_id, e.stamp LIMIT 100
 ) x WHERE x.stamp > 0)
"""

# What is ready is found before the numbers are taken, as with these PostgreSQL makes the partner's
# other writers wait. `true` tells SQLite that ON does not belong to the join.
ADD_EVENTS = f"""
WITH {_BATCH}, ready AS (
    SELECT * FROM batch b
    WHERE {_HAS_CHARGER} AND {_HAS_VEHICLE}
      AND CASE b.stamped WHEN 1 THEN {_STAMPED_SINCE} IS NULL ELSE {_SAME_EVENT} IS NULL END
), numbers (base) AS ({{event_numbers}})
INSERT INTO events (partner, seq, id, type, charger_id, vehicle_id, at_ms, stamp, body)
SELECT $1, n.base + r.place, r.id, r.type, r.charger_id, r.vehicle_id, r.at_ms,
       r.stamped * (n.base + r.place), r.body
FROM numbers n CROSS JOIN ready r
WHERE true
ON CONFLICT DO NOTHING
"""

# What became of the events of a batch of which not all were inserted: whether there are charger and
# vehicle, the event itself, the recorded one of the same identity, and what was stamped since.
EXPLAIN_EVENTS = f"""
WITH {_BATCH}
SELECT {_HAS_CHARGER}, {_HAS_VEHICLE},
       (SELECT e.body FROM events e WHERE e.partner = $1 AND e.id = b.id),
       CASE WHEN b.stamped = 0 THEN {_SAME_EVENT} END,
       CASE WHEN b.stamped = 1 THEN {_STAMPED_SINCE} END
FROM batch b
ORDER BY b.place
"""

GET_EVENT = "SELECT body FROM events WHERE partner = $1 AND id = $2"


class EventFilter(NamedTuple):
    """Which events of a partner a list shows; None means all. Instants in ms since 1970."""

    type: str | None = None
    charger_id: str | None = None
    vehicle_id: str | None = None
    from_ms: int | None = None
    to_ms: int | None = None


_CONDITIONS = ("type = ", "charger_id = ", "vehicle_id = ", "at_ms >= ", "at_ms < ")


READ_AT_ONCE = 20_000  # events that a portion of a list may read, and …
WINDOW_AT_ONCE = 100_000  # … entries of the index by time that are read to find a window's ends


def is_selective(wanted: EventFilter) -> bool:
    """Whether more events may be read than are shown: no index has those that are wanted."""
    both = wanted.charger_id is not None and wanted.vehicle_id is not None
    return both or wanted.type is not None or has_window(wanted)


def has_window(wanted: EventFilter) -> bool:
    """Whether only events from a time, or to one, are wanted."""
    return wanted.from_ms is not None or wanted.to_ms is not None


def events_page(
    wanted: EventFilter, after: int | None, descending: bool
) -> tuple[str, list[object]]:
    """The statement for a page of events and its parameters from $3 on; $1 partner, $2 limit.

    It reads READ_AT_ONCE events at most. If there are as many, it adds a row with the number of the
    last of them and no body.
    """
    given = tuple(value is not None for value in wanted)
    sql = _events_page(given, after is not None, descending, is_selective(wanted))
    parameters: list[object] = [value for value in wanted if value is not None]
    return sql, parameters if after is None else [*parameters, after]


@lru_cache
def _events_page(given: tuple[bool, ...], resumed: bool, descending: bool, selective: bool) -> str:
    names = [start for start, used in zip(_CONDITIONS, given, strict=True) if used]
    numbered = [f"{start}${place}" for place, start in enumerate(names, start=3)]
    key = "vehicle_id" if given[2] else "charger_id" if given[1] else None
    relation = {"vehicle_id": "vehicle_events", "charger_id": "charger_events", None: "events"}[key]
    indexed = ["partner = $1", *(text for text in numbered if key and text.startswith(key))]
    if resumed:
        indexed.append(f"seq {'<' if descending else '>'} ${3 + len(names)}")
    others = [text for text in numbered if text not in indexed]
    order = f"ORDER BY seq {'DESC' if descending else 'ASC'}"
    page = f"SELECT seq, body FROM {relation} WHERE {' AND '.join([*indexed, *others])}"
    if not selective:
        return f"{page} {order} LIMIT $2"
    # `seq` alone in the comparison, so that both engines stop there in the index.
    end, comparison = ("0", ">=") if descending else (str(2**62), "<=")
    return f"""
WITH stop AS MATERIALIZED (
    SELECT seq FROM {relation} WHERE {" AND ".join(indexed)}
    {order} LIMIT 1 OFFSET {READ_AT_ONCE - 1}
)
SELECT seq, body FROM (
    {page} AND seq {comparison} coalesce((SELECT seq FROM stop), {end}) {order} LIMIT $2
) page
UNION ALL SELECT seq, NULL FROM stop
"""


def events_window(wanted: EventFilter, beyond: int, descending: bool) -> tuple[str, list[object]]:
    """The statement for the ends of a window of time, and its parameters; $1 is the partner.

    It counts the entries of the window, WINDOW_AT_ONCE at most, and finds the one of them which
    comes next in the order of commits after the event `beyond` (or before it).
    """
    times = [wanted.from_ms, wanted.to_ms]
    sql = _events_window(tuple(time is not None for time in times), descending)
    return sql, [beyond, *(time for time in times if time is not None)]


@lru_cache
def _events_window(given: tuple[bool, ...], descending: bool) -> str:
    names = [start for start, used in zip(_CONDITIONS[3:], given, strict=True) if used]
    inside = " AND ".join(f"{start}${place}" for place, start in enumerate(names, start=3))
    nearest, comparison = ("max", "<") if descending else ("min", ">")
    return f"""
SELECT count(*), {nearest}(CASE WHEN seq {comparison} $2 THEN seq END) FROM (
    SELECT seq FROM events WHERE partner = $1 AND {inside} ORDER BY at_ms LIMIT {WINDOW_AT_ONCE}
) inside
"""


# Partners and keys -------------------------------------------------------------------------------

_KEY = """
SELECT k.digest, k.prefix, k.partner, p.name, k.name, k.rate_requests, k.rate_window_s, k.burst,
       k.read_only, k.created_ms, k.expires_ms, k.revoked_ms
FROM keys k JOIN partners p ON p.id = k.partner
"""

FIND_KEY = _KEY + "WHERE k.digest = $1"

LIST_KEYS = _KEY + "ORDER BY p.name, k.created_ms, k.prefix"

ADD_KEY = """
INSERT INTO keys (digest, prefix, partner, name, rate_requests, rate_window_s, burst, read_only,
                  created_ms, expires_ms)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
"""

REVOKE_KEY = "UPDATE keys SET revoked_ms = $2 WHERE digest = $1 AND revoked_ms IS NULL"

EXPIRE_KEY = """
UPDATE keys SET expires_ms = $2 WHERE digest = $1 AND (expires_ms IS NULL OR expires_ms > $2)
"""

ADD_PARTNER = """
INSERT INTO partners (id, name, created_ms) VALUES ($1, $2, $3) ON CONFLICT (name) DO NOTHING
"""

FIND_PARTNER = "SELECT id, name, created_ms FROM partners WHERE name = $1"

LIST_PARTNERS = "SELECT id, name, created_ms FROM partners ORDER BY name"

RENAME_PARTNER = "UPDATE partners SET name = $2 WHERE id = $1"

COUNT_OF_PARTNER = """
SELECT (SELECT count(*) FROM chargers WHERE partner = $1),
       (SELECT count(*) FROM vehicles WHERE partner = $1),
       (SELECT count(*) FROM events WHERE partner = $1),
       (SELECT count(*) FROM keys WHERE partner = $1)
"""

# Deleting a partner: events in portions, so that nobody waits long behind them.
ERASE_EVENTS = """
DELETE FROM events WHERE partner = $1
AND seq IN (SELECT seq FROM events WHERE partner = $1 ORDER BY seq LIMIT $2)
"""
ERASE_ALL = "DELETE FROM {table} WHERE partner = $1"
ERASE_KEYS = "DELETE FROM keys WHERE partner = $1"
ERASE_PARTNER = "DELETE FROM partners WHERE id = $1"

PING = "SELECT 1 FROM partners LIMIT 1"
