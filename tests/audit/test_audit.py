"""The audit trail: who changed what, over HTTP, the SDK, the console and the command line."""

import asyncio
import csv
import io
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.commands import Command
from tests.conftest import FAST, Server
from tests.console.visitors import OURS, new_link, partner_number, visitor
from tests.fleet import put_fleet
from tether.client import AuditEntry, Client, Invalid
from tether.domain.audit import OPERATOR, AuditRow
from tether.domain.timestamps import DAY_MS
from tether.server.databases import database_of
from tether.server.retention import run_audit_deletion
from tether.server.store import open_store
from tether.storage.audit import MAX_BYTES, AuditFilter, audit_entry

NASTY = "<b>\x1b[31m\u202e</b>'\""


@pytest.fixture
def command(server: Server, tmp_path: Path) -> Command:
    return Command(tmp_path, server.database)


def trail(client: httpx.Client, **query: object) -> list[dict[str, Any]]:
    answer = client.get("/audit", params=query)  # type: ignore[arg-type]
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()
    return found


def test_every_change_is_noted_with_who_did_what_and_what_differs(
    server: Server, command: Command
) -> None:
    key = server.key("trail")
    with server.client(key) as client:
        command.ok("keys", "set", key[:17], "--burst", "7", "--name", "old")
        command.ok("partners", "rename", "trail", "trail two")
        number = partner_number(server, key)
        with visitor(server, key) as page:
            done = page.post(f"/console/p/{number}/keys", data={"do": "create", "name": "<b>new"})
            assert done.status_code == 200
        found = trail(client)
        assert [one["action"] for one in found] == [
            "partner.create", "key.create", "key.change", "partner.rename", "key.create",
        ]  # fmt: skip
        assert [one["actor"] for one in found] == ["operator"] * 4 + ["key"]
        assert found[2]["before"] == {"name": "", "burst": FAST.requests}
        assert found[2]["after"] == {"name": "old", "burst": 7}
        assert found[3]["before"] == {"name": "trail"}
        assert found[4]["key"] == key[:17]
        assert found[4]["address"] == "127.0.0.1"
        assert found[4]["requestId"] == done.headers["x-request-id"]
        assert all("address" not in one for one in found[:4])
        new = found[4]["target"]
        command.ok("keys", "rotate", new, "--overlap", "0")
        command.ok("keys", "revoke", new)  # it is revoked already: nothing is noted
        last = trail(client, order="desc", limit=1)
        assert last[0]["action"] == "key.rotate"
        assert trail(client, action="key.revoke") == []
        command.ok("keys", "revoke", last[0]["after"]["key"])
        assert [one["target"] for one in trail(client, action="key.revoke")] == [
            last[0]["after"]["key"]
        ]


def test_a_partner_reads_its_own_entries_in_pages_both_ways_and_in_a_window(
    server: Server,
) -> None:
    key, other = server.key(), server.key()
    with server.client(key) as client, server.client(other) as another:
        whole = trail(client)
        for _ in range(4):
            server.key(whole[0]["after"]["name"])
        whole = trail(client)
        assert len(whole) == 6
        for order in ("asc", "desc"):
            answer = client.get("/audit", params={"limit": 4, "order": order})
            following = client.get(answer.links["next"]["url"])
            pages = answer.json() + following.json()
            assert pages == (whole if order == "asc" else whole[::-1])
            assert "next" not in following.links
        assert trail(client, to=whole[0]["at"]) == []
        assert trail(client, **{"from": whole[0]["at"]}) == whole
        assert {one["id"] for one in trail(another)} & {one["id"] for one in whole} == set()
        past_each_other = {"from": "2026-01-02T00:00:00Z", "to": "2026-01-01T00:00:00Z"}
        for wrong in (
            {"action": "x"}, {"cursor": "x"}, {"order": "up"}, {"from": "x"}, {"x": 1},
            past_each_other,
        ):  # fmt: skip
            assert client.get("/audit", params=wrong).status_code == 400, wrong
    with Client(server.url, key) as sdk:
        entries = list(sdk.audit(page_size=2, action="key.create"))
        assert [one.action for one in entries] == ["key.create"] * 5
        assert isinstance(entries[0], AuditEntry)
        with pytest.raises(Invalid):
            list(sdk.audit(action="nothing"))


def test_sign_ins_good_and_refused_are_noted(server: Server, command: Command) -> None:
    key, revoked = server.key("signer"), server.key("signer")
    command.ok("keys", "revoke", revoked)
    with httpx.Client(base_url=server.url, headers=OURS, timeout=30) as stranger:
        assert stranger.post("/console/sign-in", data={"key": key}).status_code == 303
        assert stranger.post("/console/sign-in", data={"key": revoked}).status_code == 403
        assert stranger.post("/console/sign-in", data={"key": NASTY}).status_code == 403
        assert stranger.get(new_link(server)).status_code == 200
        assert stranger.get("/console/enter/" + "x" * 30).status_code == 403
    with server.client(key) as client:
        mine = trail(client)
    signed = [one for one in mine if one["action"].startswith("console.")]
    assert [(one["action"], one["key"]) for one in signed] == [
        ("console.sign_in", key[:17]), ("console.sign_in_refused", revoked[:17]),
    ]  # fmt: skip
    every = command.json("audit")
    others = [one for one in every if one["action"].startswith("console.") and "partner" not in one]
    assert [(one["action"], one["target"]) for one in others][-4:] == [
        ("console.sign_in_refused", "unknown key"), ("console.link", "operator"),
        ("console.sign_in", "console"), ("console.sign_in_refused", "link"),
    ]  # fmt: skip
    assert NASTY not in json.dumps(every)


def test_the_console_shows_a_partner_its_own_and_the_operator_all(server: Server) -> None:
    key, other = server.key(), server.key()
    number, strange = partner_number(server, key), partner_number(server, other)
    with visitor(server, key) as page:
        shown = page.get(f"/console/p/{number}/audit")
        assert shown.status_code == 200
        assert key[:17] in shown.text
        assert other[:17] not in shown.text
        assert page.get("/console/audit").status_code == 404
        assert page.get("/console/audit.csv").status_code == 404
        assert page.get(f"/console/p/{strange}/audit").status_code == 404
        assert page.get(f"/console/p/{number}/audit.xml").status_code == 404
        rows = list(csv.DictReader(io.StringIO(page.get(f"/console/p/{number}/audit.csv").text)))
        lines = page.get(f"/console/p/{number}/audit.ndjson").text.splitlines()
        assert [row["id"] for row in rows] == [json.loads(line)["id"] for line in lines]
        assert json.loads(rows[-1]["after"])["burst"] == FAST.requests
    with visitor(server, None) as page:
        # Others may have made more keys since than a page shows.
        for whose, one in ((number, key), (strange, other)):
            assert one[:17] in page.get(f"/console/p/{whose}/audit").text
        text = page.get("/console/audit?action=key.create").text
        assert "key.create" in text
        assert "partner.create" not in text
        assert page.get("/console/audit?action=%3Cb%3E").status_code == 400
        assert page.get("/console/audit.ndjson").status_code == 200


def test_the_command_shows_tables_and_files(server: Server, command: Command) -> None:
    key = server.key("shown here")
    text = command.ok("audit", "--partner", "shown here", "--since", "1h")
    assert "key.create" in text
    rows = list(csv.DictReader(io.StringIO(command.ok("audit", "--csv"))))
    assert rows[-1]["target"] == key[:17]
    assert rows[-1]["partner"] == "shown here"
    (line,) = command.ok("audit", "--ndjson", "--limit", "1").splitlines()
    assert json.loads(line)["target"] == key[:17]
    assert command.json("audit", "--since", "2100-01-01") == []
    assert "no partner" in command.refused("audit", "--partner", "nobody")
    assert "no action" in command.refused("audit", "--action", "<b>")


def test_of_a_deleted_partner_only_its_deletion_remains(server: Server, command: Command) -> None:
    key = server.key("gone for good")
    number = partner_number(server, key)
    command.ok("partners", "delete", "gone for good", "--yes")
    left = command.ok("audit", "--ndjson")
    assert "gone for good" not in left
    assert key[:17] not in left
    last = json.loads(left.splitlines()[-1])
    assert (last["action"], last["target"]) == ("partner.delete", str(number))
    assert last["before"]["keys"] == 1


def test_old_entries_go(tmp_path: Path) -> None:
    database = str(tmp_path / "tether.db")
    database_of(database).migrate()

    async def forgets() -> list[int]:
        async with open_store(database) as store:
            entries = (audit_entry(1, at_ms, OPERATOR, "a.b", "c") for at_ms in (10, 20 * DAY_MS))
            await store.audit.add(*entries)
            forgetting = asyncio.create_task(run_audit_deletion(store, 5, lambda: 20 * DAY_MS))
            async with asyncio.timeout(60):
                while len(found := await store.audit.page(AuditFilter(1), None, 10)) > 1:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            forgetting.cancel()
            return [one.at_ms for one in found]

    assert asyncio.run(forgets()) == [20 * DAY_MS]


def test_what_is_large_is_left_out_and_what_is_the_same_too() -> None:
    made = AuditRow._make(
        audit_entry(1, 0, OPERATOR, "a.b", "x" * 999, after={"text": "y" * MAX_BYTES}).parameters
    )
    assert (made.after, len(made.target)) == ("", 200)
    made = AuditRow._make(
        audit_entry(
            1, 0, OPERATOR, "a.b", "", before={"a": 1, "b": 2}, after={"a": 1, "b": 3, "c": 4}
        ).parameters
    )
    assert (made.before, made.after) == ('{"b":2}', '{"b":3,"c":4}')


def test_withdrawals_at_once_are_noted_once_each(client: httpx.Client) -> None:
    put_fleet(client, ("C1",), ("V1",))
    events = [
        {"type": "VEHICLE_CONNECTED", "chargerId": "C1", "vehicleId": "V1",
         "timestamp": f"2026-01-01T{hour:02}:00:00Z"}
        for hour in range(4)
    ]  # fmt: skip
    one, *others = [one["id"] for one in client.post("/events/bulk", json=events).json()]
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: client.delete(f"/events/{one}"), range(16)))
    assert {answer.status_code for answer in answers} == {204}
    (noted,) = trail(client, action="event.withdraw")
    assert (noted["target"], "after" in noted) == (one, False)
    for _ in range(2):
        client.post("/events/withdraw", json=[one, *others]).raise_for_status()
    _, of_many = trail(client, action="event.withdraw")
    assert (of_many["target"], of_many["after"]) == (others[0], {"events": 3})


def test_what_changes_nothing_is_not_noted(server: Server, command: Command) -> None:
    key = server.key("same again")
    with server.client(key) as client:
        for _ in range(2):
            command.ok("keys", "set", key[:17], "--name", "new")
        (noted,) = trail(client, action="key.change")
        assert (noted["before"], noted["after"]) == ({"name": ""}, {"name": "new"})
        hook = client.post("/webhooks", json={"url": "https://example.com/"}).json()
        for _ in range(2):
            change = {"ratePerSecond": 2.5, "maxBatch": 7}
            client.patch(f"/webhooks/{hook['id']}", json=change).raise_for_status()
        (noted,) = trail(client, action="webhook.change")
        assert noted["before"] == {"maxBatch": 1, "ratePerSecond": None}
        assert noted["after"] == {"maxBatch": 7, "ratePerSecond": 2.5}
        client.patch(f"/webhooks/{hook['id']}", json={"from": "start"}).raise_for_status()
        assert trail(client, action="webhook.change")[1]["after"] == {"from": "start"}
