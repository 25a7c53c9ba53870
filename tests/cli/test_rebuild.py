"""`tether rebuild` finds changes that were made by hand, and nothing else."""

import threading
from collections.abc import Callable, Iterator
from random import Random

import httpx
import pytest

from tests.commands import Command
from tests.conftest import FAST, Server
from tests.derivation.helpers import prepare, read_all, send, sessions, states
from tests.derivation.streams import Body, stream
from tests.sql import execute, query

VEHICLES = [f"V{number}" for number in range(30)]


@pytest.fixture
def command(server: Server, tether_on: Callable[[str], Command]) -> Command:
    """The command on the shared server's database, of each engine in turn."""
    return tether_on(server.database)


@pytest.fixture
def partner(request: pytest.FixtureRequest, server: Server) -> Iterator[tuple[str, httpx.Client]]:
    """The name of a partner with dirty streams, and its client."""
    name = f"rebuilt {request.node.name.replace('[', ' ').replace(']', '')}"[:90]
    with server.client(server.key(name, rate=FAST)) as client:
        prepare(client, VEHICLES)
        random = Random(9)
        send(client, [body for one in VEHICLES for body in stream(random, one)], random)
        yield name, client


def test_nothing_differs_while_events_arrive(
    partner: tuple[str, httpx.Client], command: Command
) -> None:
    name, client = partner
    stop = threading.Event()
    random = Random(10)
    more = [body for one in VEHICLES for body in stream(random, one)]
    for body in more:  # another year, so that each changes what is there
        body["timestamp"] = body["timestamp"].replace("2026", "2025")

    def go_on(bodies: list[Body]) -> None:
        for place in range(0, len(bodies), 7):
            if not stop.is_set():
                client.post("/events/bulk", json=bodies[place : place + 7])

    random.shuffle(more)
    sending = threading.Thread(target=go_on, args=(more,))
    sending.start()
    for _ in range(3):
        (report,) = command.json("rebuild", name, "--check")
        assert (report["differing"], report["vehicles"]) == (0, {})
    before = sessions(client).keys()
    assert command.ok("rebuild", name).endswith("none differs.\n")
    stop.set()
    sending.join()
    (report,) = command.json("rebuild", name)
    assert (report["differing"], report["waitingEvents"]) == (0, 0)
    assert report["sessions"] >= len(before)


def test_what_was_changed_by_hand_is_found_named_and_put_right(
    partner: tuple[str, httpx.Client], server: Server, command: Command
) -> None:
    name, client = partner
    expected = sessions(client), states(client)
    versions = {one["id"]: one["version"] for one in read_all(client, "/sessions")}
    of_vehicle = {
        vehicle: [id for id, one in expected[0].items() if one["vehicleId"] == vehicle]
        for vehicle in VEHICLES
    }
    first, second, third, fourth = [ids[0] for ids in of_vehicle.values() if ids][:4]
    execute(
        server.database,
        f"UPDATE sessions SET end_ms = 5 WHERE id = '{first}'",
        f"DELETE FROM sessions WHERE id = '{second}'",
        f"UPDATE sessions SET live = 0 WHERE id = '{third}'",
        f"DELETE FROM session_versions WHERE id = '{fourth}'",
    )
    done = command("rebuild", name, "--check")
    assert (done.returncode, "4 differed.\n" in done.stdout) == (1, True), done
    assert done.stdout.count("  vehicle V") == 4
    assert command("rebuild", name, "--check").stdout == done.stdout, "it changes nothing"
    assert " 4 differed and put right.\n" in command.ok("rebuild", name)
    assert "none differs" in command.ok("rebuild", name, "--check")
    assert (sessions(client), states(client)) == expected
    changed = {
        one["id"] for one in read_all(client, "/sessions") if one["version"] != versions[one["id"]]
    }
    assert changed == {first, second, third}, "followers see what was put right"


def test_a_partner_that_is_deleted_while_it_is_derived_leaves_nothing(
    partner: tuple[str, httpx.Client], server: Server, command: Command
) -> None:
    name, client = partner
    random = Random(11)
    more = [body for one in VEHICLES for body in stream(random, one)]
    for body in more:
        body["timestamp"] = body["timestamp"].replace("2026", "2024")
    client.post("/events/bulk", json=more)
    command.ok("partners", "delete", name, "--yes")
    partners = "SELECT count(*) FROM {} WHERE partner NOT IN (SELECT id FROM partners)"
    for table in ("sessions", "session_versions", "derivations", "events"):
        assert query(server.database, partners.format(table)) == [(0,)], table


def test_all_partners_or_one_that_exists(command: Command) -> None:
    command.key("rebuilt alone")
    assert "rebuilt alone: 0 sessions, none differs.\n" in command.ok("rebuild")
    assert "no partner 'nobody'" in command.refused("rebuild", "nobody")
    assert "There is no database" in command.refused(
        "rebuild", "--database", str(command.folder / "none.db")
    )
