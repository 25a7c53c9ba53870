"""`tether watch`: messages for programs, a live table for people."""

import json
import os
import pty
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.cli_partner.conftest import Site
from tests.conftest import TETHER, Server

Popen = subprocess.Popen[str]
Start = Callable[..., Popen]
PATIENCE_S = 30.0


@pytest.fixture
def watch(site: Site) -> Iterator[Start]:
    """Starts watching the site."""
    processes: list[Popen] = []

    def start(*options: str, **streams: Any) -> Popen:
        streams = streams or {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        variables = site.variables(TERM="xterm", COLUMNS="100", LINES="20")
        process = subprocess.Popen(
            [TETHER, "watch", *options], env=variables, cwd=site.folder, text=True, **streams
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def line(process: Popen) -> Any:
    assert process.stdout is not None
    return json.loads(process.stdout.readline())


def until_event(process: Popen, event_id: str) -> list[Any]:
    """The lines up to this event, with states between them."""
    lines = [line(process)]
    while lines[-1].get("event", {}).get("id") != event_id:
        lines.append(line(process))
    return lines


def test_a_pipe_gets_events_and_states_one_a_line_and_goes_on_from_a_cursor(
    site: Site, watch: Start
) -> None:
    ids = [site.report("CONNECTED", "10:00"), site.report("CHARGE_STARTED", "10:05", chargePower=7)]
    first = watch("--cursor", "start")
    lines = until_event(first, ids[1])
    assert [one["event"]["id"] for one in lines if "event" in one] == ids
    state = line(first)["state"]
    assert (state["charging"], state["chargePower"]) == (True, 7)
    ids.append(site.report("CHARGE_STOPPED", "10:30", chargedEnergy=2.5, chargedTime=1500))
    assert until_event(first, ids[2])[-1]["event"]["id"] == ids[2]
    first.send_signal(signal.SIGINT)
    assert (first.communicate(timeout=180)[1].strip(), first.returncode) == ("", 130)
    second = watch("--json", "--cursor", lines[0]["cursor"], "--vehicle", "V1", "--charger", "C1")
    again = until_event(second, ids[2])
    assert [one["event"]["id"] for one in again if "event" in one] == ids[1:]
    assert line(second)["state"]["charging"] is False


def test_what_cannot_be_watched_is_explained(site: Site) -> None:
    assert site.refused("watch", "--cursor", "nonsense") == (
        "Parameter {cursor} is invalid. It must be an id of this stream, a cursor of /events, or "
        "start."
    )
    status, seen = site.in_terminal("watch", "--charger", "C9")
    assert (status, seen.strip()) == (1, "tether: There is no charger C9.")
    status, seen = site.in_terminal("watch", "--cursor", "start")
    assert (status, "--cursor is for --json" in seen) == (2, True)


class Terminal:
    """A terminal in which something is shown, and what was seen there."""

    def __init__(self) -> None:
        self._leader, self.follower = pty.openpty()
        self.seen = ""

    def started(self, watch: Start, *options: str) -> Popen:
        """Starts watching in it."""
        process = watch(*options, stdin=self.follower, stdout=self.follower, stderr=self.follower)
        os.close(self.follower)
        return process

    def see(self, pattern: str) -> None:
        """Returns when this is visible, and forgets earlier output."""
        deadline = time.monotonic() + PATIENCE_S
        while not re.search(pattern, self.seen):
            assert time.monotonic() < deadline, self.seen
            text = os.read(self._leader, 65_536).decode()
            self.seen += re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", text)


def test_a_terminal_shows_a_table_that_changes_and_is_left_as_it_was(
    site: Site, watch: Start
) -> None:
    site.report("CONNECTED", "10:00", stateOfCharge=41.5)
    terminal = Terminal()
    process = terminal.started(watch)
    see = terminal.see
    see(r"V1 +plugged in +C1 +[0-9]+ d +41.5 ")
    see(r"1 vehicle plugged in, 0 charging, 0 kW")
    site.report("CHARGE_STARTED", "10:05", chargePower=11)
    see(r"V1 +charging +C1 +[0-9]+ d +11 +41.5 ")
    see(r"1 vehicle plugged in, 1 charging, 11 kW")
    terminal.seen = ""
    site.report("DISCONNECTED", "10:30")
    see(r"0 vehicles plugged in, 0 charging, 0 kW")
    process.terminate()
    see(r"\x1b\[\?25h")  # the cursor is back
    assert process.wait(timeout=180) == 128 + signal.SIGTERM
    assert "out of reach" not in terminal.seen


def plug_in(site: Site, id: str, at: datetime) -> None:
    """A vehicle at a charger, both new and with this id."""
    event = {"type": "VEHICLE_CONNECTED", "chargerId": id, "vehicleId": id}
    with site.client() as client:
        for answer in (
            client.put(f"/chargers/{id}", json={"chargePowers": [11]}),
            client.put(f"/vehicles/{id}", json={"chargePowers": [11], "chargeCapacity": 75}),
            client.post("/events", json={**event, "timestamp": at.isoformat()}),
        ):
            assert answer.is_success


def test_the_table_begins_with_who_was_heard_of_last_and_its_times_go_on(
    site: Site, watch: Start
) -> None:
    for id, hours in (("H1", 5), ("H2", 0), ("H3", 9)):
        plug_in(site, id, datetime.now(UTC) - timedelta(hours=hours))
    terminal = Terminal()
    terminal.started(watch)
    terminal.see(r"H2 [^\n]+\s+H1 [^\n]+\s+H3 ")
    terminal.see(r"H2 +plugged in +H2 +([2-9]|[0-9]{2}) s +\1 s ago")


def test_long_ids_are_cut_and_leave_room_for_what_the_vehicles_do(site: Site, watch: Start) -> None:
    id = "0f8fad5b-d9cb-469f-a165-70867728950e"
    plug_in(site, id, datetime.now(UTC) - timedelta(minutes=90))
    terminal = Terminal()
    terminal.started(watch, "--charger", id)
    terminal.see(r"\s0f8fad5b-[-0-9a-f]+… +plugged in +0f8fad5b-[-0-9a-f]+… +90 min +90 min ago")


def test_an_outage_is_told_as_long_as_it_lasts(
    site: Site, watch: Start, new_server: Callable[..., Server]
) -> None:
    server = new_server()
    port = int(server.url.rpartition(":")[2])
    terminal = Terminal()
    terminal.started(watch, "--url", server.url, "--api-key", server.key())
    terminal.see("0 vehicles plugged in, 0 charging, 0 kW.")
    server.stop()
    terminal.see("The server is out of reach: trying again by itself.")
    server.start(port)
    terminal.seen = ""
    terminal.see(r"0 kW\.\s*Vehicle")  # and not what was below it
