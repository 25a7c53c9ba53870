import csv
import gzip
import json
import os
from collections.abc import Callable
from decimal import Decimal
from itertools import count

import pyarrow.parquet
import pytest

from tests.cli_partner.conftest import Site
from tests.commands import Command
from tests.fleet import put_fleet
from tether.domain.models import Charger, Vehicle, to_json

CHARGERS = [
    Charger(id="@1", charge_powers=(Decimal("11"), Decimal("22.0")), latitude=Decimal("-62.2680"),
            longitude=Decimal("1E-7")),
    Charger(id="C:2", charge_power_min=Decimal("0.123456789012345"), charge_power_max=Decimal(22),
            discharge_powers=(Decimal("1E+2"),)),
]  # fmt: skip
VEHICLES = [
    Vehicle(id="V1", charge_capacity=Decimal("74.80"), charge_powers=(Decimal(11),)),
    Vehicle(id="V2", charge_capacity=Decimal("123456789.012345"), charge_powers=(Decimal("7.4"),),
            discharge_power_min=Decimal(1), discharge_power_max=Decimal("5.50")),
]  # fmt: skip


@pytest.fixture
def full(site: Site) -> Site:
    """A partner with chargers, vehicles and events of all types."""
    with site.client() as client:
        for charger in CHARGERS:
            path = f"/chargers/{charger.id}"
            client.put(path, content=to_json(charger)).raise_for_status()
        for vehicle in VEHICLES:
            path = f"/vehicles/{vehicle.id}"
            client.put(path, content=to_json(vehicle)).raise_for_status()
    site.report("CONNECTED", "10:00")
    site.report("CHARGE_STARTED", "10:01", chargePower=-11.25)
    site.report("CHARGE_UPDATED", "11:00", stateOfCharge=58.3, chargedEnergy=1e-7, chargedTime=3540)
    site.report("CHARGE_STOPPED", "12:00", chargedEnergy=22)
    site.report("DISCONNECTED", "13:00", stateOfCharge=0)
    return site


@pytest.mark.parametrize("form", ["csv.gz", "ndjson"])
def test_what_is_exported_is_imported_to_the_last_digit(
    full: Site, new_partner: Callable[[], Command], form: str
) -> None:
    other = new_partner()
    copy = Site(other.folder, other.database, other.environment)
    for kind in ("chargers", "vehicles", "events"):
        file = f"{kind}.{form}"
        full.ok("export", kind, "--output", file)
        assert (full.folder / file).read_bytes().startswith(b"\x1f\x8b") is form.endswith(".gz")
        copy.ok("import", file)
        copied, original = copy.stored(kind), full.stored(kind)
        if kind == "events":
            for row in copied + original:
                del row["id"]
        assert str(copied) == str(original)  # 22.0 is not 22
    # An export that is imported where it comes from changes nothing.
    before = full.stored("events")
    full.ok("import", f"events.{form}")
    assert full.stored("events") == before


def test_parquet_holds_exact_decimals_and_instants(full: Site) -> None:
    for kind in ("chargers", "vehicles", "events"):
        full.ok("export", kind, "--output", f"{kind}.parquet")
        rows = pyarrow.parquet.read_table(full.folder / f"{kind}.parquet").to_pylist()
        for row, original in zip(rows, full.stored(kind), strict=True):
            stamp = row.pop("timestamp", None)
            if stamp is not None:
                expected = original.pop("timestamp")
                assert stamp.isoformat(timespec="milliseconds") == expected.replace("Z", "+00:00")
            given = {name: value for name, value in row.items() if value not in (None, [])}
            assert given == original


def test_a_number_too_fine_for_parquet_is_refused_and_leaves_no_file(site: Site) -> None:
    with site.client() as client:
        client.put("/chargers/C1", content='{"chargePowers": [1e-19]}').raise_for_status()
    said = site.refused("export", "chargers", "--output", "c.parquet")
    assert said.startswith("Charger C1 has the number 1E-19, too fine for Parquet's 18 places")
    assert list(site.folder.glob("c.parquet*")) == []


def test_a_sum_too_fine_for_parquet_is_refused(site: Site) -> None:
    with site.client() as client:
        put_fleet(client)
        for hour, energy in (("08", "123456789"), ("09", "1e-25")):
            for kind, told in (("STARTED", ""), ("STOPPED", f',"chargedEnergy":{energy}')):
                client.post("/events", content=(
                    f'{{"type":"VEHICLE_CHARGE_{kind}","chargerId":"C1","vehicleId":"V1",'
                    f'"timestamp":"2026-01-05T{hour}:00:00Z"{told}}}'
                )).raise_for_status()  # fmt: skip
    said = site.refused("export", "summaries", "--output", "s.parquet")
    assert "has the number 123456789.0000000000000000000000001, too fine for Parquet" in said


def test_parquet_without_pyarrow_says_what_to_install(site: Site) -> None:
    (site.folder / "pyarrow.py").write_text("raise ModuleNotFoundError(name='pyarrow')")
    path = str(site.folder)
    said = site.refused("export", "events", "--output", "e.parquet", PYTHONPATH=path)
    assert said.startswith("Parquet needs pyarrow: pip install '.[parquet]' in Tether's folder.")


def test_standard_output_is_ndjson_unless_told_otherwise(full: Site) -> None:
    events = [json.loads(line) for line in full.ok("export", "events").splitlines()]
    assert [event["id"] for event in events] == [event["id"] for event in full.stored("events")]
    rows = list(csv.DictReader(full.ok("export", "events", "--format", "csv").splitlines()))
    assert [row["id"] for row in rows] == [event["id"] for event in events]
    assert rows[1]["chargePower"] == "-11.25"


def test_events_are_exported_between_two_times(full: Site) -> None:
    said = full.ok("export", "events", "--from", "2026-01-05T11:00:00Z", "--to",
                   "2026-01-05T13:00:00+01:00")  # fmt: skip
    assert [json.loads(line)["timestamp"][11:16] for line in said.splitlines()] == ["11:00"]
    assert full.ok("export", "events", "--to", "2026-01-05") == ""
    assert full.refused("export", "chargers", "--from", "2026-01-05", status=2) == (
        "--from and --to are for events and sessions."
    )
    assert "needs a file" in full.refused("export", "events", "--format", "parquet", status=2)


def test_a_file_is_whole_or_not_there(full: Site) -> None:
    output = full.folder / "events.csv"
    output.write_text("older")
    full.refused("export", "events", "--output", "events.csv", TETHER_API_KEY="ttr_live_wrong")
    assert output.read_text() == "older"
    full.ok("export", "events", "--output", "events.csv")
    assert len(output.read_text().splitlines()) == 6
    assert sorted(path.name for path in full.folder.glob("events*")) == ["events.csv"]
    said = full.refused("export", "events", "--output", "no/where.csv")
    assert said.startswith("no/where.csv")


def test_a_file_takes_the_place_of_no_device_and_of_no_link(full: Site) -> None:
    pipe, link = full.folder / "pipe", full.folder / "link.csv"
    os.mkfifo(pipe)
    with open(os.open(pipe, os.O_RDONLY | os.O_NONBLOCK), encoding="utf-8") as reader:
        full.ok("export", "chargers", "--output", "pipe")
        assert len(reader.readlines()) == 3
    assert pipe.is_fifo()
    link.symlink_to("real.csv")
    full.ok("export", "chargers", "--output", "link.csv")
    assert link.is_symlink()
    assert len((full.folder / "real.csv").read_text().splitlines()) == 4


def test_an_empty_export_is_a_whole_file(partner: Command) -> None:
    partner.ok("export", "vehicles", "--output", "v.csv")
    assert (partner.folder / "v.csv").read_text().startswith("id,chargeCapacity,chargePowers,")
    partner.ok("export", "vehicles", "--output", "v.parquet")
    assert pyarrow.parquet.read_table(partner.folder / "v.parquet").num_rows == 0


def test_pages_are_followed(site: Site) -> None:
    numbers = count()
    with site.client() as client:
        lines = "\n".join(
            json.dumps({
                "type": "VEHICLE_CONNECTED", "chargerId": "C1", "vehicleId": "V1",
                "timestamp": f"2026-01-05T00:{next(numbers) // 60:02}:{n % 60:02}Z",
            }) for n in range(2001)
        )  # fmt: skip
        client.post("/events/bulk", content=lines).raise_for_status()
    site.ok("export", "events", "--output", "events.ndjson.gz")
    content = gzip.decompress((site.folder / "events.ndjson.gz").read_bytes())
    assert len(set(content.splitlines())) == 2001
