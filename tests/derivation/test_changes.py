"""Late events change the sessions that they affect, and followers of changes miss nothing."""

from typing import Any

import httpx
import pytest

from tests.derivation.helpers import prepare, read, read_all

Changes = list[dict[str, Any]]


@pytest.fixture
def fleet(client: httpx.Client) -> httpx.Client:
    """A partner with five sessions of a vehicle, an hour each, and one of another."""
    prepare(client, ["V1", "V2"])
    for hour in range(5):
        report(client, "CONNECTED", hour)
        report(client, "DISCONNECTED", hour, minute=50)
    report(client, "CONNECTED", 0, vehicle="V2")
    return client


def report(
    client: httpx.Client, kind: str, hour: int, *, minute: int = 0, vehicle: str = "V1", **more: Any
) -> None:
    body = {"type": f"VEHICLE_{kind}", "chargerId": "A", "vehicleId": vehicle,
            "timestamp": f"2026-01-05T{hour:02}:{minute:02}:00Z", **more}  # fmt: skip
    answer = client.post("/events", json=body)
    assert answer.status_code == 201, answer.text


def by_id(client: httpx.Client) -> dict[str, Any]:
    return {session["id"]: session for session in read_all(client, "/sessions")}


def changed_by(client: httpx.Client, *reports: tuple[Any, ...], **more: Any) -> list[str]:
    """The beginnings of the sessions that these late events change; others must not change."""
    before = by_id(client)
    for kind, hour, minute in reports:
        report(client, kind, hour, minute=minute, **more)
    after = by_id(client)
    for session in after.values():
        if session["id"] in before and session != before[session["id"]]:
            assert session["version"] > before[session["id"]]["version"]
            assert session["updatedAt"] > before[session["id"]]["updatedAt"]
    return sorted(
        session["connectedAt"][11:16]
        for session in [*after.values(), *before.values()]
        if before.get(session["id"]) != after.get(session["id"])
    )


def test_a_late_event_changes_the_session_it_lies_in_and_no_other(fleet: httpx.Client) -> None:
    third: dict[str, str | int] = {"from": "2026-01-05T02:00:00Z", "limit": 1}
    (before,) = read(fleet.get("/sessions", params=third))  # of version 2 if derived in between
    assert changed_by(fleet, ("CHARGE_STARTED", 2, 5)) == ["02:00"] * 2
    assert changed_by(fleet, ("CHARGE_STOPPED", 2, 40), chargedEnergy=7) == ["02:00"] * 2
    assert changed_by(fleet, ("CHARGE_UPDATED", 2, 20), stateOfCharge=50) == ["02:00"] * 2
    # Nor does the next session show what it knows of this one.
    (session,) = read(fleet.get("/sessions", params=third))
    assert (session["chargedEnergy"], session["version"]) == (7, before["version"] + 3)


def test_the_next_session_leaves_the_one_before_it_as_it_was(fleet: httpx.Client) -> None:
    assert changed_by(fleet, ("CONNECTED", 6, 0)) == ["06:00"]


def test_the_same_event_again_changes_nothing(fleet: httpx.Client) -> None:
    assert changed_by(fleet, ("CONNECTED", 3, 0), ("DISCONNECTED", 1, 50)) == []


def test_a_session_that_never_was_is_removed_and_can_reappear(fleet: httpx.Client) -> None:
    # Of an unknown session.
    report(fleet, "CHARGE_UPDATED", 7, minute=30, stateOfCharge=40, chargePower=11)
    (unknown,) = read(fleet.get("/sessions", params={"from": "2026-01-05T07:00:00Z"}))
    assert [flag["name"] for flag in unknown["flags"]] == ["connect-missing", "start-missing"]
    report(fleet, "CONNECTED", 7)  # it began earlier
    (known,) = read(fleet.get("/sessions", params={"from": "2026-01-05T07:00:00Z"}))
    assert known["id"] != unknown["id"]
    assert known["connectedAt"] == "2026-01-05T07:00:00.000Z"
    assert fleet.get(f"/sessions/{unknown['id']}").status_code == 404
    removed, kept = changes(fleet, unknown["updatedAt"])[-2:]
    if removed["status"] != "removed":  # both changed at once
        removed, kept = kept, removed
    assert (removed["id"], removed["status"], removed["version"]) == (unknown["id"], "removed", 2)
    assert (kept["id"], kept["status"]) == (known["id"], "active")
    report(fleet, "DISCONNECTED", 7, minute=10)  # so the update belonged to another session …
    assert fleet.get(f"/sessions/{unknown['id']}").status_code == 200  # … over ten minutes later
    assert read(fleet.get(f"/sessions/{unknown['id']}"))["version"] == 3


def changes(client: httpx.Client, since: str) -> Changes:
    found: Changes = []
    answer = client.get("/sessions", params={"updatedFrom": since, "limit": 2})
    while page := read(answer):
        found += page
        answer = client.get(answer.links["next"]["url"])
    return found


def test_the_list_of_changes_is_in_order_and_goes_on_where_it_was_left(
    fleet: httpx.Client,
) -> None:
    everything = changes(fleet, "2026-01-01T00:00:00Z")
    assert len({session["id"] for session in everything}) == len(everything) == 6
    stamps = [session["updatedAt"] for session in everything]
    assert stamps == sorted(stamps)
    answer = fleet.get("/sessions", params={"updatedFrom": stamps[-1], "limit": 1000})
    report(fleet, "CHARGE_STARTED", 4, minute=10)
    (changed,) = read(fleet.get(answer.links["next"]["url"]))
    assert changed["connectedAt"] == "2026-01-05T04:00:00.000Z"
    assert changed["updatedAt"] > stamps[-1]
