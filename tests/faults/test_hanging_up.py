"""Clients that disconnect leave nothing behind, and do no harm."""

import asyncio
import json
import socket
from collections.abc import Callable

from tests.conftest import Server
from tests.wire import (
    Partner,
    Wire,
    address_of,
    event,
    head_of,
    many_files,
    memory_mb,
    metric,
    open_files,
    run,
    until,
)

CLIENTS = 1000


def test_a_thousand_clients_that_hang_up_leave_nothing_behind(
    new_server: Callable[..., Server],
) -> None:
    server = new_server()
    partner = Partner(server)
    first, second = event(1), event(2)
    moments = [
        b"POST /events HTTP/1.1\r\nhost: te",  # in the head
        head_of("POST", "/events", partner.key, len(first)) + first[:40],  # in the body
        head_of("POST", "/events", partner.key, None, "transfer-encoding: chunked")
        + b"20\r\n{",  # in a chunk
        partner.post(3),  # before the answer
        partner.request("GET", "/events?limit=1000&vehicleId=V1"),  # before an answer of a scan
        partner.post(4) + partner.request("PUT", "/chargers/C2", b"{") + second,  # in a pipeline
        b"",
    ]

    async def leave(number: int) -> None:
        wire = await Wire.to(server)
        wire.send(moments[number % len(moments)])
        if number % 3 == 0:
            await asyncio.sleep(0.01)
        if number % 2:
            wire.reset()
        else:
            wire.hang_up()

    async def round_of_clients() -> None:
        await asyncio.gather(*(leave(number) for number in range(CLIENTS)))
        await until(lambda: open_files(server) <= before + 2)

    with many_files():
        before = open_files(server) + 4  # the threads for scans keep these open
        run(round_of_clients())  # memory that Python allocates once is not a leak
        used = memory_mb(server)
        run(round_of_clients())
    assert memory_mb(server) < used + 15
    stored = partner.events()
    assert {found["timestamp"] for found in stored} <= {
        json.loads(event(number))["timestamp"] for number in (3, 4)
    }
    run(until(lambda: metric(partner.client.get("/metrics").text, "tether_queue_depth") == 0))
    assert partner.client.post("/events", content=event(5)).status_code == 201
    assert not any('"status":500' in line or "Exception" in line for line in server.log)
    partner.client.close()
    assert server.stop() == 0


def test_a_read_of_a_client_that_is_gone_does_not_begin(new_server: Callable[..., Server]) -> None:
    server = new_server()
    partner = Partner(server)
    powers = ",".join(f"{power}.00000000001" for power in range(1, 101))
    for number in range(30):  # together below the 64 KiB that are sent at once
        body = f'{{"chargePowers":[{powers}]}}'.encode()
        assert partner.client.put(f"/chargers/H{number}", content=body).status_code == 201

    def counted(name: str, **labels: str) -> float:
        return metric(partner.client.get("/metrics").text, name, **labels)

    def begun() -> float:
        return counted("tether_request_seconds_count", route="/chargers", method="GET")

    with socket.create_connection(address_of(server)) as client:
        client.sendall(500 * partner.request("GET", "/chargers"))
        answered, same = 0.0, 0
        while same < 20:  # until the next read waits for the client to read previous answers
            before, answered = answered, begun()
            same = same + 1 if answered == before > 0 else 0
        assert answered < 500
    run(until(lambda: begun() + counted("tether_refused_total", reason="gone") > answered))
    assert begun() == answered


def test_a_write_whose_client_hung_up_is_there_whole_or_not_at_all(
    new_server: Callable[..., Server],
) -> None:
    server = new_server()
    partner = Partner(server)

    async def scenario() -> None:
        for number in range(200):
            wire = await Wire.to(server)
            body = f'{{"chargePowers":[{number + 1},22],"latitude":1.5,"longitude":2.5}}'.encode()
            wire.send(partner.request("PUT", f"/chargers/H{number}", body))
            wire.send(partner.post(number))
            await asyncio.sleep(0)
            wire.reset()

    run(scenario())
    assert server.stop() == 0
    server.start()
    partner.again()
    for found in partner.client.get("/chargers?limit=1000").json():
        if found["id"].startswith("H"):
            assert found == {
                "id": found["id"],
                "chargePowers": [int(found["id"][1:]) + 1, 22],
                "latitude": 1.5,
                "longitude": 2.5,
            }
    for found in partner.events():
        assert partner.client.get(f"/events/{found['id']}").json() == found
