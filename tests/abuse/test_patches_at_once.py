"""Many patches of one charger at once: each is applied once, and others do not wait long."""

import asyncio
from collections import Counter
from collections.abc import Callable

import psutil

from tests.conftest import Server
from tests.wire import Answer, Partner, ask_at_once, request_of, run

MANY = 500
PATH = "/chargers/C1"


def patch_of(partner: Partner, body: str, *lines: str) -> bytes:
    return request_of("PATCH", PATH, partner.key, body.encode(), *lines)


def version_of(answer: Answer) -> int:
    return int(answer.headers["etag"].strip('"').partition("-")[0])


def versions(answers: list[Answer]) -> list[int]:
    return sorted(version_of(one) for one in answers if one.status == 200)


def test_five_hundred_patches_of_one_charger_are_all_applied_for_little_work(
    server: Server,
) -> None:
    partner = Partner(server)
    assert server.process is not None
    process = psutil.Process(server.process.pid)
    before = process.cpu_times()
    bodies = [f'{{"chargePowers":[{number}]}}' for number in range(1, MANY + 1)]
    answers = run(ask_at_once(server, [patch_of(partner, body) for body in bodies]))
    after = process.cpu_times()
    assert Counter(one.status for one in answers) == {200: MANY}
    assert versions(answers) == list(range(2, MANY + 2)), "each made a version of its own"
    # It was 20 s on PostgreSQL and 5 s on SQLite.
    assert after.user + after.system - before.user - before.system < 2
    got = partner.client.get(PATH)
    tags = [one.headers["etag"] for one in answers]
    assert version_of(answers[tags.index(got.headers["etag"])]) == MANY + 1
    assert got.json()["chargePowers"] == [tags.index(got.headers["etag"]) + 1]


def test_a_patch_that_is_refused_changes_nothing_for_those_around_it(server: Server) -> None:
    partner = Partner(server)
    good, alone, wrong = '{"latitude":1,"longitude":2}', '{"latitude":null}', '{"chargePowers":[]}'
    requests = [patch_of(partner, body) for body in (good, wrong, good, alone, wrong, good) * 20]
    requests[10:10] = [patch_of(partner, good, 'if-match: "999999"')] * 10
    answers = run(ask_at_once(server, requests))
    assert Counter(one.status for one in answers) == {200: 60, 400: 60, 412: 10}
    assert versions(answers) == list(range(2, 62))
    assert partner.client.get(PATH).json() == {
        "id": "C1",
        "chargePowers": [11],
        "latitude": 1,
        "longitude": 2,
    }


def test_of_many_patches_of_the_same_version_one_succeeds(server: Server) -> None:
    partner = Partner(server)
    for version in range(1, 6):
        tag = f"if-match: {partner.client.get(PATH).headers['etag']}"
        body = '{"chargePowers":[22]}'
        answers = run(ask_at_once(server, [patch_of(partner, body, tag)] * 100))
        assert Counter(one.status for one in answers) == {200: 1, 412: 99}
        assert versions(answers) == [version + 1]


def test_patches_of_an_unknown_charger_are_all_told_so(server: Server) -> None:
    partner = Partner(server)
    request = request_of("PATCH", "/chargers/none", partner.key, b'{"chargePowers":[1]}')
    answers = run(ask_at_once(server, [request] * 50))
    assert Counter(one.status for one in answers) == {404: 50}


def test_patches_through_several_processes_lose_nothing(
    new_postgres_database: Callable[[], str], new_server: Callable[..., Server]
) -> None:
    database = new_postgres_database()
    nodes = [new_server(database=database) for _ in range(2)]
    partner = Partner(nodes[0])

    async def main() -> list[Answer]:
        requests = [patch_of(partner, f'{{"chargePowers":[{place}]}}') for place in range(1, 201)]
        halves = await asyncio.gather(
            ask_at_once(nodes[0], requests[:100]), ask_at_once(nodes[1], requests[100:])
        )
        return [*halves[0], *halves[1]]

    answers = run(main())
    assert Counter(one.status for one in answers) == {200: 200}
    assert versions(answers) == list(range(2, 202))
    assert nodes[0].failures() + nodes[1].failures() == []
