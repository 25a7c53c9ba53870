"""The parts of SQL that differ between the engines. Each subject writes its other SQL once."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Dialect:
    """One engine's SQL. Shared statements name these parts in braces."""

    name: str

    text: str
    """The type of text that sorts by bytes on every machine, as our cursors need it."""

    clustered: str
    """Ends a CREATE TABLE whose rows are stored in the primary key, if the engine can do that."""

    event_numbers: str
    """Yields `base`: a batch of $3 events or withdrawals takes the sequence numbers base + 1 to
    base + $3.

    SQLite has one writer, so the largest number in the tables is the last one. PostgreSQL has many
    writers. There the row of the counter stays locked until the commit, so numbers become visible
    in order. A missing counter (before the first event, or in a copy) starts from the tables.
    There the statement first reads all of `ready`: other writers wait while the counter is locked.
    """

    event_json: str
    """The body of the event `e` as JSON, for ->>."""

    session_json: str
    """The body of the session `s` as JSON."""

    position: str
    """The function for the position of a text in another one, from 1; 0 if it is not found."""

    of_hex: str
    """The text of a column that has its bytes in hexadecimal; the column replaces the braces."""

    pause_s: float
    """The pause of the projector between two batches of events while nobody reads sessions. A
    session with several new events is then written once. On SQLite a longer pause makes larger
    writes, and other commits wait for them.
    """

    bulk_pause_s: float
    """How long the projector waits after a bulk, because more events follow. SQLite runs in the
    process that reads these events, so deriving would delay their answers. PostgreSQL does its part
    in another process: without a pause both processes are busy.
    """

    stops_adding: tuple[str, ...]
    """The first statements of a transaction that removes a charger or vehicle, or moves a horizon.
    After them all added events are visible, and other events are added after the transaction.
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
    bulk_pause_s=1.0,
    stops_adding=(),  # there is one writer
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
    bulk_pause_s=0.0,
    stops_adding=("LOCK TABLE event_heads IN SHARE MODE",),
)
