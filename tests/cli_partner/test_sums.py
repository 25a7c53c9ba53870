"""`tether sessions summary` and `tether energy`: tables for people, files for programs."""

import csv
import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pyarrow.parquet
import pytest

from tests.cli_partner.conftest import Site

BY_DAY = ("sessions", "summary", "--bucket", "day", "--time-zone", "Europe/Berlin")
CURVE = ("energy", "--from", "2026-01-05T22:00:00Z", "--to", "2026-01-06", "--step", "30m")


@pytest.fixture
def charged(site: Site) -> Site:
    """V1 at C1 over the midnight of Berlin: 10 kWh in an hour, then 3.25 kWh in a quarter."""
    site.report("CONNECTED", "22:30")
    site.report("CHARGE_STARTED", "22:30")
    site.report("CHARGE_STOPPED", "23:30", chargedEnergy=10)
    site.report("CHARGE_STARTED", "23:30", chargePower=13)
    site.report("CHARGE_STOPPED", "23:45", chargedEnergy=3.25)
    site.report("DISCONNECTED", "23:45")
    return site


def test_a_program_gets_the_api_s_objects(charged: Site) -> None:
    lines = [json.loads(line) for line in charged.ok(*BY_DAY).splitlines()]
    with charged.client() as client:
        there = client.get("/sessions/summary?bucket=day&timeZone=Europe/Berlin").json()
    assert lines == there
    assert json.loads(charged.ok(*BY_DAY, "--format", "json")) == there
    (one,) = charged.ok(*BY_DAY, "--limit", "1").splitlines()
    assert json.loads(one) == there[0]
    filters = ("--charger", "C1", "--charger", "C2", "--status", "ended", "--not-estimated")
    assert json.loads(charged.ok("sessions", "summary", *filters))["sessions"] == 1
    steps = [json.loads(line) for line in charged.ok(*CURVE, "--by", "charger").splitlines()]
    assert [step["chargedEnergy"] for step in steps] == [5, 5, 3.25]


def test_people_get_tables_with_bars(charged: Site) -> None:
    status, shown = charged.in_terminal(*BY_DAY)
    assert status == 0
    assert "Europe/Berlin" in shown
    first, second = shown.splitlines()[-2:]
    assert first.split()[:5] == ["2026-01-05", "1", "0.5", "0.5", "5.0"]
    assert second.split()[:5] == ["2026-01-06", "0", "0.8", "0.8", "8.2"]
    assert second.count("█") > first.count("█") > 3
    assert max(map(len, shown.splitlines())) <= 80
    status, shown = charged.in_terminal(*CURVE)
    assert status == 0
    assert "2026-01-05 22:30" in shown
    assert shown.splitlines()[-1] == "▁██▆ up to 10 kW"
    piped = charged.ok(*CURVE, "--format", "table")
    assert piped.splitlines()[1].startswith("2026-01-05 22:00")
    assert "\x1b" not in piped
    _, shown = charged.in_terminal("sessions", "summary", "--flag", "vehicle-shared")
    assert shown == "No such session.\n"


def test_dates_begin_at_midnight_of_the_zone(charged: Site) -> None:
    zone = ("--time-zone", "Europe/Berlin")
    dates = ("--from", "2026-01-05", "--to", "2026-01-07", "--step", "day")
    shown = charged.ok("energy", *dates, *zone)
    assert charged.ok("energy", *zone, *dates) == shown
    days = [json.loads(line) for line in shown.splitlines()]
    assert [day["from"] for day in days] == [
        "2026-01-04T23:00:00.000Z", "2026-01-05T23:00:00.000Z",
    ]  # fmt: skip
    assert [day["chargedEnergy"] for day in days] == [5, 8.25]
    dates = ("--format", "csv", "--from", "2026-01-06", *zone)
    assert len(charged.ok("export", "events", *dates).splitlines()) == 1 + 4
    assert len(charged.ok("export", "events", *dates[:-2]).splitlines()) == 1
    said = charged.refused("energy", "--from", "2026-02-30", "--to", "2026-03-01", *zone, status=2)
    assert "'2026-02-30' is no point in time" in said


def test_spreadsheets_and_parquet(charged: Site, tmp_path: Path) -> None:
    file = tmp_path / "days.csv"
    charged.ok(*BY_DAY, "--by", "charger", "--decimal-comma", "--bom", "--output", str(file))
    text = file.read_text("utf-8-sig")
    first, second = csv.DictReader(text.splitlines(), delimiter=";")
    assert (first["from"], first["chargerId"], second["chargedEnergy"]) == (
        "2026-01-05 00:00:00", "C1", "8,25",
    )  # fmt: skip
    table = tmp_path / "curve.parquet"
    charged.ok(*CURVE, "--output", str(table))
    rows = pyarrow.parquet.read_table(table).to_pylist()
    assert rows[1]["from"] == datetime(2026, 1, 5, 22, 30, tzinfo=UTC)
    assert [row["chargedEnergy"] for row in rows] == [0, 5, 5, Decimal("3.25")]
    sums = tmp_path / "sums.parquet"
    charged.ok("sessions", "summary", "--output", str(sums))
    (row,) = pyarrow.parquet.read_table(sums).to_pylist()
    assert (row["sessions"], row["from"], row["pluggedTime"]) == (1, None, 4500)


def test_sums_are_exported_as_everything_else(charged: Site, tmp_path: Path) -> None:
    by_charger = ("--bucket", "day", "--by", "charger", "--time-zone", "Europe/Berlin")
    shown = charged.ok("sessions", "summary", *by_charger)
    assert charged.ok("export", "summaries", *by_charger) == shown != ""
    file = tmp_path / "days.csv"
    done = charged("export", "summaries", *by_charger, "--decimal-comma", "--output", str(file))
    assert done.stderr.startswith("Exported 2 sums to ")
    rows = list(csv.DictReader(file.read_text().splitlines(), delimiter=";"))
    assert [row["from"] for row in rows] == ["2026-01-05 00:00:00", "2026-01-06 00:00:00"]
    assert [row["chargedEnergy"] for row in rows] == ["5", "8,25"]
    assert json.loads(charged.ok("export", "summaries", "--charger", "C1"))["sessions"] == 1
    for words, said in (
        (("sessions", "--bucket", "day"), "are for summaries"),
        (("summaries", "--order", "desc"), "--order is for sessions"),
        (("summaries", "--time-zone", "Europe/Berlin"), "--time-zone is for CSV"),
    ):
        assert said in charged.refused("export", *words, status=2)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--format", "parquet"), "Parquet needs a file"),
        (("--format", "table", "--output", "x"), "goes without --output"),
        (("--bom", "--format", "json"), "are for CSV"),
        (("--time-zone", "Mars/Olympus"), "no time zone"),
    ],
)
def test_what_does_not_go_together_is_refused(
    charged: Site, options: tuple[str, ...], sentence: str
) -> None:
    assert sentence in charged.refused(*BY_DAY, *options, status=2)
    assert sentence in charged.refused(*CURVE, *options, status=2)
