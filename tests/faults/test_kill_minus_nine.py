"""No 2xx is lost after kill -9 of the server at any moment."""

import asyncio
import random
import subprocess
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.conftest import TETHER, Server
from tests.wire import CUT_OFF, Partner, Wire, check_integrity, run

KILLS = 50
REPORTERS = 8


@dataclass
class Reporter:
    """A client that posts events of its own vehicle, and repeats those without an answer."""

    vehicle: str
    number: int = 0
    answered: dict[int, str] = field(default_factory=dict)

    async def work(self, partner: Partner, wire: Wire) -> None:
        while True:
            answer = await wire.ask(partner.post(self.number, vehicle=self.vehicle))
            assert answer.status == 201, answer.body
            self.answered[self.number] = answer.json()["id"]
            self.number += 1


@dataclass
class Changer:
    """A client that writes 1, 2, 3 … into the capacity of its own vehicle."""

    vehicle: str
    method: str
    answered: int = 0
    tried: int = 0

    async def work(self, partner: Partner, wire: Wire) -> None:
        while True:
            self.tried = self.answered + 1
            body = f'{{"chargeCapacity":{self.tried},"chargePowers":[11]}}'.encode()
            answer = await wire.ask(partner.request(self.method, f"/vehicles/{self.vehicle}", body))
            assert answer.status in (200, 201), answer.body
            self.answered = self.tried


async def load_until_killed(partner: Partner, clients: list[Any], after_s: float) -> None:
    server = partner.server

    async def work(client: Any) -> None:
        with suppress(*CUT_OFF):
            await client.work(partner, await Wire.to(server))

    working = [asyncio.create_task(work(client)) for client in clients]
    await asyncio.sleep(after_s)
    assert server.process is not None
    server.process.kill()
    await asyncio.gather(*working)
    server.process.wait()


def test_fifty_kills_at_random_moments_lose_and_double_nothing(
    new_server: Callable[..., Server],
) -> None:
    server = new_server()
    partner = Partner(server)
    reporters = [Reporter(f"R{number}") for number in range(REPORTERS)]
    changers = [Changer("PUT", "PUT"), Changer("PATCH", "PATCH")]
    for vehicle in [*(client.vehicle for client in reporters), "PUT", "PATCH"]:
        body = '{"chargeCapacity":1,"chargePowers":[11]}'
        assert partner.client.put(f"/vehicles/{vehicle}", content=body).status_code == 201
    stored: list[dict[str, Any]] = []
    place = "/events?limit=1000"
    for _ in range(KILLS):
        run(load_until_killed(partner, [*reporters, *changers], random.uniform(0.01, 0.25)))
        server.start()
        partner.again()
        check_integrity(server.database, "quick_check")
        new, place = partner.events_from(place)
        stored += new
        for changer in changers:
            value = partner.client.get(f"/vehicles/{changer.vehicle}").json()["chargeCapacity"]
            assert changer.answered <= value <= changer.tried
            changer.answered = value
        assert {found["id"] for found in stored} >= {
            event_id for reporter in reporters for event_id in reporter.answered.values()
        }
    check_integrity(server.database)
    assert partner.events() == stored, "the order of what was there before never changes"
    assert len({found["id"] for found in stored}) == len(stored)
    assert len({(found["vehicleId"], found["timestamp"]) for found in stored}) == len(stored)
    answered = sum(len(reporter.answered) for reporter in reporters)
    assert answered <= len(stored) <= answered + REPORTERS
    for reporter in reporters:
        ids = [found["id"] for found in stored if found["vehicleId"] == reporter.vehicle]
        known = list(reporter.answered.values())
        assert ids[: len(known)] == known, "each client's events stand in the order of its answers"


def test_a_first_start_that_is_killed_can_simply_be_repeated(tmp_path: Path) -> None:
    database = str(tmp_path / "tether.db")
    for _ in range(8):
        process = subprocess.Popen(
            [TETHER, "serve", "--database", database, "--port", "0"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            process.wait(timeout=random.uniform(0.05, 0.5))
        except subprocess.TimeoutExpired:
            process.kill()
        process.wait()
    server = Server(database).start()
    try:
        Partner(server)
        check_integrity(database)
    finally:
        assert server.stop() == 0
