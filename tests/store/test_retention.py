"""Which data are deleted after their retention, and which are not, on each engine."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from tests.store.test_contract import add_site, charger, event, report
from tether.domain.filters import EventFilter, SessionFilter
from tether.domain.timestamps import DAY_MS, format_instant, now_ms, parse_instant
from tether.server import retention
from tether.server.store import Store
from tether.storage.events import WITHDRAWALS
from tether.storage.refused_requests import RefusalFilter, RefusedRequest

InStore = Callable[[Callable[[Store, int], Awaitable[Any]]], Any]


def test_behind_the_horizon_nothing_comes_any_more(in_store: InStore) -> None:
    async def scenario(store: Store, partner: int) -> None:
        await add_site(store, partner)
        horizon_ms = parse_instant("2026-05-02T00:00:00Z")
        adding = asyncio.gather(*(
            report(store, partner, [event(second, vehicle_id=f"V{1 + second % 2}")])
            for second in range(60)
        ))  # fmt: skip
        await asyncio.sleep(0)
        await store.retention.move_horizon(partner, horizon_ms)
        page = await store.events.page(partner, EventFilter(), after=None, limit=1000)
        await adding
        again = await store.events.page(partner, EventFilter(), after=None, limit=1000)
        assert again == page

    in_store(scenario)


def test_the_horizon_follows_the_clock_and_what_is_said(in_store: InStore) -> None:
    async def scenario(store: Store, partner: int) -> None:
        here_ms = parse_instant("2026-07-01T10:20:30Z")

        async def horizon(default_days: int) -> str | None:
            ages = dict(await store.retention.all())[partner]
            await retention.expire(store, partner, ages, default_days * DAY_MS, lambda: here_ms)
            found, expired = (await store.retention.get(partner))[3:]
            assert found == expired
            return None if found is None else format_instant(found)

        assert await horizon(0) is None
        await store.retention.set(partner, {"events_ms": 0})
        assert await horizon(7) is None
        await store.retention.set(partner, {"events_ms": None})
        assert await horizon(7) == "2026-06-24T10:00:00.000Z"
        await store.retention.set(partner, {"events_ms": 30 * DAY_MS})
        assert await horizon(7) == "2026-06-24T10:00:00.000Z"
        await store.retention.set(partner, {"events_ms": 2 * DAY_MS})
        assert await horizon(7) == "2026-06-29T10:00:00.000Z"
        await store.retention.set(partner, {"events_ms": 0})
        assert await horizon(7) == "2026-06-29T10:00:00.000Z"

    in_store(scenario)


def test_refused_requests_go_by_the_partner_s_own_age(in_store: InStore) -> None:
    async def scenario(store: Store, partner: int) -> None:
        here_ms, requests = now_ms(), store.refused_requests
        made = [
            RefusedRequest(here_ms - days * DAY_MS, f"{days} days", "", "GET", "/", 404, 1,
                           "not-found", "", "")
            for days in (1, 5, 20)
        ]  # fmt: skip

        async def kept() -> list[str]:
            await requests.add(partner, made, here_ms)
            await retention.delete_old(store, here_ms)
            page = await requests.page(partner, RefusalFilter(), (2**62, ""), here_ms, 10)
            return [one.id for one in page]

        assert await kept() == ["1 days", "5 days"]
        await store.retention.set(partner, {"requests_ms": 0})
        assert await kept() == ["1 days", "5 days", "20 days"]
        await store.retention.set(partner, {"requests_ms": 2 * DAY_MS})
        assert await kept() == ["1 days"]

    in_store(scenario)


def test_what_tells_of_expired_events_goes_when_followers_had_time(in_store: InStore) -> None:
    async def scenario(store: Store, partner: int) -> None:
        await add_site(store, partner)
        await store.entities.put(partner, charger("C2"))
        events = [event(second, charger_id=f"C{1 + second % 2}") for second in range(30)]
        ids = [str(id) for id in await report(store, partner, events)]
        await store.projector.catch_up(partner)
        async for _ in store.withdrawals.withdraw(partner, ids[:20]):
            pass
        await store.projector.catch_up(partner)
        head = (await store.projector.derivations.progress(partner)).head
        changed = SessionFilter(updated_from_ms=0)

        async def told() -> list[int]:
            found, _ = await store.sessions.page(partner, changed, None, 100)
            gone = await store.events.page(
                partner, EventFilter(), after=None, limit=100, table=WITHDRAWALS
            )
            return [sum(one.removed for one in found), len(gone.events)]

        later_ms = now_ms() + 31 * DAY_MS
        before = await told()
        await store.retention.delete_tombstones(partner, later_ms)  # nothing expires
        assert await told() == before
        await store.retention.move_horizon(partner, parse_instant("2026-05-01T10:00:15Z"))
        await store.retention.delete_tombstones(partner, now_ms() + 29 * DAY_MS)
        assert await told() == before
        await store.retention.delete_tombstones(partner, later_ms)
        # Those that are not before the horizon stay.
        assert await told() == [before[0] - 15, 5]
        await store.retention.move_horizon(partner, parse_instant("2026-05-01T10:01:00Z"))
        await store.retention.delete_tombstones(partner, later_ms)
        assert await told() == [0, 1]
        await report(store, partner, [event(90)])
        assert (await store.projector.derivations.progress(partner)).head > head
        await store.projector.catch_up(partner)
        async for one in store.rebuilder.check(partner, repair=False):
            assert one.differing == 0

    in_store(scenario)
