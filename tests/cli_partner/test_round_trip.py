"""Every valid object that is written as CSV or NDJSON is read back, with every digit."""

import csv
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tether.domain.errors import SetupError
from tether.domain.models import Charger, Event, EventType, Vehicle, is_entity_id
from tether.domain.timestamps import format_instant
from tether.files.csv_dialect import csv_line
from tether.files.csv_table import refused_csv, report_header, to_csv
from tether.files.table import COLUMNS, Entry, Kind, ReadOptions, Table
from tether.files.table_reader import read_table, refused_ndjson, to_ndjson

IDS = st.from_regex(r"[A-Za-z0-9._~*+@:-]{1,20}", fullmatch=True).filter(is_entity_id)


def decimals(low: str, high: str) -> st.SearchStrategy[Decimal]:
    """Numbers of at most 15 digits with these bounds, also as 1E+2 and with zeros at the end."""
    numbers = st.builds(
        lambda digits, exponent: Decimal(digits).scaleb(exponent),
        st.integers(-(10**15) + 1, 10**15 - 1),
        st.integers(-20, 6),
    )
    return numbers.filter(lambda number: Decimal(low) <= number <= Decimal(high))


POWERS = decimals("1E-20", "999999999")


@st.composite
def entities(draw: st.DrawFn) -> Charger | Vehicle:
    """Valid chargers and vehicles."""
    members: dict[str, Any] = {"id": draw(IDS)}
    for use in ("charge", "discharge"):
        form = draw(st.sampled_from(["list", "range"] + ["none"] * (use == "discharge")))
        if form == "list":
            powers = draw(st.lists(POWERS, min_size=1, max_size=4))
            members[f"{use}_powers"] = tuple(powers)
        elif form == "range":
            low, high = sorted(draw(st.tuples(POWERS, POWERS)))
            members |= {f"{use}_power_min": low, f"{use}_power_max": high}
    if draw(st.booleans()):
        return Vehicle(charge_capacity=draw(POWERS), **members)
    if draw(st.booleans()):
        members["latitude"] = draw(decimals("-90", "90"))
        members["longitude"] = draw(decimals("-180", "180"))
    return Charger(**members)


def maybe(numbers: st.SearchStrategy[Decimal]) -> st.SearchStrategy[Decimal | None]:
    return st.none() | numbers


events = st.builds(
    Event,
    type=st.just(EventType.VEHICLE_CHARGE_UPDATED),
    charger_id=IDS,
    vehicle_id=IDS,
    state_of_charge=decimals("0", "100"),
    charge_power=maybe(decimals("-999999", "999999")),
    charged_energy=maybe(decimals("-999999", "999999")),
    charged_time=maybe(decimals("0", "999999")),
    timestamp=st.none() | st.integers(946_684_800_000, 4_000_000_000_000).map(format_instant),
)


def read(lines: list[str]) -> Table:
    table = read_table(line.encode() for line in lines)
    assert table is not None
    return table


def exactly(*entries: Entry) -> list[str]:
    """All their members, with all digits: to Python, 22.0 equals 22."""
    return [str(msgspec.structs.asdict(entry)) for entry in entries]


@given(entities() | events)
def test_a_thing_survives_ndjson_and_csv(thing: Entry) -> None:
    kind = Kind(f"{type(thing).__name__.lower()}s")
    for lines in ([to_ndjson(thing)], [csv_line(COLUMNS[kind]), to_csv(thing)]):
        table = read(lines)
        assert table.kind is kind
        ((_, _, found, reason),) = table.rows
        assert (reason, exactly(*found)) == ("", exactly(thing))


@given(st.lists(st.binary(max_size=60), max_size=8))
def test_no_content_is_more_than_refused(content: list[bytes]) -> None:
    for beginning in ([b'{"id":"C1","chargePowers":[11]}\n'], [b"id,chargePowers\n"], []):
        try:
            table = read_table([*beginning, *content])
        except SetupError:
            continue
        for row in table.rows if table else ():
            assert (not row.entries) is bool(row.reason)
            if table is None or row.entries:
                continue
            if table.header is None:
                assert msgspec.json.decode(refused_ndjson(row))["reason"] == row.reason
            else:
                report = csv_line(report_header(table.header)), refused_csv(row, table.header)
                (_, cells) = csv.reader(report)
                assert cells[:2] == [str(row.line), row.reason]
                again = read_table([line.encode() for line in report], ReadOptions(table.kind))
                assert again is not None
                assert [row.entries for row in again.rows] == [()]  # unless it is corrected


@pytest.mark.parametrize(
    ("lines", "kind"),
    [
        (["id,minChargePower,maxChargePower", "C1,1,2"], Kind.CHARGERS),
        (["chargeCapacity,id,minChargePower,maxChargePower", "9,V1,1,2"], Kind.VEHICLES),
        (['{"id":"V1"}', '{"id":"V2","chargeCapacity":1,"chargePowers":[1]}'], Kind.VEHICLES),
        (['{"id":"C1","latitude":1}'], Kind.CHARGERS),
        (["chargerId,vehicleId,type", "C1,V1,VEHICLE_CONNECTED"], Kind.EVENTS),
    ],
)
def test_the_members_say_what_a_file_holds(lines: list[str], kind: Kind) -> None:
    assert read(lines).kind is kind
