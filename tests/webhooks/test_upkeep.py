"""Leases, limits of speed, and secrets when the secret key is lost."""

import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import httpx
import pytest

from tests.abuse.test_clocks import Clock
from tests.conftest import Server
from tests.webhooks.conftest import INSIDE, fill
from tests.webhooks.receiver import Receiver
from tests.webhooks.test_delivery import add, post, wait
from tether.domain.keys import digest_of
from tether.domain.webhooks import Endpoint, LogPosition, Message, Outcome
from tether.server.metrics import Metrics
from tether.server.store import open_store
from tether.storage.webhooks import Parked, Webhooks
from tether.webhooks.deliverer import Deliverer

SINCE_MS = 1_600_000_000_000  # 2020-09-13T12:26:40Z


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """On SQLite, with the key of the secrets in a file."""
    server = Server(str(tmp_path_factory.mktemp("upkeep") / "tether.db"), INSIDE).start()
    yield server
    assert server.stop() == 0
    assert server.failures() == []


def in_store(
    server: Server, client: httpx.Client, do: Callable[[Webhooks, int], Awaitable[None]]
) -> None:
    """Does this with the stored webhooks and the partner."""

    async def run() -> None:
        async with open_store(server.database) as store:
            key = await store.keys.find(digest_of(client.headers["x-api-key"]))
            assert key is not None
            await do(store.webhooks, key.partner)

    asyncio.run(run())


def test_a_lease_under_which_nobody_delivers_runs_out(
    server: Server, client: httpx.Client, receiver: Receiver, path: str
) -> None:
    held, lost = [add(client, receiver.url + path)["id"] for _ in range(2)]

    async def leases(stored: Webhooks, partner: int) -> None:
        both = [(partner, held), (partner, lost)]
        await stored.park(Parked(partner, held, "session_started_x", 10, None, 0))
        claimed = await stored.claim("dead", both, 10**14, 10**14 + 10)
        assert {one.id: one.parked for one in claimed} == {held: 1, lost: 0}
        # The server that claimed them does not know the second.
        await stored.renew("dead", [(partner, held)], 10**14 + 100)
        (other,) = await stored.claim("other", both, 10**14 + 20, 10**14 + 30)
        assert other.id == lost

    in_store(server, client, leases)


def test_messages_that_failed_for_good_are_replayed_from_an_instant_on(
    server: Server, client: httpx.Client, receiver: Receiver, path: str
) -> None:
    hook = add(client, receiver.url + path, types=["event.created"])
    ids = [post(client, type="VEHICLE_CHARGE_UPDATED", stateOfCharge=soc) for soc in (40, 41)]
    receiver.wait_for(path, 2)

    async def fail(stored: Webhooks, partner: int) -> None:
        for number, id in enumerate(ids):
            message = f"event_created_{id}"
            await stored.park(Parked(partner, hook["id"], message, 10, None, SINCE_MS * number))

    in_store(server, client, fail)
    since = {"failedSince": "2020-09-13T12:26:40Z"}
    replay = client.post(f"/webhooks/{hook['id']}/replay", json=since)
    assert (replay.status_code, replay.json()["replayed"]) == (202, 1)
    assert receiver.wait_for(path, 3)[2].id == f"event_created_{ids[1]}"


def test_what_is_sent_while_other_types_are_set_counts_no_more(
    server: Server, client: httpx.Client, receiver: Receiver, path: str
) -> None:
    id = add(client, receiver.url + path, types=["event.created"])["id"]
    found: list[Endpoint] = []

    async def claim(stored: Webhooks, partner: int) -> None:
        found.extend(await stored.claim("lease", [(partner, id)], 10**14, 10**14 + 10))

    async def save(stored: Webhooks, partner: int) -> None:
        (claimed,) = found
        # Nobody else delivers until the process that holds the lease notices the change.
        assert not await stored.claim("other", [(partner, id)], 10**14 + 5, 10**14 + 20)
        assert await stored.fences("lease", [(partner, id)]) == {(partner, id): claimed.fence + 1}
        sent = replace(claimed, position=LogPosition(seq=99), lease_ms=0)
        await stored.save("lease", [sent], [], [], [])
        assert (await stored.get(partner, id)).position.seq < 99
        assert await stored.claim("other", [(partner, id)], 10**14 + 5, 10**14 + 20)

    in_store(server, client, claim)
    types = {"types": ["event.created", "event.withdrawn"]}
    client.patch(f"/webhooks/{id}", json=types).raise_for_status()
    in_store(server, client, save)


def test_the_pace_holds_beyond_a_turn(client: httpx.Client, receiver: Receiver, path: str) -> None:
    receiver.answer = lambda one: (500, {}, b"") if one.path == path else None
    hook = add(client, receiver.url + path, types=["event.created"], ratePerSecond=0.001)
    post(client)

    def failing() -> str | None:
        next_at: str | None = client.get(f"/webhooks/{hook['id']}").json().get("nextTryAt")
        return next_at

    next_at = datetime.fromisoformat(wait(failing))
    (attempt,) = wait(lambda: client.get(f"/webhooks/{hook['id']}/attempts").json())
    assert (next_at - datetime.fromisoformat(attempt["at"])).total_seconds() > 900


def test_what_a_clock_that_was_ahead_has_left(
    server: Server, client: httpx.Client, receiver: Receiver, path: str
) -> None:
    id = add(client, receiver.url + path, types=["event.created"])["id"]

    async def be_ahead(stored: Webhooks, partner: int) -> None:
        years_ms = 10**14
        (one,) = await stored.claim("ahead", [(partner, id)], years_ms, years_ms)
        ahead = replace(one, due_ms=years_ms, lease_ms=years_ms)
        await stored.save("ahead", [ahead], [], [], [])

    in_store(server, client, be_ahead)
    event = post(client)
    assert receiver.wait_for(path, 1)[0].id == f"event_created_{event}"


class Sending:
    """Sends nothing, and takes until it `may_end`."""

    allow_http = True

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.may_end = asyncio.Event()

    async def send(self, endpoint: Endpoint, message: Message) -> Outcome:
        self.sent.append(message.id)
        await self.may_end.wait()
        return Outcome(200)

    def check_address(self, text: str) -> None:
        """Allows every address."""


def test_what_was_sent_is_not_sent_again_when_leases_expire_early(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server(str(tmp_path / "tether.db"), INSIDE).start()
    with server.client() as client:
        fill(client)
        id = add(client, "http://127.0.0.1:1", types=["event.created"], enabled=False)["id"]
        event = post(client)
        digest = digest_of(client.headers["x-api-key"])
        server.stop()

    async def deliver() -> list[str]:
        async with open_store(server.database) as store:
            key = await store.keys.find(digest)
            assert key is not None
            await store.webhooks.change(key.partner, id, {"enabled": True})
            sending, jumps, fences = Sending(), count(10**12, 10**5), store.webhooks.fences

            async def fences_while_it_ends(
                lease: str, held: Iterable[tuple[int, str]]
            ) -> dict[tuple[int, str], int]:
                sending.may_end.set()
                await asyncio.sleep(0.05)
                return await fences(lease, held)

            monkeypatch.setattr(store.webhooks, "fences", fences_while_it_ends)
            deliverer = Deliverer(store, sending, lambda: next(jumps), Metrics(), alone=True)
            task = asyncio.create_task(deliverer.run())
            async with asyncio.timeout(30):
                while not (await store.webhooks.get(key.partner, id)).success_ms:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            return sending.sent

    assert asyncio.run(deliver()) == [f"event_created_{event}"]


def test_it_stops_after_many_tries_in_120_hours_and_not_after_a_few(
    tmp_path: Path, receiver: Receiver, path: str
) -> None:
    receiver.answer = lambda one: (500, {}, b"") if one.path == path else None
    clock = Clock(tmp_path / "shift")
    clock.shift(0)
    server = Server(str(tmp_path / "tether.db"), INSIDE, program=clock.program).start()
    with server.client() as client:
        fill(client)
        address = f"/webhooks/{add(client, receiver.url + path, types=['event.created'])['id']}"
        post(client)
        for tries in range(1, 11):
            receiver.wait_for(path, tries)
            wait(lambda: client.get(address).json()["status"] != "active")
            assert client.get(address).json()["status"] == "failing"
            clock.shift(tries * 200 * 3600)  # as if the clock were wrong, or the server away
        wait(lambda: client.get(address).json()["status"] == "stopped")
    server.stop()


def test_while_it_is_off_it_does_not_fail(
    client: httpx.Client, receiver: Receiver, path: str
) -> None:
    receiver.answer = lambda one: (500, {}, b"") if one.path == path else None
    hook = add(client, receiver.url + path, types=["event.created"])
    post(client)

    def stops_at() -> str | None:
        found: str | None = client.get(f"/webhooks/{hook['id']}").json().get("stopsAt")
        return found

    before = wait(stops_at)
    for enabled in (False, True):
        client.patch(f"/webhooks/{hook['id']}", json={"enabled": enabled}).raise_for_status()
    assert wait(stops_at) > before


def test_a_date_without_a_zone_is_utc(
    new_server: Callable[..., Server], receiver: Receiver, path: str
) -> None:
    """Of the three forms of a date in HTTP the one of C has no zone."""
    server = new_server(*INSIDE, TZ="Etc/GMT+12")
    at = datetime.now(UTC) + timedelta(minutes=30)
    busy = (503, {"Retry-After": at.strftime("%a %b %d %H:%M:%S %Y")}, b"")
    receiver.answer = lambda one: busy if one.path == path else None
    with server.client() as client:
        fill(client)
        hook = add(client, receiver.url + path, types=["event.created"])
        post(client)
        next_at = wait(lambda: client.get(f"/webhooks/{hook['id']}").json().get("nextTryAt"))
    assert abs(datetime.fromisoformat(next_at) - at) < timedelta(minutes=5)


def test_410_ends_it_also_behind_a_message_that_fails(
    server_with_constants: Callable[..., Server], receiver: Receiver, path: str
) -> None:
    constants = "tether.webhooks.worker.TRIES_BEFORE_PARKING=1"
    server = server_with_constants(constants, options=tuple(INSIDE))
    statuses = [500, 410]
    receiver.answer = lambda one: (statuses.pop(0), {}, b"") if one.path == path else None
    with server.client() as client:
        fill(client)
        hook = add(client, receiver.url + path, types=["event.created"], enabled=False)
        for state_of_charge in (40, 41):
            post(client, type="VEHICLE_CHARGE_UPDATED", stateOfCharge=state_of_charge)
        client.patch(f"/webhooks/{hook['id']}", json={"enabled": True}).raise_for_status()
        wait(lambda: client.get(f"/webhooks/{hook['id']}").json()["status"] == "gone")
    assert len(receiver.at(path)) == 2


def test_an_answer_that_is_not_http(client: httpx.Client) -> None:
    def answer(listening: socket.socket) -> None:
        connection, _ = listening.accept()
        with connection:
            connection.recv(10_000)
            connection.sendall(b"\x1b[31mnot\x00http\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=answer, args=(listening,), daemon=True).start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/hook?token=secret"
        hook = add(client, url)
        outcome = client.post(f"/webhooks/{hook['id']}/test").json()
    assert not outcome["succeeded"]
    assert "secret" not in outcome["error"]  # it is in the log, too
    assert outcome["error"].isprintable()


@pytest.mark.parametrize(
    ("first", "then"),
    [
        (b"", b"HTTP/1.1 103 Early Hints\r\n\r\n"),
        (b"", b"\r\n"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"0"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b"HTTP/1.1 204 No Content\r\n\r\n"),
    ],
)
def test_an_answer_without_end_is_not_read(client: httpx.Client, first: bytes, then: bytes) -> None:
    """After the answer, too: connections stay open for the next request."""
    sent = 0

    def answer(listening: socket.socket) -> None:
        nonlocal sent
        connection, _ = listening.accept()
        with connection, suppress(OSError):
            connection.recv(10_000)
            connection.sendall(first)
            while sent < 100_000_000:
                sent += connection.send(1_000 * then)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=answer, args=(listening,), daemon=True)
        thread.start()
        hook = add(client, f"http://127.0.0.1:{listening.getsockname()[1]}/")
        client.post(f"/webhooks/{hook['id']}/test").raise_for_status()
        thread.join()
    assert sent < 50_000_000  # the system keeps some for who does not read


def test_a_secret_is_rotated_when_its_key_is_lost(
    server: Server, client: httpx.Client, receiver: Receiver, path: str
) -> None:
    hook = add(client, receiver.url + path)
    server.stop()
    key = Path(f"{server.database}.secret-key")
    assert key.stat().st_mode & 0o077 == 0
    key.unlink()
    server.start(int(server.url.rpartition(":")[2]))
    outcome = client.post(f"/webhooks/{hook['id']}/test").json()
    assert "another key" in outcome["error"]
    client.post(f"/webhooks/{hook['id']}/rotate-secret").raise_for_status()
    outcome = client.post(f"/webhooks/{hook['id']}/test").json()
    assert outcome["succeeded"], outcome
    assert list(key.parent.glob("*.secret-key*")) == [key]
