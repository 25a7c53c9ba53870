"""The metrics of several workers on PostgreSQL."""

from collections.abc import Callable

import httpx

from tests.conftest import Server
from tests.wire import metric, run, until


def test_numbers_of_all_workers_are_added_up_but_not_what_each_of_them_sees(
    new_server: Callable[..., Server], new_postgres_database: Callable[[], str]
) -> None:
    server = new_server("--workers", "2", "--pool-size", "8", database=new_postgres_database())
    page = ""

    def told() -> bool:
        nonlocal page
        page = httpx.get(f"{server.url}/metrics").text
        return metric(page, "tether_pool_connections") == 2 * 8

    run(until(told))
    assert metric(page, "tether_workers") == 2
    assert metric(page, "tether_build_info") == 1
    assert 1_000_000 < metric(page, "tether_database_bytes") < 100_000_000
    assert "tether_database_free_bytes{" not in page
    assert metric(page, "process_open_fds") > 20
    assert metric(page, "process_start_time_seconds") < 4_000_000_000
    assert server.stop() == 0
