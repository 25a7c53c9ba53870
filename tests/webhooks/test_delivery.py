"""The messages to endpoints, their order, and what happens when endpoints fail."""

import asyncio
import base64
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from standardwebhooks.webhooks import Webhook as Oracle

from tests.conftest import Server
from tests.webhooks.receiver import Received, Receiver
from tether.domain.keys import digest_of
from tether.domain.timestamps import DAY_MS, now_ms
from tether.domain.webhooks import Attempt
from tether.server import retention
from tether.server.store import open_store

EVENT = {"type": "VEHICLE_CONNECTED", "chargerId": "C1", "vehicleId": "V1", "stateOfCharge": 40}


def add(client: httpx.Client, url: str, **members: Any) -> dict[str, Any]:
    answer = client.post("/webhooks", json={"url": url, **members})
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


def post(client: httpx.Client, **members: Any) -> str:
    answer = client.post("/events", json={**EVENT, **members})
    assert answer.status_code == 201, answer.text
    found: str = answer.json()["id"]
    return found


def ids_of(received: list[Received]) -> list[str]:
    return [one.id for one in received]


def wait(condition: Any, seconds: float = 60) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found


def test_a_change_counts_for_the_next_request(
    client: httpx.Client, receiver: Receiver, path: str
) -> None:
    began, may_end = threading.Event(), threading.Event()

    def answer(one: Received) -> None:
        if one.path == path:
            began.set()
            may_end.wait(60)

    receiver.answer = answer
    hook = add(client, receiver.url + path, types=["event.created"])
    ids = [post(client, type="VEHICLE_CHARGE_UPDATED", stateOfCharge=soc) for soc in range(40, 45)]
    began.wait(60)
    moved = {"url": f"{receiver.url}{path}-new"}
    client.patch(f"/webhooks/{hook['id']}", json=moved).raise_for_status()
    add(client, f"{receiver.url}{path}-other", types=["event.created"])
    post(client)
    receiver.wait_for(f"{path}-other", 1)  # so the server has looked for changes since
    may_end.set()
    received = receiver.wait_for(f"{path}-new", len(ids))
    assert ids_of(received)[: len(ids)] == [f"event_created_{id}" for id in ids]
    assert len(receiver.at(path)) == 1


def test_events_in_order_signed(client: httpx.Client, receiver: Receiver, path: str) -> None:
    hook = add(client, receiver.url + path, types=["event.created"])
    ids = [post(client, type="VEHICLE_CHARGE_UPDATED", stateOfCharge=soc) for soc in range(40, 60)]
    received = receiver.wait_for(path, 20)
    assert ids_of(received) == [f"event_created_{id}" for id in ids]
    oracle = Oracle(hook["secret"])
    for one, event_id in zip(received, ids, strict=True):
        message = oracle.verify(one.body, one.headers)
        assert message["type"] == "event.created"
        assert message["data"]["eventId"] == event_id
        assert message["data"]["event"] == client.get(f"/events/{event_id}").json()
    sequences = [one.message["data"]["sequence"] for one in received]
    assert sequences == sorted(set(sequences))
    assert len(receiver.at(path)) == 20


def test_the_asymmetric_signature(client: httpx.Client, receiver: Receiver, path: str) -> None:
    hook = add(client, receiver.url + path, types=["event.created"], signature="v1a")
    assert "secret" not in hook
    post(client)
    (one,) = receiver.wait_for(path, 1)
    kind, _, signature = one.headers["webhook-signature"].partition(",")
    assert kind == "v1a"
    key = Ed25519PublicKey.from_public_bytes(
        base64.b64decode(hook["publicKey"].removeprefix("whpk_"))
    )
    signed = f"{one.id}.{one.headers['webhook-timestamp']}.".encode() + one.body
    key.verify(base64.b64decode(signature), signed)


def test_sessions_and_states(client: httpx.Client, receiver: Receiver, path: str) -> None:
    kinds = [
        "session.started", "session.updated", "session.ended", "session.removed",
        "vehicle.state.changed", "charger.state.changed",
    ]  # fmt: skip
    add(client, receiver.url + path, types=kinds)

    def told(kind: str) -> list[Received]:
        return [one for one in receiver.at(path) if one.message["type"] == kind]

    post(client, timestamp="2026-01-01T10:00:00Z")
    (started,) = wait(lambda: told("session.started"))
    session = started.message["data"]["session"]
    assert session == client.get(f"/sessions/{session['id']}").json()
    assert wait(lambda: told("vehicle.state.changed"))[0].message["data"]["state"]["pluggedIn"]
    assert wait(lambda: told("charger.state.changed"))[0].message["data"]["state"]["occupied"]

    post(client, type="VEHICLE_DISCONNECTED", timestamp="2026-01-01T11:00:00Z")
    (ended,) = wait(lambda: told("session.ended"))
    assert ended.message["data"]["session"] == client.get(f"/sessions/{session['id']}").json()
    assert ended.message["data"]["version"] > started.message["data"]["version"]
    wait(lambda: not told("charger.state.changed")[-1].message["data"]["state"]["occupied"])
    wait(lambda: not told("vehicle.state.changed")[-1].message["data"]["state"]["pluggedIn"])


def test_a_session_of_before_that_goes_changes_no_state_of_its_vehicle(
    client: httpx.Client, receiver: Receiver, path: str
) -> None:
    kinds = ["session.ended", "session.removed", "vehicle.state.changed", "charger.state.changed"]
    add(client, receiver.url + path, types=kinds)

    def told(kind: str, id: str, version: int = 0) -> list[Received]:
        return [
            one for one in receiver.at(path)
            if one.message["type"] == kind and one.message["data"]["sessionId"] == id
            and one.message["data"]["version"] >= version
        ]  # fmt: skip

    def goes(id: str, events: list[str]) -> int:
        """Withdraws all events of a session; returns how many states of its vehicle were sent."""
        for event in reversed(events):  # it begins where it began until it is gone
            assert client.delete(f"/events/{event}").status_code == 204
        removed = wait(lambda: told("session.removed", id))[-1].message["data"]["version"]
        # Messages about its charger come after those about its vehicle.
        wait(lambda: told("charger.state.changed", id, removed))
        return len(told("vehicle.state.changed", id, removed))

    both = []
    for day in ("01", "02"):
        events = [
            post(client, type=f"VEHICLE_{kind}", timestamp=f"2026-01-{day}T1{hour}:00:00Z")
            for hour, kind in enumerate(("CONNECTED", "DISCONNECTED"))
        ]
        id = client.get("/sessions", params={"order": "desc", "limit": 1}).json()[0]["id"]
        wait(lambda id=id: told("session.ended", id))
        both.append((id, events))
    assert goes(*both[0]) == 0
    assert goes(*both[1]) > 0


def test_whoever_was_away_is_told_that_it_started(
    client: httpx.Client, receiver: Receiver, path: str
) -> None:
    hook = add(client, receiver.url + path, types=["session.started", "session.ended"],
               enabled=False)  # fmt: skip
    post(client, timestamp="2026-01-01T10:00:00Z")
    wait(lambda: client.get("/sessions").json())
    post(client, type="VEHICLE_DISCONNECTED", timestamp="2026-01-01T11:00:00Z")
    wait(lambda: client.get("/sessions").json()[0]["status"] == "ended")
    assert receiver.at(path) == []
    client.patch(f"/webhooks/{hook['id']}", json={"enabled": True}).raise_for_status()
    kinds = [one.message["type"] for one in receiver.wait_for(path, 2)]
    assert kinds == ["session.started", "session.ended"]


def test_filters(client: httpx.Client, receiver: Receiver, path: str) -> None:
    add(client, receiver.url + path, types=["event.created", "session.started"], vehicleId="V2")
    post(client)
    wanted = post(client, vehicleId="V2", chargerId="C2")
    receiver.wait_for(path, 2)
    post(client, type="VEHICLE_CHARGE_UPDATED")
    last = post(client, type="VEHICLE_CHARGE_UPDATED", vehicleId="V2", chargerId="C2")
    received = receiver.wait_for(path, 3)
    assert {one.message["data"]["vehicleId"] for one in received} == {"V2"}
    assert [one for one in ids_of(received) if one.startswith("event")] == [
        f"event_created_{wanted}", f"event_created_{last}",
    ]  # fmt: skip


def test_batches(client: httpx.Client, receiver: Receiver, path: str) -> None:
    hook = add(client, receiver.url + path, types=["event.created"], enabled=False, maxBatch=50)
    ids = [post(client, type="VEHICLE_CHARGE_UPDATED", stateOfCharge=soc) for soc in range(90)]
    client.patch(f"/webhooks/{hook['id']}", json={"enabled": True}).raise_for_status()
    wait(lambda: sum(len(one.message["data"]) for one in receiver.at(path)) >= 90)
    received = receiver.at(path)
    assert 2 <= len(received) < 10
    assert all(len(one.body) <= 20_000 for one in received)
    told = [message["id"] for one in received for message in one.message["data"]]
    assert told == [f"event_created_{id}" for id in ids]


def test_a_failure_is_tried_again(client: httpx.Client, receiver: Receiver, path: str) -> None:
    answers = [(500, {}, b"<b>no</b>"), (429, {"Retry-After": "1"}, b"")]
    receiver.answer = lambda one: answers.pop(0) if one.path == path and answers else None
    hook = add(client, receiver.url + path, types=["event.created"])
    first, second = post(client), post(client, type="VEHICLE_CHARGE_UPDATED")
    wait(lambda: receiver.at(path))
    shown = wait(lambda: (found := client.get(f"/webhooks/{hook['id']}").json())["status"]
                 == "failing" and found)  # fmt: skip
    assert shown["waitsFor"] == f"event_created_{first}"
    assert shown["backlog"]["events"] == 2
    received = receiver.wait_for(path, 4)
    assert ids_of(received) == [f"event_created_{id}" for id in (first, first, first, second)]
    attempts = wait(lambda: len(found := client.get(f"/webhooks/{hook['id']}/attempts").json())
                    == 4 and found)  # fmt: skip
    assert [one["succeeded"] for one in attempts] == [True, True, False, False]
    assert attempts[-1]["status"] == 500
    assert attempts[-1]["answer"] == "<b>no</b>"
    assert client.get(f"/webhooks/{hook['id']}").json()["status"] == "active"
    failed = client.get(f"/webhooks/{hook['id']}/attempts?failed=true&limit=1")
    assert len(failed.json()) == 1
    assert "next" in failed.headers["link"]


def test_a_session_is_removed_though_its_start_may_not_have_been_sent(
    client: httpx.Client, receiver: Receiver, path: str
) -> None:
    post(client, type="VEHICLE_CHARGE_STARTED", timestamp="2026-01-05T08:05:00Z")
    (session,) = client.get("/sessions").json()
    post(client, timestamp="2026-01-05T08:00:00Z")
    add(client, receiver.url + path, types=["session.removed"], **{"from": "start"})
    (removed,) = receiver.wait_for(path, 1)
    assert removed.id == f"session_removed_{session['id']}_2"


@pytest.mark.parametrize(
    ("pause", "least_s"),
    [
        ("999999", 3600),
        ("Fri, 31 Dec 2100 23:59:59 GMT", 3600),
        ("Fri, 31 Dec 2010 23:59:59 GMT", 5),
        ("soon", 5),
    ],
)
def test_retry_after_is_obeyed_up_to_an_hour(
    client: httpx.Client, receiver: Receiver, path: str, pause: str, least_s: float
) -> None:
    busy = (503, {"Retry-After": pause}, b"")
    receiver.answer = lambda one: busy if one.path == path else None
    hook = add(client, receiver.url + path, types=["event.created"])
    post(client)
    next_at = wait(lambda: client.get(f"/webhooks/{hook['id']}").json().get("nextTryAt"))
    first = wait(lambda: client.get(f"/webhooks/{hook['id']}/attempts").json())[-1]
    waits = datetime.fromisoformat(next_at) - datetime.fromisoformat(first["at"])
    assert 0.9 * least_s <= waits.total_seconds() < 3700


def test_410_ends_it_and_a_test_begins_again(
    client: httpx.Client, receiver: Receiver, path: str
) -> None:
    gone = [True]
    receiver.answer = lambda one: (410, {}, b"") if one.path == path and gone else None
    hook = add(client, receiver.url + path, types=["event.created"])
    first = post(client)
    wait(lambda: client.get(f"/webhooks/{hook['id']}").json()["status"] == "gone")
    outcome = client.post(f"/webhooks/{hook['id']}/test").json()
    assert not outcome["succeeded"]
    assert outcome["status"] == 410
    gone.clear()
    outcome = client.post(f"/webhooks/{hook['id']}/test").json()
    assert outcome["succeeded"], outcome
    wait(lambda: ids_of(receiver.at(path)).count(f"event_created_{first}") == 2)
    assert client.get(f"/webhooks/{hook['id']}").json()["status"] == "active"


def test_redirects_are_not_followed(client: httpx.Client, receiver: Receiver, path: str) -> None:
    elsewhere = {"Location": f"{receiver.url}{path}/elsewhere"}
    receiver.answer = lambda one: (307, elsewhere, b"") if one.path == path else None
    hook = add(client, receiver.url + path, types=["event.created"])
    outcome = client.post(f"/webhooks/{hook['id']}/test").json()
    assert outcome["status"] == 307
    assert "redirects" in outcome["error"]
    assert receiver.at(f"{path}/elsewhere") == []


def test_rotation(client: httpx.Client, receiver: Receiver, path: str) -> None:
    hook = add(client, receiver.url + path, types=["event.created"])
    # Whoever got no answer asks again.
    made = [client.post(f"/webhooks/{hook['id']}/rotate-secret", json={}).json() for _ in range(2)]
    new, secrets = made[1], {one["secret"] for one in (hook, *made)}
    assert len(secrets) == 3
    post(client)
    (one,) = receiver.wait_for(path, 1)
    for secret in secrets:
        Oracle(secret).verify(one.body, one.headers)
    newest = client.post(f"/webhooks/{hook['id']}/rotate-secret", json={"overlap": 0}).json()
    post(client, type="VEHICLE_CHARGE_UPDATED")
    one = receiver.wait_for(path, 2)[1]
    Oracle(newest["secret"]).verify(one.body, one.headers)
    with pytest.raises(Exception, match="signature"):
        Oracle(new["secret"]).verify(one.body, one.headers)
    noted = client.get("/audit", params={"action": "webhook.rotate_secret"}).json()
    assert [entry["target"] for entry in noted] == [hook["id"]] * 3
    assert newest["secret"] not in str(noted)


def test_rotations_at_the_same_time(client: httpx.Client, receiver: Receiver, path: str) -> None:
    hook = add(client, receiver.url + path, types=["event.created"])

    def rotate(_: int) -> str:
        answer = client.post(f"/webhooks/{hook['id']}/rotate-secret", json={})
        return str(answer.json()["secret"])

    with ThreadPoolExecutor(4) as threads:
        secrets = {hook["secret"], *threads.map(rotate, range(4))}
    assert len(secrets) == 5
    post(client)
    (one,) = receiver.wait_for(path, 1)
    for secret in secrets:
        Oracle(secret).verify(one.body, one.headers)


def test_replay(client: httpx.Client, receiver: Receiver, path: str) -> None:
    hook = add(client, receiver.url + path, types=["event.created"])
    ids = [post(client, type="VEHICLE_CHARGE_UPDATED", stateOfCharge=soc) for soc in range(40, 45)]
    receiver.wait_for(path, 5)
    answer = client.post(
        f"/webhooks/{hook['id']}/replay", json={"messageId": f"event_created_{ids[2]}"}
    )
    assert answer.status_code == 202
    assert receiver.wait_for(path, 6)[5].id == f"event_created_{ids[2]}"
    for unknown in (f"event_created_{hook['id']}", f"event_withdrawn_{ids[2]}",
                    f"session_started_{hook['id']}_1"):  # fmt: skip
        answer = client.post(f"/webhooks/{hook['id']}/replay", json={"messageId": unknown})
        assert answer.status_code == 404, unknown
    assert len(client.get("/audit", params={"action": "webhook.replay"}).json()) == 1
    answer = client.post(f"/webhooks/{hook['id']}/replay", json={"from": "start"})
    assert answer.status_code == 202
    again = receiver.wait_for(path, 11)[6:]
    assert ids_of(again) == [f"event_created_{id}" for id in ids]
    wait(lambda: client.get(f"/webhooks/{hook['id']}").json()["backlog"]["events"] == 0)
    link = client.get("/events?limit=4").headers["link"]
    cursor = httpx.URL(link[1 : link.index(">")]).params["cursor"]
    answer = client.post(f"/webhooks/{hook['id']}/replay", json={"from": cursor})
    assert answer.status_code == 202
    assert receiver.wait_for(path, 12)[11].id == f"event_created_{ids[4]}"


def test_timestamps_are_those_of_the_attempt(
    client: httpx.Client, receiver: Receiver, path: str
) -> None:
    add(client, receiver.url + path, types=["event.created"])
    post(client, timestamp="2026-01-01T10:00:00Z")
    (one,) = receiver.wait_for(path, 1)
    assert abs(int(one.headers["webhook-timestamp"]) - datetime.now(UTC).timestamp()) < 60
    assert one.message["timestamp"] == "2026-01-01T10:00:00.000Z"


def test_withdrawals_in_the_order_of_the_log(
    client: httpx.Client, receiver: Receiver, path: str
) -> None:
    add(client, receiver.url + path, types=["event.created", "event.withdrawn"])
    first, second = post(client), post(client, type="VEHICLE_CHARGE_UPDATED")
    receiver.wait_for(path, 2)
    assert client.delete(f"/events/{first}").status_code == 204
    third = post(client, type="VEHICLE_CHARGE_UPDATED", stateOfCharge=41)
    received = receiver.wait_for(path, 4)
    assert ids_of(received) == [
        f"event_created_{first}", f"event_created_{second}",
        f"event_withdrawn_{first}", f"event_created_{third}",
    ]  # fmt: skip
    assert received[2].message["data"]["event"]["withdrawnAt"]


def test_attempts_go_by_their_age(
    server: Server, client: httpx.Client, receiver: Receiver, path: str
) -> None:
    hook = add(client, receiver.url + path)["id"]
    here_ms = now_ms()

    async def forget() -> None:
        async with open_store(server.database) as store:
            key = await store.keys.find(digest_of(client.headers["x-api-key"]))
            assert key is not None
            made = [
                Attempt(key.partner, hook, f"{days}", here_ms - days * DAY_MS, "x", "x", 1, 200, 1,
                        "", "")
                for days in (40, 20, 3, 2)
            ]  # fmt: skip
            await store.webhooks.save("", [], [], [], made)

            async def left() -> list[str]:
                await retention.delete_old(store, here_ms, 30 * DAY_MS)
                return [one.id for one in await store.webhooks.attempts(key.partner, hook, "~", 9)]

            assert await left() == ["3", "20", "2"]
            await store.retention.set(key.partner, {"attempts_ms": 3 * DAY_MS + 1})
            assert await left() == ["3", "2"]
            await store.retention.set(key.partner, {"attempts_ms": 0})
            assert await left() == ["3", "2"]

    asyncio.run(forget())
