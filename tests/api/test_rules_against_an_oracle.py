"""Random chargers and vehicles: the server against a slow second implementation of the reference.

The oracle below shares no code with Tether. It is the reference's list of constraints, one sentence
a line, and the rules of PATCH.
"""

from typing import Any

import httpx
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.api.helpers import ON_ONE_ENGINE

pytestmark = ON_ONE_ENGINE

Members = dict[str, Any]
SAME = {
    "minChargePower": "chargePowerMin",
    "maxChargePower": "chargePowerMax",
    "minDischargePower": "dischargePowerMin",
    "maxDischargePower": "dischargePowerMax",
}
POWERS = ["chargePowers", "dischargePowers"]
ENDS = ["chargePowerMin", "chargePowerMax", "dischargePowerMin", "dischargePowerMax"]
OF = {
    "chargers": [*POWERS, *ENDS, "latitude", "longitude"],
    "vehicles": [*POWERS, *ENDS, "chargeCapacity"],
}

odd: st.SearchStrategy[Any] = st.sampled_from(
    [0, -1, 91, 181, "11", True, None, [], [11], [0], ["11"], {}]
)
good = st.sampled_from([1, 2.5, 11, 22.0])
CHARGE: list[Members] = [
    {"chargePowers": [11]},
    {"chargePowers": [2.5, 11]},
    {"chargePowerMin": 1, "chargePowerMax": 22},
    {"minChargePower": 11, "chargePowerMax": 11, "chargePowers": []},
]
DISCHARGE: list[Members] = [
    {},
    {"dischargePowers": []},
    {"dischargePowers": [2.5, 11]},
    {"dischargePowerMin": 1, "maxDischargePower": 22},
]
PLACE: list[Members] = [{}, {"latitude": 62.2, "longitude": 17.4}]


def member(kind: str) -> st.SearchStrategy[tuple[str, Any]]:
    """One member with a value that is mostly good."""
    names = st.sampled_from([*OF[kind], *SAME, "colour"])
    return names.flatmap(
        lambda name: st.tuples(
            st.just(name), (st.lists(good, max_size=2) if name in POWERS else good) | odd
        )
    )


@st.composite
def put_bodies(draw: st.DrawFn, kind: str) -> Members:
    """A good body, or a good body with some members changed, added or removed."""
    body = draw(st.sampled_from(CHARGE)) | draw(st.sampled_from(DISCHARGE))
    body |= draw(st.sampled_from(PLACE)) if kind == "chargers" else {"chargeCapacity": 74.8}
    body |= dict(draw(st.lists(member(kind), max_size=2)))
    dropped = draw(st.sampled_from([None, None, None, *body]))
    return {name: value for name, value in body.items() if name != dropped}


@st.composite
def patch_bodies(draw: st.DrawFn, kind: str) -> Members:
    """Some members, or a change of one way to say the powers into another."""
    body: Members = dict(draw(st.lists(member(kind), max_size=3)))
    nulls = draw(st.lists(st.sampled_from([*OF[kind], *SAME]), max_size=2))
    body |= dict.fromkeys(nulls)
    switch = draw(st.sampled_from([None, None, None, *CHARGE, *DISCHARGE]))
    if switch is not None:
        use = "charge" if switch in CHARGE else "discharge"
        removed = [f"{use}Powers", f"{use}PowerMin", f"{use}PowerMax"]
        body = {**dict.fromkeys(removed), **named_as_answered(switch)}
    return body


def is_number(value: Any) -> bool:
    return type(value) in (int, float)


def member_is_valid(name: str, value: Any) -> bool:
    name = SAME.get(name, name)
    if name in POWERS:
        return isinstance(value, list) and all(is_number(one) and one > 0 for one in value)
    if not is_number(value):
        return False
    if name == "latitude":
        return bool(-90 <= value <= 90)
    if name == "longitude":
        return bool(-180 <= value <= 180)
    return bool(value > 0)


def members_are_valid(kind: str, body: Members, *, nulls: bool) -> bool:
    names = [SAME.get(name, name) for name in body]
    return (
        all(name in OF[kind] for name in names)
        and len(set(names)) == len(names)
        and all(
            (nulls and value is None) or member_is_valid(name, value)
            for name, value in body.items()
        )
    )


def provided(entity: Members, name: str) -> bool:
    """Constraint 1: empty arrays are not considered provided."""
    return entity.get(name) not in (None, [])


def constraints_hold(kind: str, entity: Members) -> bool:
    has = {name: provided(entity, name) for name in OF[kind]}
    charge_range = has["chargePowerMin"] and has["chargePowerMax"]
    discharge_range = has["dischargePowerMin"] and has["dischargePowerMax"]
    return (
        has["chargePowerMin"] == has["chargePowerMax"]  # 2
        and (has["chargePowers"] or charge_range)  # 3
        and not (has["chargePowers"] and charge_range)  # 4
        and has["dischargePowerMin"] == has["dischargePowerMax"]  # 5
        and not (has["dischargePowers"] and discharge_range)  # 6
        and (kind == "vehicles" or has["latitude"] == has["longitude"])  # 7
        and (kind == "chargers" or has["chargeCapacity"])
        and not (charge_range and entity["chargePowerMin"] > entity["chargePowerMax"])
        and not (discharge_range and entity["dischargePowerMin"] > entity["dischargePowerMax"])
    )


def named_as_answered(body: Members) -> Members:
    return {SAME.get(name, name): value for name, value in body.items()}


def after_put(kind: str, body: Members) -> Members | None:
    """The entity that a PUT makes; None if it must be refused."""
    if not members_are_valid(kind, body, nulls=False):
        return None
    entity = named_as_answered(body)
    if not constraints_hold(kind, entity):
        return None
    return {name: value for name, value in entity.items() if provided(entity, name)}


def after_patch(kind: str, before: Members, body: Members) -> Members | None:
    """The entity that a PATCH makes of `before`; None if it must be refused."""
    if not members_are_valid(kind, body, nulls=True):
        return None
    entity = before | named_as_answered(body)
    if not constraints_hold(kind, entity):
        return None
    return {name: value for name, value in entity.items() if provided(entity, name)}


def check(client: httpx.Client, kind: str, steps: list[Members]) -> None:
    """The first is PUT, the others are PATCHes, each compared with the oracle."""
    path = f"/{kind}/E1"
    first, *patches = steps
    expected = after_put(kind, first)
    answer = client.put(path, json=first)
    assert answer.status_code in ((400,) if expected is None else (200, 201)), answer.text
    if expected is None:
        return
    assert client.get(path).json() == {"id": "E1", **expected}
    for body in patches:
        after = after_patch(kind, expected, body)
        answer = client.patch(path, json=body)
        assert answer.status_code == (400 if after is None else 200), answer.text
        expected = expected if after is None else after
        assert client.get(path).json() == {"id": "E1", **expected}


def histories(kind: str) -> st.SearchStrategy[list[Members]]:
    patches = st.lists(patch_bodies(kind), max_size=5)
    return st.builds(lambda first, rest: [first, *rest], put_bodies(kind), patches)


@settings(max_examples=200)
@given(steps=histories("chargers"))
def test_any_charger_and_any_patches_of_it_end_as_the_reference_says(
    shared: httpx.Client, steps: list[Members]
) -> None:
    check(shared, "chargers", steps)


@settings(max_examples=200)
@given(steps=histories("vehicles"))
def test_any_vehicle_and_any_patches_of_it_end_as_the_reference_says(
    shared: httpx.Client, steps: list[Members]
) -> None:
    check(shared, "vehicles", steps)
