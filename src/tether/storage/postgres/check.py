"""What `tether check` reports of a PostgreSQL database: rights, settings, free connections."""

from tether.domain.models import to_json
from tether.storage import migrate
from tether.storage.database import Surroundings
from tether.storage.postgres.engine import is_direct, session
from tether.storage.postgres.pool import NEEDED

# Settings that acknowledge a commit before it is on disk.
_RISKS = """
SELECT name || ' = ' || setting FROM pg_settings
WHERE name IN ('fsync', 'full_page_writes', 'synchronous_commit') AND setting = 'off'
ORDER BY name
"""
_RIGHTS = """
SELECT c.relname, string_agg(w.needed, ', ' ORDER BY w.place)
FROM pg_class c
CROSS JOIN unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) WITH ORDINALITY w(needed, place)
WHERE c.relnamespace = current_schema()::regnamespace AND c.relname = ANY (%s)
  AND (w.place = 1 OR c.relkind <> 'v' AND c.relname <> %s)
  AND NOT has_table_privilege(c.oid, w.needed)
GROUP BY c.relname
ORDER BY c.relname
"""
_OTHERWISE = """
SELECT s.name || ' = ' || current_setting(s.name)
FROM pg_settings s JOIN jsonb_each_text(%s) w ON w.key = s.name
WHERE s.setting <> w.value
ORDER BY s.name
"""
_STATE = """
SELECT current_setting('server_encoding'), pg_is_in_recovery(),
       current_setting('default_transaction_read_only') = 'on',
       current_setting('max_connections')::int,
       current_setting('max_connections')::int
       - current_setting('superuser_reserved_connections')::int
       - coalesce(current_setting('reserved_connections', true), '0')::int
       - (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend')
"""


def surroundings(url: str) -> Surroundings:
    """What Tether finds in the database. Raises SetupError if it cannot be reached."""
    relations = [*migrate.OUR_TABLES, *migrate.OUR_VIEWS, migrate.VERSION_TABLE]
    with session(url, prepare=False) as connection:
        encoding, is_replica, read_only, most, free = connection.execute(_STATE).fetchall()[0]
        risks = [str(risk) for (risk,) in connection.execute(_RISKS)]
        rights = connection.execute(_RIGHTS, [relations, migrate.VERSION_TABLE]).fetchall()
        settings = connection.execute(_OTHERWISE, [to_json(NEEDED).decode()]).fetchall()
        return Surroundings(
            risks,
            [f"{missing} on {relation}" for relation, missing in rights],
            [str(setting) for (setting,) in settings],
            is_direct(connection),
            encoding, is_replica, read_only, most, free,
        )  # fmt: skip
