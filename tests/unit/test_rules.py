"""Rules at their boundaries, without a server."""

from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tether.domain import validation
from tether.domain.errors import Invalid
from tether.domain.models import (
    Charger,
    Event,
    EventType,
    Vehicle,
    entity_id_from_path,
    event_id_from_path,
    from_json,
    is_entity_id,
    to_json,
)
from tether.domain.timestamps import format_instant, parse_instant
from tether.ingest.json_reader import decode_document

NOW_MS = parse_instant("2024-01-01T00:00:00Z")
DAY_MS = 86_400_000
EVENT = {"type": "VEHICLE_CONNECTED", "chargerId": "C1", "vehicleId": "V1"}


@pytest.mark.parametrize(
    ("at_ms", "ok"),
    [
        (parse_instant("2000-01-01T00:00:00Z"), True),
        (parse_instant("2000-01-01T00:00:00Z") - 1, False),
        (NOW_MS + DAY_MS, True),
        (NOW_MS + DAY_MS + 1, False),
    ],
)
def test_a_timestamp_lies_between_the_year_2000_and_a_day_ahead_of_the_clock(
    at_ms: int, ok: bool
) -> None:
    document = EVENT | {"timestamp": format_instant(at_ms)}
    if ok:
        assert validation.new_event(document, NOW_MS).at_ms == at_ms
    else:
        with pytest.raises(Invalid, match="timestamp"):
            validation.new_event(document, NOW_MS)


@settings(derandomize=True, database=None)
@given(at_ms=st.integers(0, 253_402_300_799_999))
def test_an_instant_is_read_as_it_was_written(at_ms: int) -> None:
    text = format_instant(at_ms)
    assert len(text) == 24
    assert parse_instant(text) == at_ms


NUMBERS = [
    ("999999999.999999", True),
    ("1000000000", False),
    ("-999999999.999999", True),
    ("-1e9", False),
    ("1e8", True),
    ("1e1000000", False),
    ("1e-324", True),
    ("1e-325", False),
    ("0", True),
    ("0e-400", False),
    ("123456789012345e-10", True),
    ("1234567890123456e-10", False),
]


@pytest.mark.parametrize(("digits", "ok"), NUMBERS)
def test_a_number_has_at_most_15_digits_and_stays_below_1e9(digits: str, ok: bool) -> None:
    document = EVENT | {"type": "VEHICLE_CHARGE_STARTED", "chargePower": Decimal(digits)}
    if ok:
        event = validation.new_event(document, NOW_MS)
        assert event.charge_power == Decimal(digits)
        assert from_json(Event, to_json(event)) == event
    else:
        with pytest.raises(Invalid, match="chargePower"):
            validation.new_event(document, NOW_MS)


def test_every_member_of_every_type_is_in_the_model() -> None:
    fields = set(Event.__struct_fields__)
    for kind in EventType:
        assert {member.field for member in validation._MEMBERS_OF_TYPE[kind].values()} <= fields


def test_an_entity_is_stored_and_read_back_to_the_digit() -> None:
    body = b'{"chargeCapacity":74.80,"chargePowers":[11,22.0,7.40],"dischargePowerMin":1.0,'
    body += b'"dischargePowerMax":3e0}'
    vehicle = validation.new_entity(Vehicle, "V1", decode_document(body))
    stored = to_json(vehicle)
    assert from_json(Vehicle, stored) == vehicle
    assert stored == b'{"id":"V1",' + body[1:].replace(b"3e0", b"3")


def test_a_patch_that_changes_nothing_gives_the_same_entity() -> None:
    charger = validation.new_entity(Charger, "C1", {"chargePowers": [Decimal(11)]})
    assert validation.patched_entity(charger, validation.changes_of(Charger, "C1", {})) == charger


@settings(derandomize=True, database=None)
@given(segment=st.text("%0aAfF2.~/", max_size=8))
def test_what_a_path_segment_is_decoded_to_is_an_id_or_nothing(segment: str) -> None:
    found = entity_id_from_path(segment)
    assert found is None or is_entity_id(found)


@pytest.mark.parametrize(
    ("segment", "found"),
    [
        ("0188ac4b-9dfa-7c3e-a51b-2f8e6d0b4c97", "0188ac4b-9dfa-7c3e-a51b-2f8e6d0b4c97"),
        ("0188AC4B-9DFA-7C3E-A51B-2F8E6D0B4C97", "0188ac4b-9dfa-7c3e-a51b-2f8e6d0b4c97"),
        ("0188ac4b9dfa7c3ea51b2f8e6d0b4c97", None),
        ("{188ac4b-9dfa-7c3e-a51b-2f8e6d0b4c9}", None),
        ("", None),
    ],
)
def test_an_event_id_has_the_form_in_which_we_hand_it_out(segment: str, found: str | None) -> None:
    assert event_id_from_path(segment) == found
