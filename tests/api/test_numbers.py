"""Numbers come back with every digit, within their limits."""

import json
import re
from decimal import Decimal

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.api.helpers import ON_ONE_ENGINE, create_both, message

pytestmark = ON_ONE_ENGINE

MAGNITUDE = "It must be a number whose absolute value is below 1e9."
DIGITS = "It must be a number of at most 15 significant digits."
TINY = "It must be 0 or at least 1e-324 away from it."

digits = st.text("0123456789", min_size=1, max_size=17)
exponents = st.integers(-20, 12).map(lambda n: f"e{n}") | st.sampled_from(["E+3", "e-0", "E05"])
numerals = st.builds(
    "".join,
    st.tuples(
        st.sampled_from(["", "-"]),
        st.just("0") | digits.map(lambda text: text.lstrip("0") or "0"),
        st.just("") | digits.map(lambda text: f".{text}"),
        st.just("") | exponents,
    ),
)


def read_back(client: httpx.Client, numeral: str) -> str | None:
    """The digits of this chargedEnergy in the answer to GET; None if it was refused."""
    body = (
        '{"type": "VEHICLE_CHARGE_STOPPED", "chargerId": "C1", "vehicleId": "V1", '
        f'"chargedEnergy": {numeral}}}'
    )
    answer = client.post("/events", content=body)
    if answer.status_code == 400:
        assert message(answer).startswith("Parameter {chargedEnergy} is invalid. ")
        return None
    assert answer.status_code == 201, answer.text
    event = client.get(f"/events/{answer.json()['id']}").text
    found = re.search(r'"chargedEnergy":([^,}]+)', event)
    assert found
    json.loads(event)
    return found[1]


def may_be_sent(numeral: str) -> bool:
    """Whether the text is a valid number: 15 significant digits, absolute value below 1e9."""
    mantissa = numeral.lower().lstrip("-").partition("e")[0]
    significant = mantissa.replace(".", "").lstrip("0")
    return len(significant) <= 15 and abs(Decimal(numeral)) < 10**9


@settings(max_examples=250)
@given(numeral=numerals)
def test_every_decimal_comes_back_to_the_digit_or_is_refused_by_the_rule(
    client: httpx.Client, numeral: str
) -> None:
    if client.get("/chargers/C1").status_code == 404:
        create_both(client)
    found = read_back(client, numeral)
    if numeral.strip("-0.").lower().startswith("e") and found is None:
        return  # a zero with a large exponent
    assert (found is not None) == may_be_sent(numeral)
    if found is not None:
        assert Decimal(found).as_tuple() == Decimal(numeral).as_tuple()
        if "e" not in numeral.lower() and "E" not in found:
            assert found == numeral


@pytest.mark.parametrize(
    "numeral",
    ["0", "0.0", "-0", "-0.0", "22", "22.0", "22.00", "58.3", "11", "0.1", "0.1000",
     "123456789.123456", "999999999.999999", "-999999999.999999", "0.000000123456789012345",
     "100000000", "27658.362"],
)  # fmt: skip
def test_a_number_is_answered_as_it_was_written(client: httpx.Client, numeral: str) -> None:
    create_both(client)
    found = read_back(client, numeral)
    assert found is not None
    assert Decimal(found).as_tuple() == Decimal(numeral).as_tuple()


@pytest.mark.parametrize("numeral", ["1.5e2", "1E+2", "11e-1", "5e-324", "1e8", "-1e-300"])
def test_an_exponent_is_a_way_to_write_a_number(client: httpx.Client, numeral: str) -> None:
    create_both(client)
    found = read_back(client, numeral)
    assert found is not None
    assert Decimal(found) == Decimal(numeral)


@pytest.mark.parametrize(
    ("numeral", "hint"),
    [
        ("1000000000", MAGNITUDE),
        ("1e9", MAGNITUDE),
        ("-1000000000", MAGNITUDE),
        ("1e400", MAGNITUDE),
        ("-1e400", MAGNITUDE),
        ("1e1000000", MAGNITUDE),  # beyond what Python's decimal context can compute with
        ("-1e999999999999999999", MAGNITUDE),
        ("9" * 100_000, MAGNITUDE),
        ("0e999999999", MAGNITUDE),
        ("1e-400", TINY),
        ("1e-1000000", TINY),
        ("-1e-999999999999999999", TINY),
        ("0e-999999999", TINY),
        ("123456789.1234567", DIGITS),
        ("1.000000000000000", DIGITS),
        ("0.1234567890123456", DIGITS),
        ("1" + "." + "0" * 100_000, DIGITS),
    ],
    ids=lambda value: value[:30],
)
def test_a_number_out_of_bounds_is_refused_with_the_bound(
    shared: httpx.Client, numeral: str, hint: str
) -> None:
    body = f'{{"chargePowers": [11], "latitude": {numeral}, "longitude": 0}}'
    answer = shared.put("/chargers/C1", content=body)
    assert (answer.status_code, message(answer)) == (
        400, f"Parameter {{latitude}} is invalid. {hint}",
    )  # fmt: skip


def test_a_number_whose_exponent_nothing_can_hold_is_400(shared: httpx.Client) -> None:
    for numeral in ("1e99999999999999999999999", "-1e-99999999999999999999999"):
        answer = shared.put("/chargers/C1", content=f'{{"chargePowers": [{numeral}]}}')
        assert message(answer) == "The body has a number which is out of range."


@pytest.mark.parametrize("value", ['"11"', "true", "false", '"NaN"', "[]", "{}", '""'])
def test_what_is_not_a_number_is_not_taken_for_one(shared: httpx.Client, value: str) -> None:
    for path, member, unit in (
        ("/chargers/C1", "latitude", " (degrees)"),
        ("/chargers/C1", "chargePowerMin", " (kW)"),
        ("/vehicles/V1", "chargeCapacity", " (kWh)"),
    ):
        answer = shared.put(path, content=f'{{"{member}": {value}}}')
        quoted = ", without quotes" if value.startswith('"') else ""
        assert (answer.status_code, message(answer)) == (
            400, f"Parameter {{{member}}} is invalid. It must be a number{unit}{quoted}.",
        )  # fmt: skip
        assert shared.put(
            path, content=f'{{"chargePowers": [{value}], "chargeCapacity": 1}}'
        ).status_code == 400  # fmt: skip


def test_powers_and_places_keep_their_digits_through_put_and_patch(client: httpx.Client) -> None:
    sent = '{"chargePowers":[11,22.0,7.40],"latitude":62.268302,"longitude":-17.4484150}'
    assert client.put("/chargers/C1", content=sent).status_code == 201
    assert client.get("/chargers/C1").text == '{"id":"C1",' + sent[1:]
    patch = '{"dischargePowers": [3.000]}'
    assert client.patch("/chargers/C1", content=patch).status_code == 200
    assert client.get("/chargers/C1").text == (
        '{"id":"C1","chargePowers":[11,22.0,7.40],"dischargePowers":[3.000],'
        '"latitude":62.268302,"longitude":-17.4484150}'
    )
