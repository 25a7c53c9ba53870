"""`tether watch`: messages for programs, a live table for people."""

import json
import os
import pty
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.cli_partner.conftest import Site
from tests.conftest import TETHER

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
    """The lines up to that of this event: states come between, as soon as they are known."""
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
    assert (first.communicate(timeout=30)[1].strip(), first.returncode) == ("", 130)
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


def test_a_terminal_shows_a_table_that_changes_and_is_left_as_it_was(
    site: Site, watch: Start
) -> None:
    site.report("CONNECTED", "10:00", stateOfCharge=41.5)
    leader, follower = pty.openpty()
    process = watch(stdin=follower, stdout=follower, stderr=follower)
    os.close(follower)
    seen = ""

    def see(pattern: str) -> None:
        nonlocal seen
        deadline = time.monotonic() + PATIENCE_S
        while not re.search(pattern, seen):
            assert time.monotonic() < deadline, seen
            text = os.read(leader, 65_536).decode()
            seen += re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", text)

    see(r"V1 +plugged in +C1 +[0-9]+ d +41.5 ")
    see(r"1 vehicle plugged in, 0 charging, 0 kW")
    site.report("CHARGE_STARTED", "10:05", chargePower=11)
    see(r"V1 +charging +C1 +[0-9]+ d +11 +41.5 ")
    see(r"1 vehicle plugged in, 1 charging, 11 kW")
    seen = ""
    site.report("DISCONNECTED", "10:30")
    see(r"0 vehicles plugged in, 0 charging, 0 kW")
    process.terminate()
    see(r"\x1b\[\?25h")  # the cursor is back
    assert process.wait(timeout=30) == 128 + signal.SIGTERM
    os.close(leader)
