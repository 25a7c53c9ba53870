"""When events expire, the remaining sessions do not change, and later events mean the same."""

import asyncio
from random import Random
from typing import Any

import httpx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import Server
from tests.derivation.helpers import prepare, read, read_all, send, sessions
from tests.derivation.streams import Body, stream
from tests.derivation.test_withdrawals import differing
from tether.domain.keys import digest_of
from tether.domain.timestamps import format_instant, parse_instant
from tether.server.store import open_store

LAST_MS = 2**62


@settings(
    max_examples=25,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(seed=st.integers(0, 10**6))
def test_what_remains_is_what_it_would_be(server: Server, seed: int) -> None:
    order, vehicle = Random(seed), "V1"
    with server.client() as whole, server.client() as kept:
        for client in (whole, kept):
            prepare(client, [vehicle])
        horizon_ms = report_and_expire(server, whole, kept, stream(order, vehicle), order)
        compare(server, whole, kept, vehicle, horizon_ms)


def report_and_expire(
    server: Server, whole: httpx.Client, kept: httpx.Client, bodies: list[Body], order: Random
) -> int:
    """Reports events in any order and takes some back, of which one partner's expire meanwhile;
    returns the last horizon.
    """
    waiting = order.sample(bodies, len(bodies))
    if order.random() < 0.5:  # as they happened, but for some
        waiting.sort(key=lambda one: (one["timestamp"], order.random() < 0.8))
    horizon_ms = 0
    there: list[Body] = []
    while waiting:
        size = order.choice((1, 3, 8, 40))
        portion, waiting = waiting[:size], waiting[size:]
        portion = [one for one in portion if parse_instant(one["timestamp"]) >= horizon_ms]
        if portion:
            seed = order.random()
            for client in (whole, kept):
                send(client, portion, Random(seed), 8)
        there += portion
        if order.random() < 0.5:
            moment_ms = parse_instant(order.choice(bodies)["timestamp"])
            horizon_ms = max(horizon_ms, moment_ms + order.choice((-1, 0, 0, 1, 300_000)))
            expire(server, kept, horizon_ms)
            left = {identity(one) for one in read_all(kept, "/events")}
            there = [one for one in there if identity(one) in left]
        gone = [one for one in there if order.random() < 0.1]
        take_back_of_both(whole, kept, gone)
        there = [one for one in there if one not in gone]
    return horizon_ms


def identity(body: Body) -> tuple[str, ...]:
    at = format_instant(parse_instant(body["timestamp"]))
    return body["type"], body["chargerId"], body["vehicleId"], at


def take_back_of_both(whole: httpx.Client, kept: httpx.Client, gone: list[Body]) -> None:
    for client in (whole, kept):
        events = {identity(one): one["id"] for one in read_all(client, "/events")} if gone else {}
        for body in gone:
            assert client.delete(f"/events/{events[identity(body)]}").status_code == 204


def expire(server: Server, client: httpx.Client, horizon_ms: int) -> None:
    """Expires the events of sessions that ended before the horizon."""

    async def run() -> None:
        async with open_store(server.database) as store:
            key = await store.keys.find(digest_of(client.headers["x-api-key"]))
            assert key is not None
            await store.expiring.expire(key.partner, horizon_ms)
            assert await store.expiring.expire(key.partner, horizon_ms) == 0

    asyncio.run(run())


def compare(
    server: Server, whole: httpx.Client, kept: httpx.Client, vehicle: str, horizon_ms: int
) -> None:
    wanted, found = [sessions(client, vehicleId=vehicle) for client in (whole, kept)]
    for id, one in found.items():
        assert wanted[id] == one
    for id, one in wanted.items():
        end_ms = parse_instant(one["disconnectedAt"]) if "disconnectedAt" in one else LAST_MS
        assert id in found or end_ms < horizon_ms
    assert differing(server, kept, vehicle) == 0
    if found:
        assert state(kept, vehicle) == state(whole, vehicle)
    moments = [one["timestamp"] for one in read_all(kept, "/events", vehicleId=vehicle)]
    for at in sorted(set(moments))[::5]:
        if parse_instant(at) >= horizon_ms:
            assert read(kept.get("/capacity", params={"at": at})) == read(
                whole.get("/capacity", params={"at": at})
            )


def state(client: httpx.Client, vehicle: str) -> dict[str, Any]:
    found = read(client.get(f"/vehicles/{vehicle}/state"))
    found.get("lastEvent", {}).pop("id", None)
    return {n: v for n, v in found.items() if n != "asOf" and not n.endswith("Age")}
