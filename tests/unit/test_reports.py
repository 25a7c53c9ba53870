"""The short way to an event never takes what the long way would refuse, or takes otherwise."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tether.domain.errors import TetherError
from tether.domain.models import Event, EventType, to_json
from tether.domain.validation import new_event
from tether.ingest.event_reader import usual_event
from tether.ingest.json_reader import decode_document

NOW_MS = 1_700_000_000_000
USUAL = (
    b'{"type":"VEHICLE_CHARGE_UPDATED","chargerId":"C-1","vehicleId":"V0313",'
    b'"stateOfCharge":58.30, "chargePower": -11,"chargedTime":0,'
    b'"timestamp":"2023-05-11T22:06:40.738Z"}'
)

pieces = {
    "name": st.sampled_from([
        '"type"', '"chargerId"', '"vehicleId"', '"stateOfCharge"', '"chargePower"',
        '"chargedEnergy"', '"chargedTime"', '"chargeTime"', '"timestamp"', '"id"', '"Type"',
        '"type "', '"charger\\u0049d"', "type", "1", '"\ud7ff"',
    ]),
    "value": st.sampled_from([
        '"C1"', '"a-b"', '""', '".."', '"C 1"', '"2023-05-11T22:06:40.738Z"', "null", "true", "[]",
        '"2023-05-11T22:06:40Z"', '"2023-02-30T22:06:40.738Z"', '"2023-05-11T24:00:00.000Z"',
        '"2023-05-11T22:06:60.000Z"', '"1999-12-31T23:59:59.999Z"', '"2099-05-11T22:06:40.738Z"',
        '"2023-11-15T22:13:20.000Z"', '"2023-11-15T22:13:20.001Z"', '"\uff12023-05-11T22:06:40Z"',
        "0", "-0", "-0.0", "22.0", "100", "100.0000001", "101", "1e2", "1E400", "1e-400", "0e9",
        "-0e-5", "NaN", "Infinity", "01", "1.", "+1", '"1"', "123456789012345", "1234567890123456",
        "0.123456789012345678", "999999999.5", "1000000000", "9007199254740993", "{}", '"\\u0041"',
        *(f'"{kind}"' for kind in EventType), '"VEHICLE_LOST"',
    ]),
    "blank": st.sampled_from(["", " ", "\n\t", "\f", "\ufeff"]),
}  # fmt: skip


def long_way(body: bytes) -> Event | None:
    try:
        return new_event(decode_document(body), NOW_MS)
    except TetherError:
        return None


def same_or_undecided(body: bytes) -> None:
    short, long = usual_event(body, NOW_MS), long_way(body)
    if short is not None:
        assert long is not None
        assert to_json(short) == to_json(long)


def test_what_is_usual_takes_the_short_way() -> None:
    event = usual_event(USUAL, NOW_MS)
    assert event is not None
    assert to_json(event) == to_json(long_way(USUAL))


@given(st.data())
def test_one_or_more_members_changed_or_added(data: st.DataObject) -> None:
    members = [f'"{name}":{json.dumps(value)}' for name, value in json.loads(USUAL).items()]
    kind = data.draw(st.sampled_from(EventType))
    members[0] = f'"type":"{kind}"'
    for _ in range(data.draw(st.integers(0, 3))):
        name, value, blank = (data.draw(pieces[part]) for part in ("name", "value", "blank"))
        place = data.draw(st.integers(0, len(members)))
        replaced = data.draw(st.integers(0, 1))
        members[place : place + replaced] = [f"{blank}{name}{blank}:{blank}{value}{blank}"]
    body = f"{{{','.join(members)}}}{data.draw(pieces['blank'])}"
    same_or_undecided(body.encode())


@given(st.sampled_from(range(len(USUAL))), st.binary(max_size=4), st.integers(0, 3))
def test_bytes_changed_anywhere(place: int, inserted: bytes, removed: int) -> None:
    same_or_undecided(USUAL[:place] + inserted + USUAL[place + removed :])


@pytest.mark.parametrize("number", ["-0", "-0.0", "0", "0.0", "-0e3", "1e1", "22.0", "1.10"])
def test_numbers_keep_their_digits(number: str) -> None:
    same_or_undecided(USUAL.replace(b"-11", number.encode()))
    same_or_undecided(USUAL.replace(b"58.30", number.encode()))
