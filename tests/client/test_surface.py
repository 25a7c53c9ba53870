"""All methods of the blocking client, on both databases."""

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest

from tests.client.devices import connected, update
from tests.conftest import Server
from tether.client import (
    AsyncClient,
    Charger,
    Client,
    Conflict,
    Event,
    Forbidden,
    Invalid,
    NotFound,
    PreconditionFailed,
    Saved,
    TetherError,
    Vehicle,
)
from tether.domain import models
from tether.domain.keys import Rate


def test_chargers(sdk: Client) -> None:
    charger = Charger(
        id="a:b*c", charge_power_min="7.40", charge_power_max=22, latitude=52.1, longitude=4
    )
    first = sdk.chargers.put(charger)
    assert first == Saved(created=True, etag=sdk.chargers.get_with_etag("a:b*c")[1])
    found = sdk.chargers.get("a:b*c")
    assert isinstance(found, models.Charger)
    assert str(found.charge_power_min) == "7.40"
    assert found.latitude == Decimal("52.1")
    second = sdk.chargers.put(charger)
    assert (second.created, second.etag != first.etag) == (False, True)
    assert sdk.chargers.patch("a:b*c", charge_power_max=11.5, latitude=None, longitude=None)
    found, etag = sdk.chargers.get_with_etag("a:b*c")
    assert (found.charge_power_max, found.latitude) == (Decimal("11.5"), None)
    with pytest.raises(PreconditionFailed) as caught:
        sdk.chargers.put(charger, if_match=second.etag)
    assert (caught.value.status, caught.value.unsure) == (412, False)
    patched = sdk.chargers.patch("a:b*c", if_match=etag, charge_power_min=5)
    assert patched.etag == sdk.chargers.get_with_etag("a:b*c")[1]


def test_vehicles(sdk: Client) -> None:
    vehicle = Vehicle(id="V2", charge_capacity=74.8, charge_powers=[11, "22.0"])
    assert sdk.vehicles.put(vehicle).created
    found = sdk.vehicles.get("V2")
    assert isinstance(found, models.Vehicle)
    assert [str(power) for power in found.charge_powers] == ["11", "22.0"]
    sdk.vehicles.patch("V2", charge_powers=(), charge_power_min=1, charge_power_max=2)
    assert sdk.vehicles.get("V2").charge_powers == ()
    assert [found.id for found in sdk.vehicles.list()] == ["V1", "V2"]


def test_lists_follow_their_pages(sdk: Client) -> None:
    ids = sorted(f"L{number:03}" for number in range(25))
    for id in ids:
        sdk.chargers.put(Charger(id=id, charge_powers=[11]))
    assert [charger.id for charger in sdk.chargers.list(page_size=4)] == ["C1", *ids]
    events = [sdk.events.post(connected()) for _ in range(10)]
    assert [event.id for event in sdk.events.list(page_size=5)] == events
    newest_first = sdk.events.list(page_size=3, order="desc")
    assert [event.id for event in newest_first] == events[::-1]


def test_events_and_their_filters(sdk: Client) -> None:
    noon = datetime(2026, 1, 2, 12, tzinfo=UTC)
    sdk.vehicles.put(Vehicle(id="V+2", charge_capacity=50, charge_powers=[11]))
    for hour, vehicle in enumerate(["V1", "V+2", "V1"]):
        moment = noon + timedelta(hours=hour)
        shown = moment if hour else moment.astimezone(timezone(timedelta(hours=5)))
        sdk.events.post(
            Event(
                type="VEHICLE_CHARGE_STOPPED",
                charger_id="C1",
                vehicle_id=vehicle,
                state_of_charge=58.3,
                timestamp=shown,
            )
        )
    first, *_ = list(sdk.events.list())
    assert first.timestamp == "2026-01-02T12:00:00.000Z"
    assert first.time == noon
    assert str(first.state_of_charge) == "58.3"
    assert first.id is not None
    assert sdk.events.get(first.id) == first
    assert len(list(sdk.events.list(vehicle_id="V+2", charger_id="C1"))) == 1
    assert len(list(sdk.events.list(type="VEHICLE_CONNECTED"))) == 0
    within = sdk.events.list(from_="2026-01-02T14:00:00+02:00", to=noon + timedelta(hours=1))
    assert [event.timestamp for event in within] == [first.timestamp]


def test_an_event_that_was_read_can_be_posted_again(sdk: Client) -> None:
    event_id = sdk.events.post(update(1))
    assert sdk.events.post(sdk.events.get(event_id)) == event_id


def test_events_without_a_timestamp_are_all_different(sdk: Client) -> None:
    ids = {sdk.events.post(connected()) for _ in range(20)}
    results = sdk.events.bulk(connected() for _ in range(500))
    assert len(ids | {result.id for result in results}) == 520


def test_bulk_has_a_result_for_each_event(sdk: Client) -> None:
    unknown = connected("nobody")
    bad = Event(
        type="VEHICLE_CONNECTED", charger_id="C1", vehicle_id="V1", state_of_charge=float("nan")
    )
    full = Event(type="VEHICLE_CONNECTED", charger_id="C1", vehicle_id="V1", state_of_charge=101)
    results = sdk.events.bulk([update(1), bad, unknown, update(2), full, update(3)])
    assert [result.status for result in results] == [201, 400, 409, 201, 400, 201]
    assert [result.ok for result in results] == [True, False, False, True, False, True]
    assert "{stateOfCharge}" in (results[1].message or "")
    assert "{vehicleId}" in (results[2].message or "")
    assert "{stateOfCharge}" in (results[4].message or "")
    stored = [event.id for event in sdk.events.list()]
    assert stored == [result.id for result in results if result.ok]
    again = sdk.events.bulk(result.event for result in results)
    assert [result.id for result in again] == [result.id for result in results]
    assert sdk.events.bulk([]) == []


def test_bulk_sends_more_than_fits_into_a_request(sdk: Client) -> None:
    count = 12_345
    results = sdk.events.bulk(update(number) for number in range(count))
    assert len(results) == count
    assert all(result.ok for result in results)
    stored = sdk.events.list(page_size=1000)
    assert [int(event.charged_energy or 0) for event in stored] == list(range(count))


def test_bulk_waits_for_the_rate_limit_and_keeps_the_order(server: Server) -> None:
    key = server.key(rate=Rate(200, 1))
    with Client(server.url, key) as sdk:
        sdk.chargers.put(Charger(id="C1", charge_powers=[11]))
        sdk.vehicles.put(Vehicle(id="V1", charge_capacity=50, charge_powers=[11]))
        results = sdk.events.bulk(update(number) for number in range(500))
        assert all(result.ok for result in results)
        stored = sdk.events.list(page_size=1000)
        assert [int(event.charged_energy or 0) for event in stored] == list(range(500))


def test_a_fleet_is_sent_in_one_call(sdk: Client) -> None:
    fleet = [Vehicle(id=f"B{n}", charge_capacity=350, charge_powers=[150]) for n in range(10_050)]
    wrong = Vehicle(id="B 1", charge_capacity=350, charge_powers=[150])
    results = sdk.vehicles.bulk([*fleet, wrong])
    assert [result.created for result in results] == [True] * 10_050 + [False]
    refused = results[-1]
    assert (refused.ok, refused.status, refused.parameter) == (False, 400, "id")
    (again,) = sdk.vehicles.bulk(fleet[:1])
    assert again.etag == sdk.vehicles.get_with_etag(fleet[0].id)[1] != results[0].etag
    assert sdk.vehicles.get("B10049").charge_capacity == 350
    (result,) = sdk.chargers.bulk([Charger(id="C2", charge_powers=["22.0"])])
    found, etag = sdk.chargers.get_with_etag("C2")
    assert (result.status, result.etag, str(found.charge_powers[0])) == (201, etag, "22.0")
    with pytest.warns(UserWarning, match="chargeCapacity"):
        (result,) = sdk.vehicles.bulk([Vehicle(id="W", charge_capacity=74_800, charge_powers=[11])])
    assert [doubt.parameter for doubt in result.warnings] == ["chargeCapacity"]


def test_errors_have_a_meaning(server: Server, sdk: Client) -> None:
    with pytest.raises(NotFound) as not_found:
        sdk.chargers.get("C2")
    assert (not_found.value.message, not_found.value.status) == ("Not Found", 404)
    assert not_found.value.request_id
    with pytest.raises(Invalid) as invalid:
        sdk.chargers.put(Charger(id="C2", charge_power_min=11))
    assert invalid.value.parameter == "chargePowerMax"
    with pytest.raises(Conflict, match="existing vehicle"):
        sdk.events.post(connected("V2"))
    with pytest.raises(NotFound):
        sdk.chargers.patch("C2", latitude=1, longitude=2)
    with Client(server.url, "ttr_live_nobodys") as stranger, pytest.raises(Forbidden):
        next(stranger.chargers.list())


@pytest.mark.parametrize("id", ["", ".", "..", "a/b", "a b", "%41", "é", "a" * 129])
def test_an_invalid_id_leads_to_no_other_path(sdk: Client, id: str) -> None:
    for get in (sdk.chargers.get, sdk.events.get):
        with pytest.raises(NotFound):
            get(id)
    with pytest.raises(Invalid) as caught:
        sdk.chargers.put(Charger(id=id, charge_powers=[11]))
    assert caught.value.parameter == "id"


@pytest.mark.parametrize("id", ["...", "a%b".replace("%", "+"), "~*@:-._"])
def test_every_id_can_be_used(sdk: Client, id: str) -> None:
    sdk.chargers.put(Charger(id=id, charge_powers=[11]))
    assert sdk.chargers.get(id).id == id


def test_patch_knows_the_fields(sdk: Client) -> None:
    with pytest.raises(TypeError, match="chargePowers"):
        sdk.chargers.patch("C1", chargePowers=[1])  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="Event is expected"):
        sdk.events.post({"type": "VEHICLE_CONNECTED"})  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="not one id"):
        sdk.events.withdraw_many("01a2023f-be90-768e-b3b4-4268a7fa0708")


def test_url_and_key_come_from_the_environment(
    server: Server, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TETHER_URL", server.url + "/")
    monkeypatch.setenv("TETHER_API_KEY", key + "\n")
    with Client() as client:
        assert list(client.chargers.list()) == []
    monkeypatch.delenv("TETHER_URL")
    assert repr(Client()) == "Client('http://127.0.0.1:8000')"
    monkeypatch.delenv("TETHER_API_KEY")
    with pytest.raises(TetherError, match="TETHER_API_KEY"):
        Client()


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf"), "30", None])
@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_a_client_always_has_a_time_out(
    kind: type[Client] | type[AsyncClient], seconds: Any
) -> None:
    with pytest.raises(TetherError, match="time-out"):
        kind("http://127.0.0.1:9", "key", timeout=seconds)


@pytest.mark.parametrize("url", ["tether.example.com", "ftp://a", "http://", "http://a:x", "/"])
def test_an_invalid_url_is_refused_at_once(url: str) -> None:
    with pytest.raises(TetherError, match="https://tether"):
        Client(url, "key")
