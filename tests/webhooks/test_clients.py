"""Webhooks through the SDK and the command line, and messages verified by the SDK."""

import asyncio
import base64
import hmac
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.commands import Result, tether
from tests.conftest import TETHER, Server
from tests.debian import program
from tests.webhooks.receiver import Receiver
from tests.webhooks.test_delivery import post, wait
from tether.client import AsyncClient, Client, Conflict, Invalid, NotFound, verify_webhook
from tether.domain.webhooks import hmac_signature, new_secret

DOCUMENT = Path(__file__).parents[2] / "docs" / "webhooks.md"


def webhooks(server: Server, key: str, *words: str) -> Result:
    return tether("webhooks", *words, TETHER_URL=server.url, TETHER_API_KEY=key)


def test_the_sdk(server: Server, key: str, receiver: Receiver, path: str) -> None:
    with Client(server.url, key) as client, server.client(key) as http:
        made = client.webhooks.create(
            receiver.url + path, types=["event.created"], description="Billing", rate_per_second=50
        )
        assert made.secret is not None
        event = post(http)
        (one,) = receiver.wait_for(path, 1)
        message = verify_webhook(one.headers, one.body, made.secret)
        assert message["data"]["eventId"] == event
        assert client.webhooks.test(made.id).succeeded
        attempts = wait(
            lambda: len(found := list(client.webhooks.attempts(made.id))) == 2 and found
        )
        assert {attempt.type for attempt in attempts} == {"event.created", "webhook.test"}
        changed = client.webhooks.change(made.id, enabled=False, description=None)
        assert (changed.enabled, changed.description, changed.status) == (False, "", "disabled")
        rotated = client.webhooks.rotate_secret(made.id, overlap=60)
        assert rotated.secret not in (None, made.secret)
        assert rotated.old_secret_until is not None
        again = client.webhooks.replay(made.id, message_id=one.id)
        assert again.replayed == 1
        with pytest.raises(Invalid):
            client.webhooks.create("https://127.0.0.1:9/#x")
        client.webhooks.delete(made.id)
        with pytest.raises(NotFound):
            client.webhooks.get(made.id)


async def _all(url: str, key: str) -> int:
    async with AsyncClient(url, key) as client:
        for _ in range(20):
            await client.webhooks.create("https://hook.invalid/", enabled=False)
        with pytest.raises(Conflict, match="20 webhooks"):
            await client.webhooks.create("https://hook.invalid/")
        return len(await client.webhooks.list())


def test_there_are_at_most_twenty(server: Server, key: str) -> None:
    assert asyncio.run(_all(server.url, key)) == 20


def test_what_is_not_signed_is_refused(
    server: Server, key: str, receiver: Receiver, path: str
) -> None:
    with Client(server.url, key) as client, server.client(key) as http:
        shared = client.webhooks.create(receiver.url + path, types=["event.created"])
        public = client.webhooks.create(
            receiver.url + path + "a", types=["event.created"], signature="v1a"
        )
        post(http)
    for made, where in ((shared, path), (public, path + "a")):
        secret = made.secret or made.public_key
        other = (shared.secret, public.public_key)[made is shared]
        assert secret is not None
        assert other is not None
        (one,) = receiver.wait_for(where, 1)
        verify_webhook({name.title(): text for name, text in one.headers.items()}, one.body, secret)
        signed = f"{one.id}.{one.headers['webhook-timestamp']}.".encode() + one.body
        by_nothing = f"v1,{base64.b64encode(hmac.digest(b'', signed, 'sha256')).decode()}"
        wrong: list[tuple[dict[str, str], bytes, str]] = [
            (one.headers, one.body + b" ", secret),
            (one.headers, one.body, other),
            ({**one.headers, "webhook-id": "event_created_1"}, one.body, secret),
            ({**one.headers, "webhook-timestamp": str(int(time.time()) - 400)}, one.body, secret),
            ({**one.headers, "webhook-timestamp": "soon"}, one.body, secret),
            ({**one.headers, "webhook-signature": "v1,AAAA v1a,AAAA v2 ,"}, one.body, secret),
            ({"webhook-id": one.id}, one.body, secret),
            # A missing setting is not an empty secret that anybody could use.
            ({**one.headers, "webhook-signature": by_nothing}, one.body, "whsec_"),
        ]
        for headers, body, with_secret in wrong:
            with pytest.raises(
                ValueError, match=r"The message|The header|The secret|base64|padding|Incorrect"
            ):
                verify_webhook(headers, body, with_secret)


def test_the_javascript_of_the_document(tmp_path: Path) -> None:
    (example,) = re.findall(r"```js\n(.*?)```", DOCUMENT.read_text(), re.S)
    (tmp_path / "verify.mjs").write_text(f"""{example}
import {{ readFileSync }} from "node:fs";
for (const [headers, body, secret] of JSON.parse(readFileSync(0)))
  try {{ console.log(verify(headers, body, secret).type); }} catch {{ console.log("refused"); }}
""")
    secret, body, now = new_secret(), '{"type": "event.created"}', int(time.time())

    def headers(at_s: int, *signatures: str) -> dict[str, str]:
        at, given = str(at_s), " ".join(signatures)
        return {"webhook-id": "one", "webhook-timestamp": at, "webhook-signature": given}

    valid = hmac_signature(secret, "one", now, body.encode())
    early = hmac_signature(secret, "one", now - 400, body.encode())
    nothing = base64.b64encode(hmac.digest(b"", f"one.{now}.{body}".encode(), "sha256")).decode()
    cases = [
        (headers(now, valid), body, secret),
        (headers(now, "v1,AAAA", valid), body, secret),
        (headers(now, valid), body + " ", secret),
        (headers(now, valid), body, new_secret()),
        (headers(now - 400, early), body, secret),
        (headers(now, f"v1,{nothing}"), body, "whsec_"),  # a missing setting
        (headers(now, f"v1,{nothing}"), body, ""),
    ]
    said = subprocess.run(
        [program("node", package="nodejs"), tmp_path / "verify.mjs"],
        input=json.dumps(cases), capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert said.split() == ["event.created"] * 2 + ["refused"] * 5


def test_the_command_line(server: Server, key: str, receiver: Receiver, path: str) -> None:
    made = webhooks(server, key, "create", receiver.url + path, "--type", "event.created")
    assert made.returncode == 0, made.stderr
    secret = made.stdout.strip()
    assert secret.startswith("whsec_")
    (listed,) = map(json.loads, webhooks(server, key, "list").stdout.splitlines())
    with server.client(key) as http:
        post(http)
    (one,) = receiver.wait_for(path, 1)
    verify_webhook(one.headers, one.body, secret)
    start = listed["id"][:30]
    tested = webhooks(server, key, "test", start)
    assert json.loads(tested.stdout)["succeeded"]
    # The delivery is stored after the answer.
    none = {"events": 0, "sessions": 0}
    wait(lambda: json.loads(webhooks(server, key, "get", start).stdout)["backlog"] == none)
    moved = ("--address", receiver.url + path + "/moved")
    changed = webhooks(server, key, "set", start, "--disable", "--charger", "C1", *moved)
    members = json.loads(changed.stdout)
    assert (members["chargerId"], members["url"]) == ("C1", moved[1])
    assert webhooks(server, key, "attempts", start, "--limit", "1").stdout.count("\n") == 1
    assert "1 message" in webhooks(server, key, "replay", start, "--message", one.id).stdout
    assert webhooks(server, key, "rotate-secret", start).stdout.strip() not in ("", secret)
    asked = webhooks(server, key, "delete", start)
    assert asked.returncode == 1
    assert "the messages that wait for it" in asked.stderr
    assert "Nothing was deleted: without a terminal to ask in, pass --yes." in asked.stderr
    assert webhooks(server, key, "delete", start, "--yes").returncode == 0
    assert webhooks(server, key, "list").stdout == ""


def test_listening(server: Server, key: str, receiver: Receiver, path: str) -> None:
    process = subprocess.Popen(
        [TETHER, "webhooks", "listen", "--forward", receiver.url + path],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "TETHER_URL": server.url, "TETHER_API_KEY": key,
             "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    assert process.stdout is not None
    secret = process.stdout.readline().strip()
    number = 0

    def told() -> list[str]:
        nonlocal number
        number += 1
        with server.client(key) as http:
            post(http, timestamp=f"2026-01-01T10:00:{number % 60:02}Z")
        return [one.id for one in receiver.at(path)]

    wait(told)
    wait(lambda: any(one.id.startswith("session_") for one in receiver.at(path)))

    def withdrawn() -> bool:
        with server.client(key) as http:
            gone = post(http, type="VEHICLE_CHARGE_UPDATED", timestamp="2026-01-01T11:00:00Z")
            http.delete(f"/events/{gone}").raise_for_status()
        return any(one.id.startswith("event_withdrawn_") for one in receiver.at(path))

    wait(withdrawn)
    for one in receiver.at(path):
        found: dict[str, Any] = verify_webhook(one.headers, one.body, secret)
        assert found["data"]["vehicleId"] == "V1"
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130


def test_listening_for_no_address(server: Server, key: str) -> None:
    refused = webhooks(server, key, "listen", "--forward", "3000")
    assert refused.returncode == 1
    assert "--forward must be a URL such as http://localhost:3000/hook." in refused.stderr


def test_check_says_which_encryption_keys_are_needed(new_server: Callable[..., Server]) -> None:
    first, second = "1" * 32, "2" * 32
    server = new_server(TETHER_SECRET_KEY=first)
    key = server.key()
    made = json.loads(webhooks(server, key, "create", "https://hook.invalid/", "--json").stdout)

    def check(keys: str) -> str:
        done = tether("check", "--json", "--database", server.database, TETHER_SECRET_KEY=keys)
        found = {one["check"]: one["message"] for one in json.loads(done.stdout)["checks"]}
        return str(found["webhooks"])

    good = "1 webhook: 0 failing, 0 stopped."
    assert check(first) == good
    assert check(f"{second},{first}") == f"{good} 1 secret of an earlier key."
    assert check(second) == check("") == "The secrets of 1 webhook cannot be decrypted."
    assert "under 32 characters" in check("short")
    assert server.stop() == 0
    server = new_server(database=server.database, TETHER_SECRET_KEY=f"{second},{first}")
    assert webhooks(server, key, "rotate-secret", made["id"]).returncode == 0
    assert check(second) == good


def test_a_key_that_only_reads_changes_nothing(server: Server, key: str) -> None:
    with server.client(key) as http:
        made = http.post("/webhooks", json={"url": "https://hook.invalid/"}).json()
    with server.client(server.key(read_only=True)) as reader:
        for method, address in (
            ("POST", "/webhooks"), ("PATCH", f"/webhooks/{made['id']}"),
            ("DELETE", f"/webhooks/{made['id']}"), ("POST", f"/webhooks/{made['id']}/test"),
        ):  # fmt: skip
            answer: httpx.Response = reader.request(method, address, json={})
            assert answer.status_code == 403
