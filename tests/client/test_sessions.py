"""Sessions and live states through both clients, on both databases."""

import asyncio
import random
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from itertools import islice

import pytest

from tests.client.devices import CHARGER, create_fleet
from tests.client.scripted import Reply, ScriptedServer
from tests.conftest import Server
from tether.client import (
    AsyncClient,
    Charger,
    Client,
    Conflict,
    EnergySource,
    Event,
    Invalid,
    NotFound,
    Session,
    SessionStatus,
    UnexpectedAnswer,
)
from tether.client import following as following_module
from tether.domain import views

NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)


def event(kind: str, minute: float, vehicle: str = "V1", **measured: float) -> Event:
    """An event so many minutes after noon."""
    return Event(
        type=f"VEHICLE_{kind}",
        charger_id=CHARGER,
        vehicle_id=vehicle,
        timestamp=NOON + timedelta(minutes=minute),
        **measured,  # type: ignore[arg-type]
    )


def session_events(minute: float, vehicle: str = "V1") -> list[Event]:
    """The events of a session of half an hour that charges 5 kWh in 20 minutes."""
    return [
        event("CONNECTED", minute, vehicle, state_of_charge=20),
        event("CHARGE_STARTED", minute + 1, vehicle, charge_power=11),
        event("CHARGE_STOPPED", minute + 21, vehicle, charged_energy=5, charged_time=1200),
        event("DISCONNECTED", minute + 30, vehicle, state_of_charge=30),
    ]


def test_states_are_typed_and_include_the_newest_events(sdk: Client) -> None:
    nothing = sdk.vehicles.state("V1")
    assert (nothing.vehicle_id, nothing.plugged_in, nothing.last_event) == ("V1", False, None)
    for reported in session_events(0)[:2]:
        last = sdk.events.post(reported)
        known = sdk.vehicles.state("V1").last_event
        assert known is not None
        assert known.id == last
    vehicle, charger = sdk.vehicles.state("V1"), sdk.chargers.state(CHARGER)
    assert isinstance(vehicle, views.VehicleState)
    assert isinstance(charger, views.ChargerState)
    assert (vehicle.charger_id, vehicle.charging) == (CHARGER, True)
    assert (vehicle.charge_power, vehicle.state_of_charge) == (Decimal(11), Decimal(20))
    assert vehicle.plugged_in_since == "2026-01-05T12:00:00.000Z"
    assert [one.vehicle_id for one in charger.vehicles] == ["V1"]
    for get in (sdk.vehicles.state, sdk.chargers.state):
        for id in ("nobody", "", ".."):
            with pytest.raises(NotFound):
                get(id)


def test_lists_come_with_states(sdk: Client) -> None:
    fleet = create_fleet(sdk, 5)
    sdk.events.post(event("CONNECTED", 0, "V3"))
    pairs = list(sdk.vehicles.list_with_state(page_size=2))
    assert [vehicle.id for vehicle, _ in pairs] == [state.vehicle_id for _, state in pairs] == fleet
    assert [vehicle for vehicle, _ in pairs] == list(sdk.vehicles.list())
    assert [state.vehicle_id for _, state in pairs if state.plugged_in] == ["V3"]
    ((charger, state),) = sdk.chargers.list_with_state()
    assert (charger, state.occupied) == (sdk.chargers.get(CHARGER), True)


def test_sessions_are_typed_and_found_by_their_filters(sdk: Client) -> None:
    create_fleet(sdk, 2)
    sdk.chargers.put(Charger(id="C2", charge_powers=[11]))
    sdk.events.bulk(
        session_events(0)
        + session_events(60)
        + session_events(30, "V2")
        + session_events(90, "V2")[:1]
    )
    everything = list(sdk.sessions.list(page_size=1))
    assert [session.vehicle_id for session in everything] == ["V1", "V2", "V1", "V2"]
    first = everything[0]
    assert isinstance(first, views.Session)
    assert sdk.sessions.get(first.id) == first
    (period,) = first.periods
    assert (first.status, period.energy_source) == (SessionStatus.ENDED, EnergySource.REPORTED)
    assert (first.charged_energy, first.plugged_time) == (Decimal(5), Decimal(1800))
    assert list(sdk.sessions.list(vehicle_id="V2")) == everything[1::2]
    assert list(sdk.sessions.list(charger_id="C2")) == []
    assert list(sdk.sessions.list(status="active")) == everything[3:]
    assert list(sdk.sessions.list(status="ended", vehicle_id="V2")) == everything[1:2]
    within = sdk.sessions.list(from_=NOON + timedelta(minutes=30), to="2026-01-05T13:00:00Z")
    assert list(within) == everything[1:2]
    assert list(sdk.sessions.list(order="desc", page_size=3)) == everything[::-1]
    assert list(sdk.sessions.list(vehicle_id=["V2", "V1"], page_size=1)) == everything
    assert list(sdk.sessions.list(vehicle_id=("V2", "V9"), charger_id={"C1"})) == everything[1::2]
    until_one = NOON + timedelta(minutes=60)
    assert list(sdk.sessions.list(ended_from=NOON, ended_to=until_one)) == everything[:1]
    there = sdk.sessions.list(overlapping_from=until_one, overlapping_to="2026-01-05T13:00:01Z")
    assert list(there) == everything[2:3]
    assert list(sdk.sessions.list(estimated=False)) == everything
    assert list(sdk.sessions.list(estimated=True, flag="connect-missing")) == []
    changed = sdk.sessions.list(updated_from="2020-01-01T00:00:00Z", page_size=3)
    assert sorted(session.id for session in changed) == sorted(one.id for one in everything)
    with pytest.raises(NotFound):
        sdk.sessions.get("nothing")
    with pytest.raises(Invalid) as caught:
        next(sdk.sessions.list(status="ended", updated_from=NOON))
    assert caught.value.parameter == "status"
    with pytest.raises(Invalid) as caught:
        next(sdk.sessions.list(charger_id=[]))
    assert caught.value.parameter == "chargerId"
    beyond = datetime.max.replace(tzinfo=timezone(timedelta(hours=-1)))
    for instant in (beyond, beyond.isoformat()):
        with pytest.raises(Invalid) as caught:
            next(sdk.sessions.list(from_=instant))
        assert caught.value.parameter == "from"


def test_a_session_whose_unplug_was_lost_is_found_and_ended(sdk: Client) -> None:
    create_fleet(sdk, 4)
    sdk.events.bulk([
        *session_events(0)[:3],  # the last event is 21 minutes after noon, without an unplug
        *session_events(0, "V2"),
        *session_events(5, "V3")[:1], event("CHARGE_UPDATED", 600, "V3", state_of_charge=30),
        *session_events(30, "V4")[:1],
    ])  # fmt: skip
    lost, heard, young = sdk.sessions.list(status="active")
    assert (lost.last_event_at, heard.last_event_at) == (
        "2026-01-05T12:21:00.000Z", "2026-01-05T22:00:00.000Z",
    )  # fmt: skip

    def silent_since(minute: float, **of: str) -> list[Session]:
        return list(
            sdk.sessions.silent_since(NOON + timedelta(minutes=minute), page_size=1, **of)  # type: ignore[arg-type]
        )

    assert silent_since(21) == []
    assert silent_since(21.001) == [lost]
    assert silent_since(31) == [lost, young]
    assert silent_since(31, vehicle_id="V4") == [young]
    assert silent_since(601) == [lost, heard, young]
    with pytest.raises(Invalid):
        next(sdk.sessions.silent_since("yesterday"))

    for minute in (-1, 20.999):
        with pytest.raises(Invalid) as refused:
            sdk.sessions.end(lost.id, at=NOON + timedelta(minutes=minute))
        assert refused.value.parameter == "at"
        assert "before 2026-01-05T12:21:00.000Z" in refused.value.message
    with pytest.raises(Invalid) as refused:
        sdk.sessions.end(lost.id, at="2999-01-01T00:00:00Z")
    assert refused.value.parameter == "timestamp"
    at = NOON + timedelta(minutes=21)  # the instant of the newest event
    would = sdk.sessions.ending(lost.id, at=at)
    assert (would.type, would.charger_id, would.vehicle_id, would.timestamp) == (
        "VEHICLE_DISCONNECTED", CHARGER, "V1", "2026-01-05T12:21:00.000Z",
    )  # fmt: skip
    assert sdk.sessions.get(lost.id) == lost  # nothing was sent
    ended = sdk.sessions.end(lost.id, at=at)
    assert ended == sdk.sessions.get(lost.id)
    assert (ended.status, ended.disconnected_at, ended.last_event_at, ended.charged_energy) == (
        "ended", would.timestamp, None, Decimal(5),
    )  # fmt: skip
    assert silent_since(31) == [young]
    for id in (lost.id, next(sdk.sessions.list(vehicle_id="V2")).id):
        with pytest.raises(Conflict) as over:
            sdk.sessions.end(id, at=NOON + timedelta(minutes=40))
        assert "ended already, at 2026-01-05T12:" in over.value.message
    with pytest.raises(NotFound):
        sdk.sessions.end("nothing", at=at)


def test_an_unplug_that_ends_another_session_raises(sdk: Client) -> None:
    """A vehicle with less charge was away: this unplug belongs to the session before."""
    sdk.events.bulk([
        event("CONNECTED", 0, state_of_charge=80),
        event("CONNECTED", 60, state_of_charge=20),
    ])  # fmt: skip
    _, second = sdk.sessions.list()
    with pytest.raises(Conflict, match="end it at a later time"):
        sdk.sessions.end(second.id, at=NOON + timedelta(minutes=60))
    assert sdk.sessions.end(second.id, at=NOON + timedelta(minutes=61)).plugged_time == 60


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages of five sessions, so that there are many pages."""
    monkeypatch.setattr(following_module, "PAGE_SIZE", 5)


# Changes ----------------------------------------------------------------------------------------


def apply(copy: dict[str, Session], session: Session) -> None:
    """Applies a change, as a consumer does."""
    known = copy.get(session.id)
    assert known is None or known.version < session.version
    copy[session.id] = session


def check(copy: dict[str, Session], client: Client) -> None:
    """The consumer has exactly the sessions of the server."""
    there = {id: one for id, one in copy.items() if one.status is not SessionStatus.REMOVED}
    assert there == {session.id: session for session in client.sessions.list(page_size=1000)}


def until_quiet(changes: Iterator[Session], client: Client) -> Iterator[Session]:
    """The changes up to the last one of the test."""
    next(
        client.sessions.list(page_size=1)
    )  # sessions that are derived together are ordered by their ids
    client.events.post(event("CONNECTED", 10_000, "V9"))
    for session in changes:
        yield session
        if session.vehicle_id == "V9":
            return


@pytest.mark.usefixtures("small_pages")
def test_a_consumer_that_was_down_misses_nothing_while_late_events_arrive(
    server: Server, key: str
) -> None:
    chance = random.Random(8)
    with Client(server.url, key) as client:
        create_fleet(client, 9)
        reports = [
            one for number in range(60) for one in session_events(number * 40, f"V{number % 6 + 1}")
        ]
        chance.shuffle(reports)  # so that most events are late, and sessions appear and disappear

        def report() -> None:
            for place in range(0, len(reports), 16):
                client.events.bulk(reports[place : place + 16])
                next(client.sessions.list(page_size=1))  # waits until all is derived
            written.set()

        written = threading.Event()  # so that the consumer does not wait for ever
        writer = threading.Thread(target=report)
        writer.start()
        copy: dict[str, Session] = {}
        cursor: str | None = None
        while writer.is_alive():
            with Client(server.url, key) as consumer:
                changes = consumer.sessions.changes(cursor, poll_s=0.01, stop=written)
                assert cursor in (None, changes.cursor)
                for session in islice(changes, chance.randrange(1, 25)):
                    apply(copy, session)
                cursor = changes.cursor  # the consumer stops here
            client.events.post(event("CONNECTED", chance.randrange(2400) + 0.5, "V8"))
        writer.join()
        for session in until_quiet(client.sessions.changes(cursor, poll_s=0.01), client):
            apply(copy, session)
        check(copy, client)
        assert SessionStatus.REMOVED in {session.status for session in copy.values()}


@pytest.mark.usefixtures("small_pages")
def test_changes_can_continue_after_every_session_of_the_same_instant(sdk: Client) -> None:
    create_fleet(sdk, 9)
    sdk.events.bulk(event("CONNECTED", 0, f"V{number}") for number in range(1, 9))
    changes = sdk.sessions.changes(poll_s=0.01)
    cursors = [changes.cursor, *(changes.cursor for _ in islice(changes, 8))]
    assert len(set(cursors)) == 9
    everything = list(sdk.sessions.list(updated_from="2000-01-01T00:00:00Z"))
    for place, cursor in enumerate(cursors):
        rest = islice(sdk.sessions.changes(cursor, poll_s=0.01), 8 - place)
        assert list(rest) == everything[place:]
    # A session that changes again comes again, at the end.
    sdk.events.post(event("DISCONNECTED", 5, everything[6].vehicle_id))
    sdk.sessions.get(everything[6].id)  # waits until all is derived: a follower does not wait
    rest = islice(sdk.sessions.changes(cursors[3], poll_s=0.01), 5)
    assert [session.id for session in rest] == [
        one.id for one in [*everything[3:6], everything[7], everything[6]]
    ]
    changed = sdk.sessions.get(everything[6].id)
    late = sdk.sessions.changes(updated_from=changed.updated_at, poll_s=0.01)
    assert next(late) == changed


@pytest.mark.parametrize("cursor", ["", "x", "2026-01-05T12:00:00.000Z", "0.MTIz", "/"])
def test_a_wrong_cursor_is_refused(sdk: Client, cursor: str) -> None:
    with pytest.raises(Invalid) as caught:
        sdk.sessions.changes(cursor)
    assert caught.value.parameter == "cursor"


def test_the_async_client_has_sessions_and_states(server: Server, key: str) -> None:
    async def use() -> None:
        async with AsyncClient(server.url, key) as sdk:
            await sdk.events.bulk(session_events(0) + session_events(60)[:2])
            sessions = [session async for session in sdk.sessions.list(page_size=1)]
            assert [session.status for session in sessions] == ["ended", "active"]
            assert await sdk.sessions.get(sessions[0].id) == sessions[0]
            assert (await sdk.vehicles.state("V1")).session_id == sessions[1].id
            assert (await sdk.chargers.state(CHARGER)).charging
            pairs = [pair async for pair in sdk.vehicles.list_with_state()]
            assert [(vehicle.id, state.plugged_in) for vehicle, state in pairs] == [("V1", True)]
            stop = asyncio.Event()
            found: list[str] = []
            changes = sdk.sessions.changes(updated_from=NOON, poll_s=0.01, stop=stop)
            async for session in changes:
                found.append(session.id)
                if len(found) == 2:
                    await sdk.events.post(event("CHARGE_STOPPED", 70))
                if len(found) == 3:
                    stop.set()
            assert found[2] == sessions[1].id
            again = sdk.sessions.changes(changes.cursor, poll_s=0.01)
            await sdk.events.post(event("DISCONNECTED", 80))
            async for session in again:
                assert session.version > sessions[1].version
                break

    with Client(server.url, key) as client:
        create_fleet(client, 1)
    asyncio.run(asyncio.wait_for(use(), 20))


@pytest.mark.parametrize("body", [b"[{}]", b'[{"id": 1, "state": {}}]', b"{}"])
def test_malformed_sessions_and_states_raise(body: bytes) -> None:
    with ScriptedServer(Reply(200, body)) as server, Client(server.url, "key", retries=0) as client:
        with pytest.raises(UnexpectedAnswer):
            next(client.sessions.list())
        with pytest.raises(UnexpectedAnswer):
            next(client.vehicles.list_with_state())
