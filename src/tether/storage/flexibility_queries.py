"""Every SQL statement on what was plugged in. As in queries.py, $1 is the partner."""

# Now ---------------------------------------------------------------------------------------------

# The stays that last, by charger; $2 to $4 is the place after which the page begins.
ACTIVE = """
SELECT s.charger_id, s.start_ms, s.id, s.body,
       (SELECT v.body FROM vehicles v WHERE v.partner = $1 AND v.id = s.vehicle_id),
       (SELECT c.body FROM chargers c WHERE c.partner = $1 AND c.id = s.charger_id)
FROM sessions s
WHERE s.partner = $1 AND s.end_ms IS NULL AND s.live = 1
  AND (s.charger_id, s.start_ms, s.id) > ($2, $3, $4) AND s.charger_id <= $5
ORDER BY s.charger_id, s.start_ms, s.id LIMIT $6
"""

# At past moments ---------------------------------------------------------------------------------

_KEY = "s.charger_id, s.vehicle_id, s.start_ms, s.start_rank"

# The stays that still last and had begun by $4; $2 and $3 are the place after which a page begins.
BEGUN = f"""
SELECT s.start_ms, s.id, {_KEY} FROM sessions s
WHERE s.partner = $1 AND s.end_ms IS NULL AND s.live = 1
  AND (s.start_ms, s.id) > ($2, $3) AND s.start_ms <= $4
  AND s.charger_id >= $5 AND s.charger_id <= $6
ORDER BY s.start_ms, s.id LIMIT $7
"""

# Which spans there are among the stays that began after an instant, up to $3. $2 is a JSON object
# of arrays: a span and that instant.
SPANS = """
WITH wanted AS MATERIALIZED (
    SELECT CAST(value ->> 0 AS BIGINT) AS span, CAST(value ->> 1 AS BIGINT) AS after_ms
    FROM jsonb_each($2)
)
SELECT w.span FROM wanted w
WHERE (SELECT 1 FROM sessions s
       WHERE s.partner = $1 AND s.span = w.span AND s.end_ms IS NOT NULL AND s.live = 1
         AND s.start_ms > w.after_ms AND s.start_ms <= $3
       LIMIT 1) IS NOT NULL
"""

# The stays of span $7 that lasted at $4. In this order lies the index by span alone.
ENDED = f"""
SELECT s.start_ms, s.vehicle_id, {_KEY} FROM sessions s
WHERE s.partner = $1 AND s.span = $7 AND s.end_ms IS NOT NULL AND s.live = 1
  AND (s.start_ms, s.vehicle_id) > ($2, $3) AND s.start_ms <= $4 AND s.end_ms > $4
  AND s.charger_id >= $5 AND s.charger_id <= $6
ORDER BY s.start_ms, s.vehicle_id LIMIT $8
"""

CHARGERS = """
SELECT c.id FROM chargers c WHERE c.partner = $1 AND c.id >= $2 AND c.id <= $3
ORDER BY c.id LIMIT $4
"""

# The stays at each charger in $2, a JSON object of arrays that hold one id, that began after $3, up
# to $4, as a list of JSON arrays. Not written as a join, as those below: see queries.py.
STARTED = """
WITH wanted AS MATERIALIZED (SELECT value ->> 0 AS charger_id FROM jsonb_each($2))
SELECT w.charger_id, (
    SELECT string_agg('["' || x.vehicle_id || '",' || x.start_ms || ',' || x.start_rank || ']', ',')
    FROM (
        SELECT s.vehicle_id, s.start_ms, s.start_rank FROM sessions s
        WHERE s.partner = $1 AND s.charger_id = w.charger_id AND s.live = 1
          AND s.start_ms > $3 AND s.start_ms <= $4
        ORDER BY s.start_ms, s.id
    ) x
) FROM wanted w
"""

# $2 is a JSON object of arrays with the columns in this order.
STAYS = """
WITH wanted AS MATERIALIZED (
    SELECT CAST(value ->> 0 AS BIGINT) AS place, value ->> 1 AS charger_id,
           value ->> 2 AS vehicle_id, CAST(value ->> 3 AS BIGINT) AS start_ms,
           CAST(value ->> 4 AS BIGINT) AS start_rank
    FROM jsonb_each($2)
)
SELECT w.place, (
    SELECT s.body FROM sessions s
    WHERE s.partner = $1 AND s.vehicle_id = w.vehicle_id AND s.start_ms = w.start_ms
      AND s.start_rank = w.start_rank AND s.charger_id = w.charger_id AND s.live = 1
),
(SELECT v.body FROM vehicles v WHERE v.partner = $1 AND v.id = w.vehicle_id),
(SELECT c.body FROM chargers c WHERE c.partner = $1 AND c.id = w.charger_id)
FROM wanted w
"""

# Of each stay in $2: its place in the batch, vehicle, charger, what of its events are wanted.
_WANTED = """
WITH wanted AS MATERIALIZED (
    SELECT CAST(value ->> 0 AS BIGINT) AS place, value ->> 1 AS vehicle_id,
           value ->> 2 AS charger_id, CAST(value ->> 3 AS BIGINT) AS from_ms,
           CAST(value ->> 4 AS BIGINT) AS until_ms
    FROM jsonb_each($2)
)
"""

# Ids cannot contain quotes, so only a member can look like one.
_SOC = """e.body LIKE '%"stateOfCharge":%'"""
_POWER = """e.body LIKE '%"chargePower":%' AND e.charger_id = w.charger_id"""


def _newest(condition: str) -> str:
    """Of each stay the newest instant of an event that the condition takes.

    It is looked for in the order of the one index that has it, lest PostgreSQL read all events of
    the vehicle in another one and sort them.
    """
    return f"""
{_WANTED}
SELECT w.place, (
    SELECT e.at_ms FROM vehicle_history e
    WHERE e.partner = $1 AND e.vehicle_id = w.vehicle_id AND e.at_ms >= w.from_ms
      AND e.at_ms <= w.until_ms AND {condition}
    ORDER BY e.at_ms DESC, e.type DESC, e.charger_id DESC, e.stamp DESC LIMIT 1
) FROM wanted w
"""


SOC_AT = _newest(_SOC)
POWER_AT = _newest(_POWER)
HEARD_AT = _newest("true")

# Only one index has this order, so it is that one which is read.
_IN_ORDER = "ORDER BY e.at_ms, e.type, e.charger_id, e.stamp"

# Of each stay in $2 the first $3 of its events that are wanted, as a list of JSON arrays.
READINGS = f"""
{_WANTED}
SELECT w.place, w.vehicle_id, w.charger_id, w.from_ms, w.until_ms, (
    SELECT string_agg('[' || x.seq || ',' || x.at_ms || ',' || x.body || ']', ',') FROM (
        SELECT e.seq, e.at_ms, e.body FROM vehicle_history e
        WHERE e.partner = $1 AND e.vehicle_id = w.vehicle_id AND e.at_ms >= w.from_ms
          AND e.at_ms <= w.until_ms
        {_IN_ORDER} LIMIT $3
    ) x
) FROM wanted w
"""

# Those of one stay, in portions.
READINGS_OF = f"""
SELECT e.seq, e.at_ms, e.body FROM vehicle_history e
WHERE e.partner = $1 AND e.vehicle_id = $2 AND e.at_ms >= $3 AND e.at_ms <= $4
{_IN_ORDER} LIMIT $5
"""
