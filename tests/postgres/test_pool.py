"""Partners take turns for connections to PostgreSQL, whatever one of them asks for."""

import asyncio

from tether.storage.postgres.database import PostgresDatabase

SLEEP = "SELECT $1::bigint, pg_sleep(0.02)"  # about no events: two of the sixteen connections
GOOD, BAD = 1, 2


def test_a_partner_waits_for_no_queue_of_another(postgres: str) -> None:
    async def scenario() -> list[int]:
        engine, order = PostgresDatabase(postgres).open(16), list[int]()

        async def read(partner: int) -> None:
            await engine.read(SLEEP, partner)
            order.append(partner)

        tasks = [asyncio.create_task(read(BAD)) for _ in range(50)]
        await asyncio.sleep(0)
        tasks += [asyncio.create_task(read(GOOD)) for _ in range(5)]
        await asyncio.gather(*tasks)
        await engine.close()
        return order

    order = asyncio.run(scenario())
    assert order.count(GOOD) == 5
    last = len(order) - order[::-1].index(GOOD)
    assert order[:last].count(BAD) < 25, order
