"""Metrics in trouble, and that they show no secrets."""

import asyncio
import re
from collections.abc import Callable
from pathlib import Path

import httpx

from tests.conftest import Server
from tests.faults.test_locked_database import locked
from tests.services import free_port
from tests.wire import Partner, Wire, event, metric, post_events, run, until
from tether import __version__
from tether.domain.webhooks import Status
from tether.server.metrics import MAX_PARTNERS, Metrics

ALLOWED: dict[str, set[str] | None] = {
    "method": {"GET", "HEAD", "OPTIONS", "PUT", "PATCH", "POST", "DELETE", "other"},
    "status": {"200", "201", "400", "403", "404", "405", "409", "413", "503", *Status},
    "le": None,
    "reason": None,
    "route": None,
    "version": {__version__},
    "commit": None,
    "folder": None,
    "purpose": {"keys", "entities", "events"},
    "state": {"busy", "idle", "free"},
    "outcome": {"success", "failure"},
}


def test_the_counts_add_up_and_no_label_names_anybody(new_server: Callable[..., Server]) -> None:
    server = new_server()
    partner = Partner(server)
    client = partner.client
    run(post_events(partner, 500, connections=50))
    conflict = event(1).replace(b"}", b',"stateOfCharge":5}')
    assert client.post("/events", content=conflict).status_code == 409
    assert client.post("/events", content=event(1, charger="NOBODY")).status_code == 409
    assert client.post("/events", content=b"{").status_code == 400
    assert client.get("/events/" + "0" * 36).status_code == 404
    assert client.get("/secret-path").status_code == 404
    assert client.request("BREW", "/chargers/C1").status_code in (400, 405)
    assert client.post("/events", content=event(9), headers={"x-api-key": "x"}).status_code == 403
    page = client.get("/metrics").text

    def requests(**labels: str) -> float:
        return metric(page, "tether_request_seconds_count", **labels)

    assert requests(method="POST", route="/events", status="201") == 500
    assert requests(method="POST", route="/events", status="409") == 2
    assert requests(method="POST", route="/events", status="400") == 1
    assert requests(method="GET", route="/events/{id}", status="404") == 1
    assert requests(status="403") == 1
    assert metric(page, "tether_rejected_events_total") >= 3
    assert metric(page, "tether_queue_depth") == 0
    written = metric(page, "tether_commit_batch_size_sum")
    commits = metric(page, "tether_commit_batch_size_count")
    assert written >= 502
    assert 1 <= commits <= written
    assert commits < 400, "fifty clients share commits"
    for sample in re.findall(r"\{(.*)\}", page):
        for name, value in re.findall(r'([a-z_]+)="([^"]*)"', sample):
            allowed = ALLOWED[name]
            assert allowed is None or value in allowed, f"{name}={value}"
    for word in (partner.key[:17], "C1", "V1", "NOBODY", "secret-path", "BREW", "partner "):
        assert word not in page


def test_the_queue_is_empty_again_after_a_lock(
    server_with_constants: Callable[..., Server],
) -> None:
    server = server_with_constants(
        "tether.storage.sqlite.file.BUSY_TIMEOUT_MS=500",
        "tether.storage.sqlite.writer.BUSY_TIMEOUT_MS=500",
    )
    partner = Partner(server)

    async def scenario() -> None:
        wires = [await Wire.to(server) for _ in range(20)]
        with locked(server):
            refused = await asyncio.gather(
                *(wire.ask(partner.post(number)) for number, wire in enumerate(wires))
            )
            assert {answer.status for answer in refused} == {503}
        page = await wires[0].ask(partner.request("GET", "/metrics"))
        assert metric(page.body.decode(), "tether_queue_depth") == 0
        await post_events(partner, 20)
        page = await wires[0].ask(partner.request("GET", "/metrics"))
        assert metric(page.body.decode(), "tether_queue_depth") == 0

    run(scenario())


def test_each_event_of_a_bulk_that_cannot_be_stored_is_counted(
    server_with_constants: Callable[..., Server],
) -> None:
    server = server_with_constants(
        "tether.storage.sqlite.file.BUSY_TIMEOUT_MS=500",
        "tether.storage.sqlite.writer.BUSY_TIMEOUT_MS=500",
    )
    partner = Partner(server)
    body = b"\n".join([*map(event, range(40)), b"{", b"7"])
    with locked(server):
        refused = partner.client.post("/events/bulk", content=body)
    assert refused.status_code == 503
    assert refused.json() == {"message": "Service Unavailable"}
    assert int(refused.headers["retry-after"]) >= 1
    page = partner.client.get("/metrics").text
    assert metric(page, "tether_rejected_events_total", reason="unavailable") == 42
    assert metric(page, "tether_request_seconds_count", route="/events/bulk", status="503") == 1
    # If no event can be stored, no event is missing.
    with locked(server):
        wrong = partner.client.post("/events/bulk", content=b"{\n7")
    assert wrong.status_code == 200
    again = partner.client.post("/events/bulk", content=body)
    assert [item["status"] for item in again.json()] == [201] * 40 + [400] * 2
    page = partner.client.get("/metrics").text
    assert metric(page, "tether_rejected_events_total", reason="body-malformed") >= 2
    assert metric(page, "tether_rejected_events_total", reason="unavailable") == 42
    assert server.stop() == 0
    assert ["BusyError" in line for line in server.log if '"event":"unavailable"' in line] == [True]


def test_metrics_can_be_off_or_at_an_address_of_their_own(
    new_server: Callable[..., Server],
) -> None:
    off = new_server("--metrics", "off")
    assert httpx.get(f"{off.url}/metrics").status_code in (403, 404)

    port = free_port()
    apart = new_server("--metrics", f"127.0.0.1:{port}")
    assert httpx.get(f"{apart.url}/metrics").status_code in (403, 404)
    partner = Partner(apart)
    run(post_events(partner, 10))
    page = httpx.get(f"http://127.0.0.1:{port}/metrics").text
    assert metric(page, "tether_request_seconds_count", route="/events", status="201") == 10
    assert apart.stop() == 0


def test_the_server_tells_what_it_is_and_what_it_takes(new_server: Callable[..., Server]) -> None:
    server = new_server()
    partner = Partner(server)
    run(post_events(partner, 50))
    page = ""

    def told(name: str) -> bool:
        nonlocal page
        page = partner.client.get("/metrics").text
        return metric(page, name) > 0

    run(until(lambda: told("tether_database_bytes")))
    assert metric(page, "tether_build_info", version=__version__) == 1
    assert metric(page, "tether_workers") == metric(page, "tether_temporary_files_usable") == 1
    assert metric(page, "tether_database_bytes") >= 100_000
    folder = str(Path(server.database).parent.resolve())
    assert metric(page, "tether_database_free_bytes", folder=folder) > 1_000_000
    for name in ("cpu_seconds_total", "resident_memory_bytes", "open_fds", "start_time_seconds"):
        assert metric(page, f"process_{name}") > 0
    run(until(lambda: not told("tether_derivation_lag_seconds")))
    assert "tether_partner" not in page


def test_partners_are_counted_where_the_operator_wants_it(
    new_server: Callable[..., Server],
) -> None:
    server = new_server("--metrics-by-partner")
    key = server.key("Söhne (Nord)")
    partner = Partner(server, key)
    body = b"\n".join([event(1), b"{", b"7"])
    assert partner.client.post("/events/bulk", content=body).status_code == 200
    assert partner.client.get("/chargers/none").status_code == 404
    page = partner.client.get("/metrics").text
    requests = metric(page, "tether_partner_requests_total", partner="Söhne (Nord)")
    assert requests == 4
    name = "tether_partner_refusals_total"
    assert metric(page, name, partner="Söhne (Nord)", reason="body-malformed") == 2
    assert metric(page, name, reason="not-found") == 1
    assert key[:17] not in page


def test_the_partners_that_are_counted_are_bounded() -> None:
    metrics = Metrics(by_partner=True)
    for number in range(3 * MAX_PARTNERS):
        metrics.count_partner(f"partner {number}", {"not-found": 1})
    page = metrics.own_page_now()
    assert metric(page, "tether_partner_requests_total") == 3 * MAX_PARTNERS
    assert metric(page, "tether_partner_requests_total", partner="other") == 2 * MAX_PARTNERS
    assert len(page) < 300_000


def test_many_series_are_written_beside_other_work_and_once_for_all_who_ask() -> None:
    metrics = Metrics()
    for route in range(50):
        for method in ALLOWED["method"] or ():
            for status in (403, 404, 405, 429):
                metrics.request(method, f"/route/{route}", status, 0.1)

    async def scenario() -> tuple[list[str], int]:
        asked = asyncio.gather(*(metrics.own_page() for _ in range(100)))
        rounds = 0
        while not asked.done():
            await asyncio.sleep(0)
            rounds += 1
        metrics.request("GET", "/route/0", 200, 0.1)
        return [*await asked, await metrics.own_page()], rounds

    pages, rounds = asyncio.run(scenario())
    assert rounds > 50
    assert len(set(map(id, pages[:-1]))) == 1
    counts = [metric(page, "tether_request_seconds_count") for page in (pages[0], pages[-1])]
    assert counts == [1600, 1601]
    assert pages[0].count("# TYPE tether_request_seconds histogram") == 1
