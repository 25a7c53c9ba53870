"""Chargers are created while a batch that names them is being stored."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx
import psycopg

from tests.conftest import Server
from tests.fleet import put_fleet
from tests.store.test_contract import charger, event
from tether.domain.models import to_json

BLOCKED = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query ~ 'ready'"


def test_an_event_is_stored_once_if_another_of_its_batch_has_to_be_written_again(
    database: str, node: Callable[..., Server]
) -> None:
    server = node(database=database)
    with server.client() as client:
        put_fleet(client)
        client.post("/events", content=to_json(event(0))).raise_for_status()
        batch = [
            event(None),
            event(1),
            event(2, charger_id="C2"),
            event(None),
            event(3, charger_id="C3"),
        ]
        answers: list[httpx.Response] = []
        post = threading.Thread(
            target=lambda: answers.append(client.post("/events/bulk", content=to_json(batch)))
        )
        with _held_up(database, post):
            client.put("/chargers/C2", content=to_json(charger("C2"))).raise_for_status()
        post.join()
        (answer,) = answers
        assert answer.status_code == 200, answer.text
        results = answer.json()
        assert [result["status"] for result in results] == [201, 201, 201, 201, 409]
        listed = [one["id"] for one in client.get("/events").json()]
        assert sorted(listed[1:]) == sorted(result["id"] for result in results[:4])
    assert server.stop() == 0
    assert server.failures() == []


@contextmanager
def _held_up(database: str, post: threading.Thread) -> Iterator[None]:
    """Starts the request. Its statement waits for a lock, and continues when this context ends."""
    with (
        psycopg.connect(database, autocommit=True) as watching,
        psycopg.connect(database) as holding,
    ):
        holding.execute("SELECT * FROM event_heads FOR UPDATE")
        post.start()
        end = time.monotonic() + 90
        while watching.execute(BLOCKED).fetchone() == (0,) and time.monotonic() < end:
            time.sleep(0.02)
        yield
