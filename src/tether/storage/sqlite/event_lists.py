"""The lists of events by charger, by vehicle and by time, which are written after the events.

SQLite writes whole pages: with an index it would write one page of it for nearly every event. If
many events are added to a list at once, in the order of the list, fewer pages are written for each.
See decision 18.
"""

from tether.storage.engine import Statement

_DUE = """e.partner = $1 AND e.seq <= $2
  AND coalesce((SELECT n.seq FROM listings n WHERE n.partner = $1), 0) < $3"""
LISTING = (
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
# Fills all lists again. The rows are sorted, so that each goes to the end of its table: see
# migrations/0003.
REFILL = """
DELETE FROM listings; DELETE FROM list_of_charger; DELETE FROM list_of_vehicle;
DELETE FROM list_by_time;
INSERT INTO listings (partner, seq) SELECT partner, max(seq) FROM events GROUP BY partner;
INSERT INTO list_of_charger (partner, charger_id, seq)
SELECT partner, charger_id, seq FROM events ORDER BY partner, charger_id, seq;
INSERT INTO list_of_vehicle (partner, vehicle_id, seq)
SELECT partner, vehicle_id, seq FROM events ORDER BY partner, vehicle_id, seq;
INSERT INTO list_by_time (partner, vehicle_id, at_ms, seq)
SELECT partner, vehicle_id, at_ms, seq FROM events ORDER BY partner, vehicle_id, at_ms, seq;
"""


def listing(partner: int, last: int, until: int) -> list[Statement]:
    """The statements that add the partner's events up to the number `until` to the lists, unless
    the lists have all events up to `last`.
    """
    return [Statement(sql, (partner, until, last)) for sql in LISTING]
