"""The OpenAPI document against the server, with requests that Schemathesis generates from it.

It sends good and bad requests for every operation, and chains of them along the document's links.
It checks that status, headers, types and bodies are those of the document, that bad requests are
refused, and that keys are needed where the document says so. We add one check: a schema cannot
express every rule, so a refusal of a request that fits the schema must be one of those below.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import Case, GenerationMode
from schemathesis.core.result import Ok
from schemathesis.core.transport import Response
from schemathesis.specs.openapi.checks import (
    negative_data_rejection,
    positive_data_acceptance,
)

from tests.api.helpers import ON_ONE_ENGINE, create_both, create_event, openapi_document
from tests.conftest import Server

pytestmark = ON_ONE_ENGINE

# What the document says in words only: a good request may be refused for these and nothing else.
BEYOND_THE_SCHEMA = re.compile(
    r"must be the id in the path|must not be above|more than 24 hours in the future"
    r"|at most 15 significant digits|one that a Link header of this list gave|RFC 3339 date-time"
    r"|must be given together with|cannot be given together with|must be given\.$"
    r"|must not be in the future|must be given together\.|can only be given together with"
    r"|must not be before the year 2000|must be before to"
    r"|there are at most 1000 moments|Longitudes must be|stored: send null"
    r"|must be the name of a time zone|must be asc together with|must not be after"
    r"|must be now, start, or a cursor|from before the database was restored"
    r"|must begin with https|must have no fragment|must have no name and password"
    r"|must have a host name or an address|must be an address such as"
)

SCHEMA = schemathesis.openapi.from_dict(openapi_document())
ENDLESS = "/stream"  # nobody could wait for the end of its answer: test_stream.py
FOUND = [
    found.ok()
    for found in SCHEMA.exclude(path=ENDLESS).get_all_operations()
    if isinstance(found, Ok)
]
OPERATIONS = {operation.label: operation for operation in FOUND}
MODES = {"good": GenerationMode.POSITIVE, "bad": GenerationMode.NEGATIVE}


def profile(max_examples: int, steps: int = 1) -> settings:
    return settings(
        max_examples=max_examples,
        stateful_step_count=steps,
        derandomize=True,
        database=None,
        deadline=None,
        phases=(Phase.explicit, Phase.generate),
        suppress_health_check=list(HealthCheck),
    )


def keep_inside(case: Case[Any]) -> None:
    """The addresses of webhooks get a host name that does not exist."""
    body = case.body
    if case.operation.path.startswith("/webhooks") and isinstance(body, dict):
        url = body.get("url")
        if isinstance(url, str) and url.startswith(("https://", "http://")):
            body["url"] = "https://hook.invalid/"


def check(response: Response, case: Case[Any]) -> None:
    if b"Invalid HTTP request received." in response.content:
        return  # it made up a header which HTTP itself forbids
    excluded: list[Callable[..., Any]] = [positive_data_acceptance]
    # These refuse each item by itself, inside a 200.
    if case.operation.path.endswith(("/bulk", "/withdraw")):
        excluded.append(negative_data_rejection)
    case.validate_response(response, excluded_checks=excluded)
    assert case.meta is not None
    if case.meta.generation.mode.is_positive and response.status_code in (400, 413, 415):
        text = response.json()["message"]
        assert BEYOND_THE_SCHEMA.search(text), (text, case.as_curl_command())


def _requests() -> Iterator[tuple[str, str]]:
    """Good requests for every operation, and bad ones if something in them can be bad."""
    for label, operation in OPERATIONS.items():
        yield label, "good"
        if operation.body or operation.query or operation.path_parameters:
            yield label, "bad"


@pytest.mark.parametrize(("label", "mode"), list(_requests()))
def test_every_operation_answers_good_and_bad_requests_as_the_document_says(
    shared: httpx.Client, label: str, mode: str
) -> None:
    operation = OPERATIONS[label]
    key = {"x-api-key": shared.headers["x-api-key"]}

    @profile(30)
    @given(case=operation.as_strategy(generation_mode=MODES[mode]))
    def conforms(case: Case[Any]) -> None:
        keep_inside(case)
        check(case.call(base_url=str(shared.base_url), headers=key), case)

    conforms()


@pytest.fixture(scope="module")
def furnished(server: Server) -> Iterator[tuple[httpx.Client, dict[str, str]]]:
    """A partner with data to read, and their ids; the session has flags and is active."""
    with server.client() as client:
        create_both(client)
        told: list[dict[str, object]] = [
            {"type": "VEHICLE_CONNECTED", "stateOfCharge": 22.0},
            {"type": "VEHICLE_CHARGE_STARTED", "chargePower": 30},
            {"type": "VEHICLE_CHARGE_STARTED", "chargePower": -11.5},
            {"type": "VEHICLE_CHARGE_UPDATED", "stateOfCharge": 21.5, "chargedEnergy": 80.1},
        ]
        for minute, members in enumerate(told):
            event = create_event(client, timestamp=f"2023-05-11T22:{minute:02}:00Z", **members)
        mistake = create_event(client, timestamp="2023-05-12T22:00:00Z")
        assert client.delete(f"/events/{mistake}").status_code == 204
        (session,) = client.get("/sessions").json()
        assert len(session["flags"]) >= 3
        ids = {"chargers": "C1", "vehicles": "V1", "events": event, "sessions": session["id"]}
        yield client, ids


@pytest.mark.parametrize("label", [one for one in OPERATIONS if re.match(
    r"GET /(chargers|vehicles|events|sessions)\b", one)])  # fmt: skip
def test_every_read_answers_with_what_there_is_as_the_document_says(
    furnished: tuple[httpx.Client, dict[str, str]], label: str
) -> None:
    operation, (client, ids) = OPERATIONS[label], furnished
    key = {"x-api-key": client.headers["x-api-key"]}

    @profile(10)
    @given(case=operation.as_strategy(generation_mode=GenerationMode.POSITIVE))
    def conforms(case: Case[Any]) -> None:
        if "id" in case.path_parameters:
            case.path_parameters["id"] = ids[label.split("/")[1]]
        else:
            case.query = {name: case.query[name] for name in ("include",) if name in case.query}
        response = case.call(base_url=str(client.base_url), headers=key)
        assert response.status_code in (200, 304)
        assert response.content != b"[]"
        check(response, case)

    conforms()


def test_chains_of_requests_along_the_links_answer_as_the_document_says(server: Server) -> None:
    fresh = schemathesis.openapi.from_dict(openapi_document()).exclude(path=ENDLESS)

    class Chains(fresh.as_state_machine()):  # type: ignore[misc]
        def setup(self) -> None:
            """Every chain begins with a new partner, so that it can be repeated."""
            self.key = server.key()

        def get_call_kwargs(self, case: Case[Any]) -> dict[str, Any]:
            keep_inside(case)
            return {"base_url": server.url, "headers": {"x-api-key": self.key}}

        def validate_response(self, response: Response, case: Case[Any], **_: Any) -> None:
            check(response, case)

    Chains.run(settings=profile(20, steps=6))
