"""The words in which the engines' SQL differs. Everything else is written once, in queries.py."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Dialect:
    """One engine's words; each is put where the shared SQL names it in braces."""

    name: str

    text: str
    """The type of text that is ordered byte by byte on every machine, as our cursors need it."""

    clustered: str
    """Ends a CREATE TABLE whose rows live inside the primary key, where the engine can do that."""

    event_numbers: str
    """Yields `base`: the events of a batch of $3 take the sequence numbers base + 1 to base + $3.

    SQLite has one writer, so the largest number in the table is the last one given. On PostgreSQL
    many write: the counter's row stays locked until the commit, so no smaller number can become
    visible after a larger one, and the statement that waits for it sees the newest value. Where
    there is no counter (no event yet, or events that were copied in) it starts from the table. It
    reads all of `ready` first: from then on others wait for the counter.
    """

    pause_s: float
    """How long events gather between two portions of derivation while nobody asks for what follows
    from them: a session of which several events came is written once. On SQLite a longer pause
    means more to write at once, for which the one writer's next commits wait.
    """

    own_tables: tuple[str, ...]
    """Those with a row for a partner that only this engine has."""

    listing: tuple[str, ...] = ()
    """Enter the partner's events up to $2 in the lists from which the views charger_events,
    vehicle_events and vehicle_history are made, unless the lists have those up to $3: the more are
    entered at once, the fewer pages are written for each.

    PostgreSQL has none: there an entry in an index costs little wherever it goes, but a list would
    cost a row. SQLite writes whole pages, so it has lists, which are written behind.
    """


_DUE = """e.partner = $1 AND e.seq <= $2
  AND coalesce((SELECT n.seq FROM listings n WHERE n.partner = $1), 0) < $3"""
_LISTING = (
    f"""
INSERT INTO list_of_charger (partner, charger_id, seq)
SELECT $1, e.charger_id, e.seq FROM unlisted_events e
WHERE {_DUE}
ORDER BY e.charger_id, e.seq
""",
    f"""
INSERT INTO list_of_vehicle (partner, vehicle_id, seq)
SELECT $1, e.vehicle_id, e.seq FROM unlisted_events e
WHERE {_DUE}
ORDER BY e.vehicle_id, e.seq
""",
    f"""
INSERT INTO list_by_time (partner, vehicle_id, at_ms, seq)
SELECT $1, e.vehicle_id, e.at_ms, e.seq FROM unlisted_events e
WHERE {_DUE}
ORDER BY e.vehicle_id, e.at_ms, e.seq
""",
    f"""
INSERT INTO listings (partner, seq)
SELECT $1, e.seq FROM events e WHERE {_DUE}
ORDER BY e.seq DESC LIMIT 1
ON CONFLICT (partner) DO UPDATE SET seq = excluded.seq
""",
)

SQLITE = Dialect(
    name="sqlite",
    text="TEXT",
    clustered="WITHOUT ROWID",
    event_numbers=(
        "SELECT coalesce((SELECT seq FROM events WHERE partner = $1 ORDER BY seq DESC LIMIT 1), 0) "
        "WHERE $3 > 0"
    ),
    pause_s=0.5,
    own_tables=("listings",),
    listing=_LISTING,
)

POSTGRES = Dialect(
    name="postgres",
    text='TEXT COLLATE "C"',
    clustered="",
    event_numbers=(
        "INSERT INTO event_heads (partner, seq) SELECT $1, $3 + (SELECT coalesce(max(seq), 0) "
        "FROM events WHERE partner = $1) FROM (SELECT count(*) FROM ready) looked_up "
        "ON CONFLICT (partner) "
        "DO UPDATE SET seq = event_heads.seq + $3 RETURNING seq - $3"
    ),
    pause_s=2.0,
    own_tables=("event_heads",),
)
