"""`GET /sessions`: filters, pages, changes, and the effect of late events on both."""

import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.api.helpers import (
    ID_RULE,
    create_both,
    create_charger,
    create_event,
    create_vehicle,
    message,
    refused_parameter,
)
from tests.api.test_states import report, stamp
from tests.conftest import Server
from tests.lists import pages

ALWAYS = "2000-01-01T00:00:00Z"


def listed(client: httpx.Client, **query: Any) -> list[dict[str, Any]]:
    """All sessions of all pages."""
    return [session for page in pages(client, "/sessions", **query) for session in page]


def only(client: httpx.Client) -> dict[str, Any]:
    """The only session that there is."""
    (session,) = listed(client)
    return session


@pytest.fixture(scope="module")
def history(server: Server) -> Iterator[httpx.Client]:
    """30 sessions of 3 vehicles at 2 chargers; 3 are active. Tests must not change them."""
    with server.client() as client:
        for number in range(3):
            create_charger(client, f"C{number}")
            create_vehicle(client, f"V{number}")
        for number in reversed(range(30)):  # the newest first
            where = {"chargerId": f"C{number % 2}", "vehicleId": f"V{number % 3}"}
            report(client, "CONNECTED", 10 * number, stateOfCharge=number, **where)
            if number < 27:
                report(client, "DISCONNECTED", 10 * number + 25, **where)
        yield client


FILTERS: list[dict[str, str]] = [
    {},
    {"status": "active"},
    {"status": "ended"},
    {"chargerId": "C1"},
    {"vehicleId": "V2"},
    {"chargerId": "C2"},
    {"vehicleId": "nobody"},
    {"chargerId": "C0", "vehicleId": "V0", "status": "ended"},
    {"chargerId": "C1", "status": "active"},
    {"vehicleId": "V1", "status": "active"},
    {"from": stamp(100)},
    {"to": stamp(100)},
    {"from": stamp(50), "to": stamp(200), "chargerId": "C1"},
    {"from": stamp(50.0001), "to": stamp(200.0001), "vehicleId": "V1", "status": "ended"},
    {"from": stamp(200), "to": stamp(200)},
]


def matches(session: dict[str, Any], wanted: dict[str, str]) -> bool:
    """A second implementation of the filters: from is inclusive, to is exclusive."""
    return all(
        session["connectedAt"] >= value
        if name == "from"
        else session["connectedAt"] < value
        if name == "to"
        else session[name] == value
        for name, value in wanted.items()
    )


@pytest.mark.parametrize("wanted", FILTERS, ids=str)
def test_every_filter_shows_what_matches_by_start_in_pages_of_any_size(
    history: httpx.Client, wanted: dict[str, str]
) -> None:
    everything = history.get("/sessions").json()
    assert [session["stateOfChargeStart"] for session in everything] == list(range(30))
    expected = [session for session in everything if matches(session, wanted)]
    for limit in (1, 4, 100):
        found = list(pages(history, "/sessions", limit=limit, **wanted))
        assert [session for page in found for session in page] == expected
        assert all(len(page) <= limit for page in found)
    if "status" in wanted:
        return
    changed = listed(history, updatedFrom=ALWAYS, limit=4, **wanted)
    order = [(session["updatedAt"], session["id"]) for session in changed]
    assert order == sorted(order)
    assert sorted(changed, key=lambda one: one["connectedAt"]) == expected


def test_the_newest_come_first_where_that_is_asked_for(history: httpx.Client) -> None:
    for wanted in FILTERS:
        for limit in (4, 100):
            found = listed(history, limit=limit, order="desc", **wanted)
            assert found == listed(history, order="asc", **wanted)[::-1]


@pytest.mark.parametrize("order", ["asc", "desc"])
def test_several_ids_are_asked_for_at_once(history: httpx.Client, order: str) -> None:
    everything = listed(history, order=order)
    for name, ids in (
        ("chargerId", ["C0", "C1"]),
        ("chargerId", ["C1", "C1", "C2", "nobody"]),
        ("vehicleId", ["V0", "V2"]),
        ("vehicleId", [f"V{n}" for n in range(1, 51)]),
    ):
        expected = [session for session in everything if session[name] in ids]
        for limit in (3, 100):
            query: dict[str, Any] = {name: ids, "order": order, "limit": limit}
            assert listed(history, **query) == expected
        assert listed(history, **{name: ",".join(ids), "order": order}) == expected
        changed = listed(history, updatedFrom=ALWAYS, **{name: ids, "limit": 3})
        assert sorted(one["id"] for one in changed) == sorted(one["id"] for one in expected)
    both = listed(history, chargerId=["C0", "C1"], vehicleId=["V0", "V2"], order=order, limit=2)
    assert both == [session for session in everything if session["vehicleId"] != "V1"]


@pytest.mark.parametrize("order", ["asc", "desc"])
def test_sessions_are_found_by_when_they_ended_and_when_they_were_there(
    history: httpx.Client, order: str
) -> None:
    everything = listed(history, order=order)
    instants = [None, stamp(0), stamp(95), stamp(100), stamp(100.001), stamp(285), stamp(400)]
    for since in instants:
        for until in instants:
            if since and until and since > until:  # refused: see below
                continue
            ended = [
                one
                for one in everything
                if since == until is None
                or (
                    one.get("disconnectedAt") is not None
                    and (since is None or one["disconnectedAt"] >= since)
                    and (until is None or one["disconnectedAt"] < until)
                )
            ]
            there = [
                one
                for one in everything
                if (until is None or one["connectedAt"] < until)
                and (
                    since is None
                    or one["connectedAt"] >= since
                    or one.get("disconnectedAt", "9") > since
                )
            ]
            for limit, more in ((4, {}), (100, {"chargerId": ["C1"]}), (100, {"vehicleId": "V2"})):
                for window, expected in (("ended", ended), ("overlapping", there)):
                    bounds = {f"{window}From": since, f"{window}To": until}
                    query: dict[str, Any] = {**bounds, **more, "order": order, "limit": limit}
                    found = listed(history, **{k: v for k, v in query.items() if v is not None})
                    assert found == [
                        one
                        for one in expected
                        if one["chargerId"] in more.get("chargerId", one["chargerId"])
                        and one["vehicleId"] == more.get("vehicleId", one["vehicleId"])
                    ]


@pytest.mark.parametrize("order", ["asc", "desc"])
def test_sessions_are_found_by_their_flags_and_by_whether_they_are_estimated(
    client: httpx.Client, order: str
) -> None:
    create_both(client)
    for number in range(12):
        if number % 3:
            report(client, "CONNECTED", 100 * number)
        report(client, "CHARGE_STARTED", 100 * number + 1)
        energy = {"chargedEnergy": 5, "chargedTime": 1200} if number % 2 else {}
        report(client, "CHARGE_STOPPED", 100 * number + 21, **energy)
        report(client, "DISCONNECTED", 100 * number + 30)
    everything = listed(client, order=order)
    assert len(everything) == 12
    for limit in (1, 5, 100):
        flagged = listed(client, flag="connect-missing", order=order, limit=limit)
        assert flagged == [
            one
            for one in everything
            if "connect-missing" in [flag["name"] for flag in one["flags"]]
        ]
        assert len(flagged) == 4
        for estimated in (True, False):
            found = listed(client, estimated=str(estimated).lower(), order=order, limit=limit)
            assert found == [one for one in everything if one["estimated"] is estimated]
            assert len(found) == 6
    assert listed(client, flag="vehicle-shared") == []
    # Flags that compare with the vehicle use its current values.
    assert listed(client, flag="energy-above-capacity") == []
    assert client.patch("/vehicles/V1", json={"chargeCapacity": 4}).status_code == 200
    assert len(listed(client, flag="energy-above-capacity", estimated="false", order=order)) == 6


def test_each_session_is_found_by_its_id(history: httpx.Client) -> None:
    for session in listed(history):
        path = f"/sessions/{session['id']}"
        assert history.get(path).json() == session
        assert history.head(path).status_code == 200
        assert history.get(path.upper().replace("/SESSIONS", "/sessions")).json() == session


@pytest.mark.parametrize("id", ["", "x", "0188ac4b-9dfa-7c3e-a51b-2f8e6d0b4c97", "%2E", "V1",
                                "{00000000-0000-5000-8000-000000000000}"])  # fmt: skip
def test_what_there_is_not_is_404(history: httpx.Client, id: str) -> None:
    answer = history.get(f"/sessions/{id}")
    hint = "" if id else ". There is no trailing slash: /sessions."
    assert (answer.status_code, message(answer)) == (404, f"Not Found{hint}")


def test_sessions_can_only_be_read(history: httpx.Client) -> None:
    for path in ("/sessions", f"/sessions/{listed(history)[0]['id']}"):
        for method in ("PUT", "POST", "PATCH", "DELETE"):
            answer = history.request(method, path, json={})
            assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD, OPTIONS")


def test_another_partner_sees_nothing(server: Server, history: httpx.Client) -> None:
    session = listed(history)[0]
    with server.client() as other:
        assert listed(other) == listed(other, updatedFrom=ALWAYS) == []
        assert other.get(f"/sessions/{session['id']}").status_code == 404
        # The same events give the same id, and still it is another session.
        create_charger(other, "C0")
        create_vehicle(other, "V0")
        report(other, "CONNECTED", 0, chargerId="C0", vehicleId="V0", stateOfCharge=99)
        assert only(other)["id"] == session["id"]
        assert other.get(f"/sessions/{session['id']}").json()["stateOfChargeEnd"] == 99
    assert history.get(f"/sessions/{session['id']}").json() == session


@pytest.mark.parametrize(("query", "name"), [
    ("status=removed", "status"), ("status=", "status"), ("status=Active", "status"),
    ("status=active&status=ended", "status"), (f"status=ended&updatedFrom={ALWAYS}", "status"),
    ("order=desc&updatedFrom=2000-01-01T00:00:00Z", "order"), ("flag=", "flag"),
    ("flag=odd", "flag"), ("estimated=yes", "estimated"), ("estimated=", "estimated"),
    ("flag=stop-missing&updatedFrom=2000-01-01T00:00:00Z", "flag"),
    ("estimated=true&updatedFrom=2000-01-01T00:00:00Z", "estimated"),
    ("endedTo=2024-01-01T00:00:00Z&updatedFrom=2000-01-01T00:00:00Z", "endedTo"),
    ("overlappingFrom=2024-01-01T00:00:00Z&updatedFrom=2000-01-01T00:00:00Z",
     "overlappingFrom"),
    ("endedFrom=2023-05-11", "endedFrom"), ("overlappingTo=now", "overlappingTo"),
    ("chargerId=A&chargerId=", "chargerId"), ("vehicleId=A,,B", "vehicleId"),
    ("&".join(f"chargerId=C{n}" for n in range(51)), "chargerId"),
    ("chargerId=a%2Fb", "chargerId"), ("chargerId=", "chargerId"), ("vehicleId=..", "vehicleId"),
    ("from=yesterday", "from"), ("from=2023-05-11", "from"), ("to=2023-05-11T00:00:00", "to"),
    ("from=1999-12-31T00:00:00Z", "from"), ("updatedFrom=0", "updatedFrom"),
    ("to=2024-01-01T00:00:00Z&from=2024-01-01T00:00:00.001Z", "from"),
    ("endedFrom=2024-01-01T00:00:00Z&endedTo=2024-01-01T00:00:00%2B01:00", "endedFrom"),
    ("overlappingFrom=2024-01-02T00:00:00Z&overlappingTo=2024-01-01T00:00:00Z", "overlappingFrom"),
    ("stale=", "stale"), ("stale=no", "stale"), ("stale=allowed&stale=allowed", "stale"),
    ("limit=0", "limit"), ("limit=1001", "limit"), ("order=newest", "order"), ("x=1", "x"),
    ("type=VEHICLE_CONNECTED", "type"), ("cursor=", "cursor"), ("cursor=abc", "cursor"),
    ("cursor=MSAy", "cursor"), (f"updatedFrom={ALWAYS}&cursor=MSAy", "cursor"),
])  # fmt: skip
def test_bad_parameters_are_named(history: httpx.Client, query: str, name: str) -> None:
    assert refused_parameter(history.get(f"/sessions?{query}")) == name


def test_bad_parameters_are_told_what_would_be_valid(history: httpx.Client) -> None:
    assert ID_RULE in message(history.get("/sessions?vehicleId=%20"))
    assert "active or ended" in message(history.get("/sessions?status=x"))
    window = "overlappingFrom=2024-01-02T00:00:00Z&overlappingTo=2024-01-0"
    assert "not be after overlappingTo." in message(history.get(f"/sessions?{window}1T00:00:00Z"))
    assert history.get(f"/sessions?{window}2T00:00:00Z").status_code == 200
    said = message(history.get("/sessions?x=1"))
    assert said.endswith(
        "limit, cursor, order, chargerId, vehicleId, from, to, endedFrom, endedTo, "
        "overlappingFrom, overlappingTo, status, flag, estimated, updatedFrom, stale."
    )
    for other in ("/events", "/chargers"):  # their cursors are not ours
        link = history.get(f"{other}?limit=1").links["next"]["url"]
        cursor = httpx.URL(link).params["cursor"]
        assert refused_parameter(history.get("/sessions", params={"cursor": cursor})) == "cursor"


# While others write -----------------------------------------------------------------------------


def test_nothing_is_skipped_or_repeated_while_others_write(server: Server) -> None:
    with server.client() as client, server.client(client.headers["x-api-key"]) as writer:
        create_both(client)
        create_vehicle(client, "V2")
        for number in range(40):
            report(client, "CONNECTED", 10 * number)
        before = {session["id"] for session in listed(client)}
        stop = threading.Event()

        def write() -> None:
            for number in range(300):
                if stop.is_set():
                    return
                report(writer, "CONNECTED", number * 7 % 400 + 0.5, vehicleId="V2")

        thread = threading.Thread(target=write)
        thread.start()
        walks = [[session["id"] for session in listed(client, limit=limit)] for limit in (2, 9)]
        stop.set()
        thread.join()
    for walk in walks:
        assert len(set(walk)) == len(walk)
        assert before <= set(walk)


# Changes ----------------------------------------------------------------------------------------


class Consumer:
    """Keeps a copy by following the Link headers, as the document says."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client
        self._next = f"/sessions?updatedFrom={ALWAYS}&limit=3"
        self.copy: dict[str, dict[str, Any]] = {}

    def catch_up(self) -> list[str]:
        """The ids of the sessions that changed since the last call."""
        changed = []
        while page := (answer := self._client.get(self._next)).json():
            self._next = answer.links["next"]["url"]
            for session in page:
                known = self.copy.get(session["id"])
                assert known is None or known["version"] < session["version"]
                self.copy[session["id"]] = session
                changed.append(session["id"])
        assert "link" not in answer.headers
        return changed

    def check(self) -> None:
        """Checks that the copy is equal to the sessions of the server."""
        there = {one["id"]: one for one in self.copy.values() if one["status"] != "removed"}
        assert there == {session["id"]: session for session in listed(self._client)}


def test_a_late_event_changes_the_sessions_that_it_touches_and_no_other(
    client: httpx.Client,
) -> None:
    create_both(client)
    consumer = Consumer(client)
    for number in range(10):
        report(client, "CHARGE_STARTED", 100 * number, chargePower=11)
        report(client, "DISCONNECTED", 100 * number + 30)
    consumer.catch_up()
    consumer.check()
    before = dict(consumer.copy)
    assert consumer.catch_up() == []

    report(client, "CHARGE_STOPPED", 420, chargedEnergy=3.5)
    (changed,) = consumer.catch_up()
    consumer.check()
    assert consumer.copy[changed]["chargedEnergy"] == 3.5
    assert consumer.copy[changed]["version"] == before[changed]["version"] + 1
    assert consumer.copy[changed]["updatedAt"] > max(one["updatedAt"] for one in before.values())
    assert all(consumer.copy[id] == before[id] for id in before if id != changed)

    report(client, "CONNECTED", 395, stateOfCharge=20)  # what began there has begun here
    began, gone = sorted(consumer.catch_up(), key=lambda id: consumer.copy[id]["status"])
    consumer.check()
    assert (gone, consumer.copy[gone]["status"]) == (changed, "removed")
    assert client.get(f"/sessions/{gone}").status_code == 404
    assert gone not in {session["id"] for session in listed(client)}
    assert client.get(f"/sessions/{began}").json()["chargedEnergy"] == 3.5

    create_event(client, timestamp=stamp(395), stateOfCharge=20)  # once more changes nothing
    assert consumer.catch_up() == []


def test_changes_begin_where_they_are_asked_to(client: httpx.Client) -> None:
    create_both(client)
    create_vehicle(client, "V2")
    report(client, "CONNECTED", 0)
    first = only(client)
    report(client, "CONNECTED", 1, vehicleId="V2")
    second = next(one for one in listed(client) if one["id"] != first["id"])
    assert first["updatedAt"] < second["updatedAt"]
    for start, expected in (
        (first["updatedAt"], [first, second]),
        (second["updatedAt"], [second]),
        ("2200-01-01T00:00:00Z", []),
    ):
        answer = client.get("/sessions", params={"updatedFrom": start})
        assert answer.json() == expected
        assert ("next" in answer.links) is bool(expected)


@pytest.mark.parametrize("plugged_in", [True, False])
def test_a_late_report_of_any_charger_that_was_just_left_counts_no_energy_again(
    client: httpx.Client, plugged_in: bool
) -> None:
    create_both(client)
    for charger in ("C2", "C3"):
        create_charger(client, charger)
    report(client, "CONNECTED", 0)
    report(client, "CHARGE_STARTED", 5)
    report(client, "CHARGE_STOPPED", 25, chargedEnergy=4.5)
    report(client, "CONNECTED", 26, chargerId="C2")
    report(client, "CONNECTED", 27, chargerId="C3")
    if not plugged_in:
        report(client, "DISCONNECTED", 28, chargerId="C3")
    report(client, "CHARGE_STOPPED", 36, chargedEnergy=4.5)  # left ten minutes ago

    sessions = listed(client)
    assert [one["chargerId"] for one in sessions] == ["C1", "C2", "C3"]
    assert [one.get("chargedEnergy") for one in sessions] == [4.5, None, None]
    assert [flag["name"] for flag in sessions[-1]["flags"]] == ["event-elsewhere"]
    assert sessions[-1]["status"] == ("active" if plugged_in else "ended")

    report(client, "CHARGE_UPDATED", 40, stateOfCharge=50, chargePower=9)  # it is there again
    assert [one["chargerId"] for one in listed(client)] == ["C1", "C2", "C3", "C1"]
