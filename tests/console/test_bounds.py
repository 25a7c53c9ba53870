"""The limits of the console, over HTTP, on each engine."""

from collections.abc import Callable
from contextlib import ExitStack
from time import sleep

from tests.conftest import Server
from tests.console.visitors import new_session, partner_number, visitor
from tests.wire import ask_at_once, cpu_seconds, request_of, run

MAX_STREAMS = 32


def test_a_partner_that_asks_for_pages_without_end_is_slowed_down_alone(server: Server) -> None:
    key = server.key()
    path = f"/console/p/{partner_number(server, key)}/nothing"
    with visitor(server, key) as hasty, visitor(server, server.key()) as other:
        for _ in range(10_000):
            answer = hasty.head(path)
            if answer.status_code != 404:
                break
        assert answer.status_code == 429
        assert int(answer.headers["Retry-After"]) >= 1
        pages = [hasty.get(path) for _ in range(20)]
        said = next(page.text for page in pages if page.status_code == 429)
        assert "too many requests at once" in said
        assert ">Try again</a>" in said
        assert other.get("/console", follow_redirects=True).status_code == 200
        with visitor(server, key) as again:  # the partner counts, not the session
            assert {again.head(path).status_code for _ in range(20)} >= {429}


def test_so_many_pages_of_a_partner_follow_the_events_and_the_others_still_work(
    server: Server,
) -> None:
    key = server.key()
    path, token = f"/console/p/{partner_number(server, key)}", new_session(server, key)
    with ExitStack() as opened:
        streams = []
        for _ in range(MAX_STREAMS + 1):
            one = opened.enter_context(visitor(server, token=token))
            answer = opened.enter_context(one.stream("GET", f"{path}/ticks"))
            if answer.status_code == 200:
                streams.append(answer.iter_lines())
                assert next(streams[-1]).startswith("retry:")
        assert (answer.status_code, len(streams)) == (429, MAX_STREAMS)
        with visitor(server, token=token) as one:
            assert one.get(f"{path}/live").status_code == 200
        with visitor(server, server.key()) as other:  # whose streams are its own
            assert other.get("/console", follow_redirects=True).status_code == 200


def test_the_first_pages_for_many_at_once_cost_little(new_server: Callable[..., Server]) -> None:
    server = new_server()
    before = cpu_seconds(server)
    answers = run(ask_at_once(server, [request_of("GET", "/console/sign-in", "")] * 100))
    assert {answer.status for answer in answers} == {200}
    assert cpu_seconds(server) < before + 5  # each load of the templates takes 0.3


def test_vehicles_in_very_many_areas_are_summed_up(new_server: Callable[..., Server]) -> None:
    server = new_server()
    key = server.key()
    client = server.client(key)
    chargers, vehicles, events = [], [], []
    for number in range(20_001):
        place = {"latitude": number // 200 / 10, "longitude": number % 200 / 10}
        chargers.append({"id": f"C{number}", "chargePowers": [11], **place})
        vehicles.append({"id": f"V{number}", "chargePowers": [11], "chargeCapacity": 60})
        events.append({
            "type": "VEHICLE_CONNECTED", "chargerId": f"C{number}", "vehicleId": f"V{number}",
            "stateOfCharge": 50, "timestamp": "2026-11-01T00:00:00Z",
        })  # fmt: skip
    for path, items in (("chargers", chargers), ("vehicles", vehicles), ("events", events)):
        for begin in range(0, len(items), 5_000):
            part = items[begin : begin + 5_000]
            client.post(f"/{path}/bulk", json=part, timeout=60).raise_for_status()
    while client.get("/sessions", timeout=60).status_code == 503:  # until all is derived
        sleep(0.2)
    path = f"/console/p/{partner_number(server, key)}/flexibility/figures"
    with visitor(server, key) as partner:
        found = partner.get(path, timeout=60)
    assert found.status_code == 200
    assert "20,001" in found.text
    assert "too many areas" in found.text
