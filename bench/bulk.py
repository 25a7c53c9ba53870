"""Writes to the table of events in PostgreSQL without a server: COPY, and the insert of pgbench."""

import subprocess
from pathlib import Path
from typing import Literal

from bench.contestants import THINGS
from bench.databases import PostgresDatabase
from bench.load import FIRST_SECOND, Run
from bench.processes import StartError

# The columns of one event, as the server stores it, of the n-th that wrk/post.lua makes.
_TYPES = (
    "ARRAY['VEHICLE_CONNECTED', 'VEHICLE_CHARGE_STARTED', 'VEHICLE_CHARGE_UPDATED', "
    "'VEHICLE_CHARGE_STOPPED', 'VEHICLE_DISCONNECTED']"
)
_EVENTS = f"""
SELECT {{partner}}, n, id, type, charger_id, vehicle_id, at_ms, 0,
       format('{{{{"id":"%s","type":"%s","chargerId":"%s","vehicleId":"%s",'
              '"stateOfCharge":%s,"timestamp":"%s"}}}}', id, type, charger_id, vehicle_id,
              round((n % 1001) / 10.0, 1),
              to_char(to_timestamp(at_ms / 1000.0) AT TIME ZONE 'UTC',
                      'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'))
FROM (SELECT n, uuidv7()::text AS id, ({_TYPES})[n / {THINGS} % 5 + 1] AS type,
             'C' || to_char((7 * n * 617 + n / 5 / {THINGS}) % {THINGS}, 'FM0000') AS charger_id,
             'V' || to_char(n * 617 % {THINGS}, 'FM0000') AS vehicle_id,
             {FIRST_SECOND - 86_400 * 300}000 + n AS at_ms
      FROM generate_series(1::bigint, {{count}}) n) event
"""
_COLUMNS = {
    "events": "(partner, seq, id, type, charger_id, vehicle_id, at_ms, stamp, body)",
    "vehicles": "(partner, id, version, body)",
}
# What follows from the rows of a table, and goes with them.
_BESIDE = {
    "events": ("event_heads", "sessions", "session_versions", "derivations"),
    "vehicles": (),
}

_CEILING = """
CREATE TABLE ceiling (LIKE events INCLUDING ALL);
CREATE SEQUENCE ceiling_seq CACHE 100;
"""
# What the server does for one event: are there the charger and the vehicle, and is it new? But its
# number is from a sequence: with the partner's counter the clients would wait for each other.
_INSERT_ONE = f"""
\\set charger random(0, {THINGS - 1})
\\set vehicle random(0, {THINGS - 1})
INSERT INTO ceiling {_COLUMNS["events"]}
SELECT {{partner}}, n, uuidv7()::text, 'VEHICLE_CHARGE_UPDATED', c.id, v.id,
    {FIRST_SECOND}000 + n, 0,
    '{{{{"id":"01999999-9999-7999-9999-999999999999","type":"VEHICLE_CHARGE_UPDATED",'
    '"chargerId":"C0000","vehicleId":"V0000","stateOfCharge":49.1,'
    '"timestamp":"2023-05-11T23:09:11.387Z"}}}}'
FROM (SELECT nextval('ceiling_seq')) number (n), chargers c, vehicles v
WHERE c.partner = {{partner}} AND c.id = 'C' || lpad(:charger, 4, '0')
  AND v.partner = {{partner}} AND v.id = 'V' || lpad(:vehicle, 4, '0')
ON CONFLICT DO NOTHING;
"""


def copy_events(database: PostgresDatabase, count: int) -> None:
    """Replace the events in the table by this many, with COPY.

    They count as derived; otherwise the server would derive them for a long time.
    """
    copy_rows(database, "events", _EVENTS.format(partner="{partner}", count=count))
    database.run(
        f"INSERT INTO derivations SELECT id, {count}, 0, 1 FROM partners WHERE name = 'bench' "
        "ON CONFLICT (partner) DO UPDATE SET seq = excluded.seq, mark = excluded.mark"
    )
    database.run("VACUUM ANALYZE events")


def copy_rows(database: PostgresDatabase, table: Literal["events", "vehicles"], rows: str) -> None:
    """Replace the rows of the table by those of a query, in which `{partner}` is our partner."""
    cluster, url = database.cluster, database.url
    partner = database.run("SELECT id FROM partners WHERE name = 'bench'")
    database.run(f"TRUNCATE {', '.join((table, *_BESIDE[table]))}")
    psql = [str(cluster.binaries / "psql"), "-XqAt", "-v", "ON_ERROR_STOP=1", url, "-c"]
    select = rows.replace("{partner}", partner)
    with subprocess.Popen([*psql, f"COPY ({select}) TO STDOUT"], stdout=subprocess.PIPE) as source:
        sink = [*psql, f"COPY {table} {_COLUMNS[table]} FROM STDIN"]
        done = subprocess.run(sink, stdin=source.stdout, capture_output=True, check=False)
    if done.returncode != 0 or source.returncode != 0:
        raise StartError(f"COPY failed: {done.stderr.decode()}")


def bytes_per_event(database: PostgresDatabase) -> float:
    """The bytes of one event on disk, with its share of all indexes."""
    return float(database.run("SELECT pg_total_relation_size('events') / count(*) FROM events"))


class Ceiling:
    """pgbench: 64 clients insert one row in each transaction, prepared, into a copy of the table.

    The copy has the table's indexes. Charger and vehicle are looked up where
    the server looks for them, so they must be there.
    """

    def __init__(self, database: PostgresDatabase, folder: Path) -> None:
        self._database = database
        self._script = folder / "ceiling.sql"
        partner = database.run("SELECT id FROM partners WHERE name = 'bench'")
        self._script.write_text(_INSERT_ONE.format(partner=partner))
        database.run(_CEILING)

    def __call__(self, seconds: float) -> Run:
        cluster, before = self._database.cluster, self._count()
        cluster.settle()
        done = cluster.pgbench(self._database.name, self._script, seconds)
        missing = done.processed - (self._count() - before)  # a transaction may insert nothing
        return Run(
            requests=round(done.rate * seconds),
            failed=done.failed + missing,
            seconds=seconds,
            median_ms=done.average_ms,
            p99_ms=done.average_ms,
        )

    def _count(self) -> int:
        return int(self._database.run("SELECT count(*) FROM ceiling"))
