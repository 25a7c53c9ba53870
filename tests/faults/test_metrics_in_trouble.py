"""What the operator's monitoring sees, and that it betrays nobody."""

import asyncio
import re
from collections.abc import Callable

import httpx

from tests.conftest import Server
from tests.faults.rig import Partner, Wire, event, metric, post_events, run
from tests.faults.test_locked_database import locked
from tests.parts import free_port

ALLOWED: dict[str, set[str] | None] = {
    "method": {"GET", "HEAD", "OPTIONS", "PUT", "PATCH", "POST", "DELETE", "other"},
    "status": {"200", "201", "400", "403", "404", "405", "409", "413", "503"},
    "le": None,
    "reason": None,
    "route": None,
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


def test_the_queue_is_empty_again_after_a_lock(impatient_server: Callable[..., Server]) -> None:
    server = impatient_server("tether.storage.sqlite.engine.BUSY_TIMEOUT_MS=500")
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
    impatient_server: Callable[..., Server],
) -> None:
    server = impatient_server("tether.storage.sqlite.engine.BUSY_TIMEOUT_MS=500")
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
    # Where nothing can be stored anyhow, nothing is missing.
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
