"""Keys end when they should, and are not written anywhere in full."""

import asyncio
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from tests.conftest import Server
from tests.wire import Partner, Wire, run
from tether.domain import timestamps
from tether.domain.keys import LIVE, new_key
from tether.server import admin
from tether.server.store import open_store
from tether.storage.sqlite.file import connect

FOLLOWS_WITHIN_S = 2.0


def works(server: Server, key: str) -> bool:
    answer = httpx.get(f"{server.url}/chargers", headers={"x-api-key": key})
    if answer.status_code == 403:
        assert answer.json() == {"message": "Forbidden. Send your key in the header x-api-key."}
        return False
    assert answer.status_code == 200
    return True


def test_revoked_rotated_and_expired_keys_stop_working_in_time(
    new_server: Callable[..., Server],
) -> None:
    server = new_server()
    overlap_ms = 4_000
    revoked, rotated = server.key("A"), server.key("A")
    assert works(server, revoked)
    assert works(server, rotated)
    expiring = server.key("A", expires_ms=timestamps.now_ms() + overlap_ms)

    async def revoke_and_rotate() -> str:
        async with open_store(server.database) as store:
            now = timestamps.now_ms()
            await store.keys.revoke(await admin.find_key(store, revoked), now)
            old = await admin.find_key(store, rotated)
            new, *_ = await admin.rotate_key(store, now, old, overlap_ms)
            return new

    assert works(server, expiring)
    new = asyncio.run(revoke_and_rotate())
    done = time.monotonic()
    assert works(server, new)
    assert works(server, rotated), "the old key works on during the overlap"
    time.sleep(max(0.0, done + FOLLOWS_WITHIN_S - time.monotonic()))
    assert not works(server, revoked)
    time.sleep(max(0.0, done + overlap_ms / 1000 + FOLLOWS_WITHIN_S - time.monotonic()))
    assert not works(server, rotated)
    assert not works(server, expiring)
    assert works(server, new)


def test_a_request_under_way_outlives_its_key_but_the_connection_does_not(
    new_server: Callable[..., Server],
) -> None:
    server = new_server()
    partner = Partner(server)

    async def scenario() -> None:
        wire = await Wire.to(server)
        assert (await wire.ask(partner.post(1))).status == 201
        async with open_store(server.database) as store:
            await store.keys.revoke(await admin.find_key(store, partner.key), timestamps.now_ms())
        await asyncio.sleep(FOLLOWS_WITHIN_S)
        assert (await wire.ask(partner.post(2))).status == 403

    run(scenario())


def misuse(server: Server, key: str) -> list[str]:
    """Causes all kinds of errors with the key, also in wrong places; returns the answers."""
    good = {"x-api-key": key}
    answers = []
    with httpx.Client(base_url=server.url, timeout=30) as client:

        def send(method: str, path: str, *, headers: dict[str, str] = good, body: str = "") -> None:
            answer = client.request(method, path, headers=headers, content=body)
            assert 400 <= answer.status_code < 500, (method, path, answer.text)
            answers.append(f"{answer.headers}{answer.text}")

        for path in (f"/chargers/{key}", f"/events/{key}", f"/{key}", f"/chargers?{key}=1"):
            send("GET", path)
        for query in (f"cursor={key}", f"limit={key}", f"order={key}", f"x-api-key={key}"):
            send("GET", f"/events?{query}")
        for body in (f'{{"chargePowers": "{key}"}}', f"[{key}]", f'"{key}', f'{{"a": {key}}}'):
            send("PUT", "/chargers/C1", body=body)
        send("POST", "/events", body=f'{{"type": "{key}"}}')
        send("PUT", f"/chargers/{key}%20", body='{"chargePowers": [11]}')
        send("PATCH", f"/vehicles/{key}", body="{}")
        send("POST", f"/chargers/{key}")
        for headers in (
            {"authorization": f"Bearer {key}"},
            {"x-api-key": key + "x"},
            {"x-api-key": key[:-1] + ("0" if key[-1] != "0" else "1")},
            {"x-api-key": f"{key},{key}"},
            {"cookie": key, "user-agent": key, "referer": f"http://{key}/"},
        ):
            send("GET", "/chargers", headers=headers)
        for headers in ({"host": key}, {"content-encoding": key}, {"if-match": key}):
            send("PUT", "/chargers/none", headers={**good, **headers}, body="{}")
    return answers


def test_a_key_that_was_sent_as_a_members_name_is_not_answered_in_full(
    new_server: Callable[..., Server],
) -> None:
    server = new_server()
    key = server.key()
    for body in (f'{{"{key}": 1}}', f'{{"{key}": 1, "{key}": 1}}'):
        answer = server.client(key).put("/chargers/C1", content=body)
        assert answer.status_code == 400
        assert key not in answer.text


def test_a_key_that_was_sent_as_the_request_id_is_neither_answered_nor_logged(
    new_server: Callable[..., Server],
) -> None:
    server = new_server()
    key = server.key()
    answer = httpx.get(f"{server.url}/chargers", headers={"x-request-id": key})
    assert answer.status_code == 403
    assert server.stop() == 0
    assert key not in str(answer.headers) + "".join(server.log)


async def say_nonsense(server: Server, key: str) -> list[str]:
    """The answers to invalid HTTP with the key in it."""
    answers = []
    for nonsense in (key, f"GET /{key}", f"{key} / HTTP/1.1", f"GET / HTTP/1.1\r\n{key}"):
        wire = await Wire.to(server)
        answer = await wire.ask(f"{nonsense}\r\n\r\n".encode())
        assert answer.status in (400, 403)
        answers.append(str(answer))
    return answers


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_no_key_stands_in_full_in_the_log_the_metrics_the_database_or_an_error(
    log_format: str, new_server: Callable[..., Server]
) -> None:
    server = new_server("--log-format", log_format, "--log-level", "debug")
    key, unknown, revoked = server.key(), new_key(), server.key()

    async def revoke() -> None:
        async with open_store(server.database) as store:
            await store.keys.revoke(await admin.find_key(store, revoked), timestamps.now_ms())

    asyncio.run(revoke())
    shown = misuse(server, key)
    shown += run(say_nonsense(server, key))
    for wrong in (unknown, revoked):
        assert not works(server, wrong)
    with closing(connect(Path(server.database))) as other:
        other.execute("ALTER TABLE keys RENAME TO gone")
    broken = httpx.get(f"{server.url}/chargers", headers={"x-api-key": unknown})
    assert (broken.status_code, broken.json()) == (500, {"message": "Internal Server Error"})
    shown += [broken.text, str(broken.headers)]
    shown.append(httpx.get(f"{server.url}/metrics").text)
    shown += [file.read_bytes().decode("latin-1") for file in files_of(server)]
    assert server.stop() == 0
    shown += server.log
    shown += [file.read_bytes().decode("latin-1") for file in files_of(server)]
    assert any("SQLError" in line for line in server.log), "the log tells what broke"
    for secret in (key, unknown, revoked):
        found = [text for text in shown if secret in text or secret.removeprefix(LIVE) in text]
        assert not found, found[0][:1000]


def files_of(server: Server) -> list[Path]:
    """The database's files."""
    path = Path(server.database)
    return [file for file in path.parent.iterdir() if file.name.startswith(path.name)]


def test_the_database_files_are_for_their_owner_only(new_server: Callable[..., Server]) -> None:
    server = new_server()
    Partner(server)
    assert {file.name.removeprefix(Path(server.database).name) for file in files_of(server)} == {
        "", "-wal", "-shm", "-server",
    }  # fmt: skip
    assert all(file.stat().st_mode & 0o077 == 0 for file in files_of(server))
