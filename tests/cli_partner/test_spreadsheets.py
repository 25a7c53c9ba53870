"""Files of spreadsheets in the forms of other countries, and lists of sessions."""

import csv
import io
import json
import re
import shutil
import subprocess
import zipfile
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.cli_partner.conftest import Site
from tests.cli_partner.test_round_trip import entities, events, exactly
from tests.conftest import Server
from tether.domain.errors import Invalid, SetupError
from tether.domain.models import Event
from tether.domain.timestamps import format_instant, parse_instant
from tether.files.csv_dialect import CsvDialect, csv_line, instant_cell, parse_instant_cell
from tether.files.csv_table import refused_csv, to_csv
from tether.files.session_list import events_of_session
from tether.files.table import Entry, MappedColumn, ReadOptions, Row, csv_columns
from tether.files.table_reader import read_table

LOCALES = {
    "de": ["--separator", ";", "--decimal-comma", "--bom", "--time-zone", "Europe/Berlin"],
    "in": ["--separator", "tab", "--time-zone", "Asia/Kolkata"],
    "us": ["--time-zone", "America/New_York"],
    "au": ["--separator", "|", "--decimal-comma", "--bom", "--time-zone", "Australia/Lord_Howe"],
}
ZONES = [ZoneInfo(name) for name in ("Europe/Berlin", "America/New_York", "Australia/Lord_Howe")]


# Forms ------------------------------------------------------------------------------------------


@given(st.integers(946_684_800_000, 4_000_000_000_000), st.sampled_from(ZONES))
def test_every_instant_survives_every_clock(at_ms: int, zone: ZoneInfo) -> None:
    for decimal_comma in (False, True):
        dialect = CsvDialect(";", decimal_comma, zone)
        cell = instant_cell(format_instant(at_ms), dialect)
        assert parse_instant_cell("timestamp", cell, dialect) == at_ms, cell


@given(entities() | events, st.sampled_from([";", "\t", "|", ","]), st.booleans())
def test_everything_survives_every_form(thing: Entry, separator: str, decimal_comma: bool) -> None:
    dialect = CsvDialect(separator, decimal_comma, ZONES[0])
    lines = [csv_line(csv_columns(type(thing)), dialect), to_csv(thing, dialect)]
    reading = ReadOptions(separator=separator, decimal_comma=decimal_comma, zone=ZONES[0])
    table = read_table([line.encode() for line in lines], reading)
    assert table is not None
    ((_, _, found, reason),) = table.rows
    assert (reason, exactly(*found)) == ("", exactly(thing))


@pytest.mark.parametrize(
    ("cell", "instant"),
    [
        ("05.01.2026 08:00", "2026-01-05T07:00:00.000Z"),
        ("5.7.2026, 8:00:30", "2026-07-05T06:00:30.000Z"),
        ("2026-01-05 08:00:00,250", "2026-01-05T07:00:00.250Z"),
        ("2026-01-05T08:00", "2026-01-05T07:00:00.000Z"),
        ("2026-01-05 08:00 +0000", "2026-01-05T08:00:00.000Z"),
        ("2026-10-25 02:30:00+02:00", "2026-10-25T00:30:00.000Z"),
        ("13/01/2026 12:05 AM", "2026-01-12T23:05:00.000Z"),
        ("13/01/2026 12:05 pm", "2026-01-13T11:05:00.000Z"),
        ("05-01-2026 08:00", "2026-01-05T07:00:00.000Z"),
        ("2026/1/5 8:00", "2026-01-05T07:00:00.000Z"),
    ],
)
def test_times_as_spreadsheets_write_them(cell: str, instant: str) -> None:
    dialect = CsvDialect(zone=ZONES[0], date_order="dmy")
    assert parse_instant_cell("timestamp", cell, dialect) == parse_instant(instant)


def refusals(*rows: str, **said: Any) -> list[str]:
    lines = ["type,chargerId,vehicleId,timestamp", *rows]
    table = read_table([f"{line}\n".encode() for line in lines], ReadOptions(**said))
    assert table is not None
    return [row.reason for row in table.rows]


def test_times_that_are_none_say_why() -> None:
    def reason(cell: str) -> str:
        (found,) = refusals(f"VEHICLE_CONNECTED,C1,V1,{cell}", zone=ZONES[0], date_order="dmy")
        return found.partition("invalid. ")[2]

    assert reason("25.10.2026 02:30") == (
        "The clocks of Europe/Berlin showed 25.10.2026 02:30 twice: add its offset, +0200 or +0100."
    )
    assert reason("29.03.2026 02:30") == (
        "The clocks of Europe/Berlin went over 29.03.2026 02:30: there was no such time."
    )
    assert reason("30.02.2026 08:00") == "There is no time 30.02.2026 08:00."
    assert reason("13/13/2026 08:00") == "There is no time 13/13/2026 08:00."
    assert reason("13/01/2026 13:00 PM") == "There is no time 13/01/2026 13:00 PM."
    assert "It must be a time such as" in reason("13/01/2026 13:00 +25:00")


@pytest.mark.parametrize("cell", ["01.01.0001 00:00:00", "0001-01-01T00:00:00+01:00",
                                  "31.12.9999 23:59:59 -01:00"])  # fmt: skip
def test_times_that_mean_nothing_cost_one_row(cell: str) -> None:
    bad, good = refusals(
        f"VEHICLE_CONNECTED,C1,V1,{cell}", "VEHICLE_CONNECTED,C1,V1,05.01.2026 08:00", zone=ZONES[0]
    )
    assert bad == "It has a time before the year 1, or after 9999, in UTC."
    assert good == ""


def test_what_a_file_leaves_open_is_asked_for() -> None:
    def asked(*rows: str, **said: Any) -> str:
        with pytest.raises(SetupError) as caught:
            refusals(*(f"VEHICLE_CONNECTED,C1,V1,{row}" for row in rows), **said)
        return caught.value.message

    assert asked("05.01.2026 08:00") == (
        "Line 2 has a time without a zone, 05.01.2026 08:00: "
        "say which it is with --time-zone, such as --time-zone Europe/Berlin."
    )
    assert asked("05/01/2026 08:00", "06/01/2026 08:00", zone=ZONES[0]) == (
        "Line 2: nothing tells whether the day or the month comes first in 05/01/2026 08:00: "
        "say it with --date-order dmy or --date-order mdy."
    )
    # What looks like a date elsewhere asks for nothing, and a later row tells it.
    lines = ["id,chargePowers,Remark", "C1,11,05/01/2026 08:00"]
    table = read_table([line.encode() for line in lines], ReadOptions(ignored=("Remark",)))
    assert table is not None
    assert [row.reason for row in table.rows] == [""]
    rows = ["VEHICLE_CONNECTED,C1,V1,05/01/2026 08:00", "VEHICLE_CONNECTED,C1,V1,13/01/2026 08:00"]
    assert refusals(*rows, zone=ZONES[0]) == ["", ""]


def numbers(*cells: str, separator: str = ";", **said: Any) -> list[str]:
    """The number in a cell, or the reason why it is refused."""
    dialect = CsvDialect(separator)
    lines = [csv_line(row, dialect).encode() for row in (
        ("type", "chargerId", "vehicleId", "timestamp", "chargedEnergy"),
        *(("stopped", "C1", "V1", "2026-01-05T08:00:00Z", cell) for cell in cells),
    )]  # fmt: skip
    table = read_table(lines, ReadOptions(**said))
    assert table is not None
    return [
        "".join(str(one.charged_energy) for one in row.entries if isinstance(one, Event))
        or row.reason.partition("invalid. ")[2] for row in table.rows
    ]  # fmt: skip


def test_thousands_are_told_apart_from_decimals() -> None:
    grouped = (
        "1.234,5",
        "1 234,5",
        "1\u202f234,5",
        "1'234,5",
        "12.345.678",
        "-1.234,5",
        "7,4",
        "7.4",
    )
    meant = ["1234.5", "1234.5", "1234.5", "1234.5", "12345678", "-1234.5", "7.4", "7.4"]
    assert numbers(*grouped) == meant
    # A point before three digits: of a file with decimal commas it is not known what that is.
    assert numbers("7,4", "1.234") == [
        "7.4", "1.234 can be 1234: say --decimal-comma if it is, or write it so.",
    ]  # fmt: skip
    assert numbers("7,4", "1.234", decimal_comma=True) == ["7.4", "1234"]
    assert numbers("7.4", "1.234", "0.125") == ["7.4", "1.234", "0.125"]
    assert numbers("1,234.5", "1,234,567", "7.125", separator=",") == ["1234.5", "1234567", "7.125"]
    assert numbers("7,125", separator=",") == [
        "7,125 can be 7125 or 7.125: write the one that it is.",
    ]  # fmt: skip
    for cell in (
        "1.23,4",
        "1,2,3",
        "12.34.567",
        "1.234.5",
        "1,234,5",
        "01.234,5",
        "7,5 kWh",
        "--1",
    ):
        assert numbers(cell) == ["It must be a number such as 7,4."], cell


def test_what_was_read_as_a_decimal_point_is_said() -> None:
    def assumed(*cells: str) -> tuple[str, ...]:
        lines = ["id;chargeCapacity;chargePowers", *(f"V;{cell};11" for cell in cells)]
        table = read_table([f"{line}\n".encode() for line in lines])
        assert table is not None
        return table.assumed[1:]

    said = ("Points are decimal points: 50.125 is more with --decimal-comma.",)
    assert assumed("7.4", "50.125") == said
    assert assumed("7,4", "50.125") == assumed("7.4") == ()


def test_days_and_months_in_two_orders_are_refused() -> None:
    rows = [f"connected,C1,V1,{day} 08:00" for day in ("25/01/2026", "01/25/2026")]
    with pytest.raises(SetupError, match="Line 3: in 01/25/2026 08:00 day and month are not in"):
        refusals(*rows, zone=ZONES[0])
    first, second = refusals(*rows, zone=ZONES[0], date_order="dmy")
    assert (first, second.partition("invalid. ")[2]) == ("", "There is no time 01/25/2026 08:00.")


def test_cells_may_have_line_breaks_and_a_stray_quote_costs_one_row() -> None:
    lines = [
        '"Station","Plugged in\n(local)","Note"',
        'C1,2026-01-05 08:00,"two\nlines, and ""words"""',
        'C2,2026-01-05 08:00,"never closed',
        "C3,2026-01-05 08:00,plain",
        'C4,2026-01-05 08:00,5" cable',
        'C5,2026-01-05 08:00,""',
    ]
    content = "\n".join(lines).encode().splitlines(keepends=True)
    columns = {
        "Station": MappedColumn("chargerId"),
        "Plugged in (local)": MappedColumn("connectedAt"),
    }
    table = read_table(content, ReadOptions(zone=ZONES[0], columns=columns))
    assert table is not None
    rows = list(table.rows)
    assert [row.line for row in rows] == [3, 5, 6, 7, 8]
    assert [row.reason for row in rows] == [
        "", 'It is no row of a CSV: a quote " is out of place.', "", "", "",
    ]  # fmt: skip


def test_what_is_refused_runs_no_formula_in_a_spreadsheet() -> None:
    row = Row(2, '=1+1;@x;-5;-5,5;"\tx";+49', (), "No.")
    header = ("a", "b", "c", "d", "e", "f")
    assert refused_csv(row, header, CsvDialect(";")) == "2;No.;'=1+1;'@x;-5;-5,5;\ufffdx;'+49\n"


# Maps of objects --------------------------------------------------------------------------------


MAPPED = {
    "Station": MappedColumn("chargerId"),
    "Car": MappedColumn("vehicleId"),
    "Start": MappedColumn("connectedAt"),
    "End": MappedColumn("disconnectedAt"),
    "Wh": MappedColumn("chargedEnergy", Decimal("0.001")),
    "Minutes": MappedColumn("chargedTime", Decimal(60)),
}
BERLIN = ReadOptions(zone=ZONES[0], columns=MAPPED)


def read_objects(reading: ReadOptions, *rows: dict[str, Any]) -> tuple[list[Row], tuple[str, ...]]:
    table = read_table([json.dumps(row).encode() + b"\n" for row in rows], reading)
    assert table is not None
    return list(table.rows), table.assumed


def blamed_in(reason: str) -> str:
    found = re.search(r"\{(\w+)\}", reason)
    assert found is not None, reason
    return found[1]


def test_members_of_objects_are_mapped_as_columns_of_a_csv_are() -> None:
    told = {"Start": "31.01.2026 08:00", "End": "31.01.2026 09:30", "Tariff": {"id": 7}}
    as_text = {**told, "Station": "C1", "Car": "V1", "Wh": "7125", "Minutes": "1:00:00"}
    as_numbers = {**told, "Station": "C1", "Car": "V1", "Wh": 7125, "Minutes": 60}
    cells = [str(value) for name, value in as_text.items() if name != "Tariff"]
    names = [name for name in as_text if name != "Tariff"]
    table = read_table([line.encode() for line in map(csv_line, (names, cells))], BERLIN)
    assert table is not None
    ((_, _, wanted, _),) = table.rows
    for one in (as_text, as_numbers):
        rows, assumed = read_objects(BERLIN, one)
        assert [(row.entries, row.reason) for row in rows] == [(wanted, "")]
        assert assumed == ("Ignored members: Tariff.",)


def test_objects_have_numbers_for_ids_and_nulls() -> None:
    row = {"Station": 1408, "Car": 12.0, "Start": "2026-01-31T08:00:00Z", "Wh": None, "End": " "}
    ((_, _, found, reason),), _ = read_objects(BERLIN, row)
    ids = [(one.charger_id, one.vehicle_id) for one in found if isinstance(one, Event)]
    assert (reason, ids) == ("", [("1408", "12")])


def test_what_a_map_of_objects_cannot_mean_is_said() -> None:
    good = {"Station": "C1", "Car": "V1", "Start": "2026-01-31T08:00:00Z", "End": None}
    rows, assumed = read_objects(BERLIN, *[{**good, "Minutes": 3}] * 150)
    assert assumed == ("Nothing is named 'Wh' in the first 100 lines.",)
    assert [row.reason for row in rows] == [""] * 150
    whole = {**good, "Wh": 1, "Minutes": 1}
    with pytest.raises(SetupError, match="nothing tells whether the day or the month comes first"):
        read_objects(BERLIN, {**whole, "Start": "05/01/2026 08:00"})
    with pytest.raises(SetupError, match="Line 1 has a time without a zone"):
        read_objects(BERLIN._replace(zone=None), {**whole, "Start": "2026-01-05 08:00"})
    twice = BERLIN._replace(columns={**MAPPED, "Car": MappedColumn("chargerId")})
    with pytest.raises(SetupError, match="'Station' and 'Car' are both chargerId"):
        read_objects(twice, whole)
    wrong = {"Start": 1769846400, "Wh": "much", "Minutes": [1], "Station": {"id": 1}}
    rows, _ = read_objects(BERLIN, *({**whole, name: value} for name, value in wrong.items()))
    assert [blamed_in(row.reason) for row in rows] == [
        "connectedAt", "chargedEnergy", "chargedTime", "chargerId",
    ]  # fmt: skip


def test_numbers_out_of_all_bounds_are_refused_whatever_their_unit() -> None:
    text = b'{"Station":"C1","Start":"2026-01-31T08:00:00Z","Wh":1e999999,"Minutes":1}\n'
    table = read_table([text], BERLIN)
    assert table is not None
    assert [blamed_in(row.reason) for row in table.rows] == ["chargedEnergy"]
    lines = [b"Station,Car,Start,End,Wh,Minutes\n", b"C1,V1,2026-01-31T08:00:00Z,,1e999999,1\n"]
    table = read_table(lines, BERLIN)
    assert table is not None
    assert [blamed_in(row.reason) for row in table.rows] == ["chargedEnergy"]


@pytest.mark.parametrize(
    ("told", "blamed"),
    [
        ({"chargedTime": Decimal(10) ** 9}, "chargedTime"),
        ({"chargedTime": "an hour"}, "chargedTime"),
        ({"chargedTime": Decimal(-5)}, "chargedTime"),
        ({"chargedEnergy": Decimal(5)}, "disconnectedAt"),
        ({"stateOfChargeEnd": Decimal(80)}, "disconnectedAt"),
        ({"startedAt": "2026-01-31T09:00:00Z", "stateOfChargeEnd": Decimal(80)}, "disconnectedAt"),
    ],
)
def test_nothing_that_a_row_tells_is_lost(told: dict[str, Any], blamed: str) -> None:
    row = {"chargerId": "C1", "vehicleId": "V1", "connectedAt": "2026-01-31T08:00:00Z", **told}
    with pytest.raises(Invalid) as caught:
        events_of_session(row, parse_instant("9999-01-01T00:00:00Z"))
    assert caught.value.parameter == blamed


def test_parquet_is_imported_by_a_map(site: Site) -> None:
    begin = datetime(2026, 1, 5, 8)
    columns = {
        "Station": ["C1", "C1"],
        "Car": pyarrow.array([7, None], pyarrow.int64()),
        "Start": [begin, begin + timedelta(hours=2)],
        "Took": pyarrow.array([timedelta(minutes=30), None], pyarrow.duration("ns")),
        "Wh": [7125.5, float("nan")],
        "Note": ["a", "b"],
    }
    pyarrow.parquet.write_table(pyarrow.table(columns), site.folder / "theirs.parquet")
    mapped = (
        "Station=chargerId", "Car=vehicleId", "Start=connectedAt", "Took=chargedTime",
        "Wh=chargedEnergy/1000",
    )  # fmt: skip
    words = [word for one in mapped for word in ("--map", one)]
    done = site("import", "theirs.parquet", *words, "--time-zone", "UTC", "--create-vehicles", "50")
    assert (done.returncode, "2 sessions stored" in done.stdout) == (0, True), done
    assert "Ignored members: Note." in done.stderr
    first, second = sessions(site)
    assert (first["vehicleId"], first["chargedEnergy"], first["chargedTime"]) == (
        "7", Decimal("7.1255"), 1800,
    )  # fmt: skip
    assert (second["vehicleId"], second["periods"]) == ("guest-2026-01-05T100000-C1", [])


# Out and in -------------------------------------------------------------------------------------


@pytest.fixture
def told(site: Site) -> Site:
    """A partner with two sessions, one in the hour that occurs twice, and an id like a formula."""
    with site.client() as client:
        body = {"chargeCapacity": 50, "chargePowers": [11]}
        client.put("/vehicles/=1+1", json=body)
        client.put("/vehicles/@V", json=body).raise_for_status()
        told: list[dict[str, Any]] = []
        for vehicle, hours in (("V1", (0, 1, 2, 3)), ("@V", (8, 9, 10, 11))):
            common = {"chargerId": "C1", "vehicleId": vehicle}
            for kind, hour, more in zip(
                ("CONNECTED", "CHARGE_STARTED", "CHARGE_STOPPED", "DISCONNECTED"),
                hours,
                ({}, {}, {"chargedEnergy": 7.125, "chargedTime": 3540.5}, {"stateOfCharge": 80.5}),
                strict=True,
            ):
                stamp = f"2026-10-25T{hour:02}:30:00.250Z"
                told.append({"type": f"VEHICLE_{kind}", "timestamp": stamp, **common, **more})
        client.post("/events/bulk", json=told).raise_for_status()
    return site


@pytest.mark.parametrize("locale", LOCALES)
def test_what_is_exported_for_a_country_is_imported_from_there(
    told: Site, server: Server, locale: str
) -> None:
    copy = another(told, server)
    form = LOCALES[locale]
    read = [word for word in form if word != "--bom"]
    with told.client() as client, copy.client() as other:
        for kind in ("chargers", "vehicles"):  # whose forms are tried without a process above
            entities = client.get(f"/{kind}").content
            answer = other.post(f"/{kind}/bulk", content=entities).raise_for_status()
            assert {one["status"] for one in answer.json()} <= {200, 201}
    told.ok("export", "events", "--output", f"{locale}.csv", *form)
    copy.ok("import", f"{locale}.csv", *read)
    assert sessions(copy) == sessions(told) != []


def another(site: Site, server: Server) -> Site:
    """Another partner, in the same folder."""
    environment = {"TETHER_URL": server.url, "TETHER_API_KEY": server.key()}
    return Site(site.folder, server.database, environment)


def sessions(of: Site) -> list[dict[str, Any]]:
    """The members that are the same in a copy of a session."""
    with of.client() as client:
        found = client.get("/sessions").json(parse_float=Decimal)
    for session in found:
        del session["updatedAt"], session["version"]
    return list(found)


def test_what_is_exported_as_parquet_is_imported_from_it(told: Site, server: Server) -> None:
    copy = another(told, server)
    for kind in ("chargers", "vehicles", "events"):
        told.ok("export", kind, "--output", f"{kind}.parquet")
        copy.ok("import", f"{kind}.parquet")
    assert sessions(copy) == sessions(told) != []


def test_parquet_of_others_has_floats_and_finer_times(site: Site) -> None:
    with site.client() as client:
        client.put("/chargers/C1", json={"chargePowers": [11]}).raise_for_status()
        client.put(
            "/vehicles/V1", json={"chargeCapacity": 50, "chargePowers": [11]}
        ).raise_for_status()
    instant = 1767600000123456789  # ns
    columns = {
        "type": ["VEHICLE_CONNECTED", "VEHICLE_DISCONNECTED", "VEHICLE_CONNECTED"],
        "chargerId": ["C1"] * 3,
        "vehicleId": ["V1"] * 3,
        "timestamp": pyarrow.array(
            [instant, instant + 60_000_000_000, instant + 120_000_000_000],
            pyarrow.timestamp("ns", tz="Europe/Berlin"),
        ),
        "stateOfCharge": [0.1, float("nan"), float("inf")],
    }
    pyarrow.parquet.write_table(pyarrow.table(columns), site.folder / "theirs.parquet")
    done = site("import", "theirs.parquet")
    assert "1 row refused" in done.stdout
    assert "stateOfCharge" in (site.folder / "theirs.parquet.refused.ndjson").read_text()
    with site.client() as client:
        found = client.get("/events").json()
    assert [(e["timestamp"], e.get("stateOfCharge")) for e in found] == [
        ("2026-01-05T08:00:00.123Z", 0.1), ("2026-01-05T08:01:00.123Z", None),
    ]  # fmt: skip


def test_parquet_has_local_times_and_short_floats(site: Site) -> None:
    begin = datetime(2026, 1, 5, 8)
    columns = {
        "chargerId": ["C1"],
        "vehicleId": ["V1"],
        "connectedAt": [begin],
        "disconnectedAt": [begin + timedelta(hours=1)],
        "chargedEnergy": pyarrow.array([7.4], pyarrow.float32()),
    }
    pyarrow.parquet.write_table(pyarrow.table(columns), site.folder / "list.parquet")
    shown = site("import", "list.parquet", "--dry-run", "--time-zone", "Europe/Berlin").stdout
    assert '"timestamp":"2026-01-05T07:00:00.000Z"' in shown
    assert '"chargedEnergy":7.4' in shown
    assert "give one with --time-zone" in site("import", "list.parquet", "--dry-run").stderr
    never = pyarrow.array([10**12], pyarrow.timestamp("s", tz="UTC"))
    pyarrow.parquet.write_table(
        pyarrow.table({**columns, "disconnectedAt": never}), site.folder / "never.parquet"
    )
    assert "a time before the year 1, or after 9999" in site.refused("import", "never.parquet")


def test_a_workbook_says_how_to_save_it(site: Site) -> None:
    with zipfile.ZipFile(site.folder / "list.xlsx", "w") as book:
        book.writestr("[Content_Types].xml", "<Types/>")
    assert "It is a workbook of a spreadsheet: save it as CSV" in site.refused(
        "import", "list.xlsx"
    )


def test_parquet_that_is_damaged_or_comes_through_a_pipe_is_refused(told: Site) -> None:
    told.ok("export", "events", "--output", "e.parquet")
    whole = (told.folder / "e.parquet").read_bytes()
    for part in (whole[:4], whole[:200], whole[:-50] + b"\0" * 50):
        (told.folder / "cut.parquet").write_bytes(part)
        said = told.refused("import", "cut.parquet")
        assert said.startswith("cut.parquet is a damaged Parquet file"), said


def test_a_spreadsheet_sees_numbers_dates_and_no_formulas(told: Site) -> None:
    told.ok("export", "sessions", "--output", "s.csv", *LOCALES["de"])
    content = (told.folder / "s.csv").read_bytes()
    assert content.startswith(b"\xef\xbb\xbfid;vehicleId;")
    first, second = csv.DictReader(io.StringIO(content.decode("utf-8-sig")), delimiter=";")
    assert first["connectedAt"] == "2026-10-25 02:30:00,250+02:00"  # that hour occurs twice
    assert second["connectedAt"] == "2026-10-25 09:30:00,250"
    assert (second["vehicleId"], second["chargedEnergy"]) == ("'@V", "7,125")
    told.ok("export", "vehicles", "--output", "v.csv")
    assert "\n'@V,50,11," in (told.folder / "v.csv").read_text()


if OFFICE := shutil.which("soffice") or "":

    def test_libreoffice_finds_numbers_and_dates(told: Site) -> None:
        told.ok("export", "sessions", "--output", "s.csv", *LOCALES["de"])
        profile = f"-env:UserInstallation={(told.folder / 'profile').as_uri()}"
        german = "--infilter=Text - txt - csv (StarCalc):59,34,76,1,,1031"
        subprocess.run(
            [OFFICE, profile, "--headless", german, "--convert-to", "fods", "s.csv"],
            cwd=told.folder, check=True, capture_output=True, timeout=120,
        )  # fmt: skip
        text = (told.folder / "s.fods").read_text()
        assert re.search(r'office:value-type="float" office:value="7.125"', text)
        assert re.search(r'office:value-type="date" office:date-value="2026-10-25T09:30:00', text)
        assert re.search(r'office:value-type="string"[^>]*>\s*<text:p>&apos;@V<', text)
        assert "table:formula" not in text


def test_forms_are_for_csv(told: Site) -> None:
    assert "are for CSV" in told.refused("export", "events", "--decimal-comma", status=2)
    words = ("export", "events", "--format", "csv", "--separator", "x")
    assert "'x' is none of , ; | and tab." in told.refused(*words, status=2)
    words = ("export", "events", "--format", "csv", "--time-zone", "Mars")
    assert "'Mars' is no time zone such as Europe/Berlin." in told.refused(*words, status=2)


def test_a_german_file_says_what_was_assumed(told: Site) -> None:
    (told.folder / "f.csv").write_text(
        "\ufeffsep=;\ntype;chargerId;vehicleId;timestamp;stateOfCharge\n"
        "VEHICLE_CONNECTED;C1;'@V;01.11.2026 08:00;12,5\n"
        "VEHICLE_DISCONNECTED;C1;'@V;01.11.2026 09:00;1.234,5\n"
    )
    done = told("import", "f.csv", "--time-zone", "Europe/Berlin")
    assert done.returncode == 1  # of the second row
    assert "1 event stored" in done.stdout
    assert (
        (told.folder / "f.refused.csv")
        .read_text()
        .splitlines()[1]
        .startswith(
            "4;Parameter {stateOfCharge} is invalid. It must be a number from 0 to 100 (%).;"
        )
    )
    (told.folder / "g.csv").write_text("id;chargePowers\nC9;7,4\n")
    done = told("import", "g.csv")
    assert done.stderr == "Cells are separated by semicolons, and numbers may have a comma: 7,4.\n"


# Lists of sessions ------------------------------------------------------------------------------

LIST = """Station;Start;End;Energy (Wh);Duration;Remark
S1;13/01/2026 08:00;13/01/2026 09:30;7125;01:00:00;ok
S1;13/01/2026 10:00;13/01/2026 11:00;0;0:00;nothing taken
S 2;13/01/2026 10:00;13/01/2026 11:00;1000;00:30:00;a blank
S1;14/01/2026 08:00;13/01/2026 09:30;7125;01:00:00;backwards
"""
MAP = [
    "--map", "Station=chargerId", "--map", "Start=connectedAt", "--map", "End=disconnectedAt",
    "--map", "Energy (Wh)=chargedEnergy/1000", "--map", "Duration=chargedTime",
    "--time-zone", "Europe/Stockholm",
]  # fmt: skip


def test_a_list_of_sessions_becomes_events(site: Site) -> None:
    (site.folder / "list.csv").write_text(LIST)
    done = site("import", "list.csv", *MAP, "--dry-run")
    assert (done.returncode, done.stderr) == (
        0,
        "Cells are separated by semicolons, and numbers may have a comma: 7,4.\n"
        "In dates such as 13/01/2026 08:00 the day comes first.\n"
        "Ignored columns: Remark.\n"
        "Line 4: Parameter {chargerId} is invalid. It must be 1 to 128 characters of "
        "A-Z a-z 0-9 . _ ~ * + @ : - and neither . nor .. alone. "
        "It has blanks: write S-2 or S2, the same everywhere.\n"
        "Line 5: Parameter {disconnectedAt} is invalid. It must not be before connectedAt.\n"
        "2 sessions would be sent, 2 rows refused: nothing is sent.\n",
    )
    shown = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(event["type"], event["timestamp"][11:16]) for event in shown] == [
        ("VEHICLE_CONNECTED", "07:00"),
        ("VEHICLE_CHARGE_STARTED", "07:00"),
        ("VEHICLE_CHARGE_STOPPED", "08:00"),
        ("VEHICLE_DISCONNECTED", "08:30"),
        ("VEHICLE_CONNECTED", "09:00"),
        ("VEHICLE_DISCONNECTED", "10:00"),
    ]
    assert site.stored("events") == []
    done = site("import", "list.csv", *MAP)  # the charger is not known
    assert "must refer to an existing charger" in (site.folder / "list.refused.csv").read_text()
    for _ in range(2):  # nothing changes the second time
        done = site(
            "import", "list.csv", *MAP, "--create-chargers", "22", "--create-vehicles", "60"
        )
        assert "2 sessions stored, now or before" in done.stdout
        with site.client() as client:
            found = client.get("/sessions").json(parse_float=Decimal)
        assert [(one["pluggedTime"], one.get("chargedEnergy")) for one in found] == [
            (5400, Decimal("7.125")),
            (3600, None),
        ]
        assert (found[0]["chargedTime"], found[0]["flags"]) == (3600, [])
    with site.client() as client:
        assert client.get("/chargers/S1").json() == {"id": "S1", "chargePowers": [22]}


def test_maps_that_make_no_sense_are_explained(site: Site) -> None:
    (site.folder / "list.csv").write_text(LIST)

    def refused(*words: str, status: int = 1) -> str:
        return site.refused("import", "list.csv", *words, status=status)

    assert "There is no column 'Begin': these are Station, Start, End," in refused(
        "--map", "Begin=connectedAt"
    )
    assert "'Start=begin' does not say what a column is" in refused(
        "--map", "Start=begin", status=2
    )
    assert "The columns 'Start' and 'End' are both connectedAt." in refused(
        "--map", "Start=connectedAt", "--map", "End=connectedAt"
    )
    assert refused("--create-chargers", "0", status=2).endswith(
        "'0' is not a number above 0 such as 7.4."
    )


def test_a_session_of_which_nothing_tells_the_end() -> None:
    lines = ["chargerId,connectedAt,chargedEnergy", "C1,2026-01-05T08:00:00Z,7"]
    table = read_table([f"{line}\n".encode() for line in lines])
    assert table is not None
    (row,) = table.rows
    assert row.reason.endswith("Something must tell when the charge ended.")
    assert not row.entries
