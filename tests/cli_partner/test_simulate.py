import json
import signal
import subprocess
import time

from tests.cli_partner.conftest import Site
from tests.commands import Command
from tests.conftest import TETHER

SMALL = ("--chargers", "10", "--vehicles", "20", "--seed", "7")
DAY = (*SMALL, "--from", "2026-01-05", "--for", "1d")


def without_ids(lines: str) -> list[object]:
    rows = [json.loads(line) for line in lines.splitlines()]
    return [{name: value for name, value in row.items() if name != "id"} for row in rows]


def test_what_is_sent_is_what_the_dry_run_prints_and_again_the_same(partner: Command) -> None:
    dry = partner.ok("simulate", *DAY, "--dry-run")
    for _ in range(2):
        said = partner.ok("simulate", *DAY, "--speed", "1000000")
        assert said.startswith(f"{len(dry.splitlines()):,} events (")
    assert without_ids(partner.ok("events", "list")) == without_ids(dry)
    assert len(partner.ok("chargers", "list").splitlines()) == 10
    assert len(partner.ok("vehicles", "list").splitlines()) == 20


def test_a_dry_run_needs_no_server_and_ends_where_it_is_told(partner: Command) -> None:
    span = ("--from", "2026-01-05", "--until", "2026-01-05T12:00:00Z", "--dry-run")
    half = partner.ok("simulate", *SMALL, *span, TETHER_API_KEY="", TETHER_URL="http://nowhere")
    whole = partner.ok("simulate", *DAY, "--dry-run", TETHER_API_KEY="")
    assert whole.startswith(half)
    assert json.loads(half.splitlines()[-1])["timestamp"] < "2026-01-05T12"


def test_simulated_time_follows_the_speed(site: Site) -> None:
    process = subprocess.Popen(
        [TETHER, "simulate", *SMALL, "--from", "2026-01-05", "--speed", "20000"],
        env=site.variables(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while len(site.stored("events")) < 5:
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    said, complaints = process.communicate(timeout=180)
    assert process.returncode == 130
    assert " plugged in, " in said
    assert "Traceback" not in complaints
    assert len(site.stored("events")) < 200


def test_a_terminal_shows_live_counters(partner: Command) -> None:
    status, seen = partner.in_terminal("simulate", *DAY, "--speed", "80000")
    assert status == 0
    for name in ("Simulated time", "Plugged in", "Charging", "Charged", "Events"):
        assert name in seen
    assert " kWh charged, " in seen.splitlines()[-1]


def test_spans_that_cannot_be_are_explained(partner: Command) -> None:
    for words, sentence in (
        ("--from 2026-01-05 --for 1d --until 2026-01-06", "Give two of --from, --for and --until"),
        ("--from 2026-01-05 --until 2026-01-04", "Simulated time must end after it begins."),
        ("--speed 0", "'0' is not a number above 0"),
        ("--speed nan", "'nan' is not a number above 0"),
    ):
        assert sentence in partner.refused("simulate", *words.split(), status=2)
    said = partner.refused("simulate", "--from", "2999-01-01")
    assert said == "The server takes no events of the future: give an earlier --from."
    said = partner.refused("simulate", "--chargers", "22873")
    assert said == "There are only 22,872 charge points in the data."
