"""Chargers and vehicles are erased, with all data that name them, on each engine."""

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.commands import Command, tether_ok
from tests.conftest import Server
from tests.console.visitors import partner_number
from tests.faults.test_withdrawals import Followers
from tests.fleet import put_fleet
from tests.lists import everything
from tether.client import Client, Conflict, NotFound
from tether.domain.timestamps import now_ms
from tether.server.store import open_store
from tether.storage.erasures import ENDED_MS, Erasure, Erasures
from tether.storage.refused_requests import RefusedRequest

CHARGER = {"chargePowers": [11]}
VEHICLE = {"chargeCapacity": 60, "chargePowers": [11]}
TYPES = ("CONNECTED", "CHARGE_STARTED", "CHARGE_STOPPED", "DISCONNECTED")
FIRST = "2000-01-01T00:00:00Z"
GONE = "GONE-vehicle_77"


def reported(client: httpx.Client, vehicle: str, charger: str, stays: int, *, day: int = 1) -> None:
    """Posts this number of sessions of the vehicle, an hour each."""
    events = [
        {
            "type": f"VEHICLE_{kind}",
            "chargerId": charger,
            "vehicleId": vehicle,
            "timestamp": f"2026-{1 + stay // 480:02}-{day + stay // 24 % 20:02}"
            f"T{stay % 24:02}:{10 * minute:02}:00Z",
        }
        for stay in range(stays)
        for minute, kind in enumerate(TYPES)
    ]
    for start in range(0, len(events), 5_000):
        answer = client.post("/events/bulk", json=events[start : start + 5_000])
        answer.raise_for_status()
        assert {one["status"] for one in answer.json()} <= {200, 201}


def fleet(client: httpx.Client, *vehicles: str) -> None:
    put_fleet(client, ("C1", "C2"), vehicles)


def erased(client: httpx.Client, path: str) -> bool:
    """Erases a charger or vehicle, however long that takes; returns whether it is gone."""
    answer = client.delete(path, params={"events": "erase"})
    began = answer.status_code == 202
    while answer.status_code == 202:
        answer = client.delete(path, params={"events": "erase"})
    return answer.status_code == 204 or (began and answer.status_code == 404)


def plain(sessions: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The sessions without the members that change with every version."""
    return [
        {name: value for name, value in one.items() if name not in ("version", "updatedAt")}
        for one in sessions
    ]


def test_what_has_no_events_is_deleted_and_what_has_some_is_not(client: httpx.Client) -> None:
    fleet(client, "V1", "V2")
    reported(client, "V1", "C1", 3)
    for path in ("/chargers/C2", "/vehicles/V2"):
        assert client.delete(path).status_code == 204
        assert client.get(path).status_code == 404
        assert client.delete(path).status_code == 404
        assert client.delete(path, params={"events": "erase"}).status_code == 404
    for path in ("/chargers/C1", "/vehicles/V1"):
        answer = client.delete(path)
        assert answer.status_code == 409
        assert "has 12 events" in answer.json()["message"]
        assert answer.headers["tether-error"].startswith("has-events")
        assert client.delete(path, params={"events": "all"}).status_code == 400
        assert client.delete(path, headers={"If-Match": '"9"'}).status_code == 412
        assert client.get(path).status_code == 200
    assert len(everything(client, "/events")) == 12
    assert client.put("/vehicles/V2", json=VEHICLE).status_code == 201


def test_an_erased_vehicle_leaves_nothing_and_others_keep_all(client: httpx.Client) -> None:
    fleet(client, "V1", GONE)
    reported(client, "V1", "C1", 5)
    others = everything(client, "/sessions")
    follower = {one["id"] for one in everything(client, "/sessions", updatedFrom=FIRST)}
    reported(client, GONE, "C1", 7, day=3)
    everything(client, "/sessions")
    changed = everything(client, "/sessions", updatedFrom=FIRST)
    follower |= {one["id"] for one in changed}
    assert len(follower) == 12
    refused = {"type": "VEHICLE_CONNECTED", "chargerId": "nowhere", "vehicleId": GONE}
    assert client.post("/events", json=refused).status_code == 409
    last = max(one["updatedAt"] for one in changed)
    assert erased(client, f"/vehicles/{GONE}")
    assert client.get(f"/vehicles/{GONE}").status_code == 404
    assert {one["vehicleId"] for one in everything(client, "/events")} == {"V1"}
    assert {one["reason"] for one in everything(client, "/events/withdrawn")} == {"erased"}
    assert plain(everything(client, "/sessions")) == plain(others)
    removed = everything(client, "/sessions", updatedFrom=last)
    for one in removed:
        if one["status"] == "removed":
            follower.discard(one["id"])
            assert one["vehicleId"] == "erased"
    assert follower == {one["id"] for one in others}
    # The same once more: as if it had never been there.
    client.put(f"/vehicles/{GONE}", json=VEHICLE).raise_for_status()
    reported(client, GONE, "C1", 7, day=3)
    assert len(everything(client, "/sessions")) == 12
    (entry,) = client.get("/audit", params={"action": "vehicle.erase"}).json()
    assert entry["target"] == "vehicle"
    assert GONE not in client.get("/audit").text


def test_erasing_a_charger_is_as_if_nothing_had_been_sent_of_it(server: Server) -> None:
    with server.client() as client, server.client() as other:
        for one in (client, other):
            fleet(one, "V1", "V2")
            for vehicle in ("V1", "V2"):
                reported(one, vehicle, "C1", 5)
        for vehicle in ("V1", "V2"):
            reported(client, vehicle, "C2", 9)  # between the others, and contradicting them
        for minute, kind in enumerate(TYPES[:2]):  # and both are charging there now
            for vehicle in ("V1", "V2"):
                event = {"type": f"VEHICLE_{kind}", "chargerId": "C2", "vehicleId": vehicle,
                         "timestamp": f"2026-02-01T00:{minute:02}:00Z"}  # fmt: skip
                client.post("/events", json=event).raise_for_status()
        assert client.get("/chargers/C2/state").json()["charging"]
        everything(client, "/sessions")
        assert erased(client, "/chargers/C2")
        assert plain(everything(client, "/sessions")) == plain(everything(other, "/sessions"))
        assert client.get("/chargers/C2/state").status_code == 404
        states = [
            [one.get(f"/vehicles/{vehicle}/state").json() for vehicle in ("V1", "V2")]
            for one in (client, other)
        ]
        for state in (state for some in states for state in some):
            for name in [name for name in state if name.endswith("Age") or name == "asOf"]:
                del state[name]
            state.get("lastEvent", {}).pop("id", None)
        assert states[0] == states[1]


def test_of_what_is_erased_no_byte_is_left(
    tmp_path: Path, new_server: Callable[..., Server]
) -> None:
    server = new_server(database=str(tmp_path / "tether.db"))
    with server.client(server.key()) as client:
        names = [f"{GONE}-{number}" for number in range(12)]
        fleet(client, "V1", *names)
        for day in range(1, 5):  # in turn, so that they share pages, and in no order
            for number, vehicle in enumerate(["V1", *names]):
                reported(client, vehicle, "C1", 10, day=1 + (day * 7 + number) % 9)
            client.get("/sessions").raise_for_status()
        body = {"type": "VEHICLE_CONNECTED", "chargerId": "no", "vehicleId": names[0]}
        assert client.post("/events", json=body).status_code == 409
        stop = threading.Event()

        def go_on() -> None:
            with server.client(str(client.headers["x-api-key"])) as writer:
                while not stop.is_set():
                    event = {"type": "VEHICLE_CONNECTED", "chargerId": "C1", "vehicleId": "V1"}
                    assert writer.post("/events", json=event).status_code == 201

        meanwhile = threading.Thread(target=go_on)
        meanwhile.start()
        for vehicle in names:
            assert erased(client, f"/vehicles/{vehicle}")
        stop.set()
        meanwhile.join()
        found = {
            file.name: file.read_bytes().count(GONE.encode())
            for file in tmp_path.iterdir()
            if file.is_file()
        }
        assert set(found.values()) == {0}, found
        assert len(everything(client, "/sessions")) > 10
    backup = tmp_path / "backup.db"
    tether_ok("backup", backup, "--database", server.database)
    tether_ok("check", "--full", "--port", "0", "--database", server.database)
    assert GONE.encode() not in backup.read_bytes()
    assert server.failures() == []


def test_an_erasure_reaches_what_is_known_of_webhooks(server: Server) -> None:
    key = server.key()
    with server.client(key) as client:
        fleet(client, GONE)
        reported(client, GONE, "C1", 1)
    number = partner_number(server, key)
    erasure = Erasure(number, "vehicles", GONE)

    async def erase() -> tuple[list[Any], list[Any]]:
        async with open_store(server.database) as store:
            engine = store.engine
            attempts = (
                "INSERT INTO webhook_attempts (partner, webhook, id, at_ms, message_id, type, "
                "messages, taken_ms, error, answer) VALUES ($1, 'w', $2, 0, '', '', 1, 0, '', $3)"
            )
            await engine.write(attempts, number, "1", f"no vehicle {GONE} here")
            await engine.write(attempts, number, "2", "thanks")
            await store.erasing.erase(erasure, now_ms(), (), with_events=True)
            left = "SELECT id FROM webhook_attempts WHERE partner = $1"
            return await engine.read(left, number), await store.erasing.erasures.all()

    left, under_way = asyncio.run(erase())
    assert [tuple(row) for row in left] == [("2",)]
    assert erasure not in under_way


def test_an_erasure_reaches_what_a_client_wrote_in_another_way(
    tmp_path: Path, new_server: Callable[..., Server]
) -> None:
    server = new_server(database=str(tmp_path / "tether.db"))
    gone = "DE:GONE@77"
    with server.client() as client:
        fleet(client, "V1", gone, "erased")
        for vehicle in ("V1", gone, "erased"):
            reported(client, vehicle, "C1", 1)
        for path in ("/sessions?bad=1&vehicleId=DE%3AGONE%4077", "/sessions?bad=1&v=DE%3aGONE@77"):
            assert client.get(path).status_code == 400
        in_path, in_json = (
            "".join(form.format(ord(character)) for character in gone)
            for form in ("%{:02X}", "\\u{:04x}")
        )
        assert client.get(f"/nothing/{in_path}").status_code == 404
        for id in (r"DE\u003AGONE\u004077", in_json):
            body = f'{{"type":"VEHICLE_CONNECTED","chargerId":"no","vehicleId":"{id}"}}'
            assert client.post("/events", content=body).status_code == 409
        behind = client.get("/vehicles?limit=1").links["next"]["url"]
        assert client.get(f"{behind}&bad=1").status_code == 400
        for of_vehicle in ({"vehicleId": gone}, {}):
            webhook = {"url": "https://example.com", "types": ["event.created"], **of_vehicle}
            webhook["description"] = f"for {gone}"
            client.post("/webhooks", json=webhook).raise_for_status()
        answer = client.delete(
            "/vehicles/DE%3AGONE%4077",
            params={"events": "erase"},
            headers={"X-Request-Id": gone.replace("@", "-")},
        )
        assert answer.status_code == 204
        (webhook,) = client.get("/webhooks").json()
        assert webhook["description"] == "for erased"
        # The text that replaces an id may itself be an id.
        assert erased(client, "/vehicles/erased")
        assert {one["vehicleId"] for one in everything(client, "/events")} == {"V1"}
        for vehicle in (gone, "erased"):
            assert client.delete(f"/vehicles/{vehicle}?events=erase").status_code == 404
    assert server.stop() == 0
    found = b"".join(file.read_bytes() for file in tmp_path.iterdir() if file.is_file())
    forms = ("GONE@77", "GONE%4077", "GONE\\u00", in_path, in_json, behind.split("cursor=")[1])
    assert [one for one in forms if one.encode() in found] == []


def test_a_client_that_names_its_request_after_the_vehicle(client: httpx.Client) -> None:
    gone = "DE:GONE-78"
    fleet(client, gone)
    reported(client, gone, "C1", 1)
    answer = client.delete(
        f"/vehicles/{gone}", params={"events": "erase"}, headers={"X-Request-Id": f"for-{gone}"}
    )
    assert answer.status_code == 204
    assert answer.headers["x-request-id"] == f"for-{gone}"
    assert gone not in client.get("/audit").text


def test_what_another_node_had_noted_is_not_written_after_an_erasure(server: Server) -> None:
    key = server.key()
    with server.client(key) as client:
        fleet(client, GONE, "DE:GONE@79")
        reported(client, GONE, "C1", 1)
    number = partner_number(server, key)

    async def scenario() -> list[str]:
        async with open_store(server.database) as store:

            def note(id: str, path: str = "/events", body: str = "{}") -> None:
                store.request_recorder.record(
                    number, request_id=id, key_prefix="", method="POST", path=path, status=400,
                    seconds=0, error="", answer=b"", body=body.encode(),
                )  # fmt: skip

            note("plain", body=f'{{"vehicleId": "{GONE}"}}')
            note("path", path="/sessions?vehicleId=DE%3aGONE%4079")
            note("escaped", body='{"vehicleId": "DE\\u003AGONE@79"}')
            note(f"id-{GONE}")
            note("other")
            for vehicle in (GONE, "DE:GONE@79"):
                with server.client(key) as client:
                    assert erased(client, f"/vehicles/{vehicle}")
            await store.request_recorder.write()
            # The server has some tables of its own, with keys.
            kept = (
                "SELECT id FROM refused_requests WHERE partner = $1 AND key_prefix = '' ORDER BY id"
            )
            found = [id for (id,) in await store.engine.read(kept, number)]
            # A minute later nothing is left of the erasure, and the id can be used again.
            erasures = Erasures(store.engine)
            await erasures.delete_ended(now_ms() + ENDED_MS + 1)
            left = "SELECT count(*) FROM erasures WHERE partner = $1"
            assert [tuple(row) for row in await store.engine.read(left, number)] == [(0,)]
            note("later", body=f'{{"vehicleId": "{GONE}"}}')
            await store.request_recorder.write()
            return found + [id for (id,) in await store.engine.read(kept, number)]

    assert asyncio.run(scenario()) == ["other", "later", "other"]


def test_what_was_written_all_the_same_goes_a_minute_later(server: Server) -> None:
    key = server.key()
    with server.client(key) as client:
        fleet(client, GONE)
        assert erased(client, f"/vehicles/{GONE}")
    number = partner_number(server, key)
    late = RefusedRequest(now_ms(), "late", "", "GET", f"/vehicles/{GONE}", 404, 1, "", "", "")

    async def scenario() -> None:
        async with open_store(server.database) as store:
            engine = store.engine
            # As if by a statement that began before the erasure.
            names = ", ".join(RefusedRequest._fields)
            values = ", ".join(f"${place}" for place in range(2, len(late) + 2))
            await engine.write(
                f"INSERT INTO refused_requests (partner, {names}) VALUES ($1, {values})",
                number, *late,
            )  # fmt: skip
            await Erasures(engine).delete_ended(now_ms() + ENDED_MS + 1)
            kept = "SELECT count(*) FROM refused_requests WHERE partner = $1 AND id = 'late'"
            assert [tuple(row) for row in await engine.read(kept, number)] == [(0,)]

    asyncio.run(scenario())


def test_one_id_put_reported_taken_back_and_erased_at_once(server: Server) -> None:
    key, gone, turns = server.key(), "AT-ONCE_77", 8
    ids, followers = ["none"], Followers()
    statuses: set[tuple[str, int]] = set()

    def repeat(act: Callable[[httpx.Client, int], httpx.Response]) -> None:
        with server.client(key) as client:
            for number in range(turns):
                answer = act(client, number)
                name = f"{answer.request.method} {answer.request.url.path}"
                statuses.add((name, answer.status_code))

    def put(client: httpx.Client, number: int) -> httpx.Response:
        headers = {"If-None-Match": "*"} if number % 2 else {}
        return client.put(f"/vehicles/{gone}", json=VEHICLE, headers=headers)

    def report(client: httpx.Client, number: int) -> httpx.Response:
        events = [{"type": f"VEHICLE_{kind}", "chargerId": "C1", "vehicleId": gone,
                   "timestamp": f"2026-01-05T{number:02}:{minute:02}:00Z"}
                  for minute, kind in enumerate(TYPES)]  # fmt: skip
        answer = client.post("/events/bulk", json=events)
        if answer.status_code == 200:
            ids.extend(one["id"] for one in answer.json() if one["status"] == 201)
        return answer

    def erase(client: httpx.Client, number: int) -> httpx.Response:
        query = {"events": "erase"} if number % 3 else {}
        return client.delete(f"/vehicles/{gone}", params=query)

    with server.client(key) as client:
        fleet(client, "V1")
        reported(client, "V1", "C1", 3, day=5)
        before = plain(everything(client, "/sessions"))
        acts = (
            put, report, put, report, erase, erase,
            lambda client, number: client.post("/events/withdraw", json=ids[-9:]),
            lambda client, number: client.get(f"/vehicles/{gone}/state"),
        )  # fmt: skip
        for _ in range(3):
            threads = [threading.Thread(target=repeat, args=(act,)) for act in acts]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            while client.put(f"/vehicles/{gone}", json=VEHICLE).status_code == 503:
                pass  # it may still be erased
            followers.catch_up(client)
        assert statuses <= {
            *((f"PUT /vehicles/{gone}", status) for status in (200, 201, 412, 503)),
            *((f"DELETE /vehicles/{gone}", status) for status in (202, 204, 404, 409, 503)),
            *((f"GET /vehicles/{gone}/state", status) for status in (200, 404, 503)),
            *((f"POST /events/{path}", status) for path in ("bulk", "withdraw")
              for status in (200, 503)),
        }  # fmt: skip
        assert erased(client, f"/vehicles/{gone}")
        assert plain(everything(client, "/sessions")) == before
        events = everything(client, "/events")
        assert {one["vehicleId"] for one in events} == {"V1"}
        followers.catch_up(client)
        found = {one["id"]: one for one in events}
        assert followers.events == followers.streamed == found
        assert plain([*followers.sessions.values()]) == before
    assert naming(server, gone) == []
    assert server.failures() == []


def test_nonsense_is_not_taken_back(client: httpx.Client) -> None:
    fleet(client, "V1")
    reported(client, "V1", "C1", 1)
    (first, *_) = [one["id"] for one in everything(client, "/events")]
    nonsense = [
        None, 1, {}, [], "", "x" * 36, "../events", first.replace("-", ""), f"{first} ",
        "\u0661" * 36, "00000000-0000-0000-0000-000000000000", "erased", "%00", True,
    ]  # fmt: skip
    answer = client.post("/events/withdraw", json=nonsense)
    assert answer.status_code == 200
    assert {one["status"] for one in answer.json()} == {400, 404}
    assert client.get("/audit", params={"action": "event.withdraw"}).json() == []
    answer = client.post("/events/withdraw", json=[first, *nonsense, first.upper(), first])
    assert [one["status"] for one in answer.json() if one["status"] == 204] == [204] * 3
    for body in ("", "[", "{}", '"x"', "[" * 1000, "null"):
        assert client.post("/events/withdraw", content=body).status_code in (200, 400)
    assert len(everything(client, "/events")) == 3
    assert len(everything(client, "/events/withdrawn")) == 1
    assert len(client.get("/audit", params={"action": "event.withdraw"}).json()) == 1


def test_the_request_that_deletes_is_not_kept(
    tmp_path: Path, new_server: Callable[..., Server]
) -> None:
    server = new_server(database=str(tmp_path / "tether.db"))
    names, key = (GONE, "GONE-without-events"), server.key()
    with server.client(key) as client:
        fleet(client, *names)
        reported(client, GONE, "C1", 1)
    for name, query in zip(names, ({"events": "erase"}, {}), strict=True):
        server.stop()
        server.start()  # of each partner the first request is of the sample
        with server.client(key) as client:
            assert client.delete(f"/vehicles/{name}", params=query).status_code == 204
    server.stop()
    found = b"".join(file.read_bytes() for file in tmp_path.iterdir() if file.is_file())
    assert b"GONE" not in found


def under_way(server: Server) -> bool:
    """Whether anything is being erased."""

    async def look() -> bool:
        async with open_store(server.database) as store:
            return bool(await store.erasing.erasures.all())

    return asyncio.run(look())


def naming(server: Server, text: str) -> list[str]:
    """The files that have this text, or on PostgreSQL the tables."""
    if "://" not in server.database:
        files = [one for one in Path(server.database).parent.iterdir() if one.is_file()]
        return [file.name for file in files if text.encode() in file.read_bytes()]

    async def look() -> list[str]:
        async with open_store(server.database) as store:
            found = []
            tables = "SELECT tablename FROM pg_tables WHERE schemaname = current_schema()"
            for (table,) in await store.engine.read(tables):
                sql = f"SELECT count(*) FROM {table} t WHERE strpos(CAST(t AS TEXT), $1) > 0"
                ((count,),) = await store.engine.read(sql, text)
                found += [table] if count else []
            return found

    return asyncio.run(look())


def test_sdk_and_command_delete(server: Server, tmp_path: Path) -> None:
    key = server.key()
    with server.client(key) as client:
        fleet(client, "V1", "V2")
        reported(client, "V1", "C1", 2)
    with Client(server.url, key) as sdk:
        assert sdk.chargers.delete("C2") is True
        with pytest.raises(Conflict, match="8 events"):
            sdk.vehicles.delete("V1")
        with pytest.raises(NotFound):
            sdk.vehicles.delete("V9")
    names = {"TETHER_URL": server.url, "TETHER_API_KEY": key}
    command = Command(tmp_path, server.database, names)
    assert "without a terminal" in command.refused("vehicles", "delete", "V2")
    assert command.ok("vehicles", "delete", "V2", "--yes") == "Deleted vehicle V2.\n"
    said = command.refused("chargers", "delete", "C1", "--yes")
    assert said.startswith("Nothing was deleted. It has 8 events: add --events erase to erase it")
    assert "with all its events" in command.ok(
        "chargers", "delete", "C1", "--yes", "--events", "erase"
    )
    with server.client(key) as client:
        assert everything(client, "/events") == []
        assert everything(client, "/sessions") == []
