"""The log for the operator: each kind of line, and what is not logged."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.commands import tether
from tests.conftest import TETHER, Server
from tests.wire import Partner, Wire, event, run, until
from tether.domain import timestamps
from tether.domain.keys import parse_rate

NEVER_AGAIN = parse_rate("1/h")


def lines_of(server: Server, name: str, **fields: object) -> list[dict[str, Any]]:
    """The lines of this event with these values; stops the server, so that all are there."""
    if server.process is not None and server.process.poll() is None:
        assert server.stop() == 0
    lines = [json.loads(line) for line in server.log]
    return [line for line in lines if {"event": name, **fields}.items() <= line.items()]


def test_each_line_of_a_server_is_json_from_its_start_to_its_end(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [TETHER, "serve", "--database", tmp_path / "tether.db", "--port", "0",
         "--log-format", "json"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    ready = json.loads(process.stdout.readline())
    assert (ready["event"], ready["level"]) == ("ready", "info")
    assert ready["url"] in ready["message"]
    busy = tether("serve", "--database", tmp_path / "tether.db", "--log-format", "json")
    process.terminate()
    output, log = process.communicate(timeout=180)
    assert output == ""
    lines = [json.loads(line) for line in log.splitlines()]
    assert [line["event"] for line in lines] == ["start", "stop"]
    assert lines[0]["pid"] == lines[1]["pid"] == process.pid
    assert (busy.returncode, busy.stdout) == (1, "")
    start, refusal = map(json.loads, busy.stderr.splitlines())
    assert (start["event"], refusal["event"]) == ("start", "cannot serve")
    assert "is served by process" in refusal["message"]


def test_lines_of_a_library_have_the_same_event_each_time() -> None:
    program = """
import logging
from tether.server.logging import configure, finish
configure(level="info", as_json=True)
logging.getLogger("psycopg").warning("error ignored in rollback on %s: %s", object(), "away")
logging.getLogger("asyncio").error("Task exception was never retrieved\\nfuture: <Task>")
finish()
"""
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    first, second = map(json.loads, done.stderr.splitlines())
    assert first["event"] == "error ignored in rollback on %s: %s"
    assert first["message"].endswith(": away")
    assert second["event"] == "Task exception was never retrieved"
    assert second["message"].endswith("future: <Task>")


def test_refusals_say_whose_they_are_why_and_on_which_route(
    new_server: Callable[..., Server],
) -> None:
    server = new_server()
    ended = server.key("Ended", expires_ms=timestamps.now_ms() + 1_000)
    slow = server.key("Slow", rate=NEVER_AGAIN)
    time.sleep(1.0)
    with server.client(ended) as client:
        assert client.get("/chargers/C1").status_code == 403
    with server.client(slow) as client:
        assert [client.get("/sessions/x").status_code for _ in range(2)] == [404, 429]
    with server.client("nonsense") as client:
        assert client.get("/events").status_code == 403

    (expired,) = lines_of(server, "request", partner="Ended")
    assert (expired["status"], expired["route"]) == (403, "/chargers/{id}")
    assert expired["key"] == ended[:17]
    unrouted, limited = lines_of(server, "request", partner="Slow")
    assert (limited["status"], limited["route"]) == (429, "/sessions/{id}")
    (unknown,) = lines_of(server, "request", route="/events")
    assert (unknown["partner"], unknown["key"], unknown["client"]) == (None, None, "127.0.0.1")
    reasons = [line["reason"] for line in (expired, limited, unknown, unrouted)]
    assert all(reasons)
    assert reasons[0] == reasons[2]
    assert len(set(reasons)) == 3


def test_a_bulk_has_its_counts(new_server: Callable[..., Server]) -> None:
    server = new_server()
    partner = Partner(server)
    items = [*map(event, range(20)), event(1).replace(b"}", b',"stateOfCharge":5}'), b"{", b"7"]
    assert partner.client.post("/events/bulk", content=b"\n".join(items)).status_code == 200
    assert partner.client.post("/events/bulk", content=event(50)).status_code == 200
    assert partner.client.post("/events/bulk", content=b"[{]").status_code == 400
    mixed, clean, broken = lines_of(server, "request", route="/events/bulk")
    assert (mixed["items"], mixed["stored"]) == (23, 20)
    assert sorted(mixed["refused"].values()) == [1, 2]
    assert (clean["items"], clean["stored"]) == (1, 1)
    assert "refused" not in clean
    assert broken["reason"]


def test_the_client_is_told_by_proxies_that_are_trusted_and_by_nobody_else(
    new_server: Callable[..., Server],
) -> None:
    claims = {
        "": "127.0.0.1",
        "203.0.113.9": "203.0.113.9",
        "6.6.6.6, 203.0.113.9": "203.0.113.9",
        "203.0.113.9, 10.1.2.3": "203.0.113.9",
        "203.0.113.9:4711, [fd00::7]:80": "203.0.113.9",
        "2001:db8::1": "2001:db8::1",
        "::ffff:203.0.113.9": "203.0.113.9",
        "6.6.6.6, nonsense, 10.1.2.3": "10.1.2.3",
        "10.0.0.1, 10.0.0.2": "10.0.0.1",
        "fe80::1%<b>shown</b>, 10.1.2.3": "10.1.2.3",
        "," * 7_000 + "203.0.113.9": "203.0.113.9",
    }
    trusting = new_server("--trusted-proxy", "127.0.0.1, 10.0.0.0/8,fd00::/8")
    doubting = new_server("--trusted-proxy", "10.0.0.0/8")
    for server in (trusting, doubting):
        with server.client("none") as client:
            for claim in claims:
                client.get("/health", headers={"X-Forwarded-For": claim} if claim else {})
    told = [line["client"] for line in lines_of(trusting, "request")]
    assert told == list(claims.values())
    assert {line["client"] for line in lines_of(doubting, "request")} == {"127.0.0.1"}


def test_a_flood_of_the_same_refusal_takes_few_lines_and_hides_no_other(
    new_server: Callable[..., Server],
) -> None:
    server = new_server()
    partner = Partner(server)
    floods = 2_000
    refused = partner.request("GET", "/chargers/none")

    async def flood() -> None:
        wire = await Wire.to(server)
        for _ in range(floods):
            assert (await wire.ask(refused)).status == 404

    def told() -> int:
        """The number of requests in the log: lines, plus the counts of omitted lines."""
        lines = (json.loads(line) for line in server.log if "/chargers/{id}" in line)
        return sum(line.get("lines", 1) for line in lines if line["status"] == 404)

    began = time.monotonic()
    run(flood())
    assert partner.client.get("/vehicles/none").status_code == 404
    run(until(lambda: told() >= floods))
    seconds = time.monotonic() - began

    written = lines_of(server, "request", route="/chargers/{id}", status=404)
    repeated = lines_of(server, "repeated", route="/chargers/{id}", status=404)
    assert 20 <= len(written) <= 20 * (seconds + 2)
    assert len(written) + sum(line["lines"] for line in repeated) == floods
    assert {line["key"] for line in repeated} <= {partner.key[:17]}
    assert len(lines_of(server, "request", route="/vehicles/{id}", status=404)) == 1


@pytest.mark.parametrize("given", ["proxy.example", "10.0.0.0/33", "127.0.0.1;10.0.0.1"])
def test_what_is_no_network_is_refused(given: str) -> None:
    done = tether("serve", "--trusted-proxy", given)
    assert done.returncode == 2
    assert "is no address or network" in done.stderr
