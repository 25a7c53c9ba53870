"""Values that users give are converted exactly."""

import inspect
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from numbers import Integral, Real
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tether.client import Charger, Event, Invalid, Vehicle, models
from tether.client.conversion import exact, instant_text, patch_of, query_of, sendable
from tether.client.events import STEP_BACK_MS, Timestamps
from tether.client.exchange import path
from tether.domain import models as domain_models
from tether.ingest.json_reader import decode_document


class Double(float):
    """A float whose repr() is like that of NumPy."""

    def __repr__(self) -> str:
        return f"np.float64({float(self)})"


@Integral.register
class Whole:
    """A whole number that is not an int, as in NumPy."""

    def __int__(self) -> int:
        return 11


@Real.register
class Single:
    """A number that is neither a float nor a Decimal, as NumPy's float32."""

    def __str__(self) -> str:
        return "11.1"


def sent(value: Any) -> str:
    """A number as it is sent."""
    return patch_of(models.Charger, {"latitude": value}).decode()[len('{"latitude":') : -1]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (11, "11"),
        (22.0, "22.0"),
        ("7.40", "7.40"),
        (Decimal("58.300"), "58.300"),
        (0.1, "0.1"),
        (0.1 + 0.2, "0.3"),
        (2 / 3, "0.666666666666667"),
        (-1e-7, "-1E-7"),
        (123456789.123456, "123456789.123456"),
        (0, "0"),
        (Double(58.3), "58.3"),
        (Whole(), "11"),
        (Single(), "11.1"),
    ],
)
def test_numbers_are_exact(value: Any, text: str) -> None:
    assert sent(value) == text


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_float_keeps_fifteen_digits(value: float) -> None:
    number = decode_document(f'{{"a":{sent(value)}}}'.encode())["a"]
    assert len(number.as_tuple().digits) <= 15
    assert float(number) == float(f"{value:.15g}")


@pytest.mark.parametrize(
    "value",
    [
        *(True, "", "eleven", float("nan"), float("inf"), "NaN", "Infinity", Decimal("sNaN")),
        *([], b"1", 1j, Fraction(1, 3)),
    ],
)
def test_a_wrong_number_is_refused_before_it_is_sent(value: Any) -> None:
    with pytest.raises(Invalid, match=r"Parameter \{latitude\} is invalid.*number") as caught:
        sent(value)
    assert (caught.value.parameter, caught.value.status) == ("latitude", 400)


def test_a_missing_value_of_a_data_frame_is_named() -> None:
    with pytest.raises(Invalid, match="or None if it is unknown"):
        sent(float("nan"))


def test_powers_may_be_any_iterable() -> None:
    charger = exact(Charger(id="C1", charge_powers=(power for power in (1, 2.5, "3"))))
    assert charger.charge_powers == (Decimal(1), Decimal("2.5"), Decimal(3))
    assert patch_of(models.Charger, {"charge_powers": range(1, 3)}) == b'{"chargePowers":[1,2]}'
    assert patch_of(models.Charger, {"charge_powers": None}) == b'{"chargePowers":null}'
    for wrong in ("12", 3, {1: 2}, b"12"):
        with pytest.raises(Invalid, match="list of numbers"):
            patch_of(models.Charger, {"charge_powers": wrong})


@pytest.mark.parametrize(
    "value",
    [
        "2023-05-11T22:06:40.738999Z",
        "2023-05-12t00:06:40.738+02:00",
        datetime(2023, 5, 11, 22, 6, 40, 738_999, UTC),
        datetime(2023, 5, 12, 0, 6, 40, 738_000, timezone(timedelta(hours=2))),
    ],
)
def test_instants(value: str | datetime) -> None:
    assert instant_text("from", value) == "2023-05-11T22:06:40.738Z"


@pytest.mark.parametrize(
    "value", [datetime(2023, 5, 11), "2023-05-11", "", 1_683_842_800, None, "2023-02-30T00:00:00Z"]
)
def test_a_wrong_instant_is_refused(value: Any) -> None:
    with pytest.raises(Invalid) as caught:
        instant_text("from", value)
    assert caught.value.parameter == "from"


def test_an_exact_model_stays_the_same_object() -> None:
    event = exact(Event(type="VEHICLE_CONNECTED", charger_id="C", vehicle_id="V", charge_power=1))
    assert exact(event) is event
    assert sendable(msgspec.structs.replace(event, id="an id")) == event


@pytest.mark.parametrize("field", ["charger_id", "vehicle_id"])
def test_an_event_with_an_invalid_id_is_refused_before_it_is_sent(field: str) -> None:
    members: dict[str, Any] = {"charger_id": "C", "vehicle_id": "V", field: "a b"}
    with pytest.raises(Invalid) as caught:
        sendable(Event(type="VEHICLE_CONNECTED", **members))
    assert caught.value.parameter == {"charger_id": "chargerId", "vehicle_id": "vehicleId"}[field]


@pytest.mark.parametrize("id", [1408, None, Charger(id="C1408")])
def test_an_id_that_is_no_text_is_told_to_be_text(id: Any) -> None:
    other: Any = id or 0  # None is no filter
    for refused in (
        lambda: sendable(Event(type="VEHICLE_CONNECTED", charger_id=other, vehicle_id="V")),
        lambda: query_of({"charger_id": other}),
    ):
        with pytest.raises(Invalid, match=r"\{chargerId\} is invalid\. It must be text"):
            refused()
    with pytest.raises(TypeError, match="must be a str, not"):
        path(id)


@pytest.mark.parametrize("name", ["Charger", "Vehicle", "Event"])
def test_models_are_the_classes_of_the_server(name: str) -> None:
    assert getattr(models, name) is getattr(domain_models, name)


@pytest.mark.parametrize("kind", [Charger, Vehicle, Event])
def test_constructors_for_type_checkers_have_the_fields_of_the_model(kind: type) -> None:
    source = inspect.getsource(models)
    shown = source.split(f"class {kind.__name__}(models.")[1].split(") -> None")[0]
    declared = [line.split(":")[0].strip() for line in shown.splitlines() if ": " in line]
    assert declared[-len(msgspec.structs.fields(kind)) :] == [
        field.name for field in msgspec.structs.fields(kind)
    ]


@pytest.mark.parametrize(
    ("kind", "changes"), [(Charger, models.ChargerChanges), (Vehicle, models.VehicleChanges)]
)
def test_changes_have_the_fields_of_the_model(kind: type, changes: Any) -> None:
    fields = {field.name for field in msgspec.structs.fields(kind)}
    assert changes.__annotations__.keys() == fields - {"id"}


class Clock:
    """A clock that a test sets."""

    def __init__(self, now: int = 1_700_000_000_000) -> None:
        self.now = now

    def __call__(self) -> int:
        return self.now


def test_timestamps_of_a_vehicle_increase_strictly() -> None:
    clock = Clock()
    timestamps = Timestamps(clock)
    start = clock.now
    assert [timestamps.next("V1") for _ in range(3)] == [start, start + 1, start + 2]
    assert timestamps.next("V2") == start
    clock.now -= 500  # a small correction of the clock
    assert timestamps.next("V1") == start + 3
    clock.now -= STEP_BACK_MS  # a large correction
    assert timestamps.next("V1") == clock.now
    clock.now = start + 10
    assert timestamps.next("V1") == start + 10


def test_old_timestamps_are_dropped() -> None:
    clock = Clock()
    timestamps = Timestamps(clock)
    for round_ in range(3):
        for number in range(9000):
            timestamps.next(f"V{round_}.{number}")
        clock.now += STEP_BACK_MS + 1
    assert len(timestamps._last) < 20_000
