"""`openapi.yaml` against derived data: members, words, flags, real examples."""

import re
from typing import Any

import httpx
import msgspec
import pytest

from tests.api.helpers import create_charger, create_vehicle
from tests.api.test_openapi import DOCUMENT, JSON, SCHEMAS, examples, operations, resolved
from tether.domain import views
from tether.domain.session_views import FLAGS

STRUCTS: list[type[msgspec.Struct]] = [
    views.Session,
    views.ChargePeriod,
    views.Flag,
    views.VehicleState,
    views.ChargerState,
    views.SessionSummary,
    views.EnergyStep,
]
TEXTS = {"vehicleId", "chargerId", "sessionId", "id", "name", "message"}


def type_in_words(field: msgspec.structs.FieldInfo) -> str:
    """The type that the schema must have for this member."""
    shown = str(field.type)
    for word, name in (
        ("tuple", "array"),
        ("Decimal", "number"),
        ("bool", "boolean"),
        ("int", "integer"),
        ("Event", "object"),
    ):
        if word in shown:
            return name
    return "string"


@pytest.mark.parametrize("struct", STRUCTS, ids=lambda struct: struct.__name__)
def test_a_schema_has_the_members_of_its_struct_and_their_types(
    struct: type[msgspec.Struct],
) -> None:
    schema = SCHEMAS[struct.__name__]
    fields = msgspec.structs.fields(struct)
    assert list(schema["properties"]) == [field.encode_name for field in fields]
    assert schema["required"] == [field.encode_name for field in fields if field.required]
    assert schema["additionalProperties"] is False
    for field in fields:
        member = resolved(schema["properties"][field.encode_name])
        type_ = member.get("type", "object" if "oneOf" in member else None)
        assert type_ == type_in_words(field), field.name
        if field.encode_name.endswith(("At", "Since", "asOf")):
            assert member["pattern"] == SCHEMAS["StoredInstant"]["pattern"]
        if type_ == "number":
            assert re.search(r"\bin (kWh?|s|%)|How old", member["description"]), field.name


def test_lists_show_what_get_shows_and_the_state() -> None:
    for name in ("Charger", "Vehicle"):
        alone, listed = SCHEMAS[name], SCHEMAS[f"{name}Listed"]
        state = {"state": {"$ref": f"#/components/schemas/{name}State"}}
        assert listed["properties"] == alone["properties"] | state
        rules = {"required", "dependentRequired", "dependentSchemas", "if", "then", "else"}
        assert {rule: listed[rule] for rule in rules} == {rule: alone[rule] for rule in rules}


def test_the_words_of_status_and_source_are_those_of_the_model() -> None:
    assert SCHEMAS["SessionStatus"]["enum"] == list(views.SessionStatus)
    assert SCHEMAS["EnergySource"]["enum"] == list(views.EnergySource)


def test_every_flag_is_listed_with_its_sentence() -> None:
    table = re.findall(r"^\| `(.+)` \| (.+) \|$", SCHEMAS["Flag"]["description"], re.MULTILINE)
    assert dict(table) == FLAGS
    name = SCHEMAS["Flag"]["properties"]["name"]
    assert all(re.fullmatch(name["pattern"], flag) for flag in FLAGS)


def test_what_the_reference_does_not_have_is_marked() -> None:
    for path, method, operation in operations():
        if "sessions" in path or path.endswith("/state"):
            assert operation["x-addition"] is True, (path, method)
            assert operation["x-badges"] == [{"name": "Addition"}]
            said = "*Addition: the public Partner API does not have this call.*"
            assert said in operation["description"]
            assert "404" in operation["responses"] or "{id}" not in path


# The examples are what comes of the documented events -------------------------------------------


def without_what_varies(value: Any) -> Any:
    """Without ids of events, and what depends on the moment."""
    if isinstance(value, list):
        return [without_what_varies(one) for one in value]
    if not isinstance(value, dict):
        return value
    varies = {"asOf", "updatedAt", "version"}
    return {
        name: "…" if name in varies or name.endswith("Age") or (name == "id" and "type" in value)
        else without_what_varies(member)
        for name, member in value.items()
    }  # fmt: skip


def documented(path: str) -> dict[str, Any]:
    media = DOCUMENT["paths"][path]["get"]["responses"]["200"]["content"][JSON]
    found = {name: example["value"] for name, example in media.get("examples", {}).items()}
    return without_what_varies(found or {"": media["example"]})  # type: ignore[no-any-return]


def test_the_examples_are_what_comes_of_the_documented_events(client: httpx.Client) -> None:
    create_charger(client, "C1408")
    create_vehicle(client, "V0313")
    answers: dict[str, list[Any]] = {}

    def look() -> None:
        (session,) = client.get("/sessions").json()
        for path in ("/vehicles/V0313/state", "/chargers/C1408/state", f"/sessions/{session['id']}",
                     "/sessions"):  # fmt: skip
            answers.setdefault(path, []).append(without_what_varies(client.get(path).json()))

    unknown = without_what_varies(client.get("/vehicles/V0313/state").json())
    for body in examples(DOCUMENT["paths"]["/events"]["post"]["requestBody"]["content"][JSON]):
        assert client.post("/events", json=body).status_code == 201
        if body["type"] in ("VEHICLE_CHARGE_UPDATED", "VEHICLE_DISCONNECTED"):
            look()
    vehicle, charger, session, listed = answers.values()
    assert documented("/vehicles/{id}/state") == {
        "charging": vehicle[0], "unplugged": vehicle[1], "unknown": unknown,
    }  # fmt: skip
    assert documented("/chargers/{id}/state") == {"charging": charger[0], "free": charger[1]}
    assert documented("/sessions/{id}") == {"active": session[0], "ended": session[1]}
    assert documented("/sessions") == {"": listed[1]}
    assert client.get("/vehicles?include=state").json()[0]["state"]["vehicleId"] == "V0313"
