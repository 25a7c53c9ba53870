"""Makes a database with an older version of Tether, by its own code.

    git archive COMMIT src | tar x -C FOLDER
    PYTHONPATH=FOLDER/src python -m tests.store.older.make DATABASE | gzip > NAME.ENGINE.json.gz

Prints the key, and the answers of the older server. The database belongs beside it: of SQLite the
file (`.sqlite.gz`), of PostgreSQL the output of `pg_dump --no-owner --inserts` (`.postgres.gz`).
"""

import json
import subprocess
import sys
from random import Random
from typing import Any

import httpx

from tests.derivation.streams import CHARGERS, VEHICLE, stream
from tests.services import free_port, wait_for_port

VEHICLES = [f"V{number}" for number in range(8)]
LISTS = ("chargers", "vehicles", "events")


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "tether", *words]


def main(database: str) -> None:
    port = free_port()
    server = subprocess.Popen(
        command("serve", "--database", database, "--port", str(port)), stdout=sys.stderr
    )
    try:
        wait_for_port(port)
        key = subprocess.check_output(
            command("keys", "create", "acme", "--test", "--database", database), text=True
        ).strip()
        with httpx.Client(
            base_url=f"http://127.0.0.1:{port}", headers={"x-api-key": key}
        ) as client:
            fill(client)
            answers: dict[str, Any] = {
                name: client.get(f"/{name}?limit=1000").json() for name in LISTS
            }
            client.get("/sessions")  # so that they are derived
    finally:
        server.terminate()
        server.wait()
    json.dump({"key": key, **answers}, sys.stdout)


def fill(client: httpx.Client) -> None:
    random = Random(14)
    for name, charger in CHARGERS.items():
        assert client.put(f"/chargers/{name}", json=charger).status_code == 201
    for vehicle in VEHICLES:
        assert client.put(f"/vehicles/{vehicle}", json=VEHICLE).status_code == 201
        for event in stream(random, vehicle):
            assert client.post("/events", json=event).status_code in (201, 409), event


if __name__ == "__main__":
    main(sys.argv[1])
