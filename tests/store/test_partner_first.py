"""Partners are kept apart in the schema and in every statement.

The data could be distributed by partner: every key and index begins with the partner, and every
statement names it.
"""

import re
from collections.abc import Callable, Iterator
from importlib.resources import files
from itertools import product
from pathlib import Path

import psycopg
import pytest
import sqlglot
from sqlglot import exp

from tests.sql import query
from tether.domain.filters import EventFilter, SessionFilter
from tether.server.databases import database_of, is_postgres, sqlite_path
from tether.storage import (
    entities,
    erasures,
    events,
    fleet_overview,
    log_positions,
    partners,
    plugged_in,
    refused_requests,
    retention,
    session_records,
    session_sums,
    sessions,
    snapshots,
    states,
    withdrawals,
)
from tether.storage.dialect import POSTGRES, SQLITE, Dialect
from tether.storage.migrate import VERSION_TABLE
from tether.storage.postgres.engine import for_each_key
from tether.storage.sqlite import event_lists
from tether.storage.sqlite.file import connect
from tether.storage.tables import TABLES

SHARED = {
    "chargers", "vehicles", "events", "sessions", "session_versions", "derivations",
    "refused_requests", "withdrawals", "snapshots",
}  # fmt: skip
OWN = {
    "postgres": {"event_heads"},
    "sqlite": {"listings", "list_of_charger", "list_of_vehicle", "list_by_time"},
}
VIEWS = {"charger_events", "vehicle_events", "vehicle_history", "unlisted_events"}
PARTNER_DATA = SHARED | OWN["postgres"] | OWN["sqlite"]
SUBJECTS = (
    log_positions, entities, erasures, events, fleet_overview, partners, plugged_in,
    refused_requests, retention, session_records,
    session_sums,
    sessions, snapshots, states, withdrawals,
)  # fmt: skip
VERBS = {"SELECT", "INSERT", "UPDATE", "DELETE", "WITH"}
LOOK_UPS = {
    (entities, "GET"), (events, "GET"), (sessions, "GET"), (states, "OF_VEHICLE"),
    (states, "OF_CHARGER"),
}  # fmt: skip
OPERATORS_OWN = {
    "partners", "keys", "key_requests", "key_hours", "audit_entries", "console_sessions",
    "console_links", "epoch", "erasures",
    VERSION_TABLE,
    "webhooks", "webhook_parked", "webhook_attempts",  # the deliverer reads all partners at once
    "retention",  # the same for expiring events
}  # fmt: skip

Indexes = dict[str, list[tuple[str, ...]]]


# The schema ---------------------------------------------------------------------------------------


def indexes_of_sqlite(database: str) -> Indexes:
    connection = connect(sqlite_path(database))
    found: Indexes = {}
    tables = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%'"
    for (table,) in connection.execute(tables).fetchall():
        columns = connection.execute(
            "SELECT name FROM pragma_table_info(?) WHERE pk > 0 ORDER BY pk", (table,)
        ).fetchall()
        found[str(table)] = [tuple(str(name) for (name,) in columns)]
        for (index,) in connection.execute("SELECT name FROM pragma_index_list(?)", (table,)):
            names = connection.execute(
                "SELECT name FROM pragma_index_info(?) ORDER BY seqno", (index,)
            ).fetchall()
            found[str(table)].append(tuple(str(name) for (name,) in names))
    connection.close()
    return found


def indexes_of_postgres(database: str) -> Indexes:
    found: Indexes = {}
    with psycopg.connect(database) as connection:
        tables = connection.execute(
            "SELECT table_name FROM information_schema.tables "
            "WHERE table_schema = 'public' AND table_type = 'BASE TABLE'"
        ).fetchall()
        for (table,) in tables:
            rows = connection.execute(
                "SELECT (SELECT array_agg(a.attname ORDER BY k.place) "
                "        FROM unnest(i.indkey) WITH ORDINALITY k (number, place) "
                "        JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.number) "
                "FROM pg_index i WHERE i.indrelid = %s::regclass ORDER BY i.indisprimary DESC",
                [table],
            ).fetchall()
            found[table] = [tuple(columns) for (columns,) in rows]
    return found


def test_every_key_and_index_of_partner_data_begins_with_the_partner(database: str) -> None:
    database_of(database).migrate()
    postgres = is_postgres(database)
    found = indexes_of_postgres(database) if postgres else indexes_of_sqlite(database)
    assert set(found) == SHARED | OWN["postgres" if postgres else "sqlite"] | OPERATORS_OWN
    assert TABLES.keys() | {VERSION_TABLE} == PARTNER_DATA | OPERATORS_OWN
    for table in PARTNER_DATA & set(found):
        assert found[table], f"{table} has no primary key"
        for columns in found[table]:
            assert columns[0] == "partner", f"{table} has an index on {columns}"


def test_the_views_tie_what_they_join_to_one_partner(database: str) -> None:
    database_of(database).migrate()
    if is_postgres(database):
        views = "SELECT viewname, definition FROM pg_views WHERE schemaname = 'public'"
        rows = query(database, views)
        assert {name for name, _ in rows} == VIEWS - {"unlisted_events"}
    else:
        rows = query(database, "SELECT name, sql FROM sqlite_master WHERE type = 'view'")
        assert {name for name, _ in rows} == VIEWS | {"listing_counts"}  # of all, for a check
    for _, text in rows:
        for join in sqlglot.parse_one(str(text), read="postgres").find_all(exp.Join):
            tied = [
                {part.this.name, part.expression.name} <= {"partner", "id"}
                for part in join.args["on"].find_all(exp.EQ)
            ]
            assert any(tied), join.sql()


def test_all_text_is_ordered_byte_by_byte(new_postgres_database: Callable[[], str]) -> None:
    database = new_postgres_database()  # SQLite compares bytes unless a column says otherwise
    database_of(database).migrate()
    with psycopg.connect(database) as connection:
        others = connection.execute(
            "SELECT table_name, column_name FROM information_schema.columns "
            "WHERE table_schema = 'public' AND data_type = 'text' "
            "AND collation_name IS DISTINCT FROM 'C'"
        ).fetchall()
    assert others == []


# The statements -----------------------------------------------------------------------------------


def words(dialect: Dialect) -> dict[str, str]:
    """The words of an engine for the names in braces in statements."""
    return {
        "event_numbers": dialect.event_numbers, "event_json": dialect.event_json,
        "session_json": dialect.session_json, "order": "soc", "position": dialect.position,
        "columns": "events_ms", "values": "$2", "changes": "events_ms = excluded.events_ms",
        "one": "vehicle", "names": erasures.names_in_request(dialect, "$2"),
        "unless_erased": erasures.unless_erased(dialect, "$1", erasures.names_in_request),
    }  # fmt: skip


def statements() -> Iterator[tuple[str, str]]:
    """Name and text of every statement of these modules, in all its forms."""
    for subject in SUBJECTS:
        for name, text in vars(subject).items():
            if not (name.isupper() and name[0] != "_" and str(text).split()[0] in VERBS):
                continue
            for dialect in (SQLITE, POSTGRES):
                for table in PARTNER_DATA:
                    sql = text.format(table=table, **words(dialect))
                    yield f"{subject.__name__}.{name}", sql
                    if (subject, name) in LOOK_UPS:
                        yield f"{name} for each key", for_each_key(sql)
    for place, listing in enumerate(event_lists.LISTING):
        yield f"listing {place}", listing
    for chosen in range(32):
        values = [(1 if chosen >> place & 1 else None) for place in range(5)]
        wanted = EventFilter(*values)  # type: ignore[arg-type]
        tables = (events.EVENTS, events.WITHDRAWALS)
        for after, descending, table in product((None, 1), (False, True), tables):
            sql, _ = events.page_statement(wanted, after, descending, table)
            yield f"page of {table}({wanted}, {after}, {descending})", sql
    for chosen in range(1 << 7):
        of = [bool(chosen >> place & 1) for place in range(7)]
        wanted_sessions = SessionFilter(
            ("C1", "C2") if of[0] else (),
            ("V1",) if of[1] else (),
            from_ms=1 if of[2] else None,
            active=[None, True, False, None][2 * of[3] + of[4]],
            updated_from_ms=1 if of[5] else None,
            ended_to_ms=3 if of[6] else None,
            overlapping_from_ms=2 if of[6] else None,
        )
        for position in (None, (1, "id")):
            sql, _ = sessions.page_statement(
                wanted_sessions, position, descending=of[0], spans=[3, 4]
            )
            yield f"sessions_page({wanted_sessions}, {position})", sql


def names_the_partner(where: exp.Expression | None, alias: str, *, alone: bool) -> bool:
    """Whether `alias.partner = $1` is one of the conditions that must all hold."""
    if where is None:
        return False
    condition = where.this if isinstance(where, exp.Where) else where
    for part in condition.flatten() if isinstance(condition, exp.And) else [condition]:
        if isinstance(part, exp.Paren | exp.And):
            if names_the_partner(part.this if isinstance(part, exp.Paren) else part, alias,
                                 alone=alone):  # fmt: skip
                return True
        elif isinstance(part, exp.EQ) and isinstance(part.this, exp.Column):
            column, value = part.this, part.expression
            named = column.table == alias or (alone and not column.table)
            if named and column.name == "partner" and value.sql("postgres") == "$1":
                return True
    return False


def faults(sql: str) -> list[str]:
    """The uses of partner data in this statement that are not tied to the partner $1."""
    found = []
    tree = sqlglot.parse_one(sql, read="postgres")
    for table in tree.find_all(exp.Table):
        if table.name not in PARTNER_DATA | VIEWS:
            continue
        holder = table.parent
        if isinstance(holder, exp.Schema):  # INSERT INTO table (columns)
            insert = holder.parent
            assert isinstance(insert, exp.Insert)
            if not inserts_for_the_partner(insert, holder):
                found.append(f"INSERT INTO {table.name}")
            continue
        while not isinstance(holder, exp.Select | exp.Update | exp.Delete):
            assert holder is not None
            holder = holder.parent
        sources = [one for one in holder.find_all(exp.Table) if one.parent_select in (holder, None)]
        join = table.parent if isinstance(table.parent, exp.Join) else None
        on = join.args.get("on") if join else None
        condition = on or holder.args.get("where")  # a CROSS JOIN has its condition there
        if not names_the_partner(condition, table.alias_or_name, alone=len(sources) == 1):
            found.append(f"{holder.key.upper()} {table.name}")
    return found


def inserts_for_the_partner(insert: exp.Insert, schema: exp.Schema) -> bool:
    """Whether the row's `partner` is $1, and a conflict can only be with a row of the same."""
    place = [column.name for column in schema.expressions].index("partner")
    source = insert.expression
    if isinstance(source, exp.Values):
        rows = [row.expressions for row in source.expressions]
    else:
        rows = [source.expressions]
    if not all(row[place].sql("postgres") == "$1" for row in rows):
        return False
    conflict = insert.args.get("conflict")
    keys = [key.name for key in conflict.args.get("conflict_keys") or []] if conflict else []
    return not keys or keys[0] == "partner"


@pytest.mark.parametrize(("name", "sql"), sorted(set(statements())))
def test_every_statement_ties_each_use_of_partner_data_to_its_partner(name: str, sql: str) -> None:
    assert faults(sql) == []


def test_statements_that_forget_the_partner_are_found() -> None:
    for forgetful in (
        "SELECT body FROM events WHERE id = $2",
        "SELECT body FROM events WHERE partner = $2",
        "SELECT body FROM events WHERE partner = $1 OR id = $2",
        "SELECT body FROM events WHERE partner = $1 AND seq > (SELECT max(seq) FROM events)",
        "SELECT 1 FROM keys k JOIN events e ON e.id = k.name WHERE k.partner = $1",
        "SELECT 1 FROM chargers c JOIN vehicles v ON v.id = c.id WHERE c.partner = $1",
        "DELETE FROM events WHERE seq = $1",
        "UPDATE chargers SET body = $2 WHERE id = $3",
        "INSERT INTO chargers (partner, id) VALUES ($2, $1)",
        "INSERT INTO chargers (partner, id) SELECT c.partner, c.id FROM chargers c "
        "WHERE c.partner = $1",
        "WITH x AS (SELECT id FROM vehicles) SELECT 1 FROM x",
        "DELETE FROM events WHERE partner = $1 AND seq IN (SELECT seq FROM events LIMIT $2)",
    ):
        assert faults(forgetful) != [], forgetful


def test_no_statement_on_partner_data_is_written_anywhere_else() -> None:
    words = re.compile(rf"\b(?:FROM|JOIN|INTO|UPDATE)\s+(?:{'|'.join(PARTNER_DATA | VIEWS)})\b")
    elsewhere = [
        file.name
        for file in Path(str(files("tether"))).rglob("*.py")
        if words.search(file.read_text(encoding="utf-8"))
    ]
    assert sorted(elsewhere) == [
        "database.py", "database.py", "dialect.py", "entities.py", "erasures.py", "event_lists.py",
        "events.py", "fleet_overview.py", "log_positions.py", "partners.py", "plugged_in.py",
        "refused_requests.py",
        "retention.py", "session_records.py", "session_sums.py", "sessions.py", "snapshots.py",
        "states.py",
        "webhooks.py", "withdrawals.py",
    ]  # fmt: skip
