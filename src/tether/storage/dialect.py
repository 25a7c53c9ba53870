"""The words in which the engines differ in SQL. All else is written once, in its subject's file."""

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
    """Yields `base`: a batch of $3 events or withdrawals takes the sequence numbers base + 1 to
    base + $3.

    SQLite has one writer, so the largest number in the tables is the last one given. On PostgreSQL
    many write: the counter's row stays locked until the commit, so no smaller number can become
    visible after a larger one, and the statement that waits for it sees the newest value. Where
    there is no counter (no event yet, or events that were copied in) it starts from the tables. It
    reads all of `ready` first: from then on others wait for the counter.
    """

    event_json: str
    """The body of the event `e` as JSON, of which ->> takes a member."""

    session_json: str
    """The same of the session `s`."""

    position: str
    """The function that tells where a text has another one in it, from 1; 0 if nowhere."""

    of_hex: str
    """The text whose bytes a column has in hexadecimal; the column is put in braces."""

    pause_s: float
    """How long events gather between two portions of derivation while nobody asks for what follows
    from them: a session of which several events came is written once. On SQLite a longer pause
    means more to write at once, for which the one writer's next commits wait.
    """

    own_tables: tuple[str, ...]
    """Those with a row for a partner that only this engine has."""

    stops_adding: tuple[str, ...]
    """What a transaction begins with that removes a charger or vehicle: then no event is added that
    saw it before, and all that was added is seen behind it.
    """


SQLITE = Dialect(
    name="sqlite",
    text="TEXT",
    clustered="WITHOUT ROWID",
    event_numbers=(
        "SELECT max("
        "coalesce((SELECT seq FROM events WHERE partner = $1 ORDER BY seq DESC LIMIT 1), 0), "
        "coalesce((SELECT seq FROM withdrawals WHERE partner = $1 ORDER BY seq DESC LIMIT 1), 0)"
        ") WHERE $3 > 0"
    ),
    event_json="e.body",
    session_json="s.body",
    position="instr",
    of_hex="CAST(unhex({}) AS TEXT)",
    pause_s=0.5,
    own_tables=("listings",),
    stops_adding=(),  # one writes at a time
)

POSTGRES = Dialect(
    name="postgres",
    text='TEXT COLLATE "C"',
    clustered="",
    event_numbers=(
        "INSERT INTO event_heads (partner, seq) SELECT $1, $3 + greatest("
        "(SELECT coalesce(max(seq), 0) FROM events WHERE partner = $1), "
        "(SELECT coalesce(max(seq), 0) FROM withdrawals WHERE partner = $1)"
        ") FROM (SELECT count(*) FROM ready) looked_up "
        "ON CONFLICT (partner) "
        "DO UPDATE SET seq = event_heads.seq + $3 RETURNING seq - $3"
    ),
    event_json="CAST(e.body AS json)",
    session_json="CAST(s.body AS json)",
    position="strpos",
    of_hex="convert_from(decode({}, 'hex'), 'UTF8')",
    pause_s=2.0,
    own_tables=("event_heads",),
    stops_adding=("LOCK TABLE event_heads IN SHARE MODE",),
)
