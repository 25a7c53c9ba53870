"""Events expire while a server runs; after a kill it continues."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.commands import Command, tether_ok
from tests.conftest import Server
from tests.erasing.test_erasing import fleet, plain, reported
from tests.lists import everything
from tether.domain.timestamps import DAY_MS, now_ms, parse_instant

FIRST = "2000-01-01T00:00:00Z"
BETWEEN_MS = parse_instant("2026-01-08T00:00:00Z")  # the horizon is about then


@pytest.mark.parametrize("engine", ["sqlite", "postgres"])
def test_what_is_old_goes_and_followers_end_with_what_is_there(
    engine: str,
    new_server: Callable[..., Server],
    request: pytest.FixtureRequest,
    tmp_path: Path,
) -> None:
    database = str(tmp_path / "tether.db")
    if engine == "postgres":
        database = request.getfixturevalue("new_postgres_database")()
    server = new_server(database=database)
    port = int(server.url.rpartition(":")[2])
    with server.client(server.key("old")) as client, server.client() as other:
        for one in (client, other):
            fleet(one, "V1", "V2")
            for vehicle, charger in (("V1", "C1"), ("V2", "C2")):
                reported(one, vehicle, charger, 120)
                reported(one, vehicle, charger, 120, day=11)
        before = everything(client, "/sessions")
        events = {one["id"] for one in everything(client, "/events")}
        cursor = client.get("/events", params={"limit": 10}).links["next"]["url"]
        days = (now_ms() - BETWEEN_MS) // DAY_MS
        Command(tmp_path, database).ok("partners", "retention", "old", "--events", f"{days}d")
        server.kill()
        server.start(port)  # it begins when it starts
        stay = [one for one in before if parse_instant(one["connectedAt"]) > BETWEEN_MS]
        assert 2 * len(stay) == len(before) == 480
        left = until_there_are(client, 4 * len(stay))
        assert plain(everything(client, "/sessions")) == plain(stay)
        withdrawn = everything(client, "/events/withdrawn")
        assert {one["reason"] for one in withdrawn} == {"expired"}
        taken = {one["id"] for one in withdrawn}
        assert events - taken == {one["id"] for one in left}
        assert taken <= events
        changed = everything(client, "/sessions", updatedFrom=FIRST)
        removed = {one["id"] for one in changed if one["status"] == "removed"}
        assert removed == {one["id"] for one in before} - {one["id"] for one in stay}
        assert client.get(cursor).json() == left[:10]
        assert len(everything(other, "/events")) == len(events)
        # Later events mean the same as if no event had expired.
        for one in (client, other):
            reported(one, "V1", "C2", 5, day=25)
        late = plain(everything(client, "/sessions"))
        assert plain(everything(other, "/sessions"))[-len(late) :] == late
    shown = Command(tmp_path, database).json("partners", "retention", "old")
    assert abs(parse_instant(shown["horizon"]) - BETWEEN_MS) <= 2 * DAY_MS
    tether_ok("rebuild", "--check", "--database", database)


def until_there_are(client: httpx.Client, count: int) -> list[dict[str, Any]]:
    """The events, when there are only this many, however long that takes on a busy machine."""
    deadline = time.monotonic() + 120
    while len(found := everything(client, "/events")) > count:
        assert time.monotonic() < deadline, (len(found), count)
        time.sleep(0.1)
    assert len(found) == count
    return found
