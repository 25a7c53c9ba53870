"""The reference's constraints on chargers (seven) and vehicles (six), on PUT and PATCH alike."""

from typing import Any

import httpx
import pytest

from tests.api.helpers import ON_ONE_ENGINE, message, refused_parameter

pytestmark = ON_ONE_ENGINE

KINDS = ["chargers", "vehicles"]
BASE: dict[str, dict[str, Any]] = {"chargers": {}, "vehicles": {"chargeCapacity": 74.8}}
DISCRETE: dict[str, Any] = {"chargePowers": [11]}
RANGE = {"chargePowerMin": 11, "chargePowerMax": 22}
DISCHARGE = {"dischargePowerMin": 11, "dischargePowerMax": 22}

VALID = {
    "discrete powers": DISCRETE,
    "a range": RANGE,
    "a range of one power": {"chargePowerMin": 11, "chargePowerMax": 11.0},
    "an empty array beside a range (1)": {**RANGE, "chargePowers": []},
    "an empty discharge array (1)": {**DISCRETE, "dischargePowers": []},
    "an empty discharge array beside a discharge range (1)": {
        **DISCRETE,
        **DISCHARGE,
        "dischargePowers": [],
    },
    "discrete discharge powers": {**DISCRETE, "dischargePowers": [11]},
    "a discharge range": {**RANGE, **DISCHARGE},
    "the same power twice": {"chargePowers": [11, 11]},
    "a hundred powers": {"chargePowers": [1] * 100},
}

# The mistake, the members, the parameter in the message, the sentence after it.
INVALID = [
    ("1: nothing but an empty array", {"chargePowers": []}, "chargePowers",
     "Either it or chargePowerMin and chargePowerMax must be given."),
    ("2: no maximum", {"chargePowerMin": 11}, "chargePowerMax",
     "It must be given together with chargePowerMin."),
    ("2: no minimum", {"chargePowerMax": 11}, "chargePowerMin",
     "It must be given together with chargePowerMax."),
    ("3: neither powers nor range", {}, "chargePowers",
     "Either it or chargePowerMin and chargePowerMax must be given."),
    ("3: only discharging", {"dischargePowers": [11]}, "chargePowers",
     "Either it or chargePowerMin and chargePowerMax must be given."),
    ("4: powers and range", {**DISCRETE, **RANGE}, "chargePowers",
     "It cannot be given together with chargePowerMin and chargePowerMax."),
    ("4: powers and half a range", {**DISCRETE, "chargePowerMin": 11}, "chargePowerMax",
     "It must be given together with chargePowerMin."),
    ("5: no maximum", {**DISCRETE, "dischargePowerMin": 11}, "dischargePowerMax",
     "It must be given together with dischargePowerMin."),
    ("5: no minimum", {**DISCRETE, "dischargePowerMax": 11}, "dischargePowerMin",
     "It must be given together with dischargePowerMax."),
    ("6: discharge powers and range", {**DISCRETE, **DISCHARGE, "dischargePowers": [11]},
     "dischargePowers",
     "It cannot be given together with dischargePowerMin and dischargePowerMax."),
    ("minimum above maximum", {"chargePowerMin": 22, "chargePowerMax": 11}, "chargePowerMin",
     "It must not be above chargePowerMax."),
    ("discharge minimum above maximum",
     {**DISCRETE, "dischargePowerMin": 22, "dischargePowerMax": 11}, "dischargePowerMin",
     "It must not be above dischargePowerMax."),
    ("no power", {"chargePowers": [11, 0]}, "chargePowers", "It must be a number above 0 (kW)."),
    ("a negative power", {"chargePowers": [-11]}, "chargePowers",
     "It must be a number above 0 (kW)."),
    ("a power of minus nothing", {"chargePowerMin": -0.0, "chargePowerMax": 1}, "chargePowerMin",
     "It must be a number above 0 (kW)."),
    ("101 powers", {"chargePowers": [1] * 101}, "chargePowers", "It must have at most 100 values."),
    ("one power instead of an array", {"chargePowers": 11}, "chargePowers",
     "It must be an array of numbers above 0 (kW)."),
    ("an array in quotes", {"chargePowers": "[11]"}, "chargePowers",
     "It must be an array of numbers above 0 (kW), without quotes."),
    ("a power in quotes", {"chargePowers": ["11"]}, "chargePowers",
     "It must be a number (kW), without quotes."),
    ("null instead of an array", {"chargePowers": None}, "chargePowers",
     "It must be an array of numbers above 0 (kW)."),
    ("an array in an array", {"chargePowers": [[11]]}, "chargePowers",
     "It must be a number (kW)."),
    ("an array instead of a number", {"chargePowerMin": [11], "chargePowerMax": 22},
     "chargePowerMin", "It must be a number (kW)."),
    ("null instead of a number", {**DISCRETE, "dischargePowerMin": None}, "dischargePowerMin",
     "It must be a number (kW)."),
]  # fmt: skip

CHARGERS_ONLY = [
    ("7: no longitude", {**DISCRETE, "latitude": 62.2}, "longitude",
     "It must be given together with latitude."),
    ("7: no latitude", {**DISCRETE, "longitude": 17.4}, "latitude",
     "It must be given together with longitude."),
    ("too far north", {**DISCRETE, "latitude": 90.000001, "longitude": 0}, "latitude",
     "It must be a number from -90 to 90 (degrees)."),
    ("too far west", {**DISCRETE, "latitude": 0, "longitude": -180.5}, "longitude",
     "It must be a number from -180 to 180 (degrees)."),
    ("a capacity", {**DISCRETE, "chargeCapacity": 74.8}, "chargeCapacity",
     "It is not a member of a charger."),
    ("an unknown member", {**DISCRETE, "colour": "red"}, "colour",
     "It is not a member of a charger."),
    ("another case", {"ChargePowers": [11]}, "ChargePowers",
     "It is not a member of a charger: write chargePowers."),
    ("snakes", {"charge_powers": [11]}, "charge_powers",
     "It is not a member of a charger: write chargePowers."),
]  # fmt: skip

VEHICLES_ONLY = [
    ("no capacity in it", {**DISCRETE, "chargeCapacity": 0}, "chargeCapacity",
     "It must be a number above 0 (kWh)."),
    ("a place", {**DISCRETE, "latitude": 1, "longitude": 1}, "latitude",
     "It is not a member of a vehicle."),
    ("an unknown member", {**DISCRETE, "colour": "red"}, "colour",
     "It is not a member of a vehicle."),
]  # fmt: skip

REFUSED = [
    *((kind, *case) for kind in KINDS for case in INVALID),
    *(("chargers", *case) for case in CHARGERS_ONLY),
    *(("vehicles", *case) for case in VEHICLES_ONLY),
]
ALIASES = [
    ("minChargePower", "chargePowerMin"),
    ("maxChargePower", "chargePowerMax"),
    ("minDischargePower", "dischargePowerMin"),
    ("maxDischargePower", "dischargePowerMax"),
]


def stored_as(entity_id: str, members: dict[str, Any]) -> dict[str, Any]:
    """The answer to GET after these members were sent: empty arrays count as not provided."""
    return {"id": entity_id, **{name: value for name, value in members.items() if value != []}}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("what", VALID)
def test_put_accepts_what_satisfies_the_constraints(
    client: httpx.Client, kind: str, what: str
) -> None:
    members = BASE[kind] | VALID[what]
    assert client.put(f"/{kind}/E1", json=members).status_code == 201
    assert client.get(f"/{kind}/E1").json() == stored_as("E1", members)


def test_a_charger_may_stand_anywhere_on_earth_and_a_vehicle_nowhere(client: httpx.Client) -> None:
    for latitude, longitude in [(90, -180), (-90, 180), (0, 0), (-0.0, 1e-7)]:
        place: dict[str, Any] = {"latitude": latitude, "longitude": longitude}
        assert client.put("/chargers/E1", json=DISCRETE | place).status_code in (200, 201)
        assert client.get("/chargers/E1").json() == {"id": "E1", **DISCRETE, **place}


@pytest.mark.parametrize(
    ("kind", "members", "parameter", "hint"),
    [(kind, members, parameter, hint) for kind, _, members, parameter, hint in REFUSED],
    ids=[f"{kind} {what}" for kind, what, *_ in REFUSED],
)
def test_put_refuses_what_breaks_a_constraint_and_names_the_parameter(
    client: httpx.Client, kind: str, members: dict[str, Any], parameter: str, hint: str
) -> None:
    answer = client.put(f"/{kind}/E1", json=BASE[kind] | members)
    assert answer.status_code == 400
    assert message(answer) == f"Parameter {{{parameter}}} is invalid. {hint}"
    assert client.get(f"/{kind}/E1").status_code == 404


def test_a_vehicle_needs_a_capacity(client: httpx.Client) -> None:
    answer = client.put("/vehicles/E1", json=DISCRETE)
    assert message(answer) == "Parameter {chargeCapacity} is invalid. It is required."


def test_put_forgets_the_optional_members_that_it_leaves_out(client: httpx.Client) -> None:
    place = {"latitude": 1, "longitude": 2}
    whole = DISCRETE | place | {"dischargePowers": [3]}
    assert client.put("/chargers/E1", json=whole).status_code == 201
    replaced = client.put("/chargers/E1", json=RANGE)
    assert (replaced.status_code, replaced.content) == (200, b"")
    assert client.get("/chargers/E1").json() == {"id": "E1", **RANGE}


@pytest.mark.parametrize("kind", KINDS)
def test_an_id_in_the_body_must_be_the_one_in_the_path(client: httpx.Client, kind: str) -> None:
    members = BASE[kind] | DISCRETE
    assert client.put(f"/{kind}/E1", json={"id": "E1", **members}).status_code == 201
    assert client.patch(f"/{kind}/E1", json={"id": "E1"}).status_code == 200
    assert client.put(f"/{kind}/a%2Bb", json={"id": "a+b", **members}).status_code == 201
    for wrong in ("E2", "e1", "", "E1 ", 1, None, ["E1"], {"E1": 1}, True):
        for answer in (
            client.put(f"/{kind}/E1", json={"id": wrong, **members}),
            client.patch(f"/{kind}/E1", json={"id": wrong}),
        ):
            assert message(answer) == (
                "Parameter {id} is invalid. It must be the id in the path, or be left out."
            )


# PATCH: the constraints hold for what comes out of it ------------------------------------------

# Before, the patch, and after it: the members that differ (None: gone) or the name in the 400.
PATCHES: list[tuple[dict[str, Any], dict[str, Any], dict[str, Any] | str]] = [
    (DISCRETE, {}, {}),
    (DISCRETE, {"chargePowers": [11, 22]}, {"chargePowers": [11, 22]}),
    (DISCRETE, {"dischargePowers": [7]}, {"dischargePowers": [7]}),
    (DISCRETE, DISCHARGE, DISCHARGE),
    (RANGE, {"chargePowerMin": 7}, {"chargePowerMin": 7}),
    (RANGE, {"minChargePower": 7}, {"chargePowerMin": 7}),
    (RANGE, {"chargePowers": []}, {}),
    (RANGE, {"chargePowers": None}, {}),
    (DISCRETE, {"dischargePowerMin": None}, {}),
    (RANGE, {"chargePowers": [7], "chargePowerMin": None, "chargePowerMax": None},
     {"chargePowers": [7], "chargePowerMin": None, "chargePowerMax": None}),
    (DISCRETE, {"chargePowers": None, **RANGE}, {"chargePowers": None, **RANGE}),
    (DISCRETE, {"chargePowers": [], **RANGE}, {"chargePowers": None, **RANGE}),
    ({**DISCRETE, **DISCHARGE}, {"dischargePowerMin": None, "dischargePowerMax": None},
     {"dischargePowerMin": None, "dischargePowerMax": None}),
    ({**DISCRETE, **DISCHARGE},
     {"minDischargePower": None, "maxDischargePower": None, "dischargePowers": [1]},
     {"dischargePowerMin": None, "dischargePowerMax": None, "dischargePowers": [1]}),
    # refused
    (DISCRETE, {"chargePowers": []}, "chargePowers"),
    (DISCRETE, {"chargePowers": None}, "chargePowers"),
    (DISCRETE, {"minChargePower": 11}, "chargePowerMax"),
    (DISCRETE, RANGE, "chargePowers"),
    (RANGE, {"chargePowers": [11]}, "chargePowers"),
    (RANGE, {"chargePowerMin": None}, "chargePowerMin"),
    (RANGE, {"maxChargePower": None}, "chargePowerMax"),
    (RANGE, {"chargePowerMin": None, "chargePowerMax": None}, "chargePowers"),
    (RANGE, {"chargePowerMin": 23}, "chargePowerMin"),
    (RANGE, {"chargePowerMax": 10.9}, "chargePowerMin"),
    (RANGE, {"dischargePowerMax": 10.9}, "dischargePowerMin"),
    ({**DISCRETE, "dischargePowers": [1]}, DISCHARGE, "dischargePowers"),
    ({**DISCRETE, **DISCHARGE}, {"dischargePowers": [1]}, "dischargePowers"),
    (DISCRETE, {"chargePowers": [0]}, "chargePowers"),
    (DISCRETE, {"chargePowers": [None]}, "chargePowers"),
    (RANGE, {"chargePowerMin": []}, "chargePowerMin"),
    (DISCRETE, {"colour": None}, "colour"),
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("before", "patch", "after"), PATCHES)
def test_patch_merges_and_then_checks_the_merged_entity(
    client: httpx.Client,
    kind: str,
    before: dict[str, Any],
    patch: dict[str, Any],
    after: dict[str, Any] | str,
) -> None:
    path, whole = f"/{kind}/E1", BASE[kind] | before
    assert client.put(path, json=whole).status_code == 201
    answer = client.patch(path, json=patch)
    if isinstance(after, str):
        assert refused_parameter(answer) == after
        after = {}
    else:
        assert (answer.status_code, answer.content) == (200, b"")
    merged = {name: value for name, value in (whole | after).items() if value is not None}
    assert client.get(path).json() == {"id": "E1", **merged}


def test_patch_moves_and_removes_a_place_but_never_half_of_it(client: httpx.Client) -> None:
    place = {"latitude": 1, "longitude": 2}
    assert client.put("/chargers/E1", json=DISCRETE | place).status_code == 201
    assert client.patch("/chargers/E1", json={"longitude": 3}).status_code == 200
    assert client.get("/chargers/E1").json()["longitude"] == 3
    for half, other in (("latitude", "longitude"), ("longitude", "latitude")):
        answer = client.patch("/chargers/E1", json={half: None})
        assert message(answer) == (
            f"Parameter {{{half}}} is invalid. It must be given together with {other}."
        )
    both = client.patch("/chargers/E1", json={"latitude": None, "longitude": None})
    assert both.status_code == 200
    assert client.get("/chargers/E1").json() == {"id": "E1", **DISCRETE}


def test_patch_cannot_take_the_capacity_from_a_vehicle(client: httpx.Client) -> None:
    assert client.put("/vehicles/E1", json=BASE["vehicles"] | DISCRETE).status_code == 201
    assert refused_parameter(client.patch("/vehicles/E1", json={"chargeCapacity": None})) == (
        "chargeCapacity"
    )
    assert client.patch("/vehicles/E1", json={"chargeCapacity": 80}).status_code == 200


@pytest.mark.parametrize("kind", KINDS)
def test_patch_of_what_does_not_exist_is_404_but_a_bad_body_is_400_before_that(
    client: httpx.Client, kind: str
) -> None:
    answer = client.patch(f"/{kind}/nobody", json={"chargePowers": [1]})
    assert (answer.status_code, message(answer)) == (404, "Not Found")
    assert client.patch(f"/{kind}/nobody", json={"colour": 1}).status_code == 400
    assert client.get(f"/{kind}/nobody").status_code == 404


# The names that the reference's examples use ----------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_the_other_names_are_accepted_and_never_answered(client: httpx.Client, kind: str) -> None:
    sent = {"minChargePower": 1, "maxChargePower": 2, "minDischargePower": 3,
            "maxDischargePower": 4}  # fmt: skip
    assert client.put(f"/{kind}/E1", json=BASE[kind] | sent).status_code == 201
    expected = {dict(ALIASES)[name]: value for name, value in sent.items()}
    assert client.get(f"/{kind}/E1").json() == {"id": "E1", **BASE[kind], **expected}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("alias", "name"), ALIASES)
def test_a_member_under_both_of_its_names_is_refused_whatever_the_order(
    client: httpx.Client, kind: str, alias: str, name: str
) -> None:
    for members in ({alias: 11, name: 11}, {name: 11, alias: 11}):
        answer = client.put(f"/{kind}/E1", json=BASE[kind] | members)
        assert message(answer) == (
            f"Parameter {{{alias}}} is invalid. It is another name of {name}: only one of them "
            "may be given."
        )
        assert client.patch(f"/{kind}/E1", json=members).status_code == 400


@pytest.mark.parametrize("kind", KINDS)
def test_a_bad_value_is_named_as_it_was_sent(client: httpx.Client, kind: str) -> None:
    answer = client.put(f"/{kind}/E1", json={"minChargePower": "11"})
    assert refused_parameter(answer) == "minChargePower"


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        ("a\nb", "a\\nb"),
        ("é€😀", "\\xe9\\u20ac\\U0001f600"),
        ("x" * 5000, "x" * 100),
        ("", ""),
    ],
)
def test_a_name_that_somebody_made_up_is_shown_safely(
    client: httpx.Client, sent: str, shown: str
) -> None:
    answer = client.put("/chargers/E1", json={sent: 1})
    assert answer.status_code == 400
    assert message(answer) == (
        f"Parameter {{{shown}}} is invalid. It is not a member of a charger."
    )


def test_a_patch_that_does_not_go_with_what_is_stored_names_that(client: httpx.Client) -> None:
    client.put("/chargers/C1", json={"chargePowers": [11], "dischargePowers": [11]})
    for use in ("charge", "discharge"):
        both = {f"{use}PowerMin": 1, f"{use}PowerMax": 2}
        answer = client.patch("/chargers/C1", json=both)
        said = f"Parameter {{{use}Powers}} is invalid. It is stored: send null to remove it."
        assert message(answer) == said
        assert client.patch("/chargers/C1", json={**both, f"{use}Powers": None}).status_code == 200
        answer = client.patch("/chargers/C1", json={f"{use}Powers": [7]})
        assert message(answer) == (
            f"Parameter {{{use}Powers}} is invalid. {use}PowerMin and {use}PowerMax are stored: "
            "send null for both to remove them."
        )
        nulls = dict.fromkeys(both)
        answer = client.patch("/chargers/C1", json={f"{use}Powers": [7], **nulls})
        assert answer.status_code == 200
