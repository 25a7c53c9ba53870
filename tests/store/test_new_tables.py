"""Plans of PostgreSQL for tables that it has not analysed since they were filled.

Then it expects few rows, and might read all rows of a partner instead of using an index.
"""

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from tether.domain.filters import SessionFilter
from tether.server.databases import database_of
from tether.storage import plugged_in
from tether.storage.dialect import POSTGRES
from tether.storage.engine import batch_of
from tether.storage.postgres.pool import INDEXES_ONLY, preparing
from tether.storage.session_sums import FIRST, Grouping, statement
from tether.storage.sessions import page_statement
from tether.storage.sqlite.file import connect, native

Explain = Callable[[str], list[str]]

ROWS = {
    "chargers": "'C' || n, 1, '{}'",
    "vehicles": "'V' || n, 1, '{}'",
    "sessions": "'V' || n, n, 0, 'C' || n, n, 1, n + 1, 1, n, n, n, '{}', '{}'",
    "session_versions": "n, 1, n",
    "events": "n, n, 'VEHICLE_CONNECTED', 'C' || n, 'V' || n, n, 0, '{}'",
}


@pytest.fixture
def explain(new_postgres_database: Callable[[], str]) -> Iterator[Explain]:
    """Explains a statement, with tables that were filled after they were created."""
    database = new_postgres_database()
    database_of(database).migrate()
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(preparing(INDEXES_ONLY))
        for table, columns in ROWS.items():
            connection.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = off)".encode())
            rows = f"SELECT 1, {columns} FROM generate_series(1, 5000) n"
            connection.execute(f"INSERT INTO {table} {rows}".encode())
        yield lambda sql: [
            step.strip() for (step,) in connection.execute(f"EXPLAIN (GENERIC_PLAN) {sql}".encode())
        ]


def test_what_was_plugged_in_is_found_in_indexes_that_say_more_than_the_partner(
    explain: Explain,
) -> None:
    searches = []
    for name, text in vars(plugged_in).items():
        if name.isupper() and not name.startswith("_") and isinstance(text, str):
            steps = explain(text.format(event_json=POSTGRES.event_json))
            assert not [step for step in steps if "Seq Scan" in step], (name, steps)
            searches += [(name, step) for step in steps if step.startswith("Index Cond")]
    assert len(searches) > 12
    assert not [step for step in searches if "AND" not in step[1]]


def test_sums_read_one_index_and_nothing_else(explain: Explain) -> None:
    some = SessionFilter(("C",), ("V",), ended_to_ms=1)
    statements = [
        statement(wanted, grouping, others=others)[0]
        for others in (False, True)
        for wanted, grouping in (
            (SessionFilter(), Grouping()),
            (some, Grouping("charger_id", "C", "D")),
            (SessionFilter(), Grouping("vehicle_id")),
            (SessionFilter(active=False), Grouping()),
        )
    ]
    for sql in (*statements, FIRST):
        reads = [step for step in explain(sql) if " on sessions " in step]
        index_only = "Index Only Scan using sessions_in_sums on"
        assert [step for step in reads if index_only not in step] == []
        assert reads


@pytest.mark.parametrize("active", [None, True, False])
def test_a_page_of_sessions_is_read_in_its_order(explain: Explain, active: bool | None) -> None:
    steps = explain(page_statement(SessionFilter(active=active), None)[0])
    assert not [step for step in steps if "Sort" in step or "Seq Scan" in step]


@pytest.mark.parametrize("active", [None, False])
@pytest.mark.parametrize("after", [None, (1, "n")])
def test_the_sessions_of_a_vehicle_are_not_looked_for_among_those_of_others(
    explain: Explain, active: bool | None, after: tuple[int, str] | None
) -> None:
    sql, _ = page_statement(SessionFilter(vehicle_ids=("V1",), active=active), after)
    steps = explain(sql)
    assert [step for step in steps if "Index Cond" in step and "(vehicle_id = $3" in step], steps
    assert not [step for step in steps if step.startswith("Sort (")], steps


@pytest.mark.parametrize("active", [None, True, False])
@pytest.mark.parametrize("from_ms", [None, 1])
@pytest.mark.parametrize("after", [None, (1, "n")])
def test_nor_are_they_on_sqlite(
    tmp_path: Path, active: bool | None, from_ms: int | None, after: tuple[int, str] | None
) -> None:
    file = tmp_path / "tether.db"
    database_of(str(file)).migrate()
    wanted = SessionFilter(vehicle_ids=("V1",), from_ms=from_ms, active=active)
    sql, parameters = page_statement(wanted, after)
    with closing(connect(file)) as connection:
        plan = connection.execute(f"EXPLAIN QUERY PLAN {native(sql)}", (1, 100, *parameters))
        steps = [str(step) for *_, step in plan]
    assert [step for step in steps if "SEARCH s " in step and "vehicle_id=?" in step], steps
    assert "USE TEMP B-TREE FOR ORDER BY" not in steps


@pytest.mark.parametrize("descending", [False, True])
def test_what_lasted_at_a_moment_is_not_looked_for_in_all_times(
    tmp_path: Path, descending: bool
) -> None:
    file = tmp_path / "tether.db"
    database_of(str(file)).migrate()
    wanted = SessionFilter(("C1",), overlapping_from_ms=2**40, overlapping_to_ms=2**41)
    sql, parameters = page_statement(wanted, None, descending=descending, spans=[20, 30])
    ended = (2**39, "", 2**40, "", "~", 30, 100)
    with closing(connect(file)) as connection:
        for statement, given in ((sql, (100, *parameters)), (plugged_in.ENDED, ended)):
            plan = connection.execute(f"EXPLAIN QUERY PLAN {native(statement)}", (1, *given))
            steps = [str(step) for *_, step in plan if "SEARCH s " in step]
            by_span = "USING INDEX sessions_by_span (partner=? AND span=? AND start_ms>?"
            assert [step for step in steps if by_span in step], steps
            read = ("sessions_by_span", "sessions_of_charger", "sessions_active", "sessions_by_id")
            assert not [step for step in steps if not any(name in step for name in read)], steps
        keys = (batch_of([["C1"]]), 2**39, "", 2**40, 100, 2**39, 1000)
        plan = connection.execute(f"EXPLAIN QUERY PLAN {native(plugged_in.STARTED)}", (1, *keys))
        begun = (
            "sessions_of_charger (partner=? AND charger_id=? AND (start_ms,id)>(?,?) AND start_ms"
        )
        assert [step for *_, step in plan if begun in str(step)]
