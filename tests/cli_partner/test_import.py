import gzip
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from fcntl import ioctl
from pathlib import Path
from termios import FIONREAD
from typing import Any

import psutil
import pytest

from tests.cli_partner.conftest import Site
from tests.commands import Command
from tests.conftest import TETHER, Server
from tests.services import free_port
from tether.domain.keys import Rate
from tether.files.table_reader import read_table


def event(minute: int, **members: Any) -> dict[str, Any]:
    stamp = f"2026-01-05T{minute // 60 % 24:02}:{minute % 60:02}:{minute // 1440 % 60:02}Z"
    who = {"chargerId": "C1", "vehicleId": "V1", "timestamp": stamp}
    return {"type": "VEHICLE_CONNECTED", **who, **members}


def write(path: Path, *rows: object) -> str:
    lines = (row if isinstance(row, str) else json.dumps(row) for row in rows)
    path.write_text("".join(f"{line}\n" for line in lines))
    return path.name


def test_a_csv_of_chargers_is_imported_and_again_without_harm(partner: Command) -> None:
    file = write(
        partner.folder / "chargers.csv",
        "id,chargePowers,chargePowerMin,chargePowerMax,latitude,longitude",
        "C1,11;22.0,,,62.268,17.448",
        "",
        "C2, ,1,150,,",
    )
    said = partner.ok("import", file)
    assert said.splitlines()[1:] == ["  2 chargers: 2 created, 0 replaced"]
    said = partner.ok("import", file)
    assert said.splitlines()[1:] == ["  2 chargers: 0 created, 2 replaced"]
    assert partner.ok("chargers", "list").splitlines() == [
        '{"id":"C1","chargePowers":[11,22.0],"latitude":62.268,"longitude":17.448}',
        '{"id":"C2","chargePowerMin":1,"chargePowerMax":150}',
    ]


def test_of_two_rows_with_one_id_the_later_one_counts(site: Site) -> None:
    rows = [{"id": "V1", "chargeCapacity": n, "chargePowers": [11]} for n in range(1, 100)]
    write(site.folder / "vehicles.ndjson", *rows)
    site.ok("import", "vehicles.ndjson")
    assert [vehicle["chargeCapacity"] for vehicle in site.stored("vehicles")] == [99]


def test_events_are_imported_in_order_and_again_without_harm(site: Site) -> None:
    rows = [event(minute, stateOfCharge=minute % 100) for minute in range(2500)]
    path = site.folder / "events.ndjson.gz"
    path.write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))
    for _ in range(2):
        said = site.ok("import", path.name)
        assert said.splitlines()[1:] == ["  2,500 events stored, now or before"]
    stored = list(map(json.loads, site.ok("events", "list").splitlines()))
    assert [row["stateOfCharge"] for row in stored] == [row["stateOfCharge"] for row in rows]


def test_refused_rows_of_ndjson_are_reported_and_can_be_imported_when_corrected(
    site: Site,
) -> None:
    file = write(
        site.folder / "events.ndjson",
        event(0),
        '{"type": "VEHICLE_CONNECTED", ',
        event(1, chargerId="C9"),
        "",
        event(2, stateOfCharge=101),
        {name: value for name, value in event(3).items() if name != "timestamp"},
        event(4, type="VEHICLE_PARKED"),
        '{"type": "' + "x" * (1 << 20) + '"}',
        event(5),
    )
    done = site("import", file)
    assert done.returncode == 1
    assert done.stdout.splitlines()[1:] == [
        "  2 events stored, now or before",
        "  6 rows refused: see events.refused.ndjson",
    ]
    report = site.folder / "events.refused.ndjson"
    rows = [json.loads(line) for line in report.read_text().splitlines()]
    assert [row["line"] for row in rows] == [2, 3, 5, 6, 7, 8]
    assert [row["reason"][:36] for row in rows] == [
        "It is not valid JSON: a name in doub",
        "Parameter {chargerId} is invalid. It",
        "Parameter {stateOfCharge} is invalid",
        "It has no timestamp: imported twice ",
        "Parameter {type} is invalid. It must",
        "It is longer than 1,048,576 bytes.",
    ]
    assert rows[0]["text"] == '{"type": "VEHICLE_CONNECTED", '
    report.write_text(report.read_text().splitlines()[2].replace("101", "100"))
    assert site.ok("import", report.name).endswith("  1 event stored, now or before\n")
    assert [row.get("stateOfCharge") for row in site.stored("events")] == [None, None, 100]


def test_refused_rows_of_a_csv_are_reported_and_can_be_imported_when_corrected(
    partner: Command,
) -> None:
    write(
        partner.folder / "v.csv",
        "id,chargeCapacity,chargePowers",
        "V1,74.8,11",
        "V2,many,11",
        'V3,"74.8,11',
        "V4,74.8,11,22",
        "V5,-1,11",
        "V6,74.8,",
        ",74.8,11",
        "Vé,74.8,11",
    )
    with (partner.folder / "v.csv").open("ab") as file:
        file.write(b"V\xff,74.8,11\n")
    done = partner("import", "v.csv")
    assert done.returncode == 1
    assert "  1 vehicle: 1 created, 0 replaced\n" in done.stdout
    report = partner.folder / "v.refused.csv"
    lines = report.read_text().splitlines()
    assert lines[0] == "line,reason,id,chargeCapacity,chargePowers"
    for line, beginning in zip(
        lines[1:],
        (
            "3,Parameter {chargeCapacity} is invalid. It must be a number such as 7.4.,V2,many,11",
            '4,"It is no row of a CSV: a quote "" is out of place.","V3,""74.8,11"',
            '5,"The header has 3 cells, this row 4.",V4,74.8,11,22',
            "6,Parameter {chargeCapacity} is invalid. It must be a number above 0 (kWh).,V5,-1,11",
            "7,Parameter {chargePowers} is invalid. Either it or chargePowerMin and",
            "8,Parameter {id} is invalid. It is required.,,74.8,11",
            "9,Parameter {id} is invalid. It must be 1 to 128 characters of",
            '10,"It is not UTF-8: save the file as CSV UTF-8, or say what it is, such as ',
        ),
        strict=True,
    ):
        assert line.startswith(beginning)
    assert "0 vehicles: 0 created" in partner("import", report.name).stdout  # as they are
    report.write_text("\n".join([lines[0], lines[1].replace("many", "50")]))
    assert "1 created" in partner.ok("import", report.name)


def test_events_without_timestamp_are_imported_on_demand(site: Site) -> None:
    line = '{"type": "VEHICLE_CONNECTED", "chargerId": "C1", "vehicleId": "V1"}'
    write(site.folder / "e.ndjson", line, line, line)
    assert site("import", "e.ndjson").returncode == 1
    assert site.stored("events") == []
    assert "3 events stored" in site.ok("import", "e.ndjson", "--stamp")
    assert len({row["timestamp"] for row in site.stored("events")}) == 3


def test_standard_input_is_imported(site: Site) -> None:
    done = site("import", "-", stdin="\ufeff" + json.dumps(event(0)) + "\r\n")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Imported Standard input in ")
    assert len(site.stored("events")) == 1


def test_refused_rows_of_a_pipe_are_reported_where_the_command_runs(site: Site) -> None:
    reading, writing = os.pipe()
    with open(writing, "wb") as pipe:
        pipe.write(b"{bad\n" + json.dumps(event(0)).encode())
    name = f"/dev/fd/{reading}"  # as the shell's <(…) gives it
    done = subprocess.run(
        [TETHER, "import", name],
        env=site.variables(), cwd=site.folder, pass_fds=[reading], capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    os.close(reading)
    assert (done.returncode, done.stderr) == (1, "")
    assert "  1 event stored, now or before\n" in done.stdout
    assert (site.folder / f"{reading}.refused.ndjson").read_text().startswith('{"line":1,')


def waits(pid: int) -> bool:
    """Whether the process uses no processor time for a while."""
    process = psutil.Process(pid)
    before = process.cpu_times()
    time.sleep(0.5)
    return process.status() == psutil.STATUS_SLEEPING and process.cpu_times() == before


@pytest.mark.parametrize("file", ["-", "fifo"])
def test_an_import_that_waits_for_more_can_be_interrupted(site: Site, file: str) -> None:
    os.mkfifo(site.folder / "fifo")
    with (site.folder / "fifo").open("r+b", buffering=0) as pipe:  # which stays open
        pipe.write((json.dumps(event(0)) + "\n").encode())
        process = subprocess.Popen(
            [TETHER, "import", "--kind", "events", file],
            env=site.variables(), cwd=site.folder, stdin=pipe if file == "-" else None,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        while ioctl(pipe, FIONREAD, bytes(4)) != bytes(4) or not waits(process.pid):
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        said, complaints = process.communicate(timeout=180)
    assert (process.returncode, complaints.strip()) == (130, "")
    assert said.startswith("Stopped after line 0 of ")


def test_files_that_cannot_be_read_are_explained(partner: Command) -> None:
    for content, sentence in (
        (b"", "f is empty."),
        (b"[{}]", "f: A JSON array is not read"),
        (b'{"id": "C1"}', "f: The names in it (id) do not show what it contains: say it with --k"),
        (b"Id;Charge Powers\n", "f: The names in it (Id, Charge Powers) do not show what it con"),
        (
            b'{\n  "id": "C1"\n}\n',
            "f: Its first lines are no JSON objects: write one object a line",
        ),
        (b"id,chargePowers,power\n", "f: 'power' is no column of chargers: these are id, charge"),
        (b"id,chargePowers,id\n", "f: The column 'id' stands twice in the header."),
        (b"\x1f\x8bnonsense", "f ends in the middle of its gzip stream, or is damaged"),
    ):
        (partner.folder / "f").write_bytes(content)
        assert partner.refused("import", "f").startswith(sentence), content
    assert "cannot" not in partner.refused("import", "nothing.csv", status=2)


def test_half_a_gzip_stream_is_imported_as_far_as_it_goes(site: Site) -> None:
    rows = [event(minute, stateOfCharge=minute % 91) for minute in range(5000)]
    whole = gzip.compress("\n".join(map(json.dumps, rows)).encode())
    (site.folder / "half.ndjson.gz").write_bytes(whole[: len(whole) // 2])
    done = site("import", "half.ndjson.gz")
    assert done.returncode == 1
    stored = len(site.stored("events"))
    assert stored > 900
    assert "Stopped after line " in done.stdout
    assert "half.ndjson.gz ends in the middle of its gzip stream" in done.stderr


def test_an_import_can_be_interrupted_and_run_again(
    new_server: Callable[..., Server], tmp_path: Path
) -> None:
    server = new_server()
    # So slow a key that the import is still under way when it is interrupted.
    key = server.key(rate=Rate(3000, 1))
    site = Site(tmp_path, server.database, {"TETHER_URL": server.url, "TETHER_API_KEY": key})
    site.furnish()
    rows = [event(minute) for minute in range(8000)]
    write(tmp_path / "e.ndjson", *rows)
    process = subprocess.Popen(
        [TETHER, "import", "e.ndjson"],
        env=site.variables(), cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    while not site.stored("events"):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    said, complaints = process.communicate(timeout=180)
    assert process.returncode == 130
    assert said.startswith("Stopped after line ")
    assert "Traceback" not in complaints
    assert site.ok("import", "e.ndjson").endswith("  8,000 events stored, now or before\n")
    assert len(site.ok("events", "list").splitlines()) == 8000


def test_nothing_is_begun_without_a_server(partner: Command) -> None:
    write(partner.folder / "e.ndjson", event(0))
    nowhere = f"http://127.0.0.1:{free_port()}"
    assert partner.refused("import", "e.ndjson", TETHER_URL=nowhere).startswith("Nothing answers")


def test_the_progress_of_a_file_shows_rate_and_the_time_that_is_left(site: Site) -> None:
    write(site.folder / "e.ndjson", *(event(minute) for minute in range(6000)))
    status, seen = site.in_terminal("import", "e.ndjson")
    assert status == 0
    assert "events, " in seen
    assert "%" in seen
    assert "/s" in seen


def test_reading_takes_no_more_than_it_needs() -> None:
    def endless() -> Any:
        number = 0
        while True:
            number += 1
            yield json.dumps(event(number)).encode()

    table = read_table(endless())
    assert table is not None
    assert [next(table.rows).line for _ in range(300)] == list(range(1, 301))


# Files as people have them -----------------------------------------------------------------------


def test_a_column_that_is_not_ours_can_be_passed_over(site: Site) -> None:
    write(site.folder / "c.csv", "id,chargePowers,note,Länge", "C7,11,x,3")
    said = site.refused("import", "c.csv")
    assert "Ignore it with --ignore note, or say what it is with --map note=MEMBER." in said
    assert "'nothing'" in site.refused("import", "c.csv", "--ignore", "nothing")
    assert "1 created" in site.ok("import", "c.csv", "--ignore", "note", "--ignore", "Länge")
    write(site.folder / "c.ndjson", '{"id": "C8", "chargePowers": [11], "note": {"a": 1}}')
    assert site("import", "c.ndjson").returncode == 1
    assert "1 created" in site.ok("import", "c.ndjson", "--ignore", "note")


def test_a_file_with_other_lines_or_characters_says_how_to_save_it(site: Site) -> None:
    text = "id,chargePowers\nC7,11\n"
    (site.folder / "mac.csv").write_bytes(text.replace("\n", "\r").encode())
    assert site.refused("import", "mac.csv") == (
        "mac.csv: Its lines have no line feed: save it as CSV UTF-8."
    )
    (site.folder / "wide.csv").write_bytes(text.encode("utf-16-le"))
    assert site.refused("import", "wide.csv") == (
        "wide.csv: It seems to be UTF-16: save it as CSV UTF-8, or say --encoding utf-16-le."
    )
    assert "1 created" in site.ok("import", "wide.csv", "--encoding", "utf-16-le")


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1", "utf-16", "utf-8-sig"])
def test_a_file_in_another_encoding_is_read_when_it_is_named(site: Site, encoding: str) -> None:
    text = "id,chargePowers,Länge\r\nC7,11,3\r\nC8,22,\r\n"
    (site.folder / "c.csv").write_bytes(text.encode(encoding))
    if not encoding.startswith("utf"):
        said = site.refused("import", "c.csv", "--ignore", "Länge")
        assert said == (
            "c.csv: It is not UTF-8: save the file as CSV UTF-8, or say what it is, such as "
            "--encoding cp1252."
        )
    if encoding == "utf-16":  # it begins with a mark
        assert "2 created" in site.ok("import", "c.csv", "--ignore", "Länge")
        assert "2 replaced" in site.ok(
            "import", "c.csv", "--ignore", "Länge", "--encoding", encoding
        )
    else:
        named = ("--encoding", encoding.upper())
        assert "2 created" in site.ok("import", "c.csv", "--ignore", "Länge", *named)
    wrong = site("import", "c.csv", "--encoding", "nonsense")
    assert "'nonsense' is no encoding" in wrong.stderr
    said = site.refused("import", "c.csv", "--encoding", "ascii")
    assert "c.csv is not in the encoding that you name, after line 0" in said


def test_short_names_of_types_are_understood(site: Site) -> None:
    write(site.folder / "e.csv", "type,chargerId,vehicleId,timestamp",
          "connected,C1,V1,2026-01-05T08:00:00Z",
          "Charge-Started,C1,V1,2026-01-05T08:05:00Z",
          "CHARGED,C1,V1,2026-01-05T08:06:00Z")  # fmt: skip
    done = site("import", "e.csv")
    assert "2 events stored" in done.stdout
    assert "It must be one of VEHICLE_CONNECTED" in (site.folder / "e.refused.csv").read_text()
    types = [event["type"] for event in site.stored("events")]
    assert types == ["VEHICLE_CONNECTED", "VEHICLE_CHARGE_STARTED"]


def test_a_licence_plate_with_blanks_gets_advice(site: Site) -> None:
    write(site.folder / "v.csv", "id,chargeCapacity,chargePowers", "AB 12 345,50,11")
    write(site.folder / "e.csv", "type,chargerId,vehicleId,timestamp",
          "connected,C1,AB 12 345,2026-01-05T08:00:00Z")  # fmt: skip
    for name in ("v", "e"):
        assert site("import", f"{name}.csv").returncode == 1
        report = (site.folder / f"{name}.refused.csv").read_text()
        advice = "It has blanks: write AB-12-345 or AB12345, the same everywhere."
        assert advice in report
