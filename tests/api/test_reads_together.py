"""Many reads by id at once: each gets its own answer, with everything written before."""

import asyncio
from itertools import count

from tests.conftest import Server
from tests.wire import POWERS, VEHICLE, Partner, Wire, run

CLIENTS = 48
ROUNDS = 8


async def wires(server: Server, number: int = CLIENTS) -> list[Wire]:
    return [await Wire.to(server) for _ in range(number)]


def test_each_gets_its_own_answer(server: Server) -> None:
    partners = [Partner(server), Partner(server)]
    asked: list[tuple[bytes, int, dict[str, str]]] = []
    for name, partner, other in zip("ab", partners, reversed(partners), strict=True):
        for number in range(4):
            mine = f"{name}{number}"
            partner.client.put(f"/chargers/{mine}", content=POWERS).raise_for_status()
            partner.client.put(f"/vehicles/{mine}", content=VEHICLE).raise_for_status()
            event = {"type": "VEHICLE_CONNECTED", "chargerId": mine, "vehicleId": mine}
            event_id = partner.client.post("/events", json=event).json()["id"]
            for path, found in (
                (f"/chargers/{mine}", {"id": mine}),
                (f"/vehicles/{mine}", {"id": mine}),
                (f"/events/{event_id}", {"id": event_id, "chargerId": mine}),
                (f"/chargers/{mine}/state", {"chargerId": mine}),
                (f"/vehicles/{mine}/state", {"vehicleId": mine, "chargerId": mine}),
            ):
                asked.append((partner.request("GET", path), 200, found))
                asked.append((other.request("GET", path), 404, {"message": "Not Found"}))
                unknown = path.replace(mine, f"{mine}x").replace(event_id, event_id[:-1] + "x")
                asked.append((partner.request("GET", unknown), 404, {"message": "Not Found"}))

    async def main() -> None:
        clients = await wires(server, len(asked))
        for shift in range(ROUNDS):  # never the same beside the same
            order = asked[shift * 7 :] + asked[: shift * 7]
            order = order[:: 1 - 2 * (shift % 2)]
            answers = await asyncio.gather(
                *(wire.ask(request) for wire, (request, _, _) in zip(clients, order, strict=True))
            )
            for answer, (request, status, found) in zip(answers, order, strict=True):
                assert answer.status == status, request
                assert found.items() <= answer.json().items(), request

    run(main())


def test_whoever_was_told_of_a_write_reads_it(server: Server) -> None:
    partner = Partner(server)
    numbers = count(1)

    async def write_and_read(place: int) -> None:
        wire = await Wire.to(server)
        name = f"E{place}"
        for path, body in (("chargers", POWERS), ("vehicles", VEHICLE)):
            assert (await wire.ask(partner.request("PUT", f"/{path}/{name}", body))).status == 201
        for turn in range(ROUNDS):
            powers = b'{"chargePowers":[%d]}' % (turn + 1)
            answer = await wire.ask(partner.request("PATCH", f"/chargers/{name}", powers))
            assert answer.status == 200
            found = await wire.ask(partner.request("GET", f"/chargers/{name}"))
            assert found.json()["chargePowers"] == [turn + 1]
            assert found.headers["etag"] == answer.headers["etag"]
            reported = await wire.ask(partner.post(next(numbers), vehicle=name, charger=name))
            event_id = reported.json()["id"]
            event = await wire.ask(partner.request("GET", f"/events/{event_id}"))
            assert event.json()["vehicleId"] == name
            for path in (f"/vehicles/{name}/state", f"/chargers/{name}/state"):
                state = (await wire.ask(partner.request("GET", path))).json()
                assert state["lastEvent"]["id"] == event_id
        wire.hang_up()

    async def main() -> None:
        await asyncio.gather(*(write_and_read(place) for place in range(CLIENTS)))

    run(main())


def test_those_who_hang_up_take_nothing_from_the_others(server: Server) -> None:
    partner = Partner(server)
    request = partner.request("GET", "/chargers/C1")

    async def main() -> None:
        staying = await wires(server)
        for _ in range(ROUNDS):
            for wire in await wires(server):
                wire.send(request)
                wire.reset()
            answers = await asyncio.gather(*(wire.ask(request) for wire in staying))
            assert {answer.status for answer in answers} == {200}

    run(main())
