"""The use of keys: counted in memory, written later, added up over processes, and shown."""

import asyncio
import re
from collections.abc import Callable
from decimal import Decimal

from tests.conftest import Server
from tests.console.visitors import partner_number, visitor
from tests.fleet import put_fleet
from tether.domain.errors import Unavailable
from tether.domain.keys import Rate
from tether.domain.models import Charger, Event, EventType, Vehicle
from tether.domain.timestamps import HOUR_MS, now_ms
from tether.server import admin
from tether.server.authenticator import KeyUse
from tether.server.databases import database_of
from tether.server.store import Store, open_store
from tether.storage.key_hours import KEPT_HOURS, SLOT_MS, Activity, Counts, Use

ONE = Decimal(1)
DAY_MS = 24 * HOUR_MS
NOON_MS = 20_000 * DAY_MS + 12 * HOUR_MS


def text_of(page: str) -> str:
    """What the page says, in one line."""
    return " ".join(re.sub(r"<[^>]*>", " ", page).split())


def test_calls_refusals_and_events_of_the_day_are_on_the_pages(
    new_server: Callable[..., Server],
) -> None:
    day = now_ms() // DAY_MS
    server = new_server()
    key = server.key("Counted", rate=Rate(1000, 3600))
    number = partner_number(server, key)
    with server.client(key) as client:
        put_fleet(client)
        assert client.get("/chargers/unknown").status_code == 404
        event = {"type": "VEHICLE_CONNECTED", "chargerId": "C1", "vehicleId": "V1",
                 "timestamp": "2026-01-05T08:00:00Z"}  # fmt: skip
        events = [event, {**event, "chargerId": "C2"}, {**event, "stateOfCharge": 150}]
        for _ in range(2):  # the second time nothing is new
            client.post("/events/bulk", json=events).raise_for_status()
    with server.client("ttr_live_unknown") as nobody:
        nobody.get("/chargers")
    server.stop()  # which writes what it has counted
    server.start()
    with visitor(server) as operator:
        keys = text_of(operator.get(f"/console/p/{number}/keys").text)
        assert "5 calls, 1 refused" in keys
        assert "of 1,000/3600s" in keys
        partners = operator.get("/console/partners").text
        cells = re.findall(r'<td class="num" data-label="[^"]*">(.*?)</td>', partners)
        *there, today, refused = [text_of(cell) for cell in cells[:5]]
        assert there == ["1", "1", "1"]  # chargers, vehicles, events
        of_today = [today, refused]
        assert of_today == ["1", "1"] or now_ms() // DAY_MS != day  # just after midnight


def run(database: str, use: Callable[[Store], object]) -> None:
    async def work() -> None:
        async with open_store(database) as store:
            await use(store)  # type: ignore[misc]

    database_of(database).migrate()
    asyncio.run(work())


def test_what_several_processes_count_adds_up(database: str) -> None:
    async def work(store: Store) -> None:
        _, key = await admin.create_key(store, NOON_MS, "acme", rate=Rate(100, 60))
        clock = [NOON_MS]
        workers = [
            KeyUse(store.keys.record_use, store.key_hours.add, lambda: clock[0]) for _ in range(2)
        ]

        async def write() -> Use:
            await asyncio.gather(*(worker.write() for worker in workers))
            return (await store.key_hours.of_partner(key.partner, clock[0]))[key.digest]

        for worker, calls in zip(workers, (30, 25), strict=True):
            for _ in range(calls):
                worker.count(key, 61.0, 1, refused=False, limited=False)
            worker.count_events(key.partner, calls)
        assert await write() == Use(55, 0, 0, 55, 55)
        clock[0] += SLOT_MS  # the window of a minute continues
        workers[0].count(key, 71.0, 40, refused=True, limited=False)
        assert await write() == Use(56, 1, 0, 70, 70)
        workers[0].count(key, 72.0, 1, refused=True, limited=True)
        assert await write() == Use(57, 2, 1, 70, 70)  # twice in one slot: not added to itself
        clock[0] += SLOT_MS
        workers[1].count(key, 200.0, 90, refused=False, limited=False)
        assert await write() == Use(58, 2, 1, 90, 90)
        clock[0] += HOUR_MS
        workers[1].count(key, 9000.0, 7, refused=False, limited=False)
        assert await write() == Use(59, 2, 1, 90, 7)
        activity = await store.key_hours.of_partners([key.partner, 5], clock[0])
        assert activity == {key.partner: Activity(55, 2, 2, 1)}
        clock[0] += DAY_MS
        assert await store.key_hours.of_partner(key.partner, clock[0]) == {}
        activity = await store.key_hours.of_partners([key.partner], clock[0])
        assert activity == {key.partner: Activity(0, 0, 2, 1)}
        await store.key_hours.delete_old(key.partner, clock[0] + KEPT_HOURS * HOUR_MS)
        clock[0] -= DAY_MS
        assert await store.key_hours.of_partner(key.partner, clock[0]) == {}

    run(database, work)


def test_what_cannot_be_written_is_kept_and_nothing_of_a_partner_that_is_gone(
    database: str,
) -> None:
    async def work(store: Store) -> None:
        _, key = await admin.create_key(store, NOON_MS, "acme")
        fails = [True]

        async def add(counted: list[Counts], now_ms: int) -> None:
            if fails[0]:
                raise Unavailable
            await store.key_hours.add(counted, now_ms)

        use = KeyUse(store.keys.record_use, add, lambda: NOON_MS)
        for _ in range(3):
            use.count(key, 1.0, 2, refused=False, limited=False)
            await use.write()
        fails[0] = False
        await use.write()
        found = await store.key_hours.of_partner(key.partner, NOON_MS)
        assert found == {key.digest: Use(3, 0, 0, 6, 6)}
        (partner,) = await store.partners.all()
        use.count_events(partner.id, 5)
        await store.partners.erase(partner, lambda events: None)
        await use.write()  # of a partner that is gone
        assert await store.key_hours.of_partner(partner.id, NOON_MS) == {}

    run(database, work)


QUIET = {  # in which hours before its last request it did something, how long that is ago
    "Silent A": (range(48), 3, True),  # every hour
    "Silent B": (range(48), 1, False),
    "Silent C": (range(0, 140, 5), 9, False),  # every five hours
    "Silent D": (range(0, 140, 5), 11, True),
    "Silent E": (range(2), 20, False),  # not known for long
    "Silent F": (range(0), 30, True),
}


def test_silent_is_who_is_it_for_longer_than_usual(server: Server) -> None:
    async def fill() -> None:
        async with open_store(server.database) as store:
            here_ms = now_ms()
            for name, (hours, quiet_h, _) in QUIET.items():
                last_ms = here_ms - quiet_h * HOUR_MS
                _, key = await admin.create_key(store, here_ms, name)
                await store.entities.put_all(key.partner, [Charger(id="C1", charge_powers=(ONE,))])
                vehicle = Vehicle(id="V1", charge_capacity=ONE, charge_powers=(ONE,))
                await store.entities.put_all(key.partner, [vehicle])
                event = Event(type=EventType.VEHICLE_CONNECTED, charger_id="C1", vehicle_id="V1")
                await store.batcher.add(key.partner, event)
                last_h = last_ms // HOUR_MS
                counts = [Counts(key.partner, last_h - hour, "x", calls=1) for hour in hours]
                await store.key_hours.add(counts, last_ms)
                await store.keys.record_use({key.digest: (last_ms, None)})

    asyncio.run(fill())
    with visitor(server) as operator:
        page = operator.get("/console/partners", params={"after": "Silent"}).text
    rows = page.split("<tr>")
    found = {name: ">silent<" in row for row in rows for name in QUIET if f">{name}<" in row}
    assert found == {name: silent for name, (_, _, silent) in QUIET.items()}
