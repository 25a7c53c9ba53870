"""`tether state`, `tether sessions` and `tether export sessions`, for people and programs."""

import csv
import json
import signal
import subprocess
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pyarrow.parquet
import pytest

from tests.cli_partner.conftest import Site
from tests.conftest import TETHER
from tether.cli.display.rows import TABLES, session_line
from tether.cli.times import format_duration, format_hours
from tether.domain.views import Flag, Session, SessionStatus, VehicleState


@pytest.fixture
def busy(site: Site) -> Site:
    """V1 charged twice at C1, once with unknown energy, and discharges there now; V2 never came."""
    with site.client() as client:
        for path in ("/chargers/C1", "/vehicles/V1"):
            client.patch(path, json={"dischargePowers": [11]}).raise_for_status()
        client.put("/vehicles/V2", json={"chargeCapacity": 50, "chargePowers": [11]})
    site.report("CONNECTED", "10:00", stateOfCharge=20)
    site.report("CHARGE_STARTED", "10:01", chargePower=11)
    site.report("CHARGE_STOPPED", "11:01", chargedEnergy=10.5, chargedTime=3599.5)
    site.report("CHARGE_STARTED", "12:00")
    site.report("CHARGE_STOPPED", "12:10")
    site.report("DISCONNECTED", "12:30")
    site.report("CHARGE_STARTED", "13:00", chargePower=-7.5)
    return site


def lines(said: str) -> list[Any]:
    return [json.loads(line) for line in said.splitlines()]


def test_states_are_a_table_for_people_and_objects_for_programs(busy: Site) -> None:
    status, seen = busy.in_terminal("state", "vehicles")
    rows = seen.splitlines()
    assert (status, rows[0].split()) == (
        0, ["Vehicle", "Now", "Charger", "For", "kW", "%", "Old", "Last", "event"],
    )  # fmt: skip
    assert rows[2].split()[:4] == ["V1", "feeding", "back", "C1"]
    assert "-7.5" in rows[2]
    assert rows[2].split()[-1] == "ago"
    assert rows[3].split() == ["V2", "no", "event"]
    status, seen = busy.in_terminal("state", "chargers", "C1")
    assert (status, seen.splitlines()[2].split()[:3]) == (0, ["C1", "charging", "V1"])
    states = lines(busy.ok("state", "vehicles"))
    assert [state["vehicleId"] for state in states] == ["V1", "V2"]
    assert states[0]["chargePower"] == -7.5
    (alone,) = lines(busy.ok("state", "vehicles", "V1", "--json"))
    assert alone["lastEvent"] == states[0]["lastEvent"]
    assert lines(busy.ok("state", "vehicles", "--limit", "1"))[0]["vehicleId"] == "V1"
    assert busy.ok("state", "chargers", "C1").count("\n") == 1


def test_what_there_is_not_is_said(partner: Site, busy: Site) -> None:
    assert busy.refused("state", "vehicles", "V9") == "There is no vehicle V9."
    assert busy.refused("state", "chargers", "V1") == "There is no charger V1."
    assert busy.refused("sessions", "get", "x") == "There is no session x."
    said = busy.refused("sessions", "list", "--status", "ended", "--updated-from", "2026-01-01",
                        status=2)  # fmt: skip
    assert said == "--status does not go with --updated-from."
    said = busy.refused("sessions", "list", "--order", "desc", "--updated-from", "2026-01-01",
                        status=2)  # fmt: skip
    assert said == "--order desc does not go with --updated-from."
    said = busy.refused("export", "events", "--flag", "vehicle-shared", status=2)
    assert said == "--flag is for sessions."
    status, seen = busy.in_terminal("sessions", "list", "--charger", "C9")
    assert (status, seen) == (0, "No such session.\n")


def test_sessions_are_listed_by_their_filters(busy: Site) -> None:
    first, second = lines(busy.ok("sessions", "list"))
    assert (first["status"], first["chargedEnergy"], second["status"]) == ("ended", 10.5, "active")
    for options, expected in (
        (("--status", "active"), [second]),
        (("--status", "ended", "--vehicle", "V1"), [first]),
        (("--from", "2026-01-05T10:00:00Z", "--to", "2026-01-05T14:00:00+01:00"), [first]),
        (("--charger", "C2"), []),
        (("--charger", "C2", "--charger", "C1", "--vehicle", "V1"), [first, second]),
        (("--order", "desc"), [second, first]),
        (("--ended-from", "2026-01-05T12:30:00Z"), [first]),
        (("--ended-to", "2026-01-05T12:30:00Z"), []),
        (("--overlapping-from", "2026-01-05T12:30:00Z"), [second]),
        (("--overlapping-to", "2026-01-05T12:30:00Z"), [first]),
        (("--flag", "connect-missing"), [second]),
        (("--estimated",), [first, second]),
        (("--not-estimated",), []),
        (("--limit", "1"), [first]),
        (("--updated-from", "2200-01-01"), []),
    ):
        assert lines(busy.ok("sessions", "list", *options)) == expected
        if not {"--limit", "--updated-from"} & {*options}:
            assert lines(busy.ok("export", "sessions", *options)) == expected
    changed = lines(busy.ok("sessions", "list", "--updated-from", second["updatedAt"]))
    assert second in changed
    status, seen = busy.in_terminal("sessions", "list")
    assert (status, seen.splitlines()[3].split()) == (
        0, ["2026-01-05", "10:00", "C1", "V1", "2:30", "1:09", "~10.50", "20.0"],
    )  # fmt: skip
    assert seen.splitlines()[2].split() == ["2026-01-05", "13:00", "C1", "V1", "active", "0:00",
                                            "~0.00", "1"]  # fmt: skip
    assert max(map(len, seen.splitlines())) <= 80
    _, seen = busy.in_terminal("sessions", "list", columns=50)  # too narrow for the table
    later, earlier = seen.split("\n\n")
    assert [line.split("  ")[-1].strip() for line in earlier.splitlines()] == [
        "2026-01-05 10:00", "C1", "V1", "2:30", "1:09", "~10.50", "20.0",
    ]  # fmt: skip
    assert later.splitlines()[:2] == ["Begun (UTC)  2026-01-05 13:00", "Charger      C1"]
    _, seen = busy.in_terminal("sessions", "list", columns=120)
    assert [line.split()[-1] for line in seen.splitlines()[2:]] == [second["id"], first["id"]]


def test_lost_unplugs_are_found_and_reported(busy: Site) -> None:
    _, silent = lines(busy.ok("sessions", "list"))
    found = busy.ok("sessions", "list", "--stale", "7d")
    assert lines(found) == [silent]
    assert busy.ok("sessions", "list", "--stale", "5000d", "--status", "active") == ""
    assert busy.ok("sessions", "list", "--stale", "7d", "--vehicle", "V2") == ""
    _, seen = busy.in_terminal("sessions", "list", "--stale", "7d")
    head, _, row = seen.splitlines()
    assert head.split() == ["Id", "Charger", "Vehicle", "Begun", "Heard", "of"]
    assert row.split()[:4] == [silent["id"], "C1", "V1", "2026-01-05"]
    assert row.endswith(" d ago")
    assert len(row) <= 80
    said = busy.refused("sessions", "list", "--stale", "7d", "--from", "2026-01-01", status=2)
    assert said == "With --stale go --charger, --vehicle and --status active."

    end = ("sessions", "end", silent["id"], "--at")
    before = "2026-01-05T12:59:59.999Z"
    assert "It must not be before 2026-01-05T13:00:00.000Z" in busy.refused(*end, before)
    assert "future" in busy.refused(*end, "2999-01-01")
    assert "--at" in busy.refused("sessions", "end", silent["id"], status=2)
    would = busy(*end, "2026-01-05T15:30:00+01:00", "--dry-run")
    assert (would.returncode, would.stderr) == (0, "Nothing is sent.\n")
    assert json.loads(would.stdout) == {
        "type": "VEHICLE_DISCONNECTED", "chargerId": "C1", "vehicleId": "V1",
        "timestamp": "2026-01-05T14:30:00.000Z",
    }  # fmt: skip
    assert lines(busy.ok("sessions", "list", "--stale", "7d")) == [silent]
    assert busy.ok(*end, "2026-01-05T15:30:00+01:00") == (
        f"Ended session {silent['id']}: V1 left C1 at 2026-01-05T14:30:00.000Z, after 1:30 h.\n"
    )
    assert "ended already, at 2026-01-05T14:30:00.000Z" in busy.refused(*end, "2026-01-06")
    assert busy.refused("sessions", "end", "x", "--at", "2026-01-06") == "There is no session x."
    _, seen = busy.in_terminal("sessions", "list", "--stale", "7d")
    assert seen == "Every active session has had an event since.\n"


def test_people_get_rounded_numbers_and_programs_every_digit(site: Site) -> None:
    site.report("CONNECTED", "10:00", stateOfCharge=28.9999999999999)
    site.report("CHARGE_STARTED", "10:00", chargePower=7.35812345)
    site.report("CHARGE_STOPPED", "11:00", chargedEnergy=7.3581234567, stateOfCharge=99)
    site.report("DISCONNECTED", "11:30")
    text = site.ok("sessions", "list")
    assert '"chargedEnergy":7.3581234567,' in text
    assert '"stateOfChargeStart":28.9999999999999,"stateOfChargeEnd":99,' in text
    _, seen = site.in_terminal("sessions", "list")
    assert seen.splitlines()[2].split()[-2:] == ["7.36", "29.0→99.0"]
    _, seen = site.in_terminal("sessions", "get", lines(text)[0]["id"])
    for part in (
        "Energy       7.36 kWh\n",
        "29.0→99.0 %\n",
        "7.36 kW on average, 7.36 kW at most\n",
    ):
        assert part in seen
    _, seen = site.in_terminal("events", "list")
    assert [line.split()[5:] for line in seen.splitlines()[2:]] == [
        ["29.0"], ["7.36"], ["99.0", "7.36"], [],
    ]  # fmt: skip
    _, seen = site.in_terminal("state", "vehicles")
    assert "99.0" in seen
    _, plain = site.in_terminal("sessions", "list")
    assert "28.99" not in plain


def test_one_session_is_shown_whole(busy: Site) -> None:
    first, second = lines(busy.ok("sessions", "list"))
    assert json.loads(busy.ok("sessions", "get", first["id"])) == first
    _, seen = busy.in_terminal("sessions", "get", first["id"])
    assert "Energy       10.50 kWh, estimated, not known of 1 charge period\n" in seen
    assert "2026-01-05 10:01:00  2026-01-05 11:01:00  0:59     10.50  reported" in seen
    assert "2026-01-05 12:00:00  2026-01-05 12:10:00  0:10            not known" in seen
    _, seen = busy.in_terminal("sessions", "get", second["id"])
    assert "goes on" in seen
    assert "connect-missing\n  Nothing told that the vehicle was plugged in:" in seen
    assert max(map(len, seen.splitlines())) <= 80


def test_changes_are_followed_and_go_on_after_the_last_one(busy: Site) -> None:
    def start() -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [TETHER, "sessions", "follow", "--poll", "0.05", "--cursor-file", "cursor"],
            env=busy.variables(), cwd=busy.folder, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def changes(process: "subprocess.Popen[str]") -> Iterator[Any]:
        assert process.stdout is not None
        for line in process.stdout:
            yield json.loads(line)

    process = start()
    found = changes(process)
    both: set[str] = set()
    while len(both) < 2:  # a session that changes again comes again
        both.add(next(found)["id"])
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=180)
    assert process.returncode == 128 + signal.SIGTERM
    busy.report("CONNECTED", "12:59")
    process = start()
    try:
        found = changes(process)
        status: dict[str, str] = {}
        while sorted(status.values()) != ["active", "removed"]:
            one = next(found)
            status[one["id"]] = one["status"]
    finally:
        process.kill()
        process.communicate()
    assert len(both & set(status)) == 1


def test_lines_of_changes_and_units_of_ages() -> None:
    session = Session(
        id="x",
        vehicle_id="V1",
        charger_id="C1",
        status=SessionStatus.REMOVED,
        connected_at="2026-01-05T00:00:01.738Z",
        charged_time=Decimal(0),
        estimated=False,
        periods=(),
        flags=(Flag(name="connect-missing", message="…"), Flag(name="stop-missing", message="…")),
        version=2,
        updated_at="2026-01-05T00:00:02.000Z",
    )
    assert session_line(session).split() == [
        "2026-01-05", "00:00", "C1", "V1", "removed", "connect-missing,", "stop-missing",
    ]  # fmt: skip
    seconds = (0, 59.9, 119, 120, 7199, 7200, 172_799, 172_800, 100_000_000)
    assert [format_duration(Decimal(number)) for number in seconds] == [
        "0 s", "59 s", "119 s", "2 min", "119 min", "2 h", "47 h", "2 d", "1,157 d",
    ]  # fmt: skip
    lengths = map(Decimal, (59, 3600, 360_060))
    assert [*map(format_hours, lengths)] == ["0:00", "1:00", "100:01"]
    away = VehicleState(vehicle_id="V1", plugged_in=True, charging=False, as_of=session.updated_at)
    assert TABLES[VehicleState].row(away)[:2] == ["V1", "plugged in"]


# Export -----------------------------------------------------------------------------------------


def test_sessions_are_exported_as_rows_and_as_objects(busy: Site) -> None:
    first, second = lines(busy.ok("export", "sessions"))
    assert [first, second] == lines(busy.ok("sessions", "list"))
    rows = list(csv.DictReader(busy.ok("export", "sessions", "--format", "csv").splitlines()))
    assert list(rows[0])[:4] == ["id", "vehicleId", "chargerId", "status"]
    assert (rows[0]["estimated"], rows[0]["chargedTime"], rows[0]["flags"]) == (
        "true",
        "4199.5",
        "",
    )
    assert [period.split() for period in rows[0]["periods"].split(";")] == [
        ["2026-01-05T10:01:00.000Z", "2026-01-05T11:01:00.000Z", "10.5", "3599.5", "reported"],
        ["2026-01-05T12:00:00.000Z", "2026-01-05T12:10:00.000Z", "-", "600", "-"],
    ]
    assert (rows[1]["disconnectedAt"], rows[1]["flags"]) == ("", "connect-missing")
    only = lines(busy.ok("export", "sessions", "--from", "2026-01-05T11:00:00Z"))
    assert only == [second]


def test_parquet_has_charge_periods_and_flags_as_lists(busy: Site) -> None:
    busy.ok("export", "sessions", "--output", "s.parquet")
    found = pyarrow.parquet.read_table(busy.folder / "s.parquet").to_pylist()
    text = busy.ok("export", "sessions")
    originals = [json.loads(line, parse_float=Decimal) for line in text.splitlines()]
    for row, original in zip(found, originals, strict=True):
        assert row["flags"] == [flag["name"] for flag in original.pop("flags")]
        periods = original.pop("periods")
        assert len(row["periods"]) == len(periods)
        for shown, period in zip(row["periods"], periods, strict=True):
            assert plain(shown) == period
        del row["flags"], row["periods"]
        assert plain(row) == {"periodsWithoutEnergy": 0} | original


def plain(row: dict[str, Any]) -> dict[str, Any]:
    """A row as the API shows it, without what it does not have."""
    return {
        name: value.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        if name.endswith("At") else value
        for name, value in row.items() if value is not None
    }  # fmt: skip
