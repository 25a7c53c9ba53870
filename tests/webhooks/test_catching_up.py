"""Messages to an endpoint that catches up, while data change and requests fail."""

import httpx

from tests.webhooks.receiver import Received, Receiver
from tests.webhooks.test_delivery import add, ids_of, post, wait

KINDS = ["session.started", "session.updated", "session.ended", "session.removed"]


def changed(client: httpx.Client, vehicle: str, version: int) -> str:
    """Changes the vehicle's session up to this version; returns its id when that is derived."""
    kind = "VEHICLE_CONNECTED" if version == 1 else "VEHICLE_CHARGE_UPDATED"
    minute = f"2026-01-01T10:{version:02}:00Z"
    charger = vehicle.replace("V", "C")
    post(client, type=kind, vehicleId=vehicle, chargerId=charger, stateOfCharge=40 + version,
         timestamp=minute)  # fmt: skip

    def derived() -> str | None:
        found = client.get(f"/sessions?vehicleId={vehicle}").json()
        return found[0]["id"] if found and found[0]["version"] == version else None

    id: str = wait(derived)
    return id


def test_a_start_is_told_although_the_position_is_behind_it(
    client: httpx.Client, receiver: Receiver, path: str
) -> None:
    hook = add(client, receiver.url + path, types=KINDS, enabled=False)
    first = changed(client, "V1", 1)
    second = changed(client, "V2", 1)
    changed(client, "V1", 2)  # so it comes behind the second, which it was before
    failing = [first]
    receiver.answer = lambda one: (
        (500, {}, b"") if one.path == path and failing and failing[0] in one.id else None
    )
    client.patch(f"/webhooks/{hook['id']}", json={"enabled": True}).raise_for_status()
    wait(lambda: client.get(f"/webhooks/{hook['id']}").json()["status"] == "failing")
    failing.clear()
    assert client.post(f"/webhooks/{hook['id']}/test").json()["succeeded"]

    def told() -> list[Received]:
        return [one for one in receiver.at(path) if not one.id.startswith("test_")]

    wait(lambda: len(told()) >= 3)
    assert ids_of(told()) == [
        f"session_started_{second}_1", f"session_started_{first}_2", f"session_started_{first}_2",
    ]  # fmt: skip
    changed(client, "V1", 3)
    wait(lambda: len(told()) >= 4)
    assert told()[3].id == f"session_updated_{first}_3"
    # No other message says that it started, so once parked it is sent although a newer one exists.
    client.post(f"/webhooks/{hook['id']}/replay", json={"messageId": f"session_started_{first}_1"})
    wait(lambda: len(told()) >= 5)
    assert told()[4].id == f"session_started_{first}_1"
    assert told()[4].message["data"]["version"] == 3
