import json
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.cli_partner.conftest import Site
from tests.conftest import TETHER, Server
from tether.cli.display.rows import event_line
from tether.domain.models import Event, EventType

Popen = subprocess.Popen[str]
DAY = "2026-01-05T"


def post(site: Site, kind: str, *options: str) -> str:
    words = ["events", "post", "--type", kind, "--charger", "C1", "--vehicle", "V1"]
    return site.ok(*words, *options).strip()


def listed(site: Site, *options: str) -> list[Any]:
    lines = site.ok("events", "list", *options).splitlines()
    return [json.loads(line)["id"] for line in lines]


def test_an_event_is_posted_from_options_and_printed_as_its_id(site: Site) -> None:
    stamp = ("--timestamp", f"{DAY}10:00:00+01:00")
    first = post(site, "updated", "--state-of-charge", "58.30", "--charge-power", "0", *stamp)
    again = post(site, "VEHICLE_CHARGE_UPDATED", "--state-of-charge", "58.30",
                 "--charge-power", "0", *stamp)  # fmt: skip
    assert again == first
    assert site.ok("events", "list") == (
        f'{{"id":"{first}","type":"VEHICLE_CHARGE_UPDATED","chargerId":"C1","vehicleId":"V1",'
        '"stateOfCharge":58.30,"chargePower":0,"timestamp":"2026-01-05T09:00:00.000Z"}\n'
    )


def test_an_event_is_posted_from_a_file_and_without_a_timestamp_happens_now(site: Site) -> None:
    event = {"type": "VEHICLE_CONNECTED", "chargerId": "C1", "vehicleId": "V1"}
    done = site("events", "post", "-", stdin=json.dumps(event))
    assert done.returncode == 0
    (stored,) = map(json.loads, site.ok("events", "list").splitlines())
    assert stored["id"] == done.stdout.strip()
    assert abs(time.time() - datetime.fromisoformat(stored["timestamp"]).timestamp()) < 60


def test_lists_follow_the_filters(site: Site) -> None:
    ids = [
        site.report(kind, f"1{hour}:00")
        for hour, kind in enumerate(("CONNECTED", "CHARGE_STARTED", "CHARGE_STOPPED"))
    ]
    assert listed(site) == ids
    assert listed(site, "--order", "desc", "--limit", "2") == [ids[2], ids[1]]
    assert listed(site, "--type", "charge-started") == [ids[1]]
    assert listed(site, "--from", f"{DAY}11:00:00Z", "--to", f"{DAY}12:00:00Z") == [ids[1]]
    assert listed(site, "--from", "2026-01-06") == []
    assert listed(site, "--charger", "C1", "--vehicle", "V2") == []
    status, seen = site.in_terminal("events", "list", "--limit", "1")
    assert (status, seen.splitlines()[2].split()) == (
        0, ["2026-01-05", "10:00:00", "connected", "C1", "V1"],
    )  # fmt: skip


def test_refusals_of_events_are_explained(site: Site) -> None:
    said = site.refused("events", "post", "--type", "connected", "--charger", "C9", "--vehicle",
                        "V1")  # fmt: skip
    assert said == "Parameter {chargerId} is invalid. It must refer to an existing charger."
    assert "'parked' is none of connected, disconnected, started" in site.refused(
        "events", "list", "--type", "parked", status=2
    )
    for instant in ("yesterday", "9999-12-31T23:59:59-12:00"):
        assert f"'{instant}' is no point in time" in site.refused(
            "events", "list", "--from", instant, status=2
        )
    said = site.refused("events", "post", "--type", "connected", "--charger", "C1")
    assert said == "Parameter {vehicleId} is invalid. It is required."


def test_events_are_taken_back_by_their_ids(site: Site) -> None:
    ids = [site.report("CONNECTED", f"10:{minute:02}") for minute in range(30)]
    assert site.ok("events", "withdraw", ids[0], ids[1], ids[0]) == "Withdrew 2 events.\n"
    assert site.ok("events", "withdraw", ids[0]) == "Withdrew 1 event.\n"
    never = "0188ac4b-9dfa-7c3e-a51b-2f8e6d0b4c97"
    done = site("events", "withdraw", ids[2], never)
    assert (done.returncode, done.stdout) == (1, "Withdrew 1 event.\n")
    assert done.stderr.strip().endswith(f"1 event not known: {never}.")
    file = site.folder / "ids"
    good = f'\ufeff{ids[3]}\n\n"{ids[4]}"\n{{"id": "{ids[5]}"}}\n'
    for bad in ("nonsense", '{"id": 7}', '{"id":' + "[" * 5_000):
        file.write_text(f"{good}{bad}\n", encoding="utf-8")
        said = site.refused("events", "withdraw", "--file", str(file))
        assert said.startswith("Line 5: ")
        assert said.endswith(" is no id of an event. Nothing was withdrawn.")
    assert len(site.stored("events")) == 27
    rest = site.ok("events", "list")
    done = site("events", "withdraw", "--file", "-", stdin=rest)
    assert done.returncode == 1
    assert "without a terminal to ask in, pass --yes" in done.stderr
    done = site("events", "withdraw", "--yes", "--file", "-", stdin=rest)
    assert (done.returncode, done.stdout) == (0, "Withdrew 27 events.\n")
    assert site.stored("events") == []
    withdrawn = [json.loads(line)["id"] for line in site.ok("events", "withdrawn").splitlines()]
    assert withdrawn == ids
    status, seen = site.in_terminal("events", "withdrawn", "--limit", "1")
    assert (status, seen.splitlines()[2].split()[2:]) == (
        0, ["2026-01-05", "10:00:00", "connected", "C1", "V1"],
    )  # fmt: skip


Start = Callable[..., Popen]


@pytest.fixture
def follow(site: Site) -> Iterator[Start]:
    """Starts following the events of the site."""
    processes: list[Popen] = []

    def start(*options: str) -> Popen:
        processes.append(following(site, *options))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def following(site: Site, *options: str) -> Popen:
    return subprocess.Popen(
        [TETHER, "events", "follow", "--poll", "0.05", *options],
        env=site.variables(),
        cwd=site.folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def next_id(process: Popen) -> Any:
    assert process.stdout is not None
    return json.loads(process.stdout.readline())["id"]


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_following_goes_on_exactly_where_it_was(site: Site, follow: Start, how: int) -> None:
    ids = [site.report("CONNECTED", f"0{hour}:00") for hour in range(3)]
    first = follow("--cursor-file", "cursor")
    assert [next_id(first) for _ in range(2)] == ids[:2]
    assert next_id(first) == ids[2]
    first.send_signal(how)
    assert first.communicate(timeout=180) == ("", "")
    assert first.returncode == 128 + how
    ids.append(site.report("CONNECTED", "03:00"))
    second = follow("--cursor-file", "cursor")
    assert next_id(second) == ids[3]
    ids.append(site.report("CONNECTED", "04:00"))
    assert next_id(second) == ids[4]


@pytest.mark.parametrize("content", ["another file\n", "ä"])
def test_a_file_that_is_no_cursor_file_is_named(site: Site, content: str) -> None:
    (site.folder / "notes.txt").write_text(content)
    said = site.refused("events", "follow", "--cursor-file", "notes.txt")
    assert said == "notes.txt is no cursor file of `tether events follow`: name another one."
    assert (site.folder / "notes.txt").read_text() == content


def test_without_a_cursor_file_all_events_come(site: Site, follow: Start) -> None:
    ids = [site.report("CONNECTED", f"0{hour}:00") for hour in range(3)]
    process = follow()
    assert [next_id(process) for _ in ids] == ids


def test_from_now_on_only_new_events_come(site: Site, follow: Start) -> None:
    ids = [site.report("CONNECTED", f"0{hour}:00") for hour in range(2)]
    first = follow("--from-now", "--cursor-file", "cursor")
    while not (site.folder / "cursor").exists():  # it is there before any event has come
        assert first.poll() is None
        time.sleep(0.02)
    first.kill()
    ids.append(site.report("CONNECTED", "02:00"))
    second = follow("--from-now", "--cursor-file", "cursor")
    assert next_id(second) == ids[2]
    ids.append(site.report("CONNECTED", "03:00"))
    assert next_id(second) == ids[3]


def test_a_reader_of_followed_events_that_goes_away_is_no_error(site: Site, follow: Start) -> None:
    site.report("CONNECTED", "00:00")
    process = follow()
    next_id(process)
    assert process.stdout is not None
    process.stdout.close()
    site.report("CONNECTED", "01:00")
    assert process.wait(timeout=180) == 1
    assert process.stderr is not None
    assert process.stderr.read() == ""


def test_a_terminal_shows_followed_events_on_lines() -> None:
    event = Event(
        type=EventType.VEHICLE_CHARGE_UPDATED,
        charger_id="C1",
        vehicle_id="V1",
        state_of_charge=Decimal("58.5"),
        charged_energy=Decimal("7.0"),
        timestamp="2026-01-05T00:00:01.738Z",
    )
    assert event_line(event) == (
        "2026-01-05 00:00:01  updated       C1          V1        58.5 %    7.00 kWh"
    )


def test_withdrawing_outlives_a_restart_of_the_server(site: Site) -> None:
    event_id = "0188ac4b-9dfa-7c3e-a51b-2f8e6d0b4c97"
    statuses = iter([503] * 5 + [200])

    class Handler(BaseHTTPRequestHandler):
        def answer(self, status: int, body: object) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def do_GET(self) -> None:
            self.answer(200, [])

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            status = next(statuses)
            self.answer(status, [{"status": 204, "id": event_id}] if status == 200 else {})

        def log_message(self, format: str, *args: Any) -> None:
            """Prints nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as restarting:
        threading.Thread(target=restarting.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{restarting.server_address[1]}"
        assert site.ok("events", "withdraw", event_id, "--url", url) == "Withdrew 1 event.\n"
        restarting.shutdown()


def test_following_outlives_a_restart_of_the_server(
    new_server: Callable[..., Server], tmp_path: Path
) -> None:
    server = new_server()
    environment = {"TETHER_URL": server.url, "TETHER_API_KEY": server.key()}
    site = Site(tmp_path, server.database, environment)
    site.furnish()
    process = following(site)
    try:
        first = site.report("CONNECTED", "00:00")
        assert next_id(process) == first
        server.kill()
        server.start(int(server.url.rpartition(":")[2]))
        second = site.report("CONNECTED", "01:00")
        assert next_id(process) == second
    finally:
        process.kill()
        process.communicate()
