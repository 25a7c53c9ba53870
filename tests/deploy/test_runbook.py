"""The steps of the runbook, done."""

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from tests.commands import tether_ok
from tests.conftest import TETHER, Server
from tests.deploy.files import ROOT, commands_below, replaced
from tests.services import postgres_programs, running_postgres
from tests.sql import query
from tests.wire import Partner

RUNBOOK = (ROOT / "docs" / "runbook.md").read_text()


def timestamps(client: httpx.Client) -> list[int]:
    return [int(one["timestamp"][17:19]) for one in client.get("/events").json()]


def event(second: int, charger: str = "C1") -> dict[str, str]:
    return {"type": "VEHICLE_CONNECTED", "chargerId": charger, "vehicleId": "V1",
            "timestamp": f"2026-01-01T00:00:{second:02}Z"}  # fmt: skip


def test_each_incident_says_what_of_it_was_tried() -> None:
    headings = re.findall(r"^## (.*)$", RUNBOOK, re.MULTILINE)
    assert len(headings) == 16
    for section in re.split(r"^## ", RUNBOOK, flags=re.MULTILINE)[2:]:
        assert "\n*Tried:* " in section, section.splitlines()[0]
        assert re.search(r"`tests/\w+(/\w+)?\.py`", section.split("*Tried:*")[1])


def test_a_deleted_partner_comes_back_by_point_in_time_recovery() -> None:
    beforehand, aside, recover, epoch = commands_below(
        RUNBOOK, "Point-in-time recovery of PostgreSQL"
    )
    with running_postgres() as postgres:
        environment = {
            "PATH": f"{postgres_programs()}:/usr/bin:/bin",
            "PGDATA": str(postgres.data),
            "PGHOST": "127.0.0.1",
            "PGPORT": str(postgres.port),
            "PGUSER": "postgres",
            "PGDATABASE": "postgres",
        }
        where = {"/var/backups/postgres": str(postgres.folder / "backups")}

        def do(commands: str, **changes: str) -> None:
            start = f'-w -l "{postgres.folder}/log" -o "-p {postgres.port} -k \'\' -F"'
            text = replaced(commands, where | changes)
            text = re.sub(r"-w (re)?start", rf"{start} \1start", text)
            text = text.replace("pg_basebackup ", "pg_basebackup --no-sync ")
            with (postgres.folder / "out").open("a+") as out:
                done = subprocess.run(
                    ["sh", "-euc", text], env=environment, user=postgres.user,
                    cwd=postgres.folder, stdout=out, stderr=out, check=False, timeout=300,
                )  # fmt: skip
                out.seek(0)
                assert done.returncode == 0, out.read()

        database = postgres.new_database()
        server = Server(database).start()
        partner = Partner(server)
        assert partner.client.post("/events", json=event(1)).status_code == 201
        do(beforehand)
        assert partner.client.post("/events", json=event(2)).status_code == 201
        first = partner.client.get("/events?limit=1").links["next"]["url"]
        ((moment, name),) = query(database, "SELECT clock_timestamp()::text, name FROM partners")
        tether_ok("partners", "delete", name, "--yes", "--database", database)
        assert partner.client.get("/events").status_code == 403
        assert server.stop() == 0

        do(aside)
        do(recover, **{"2030-01-31 02:30:00+00": moment})
        for line in epoch.splitlines():
            tether_ok(*line.split()[1:], TETHER_DATABASE=database, TETHER_PORT="0")
        server = Server(database).start()
        with server.client(partner.key) as client:
            assert timestamps(client) == [1, 2]
            assert client.post("/events", json=event(3)).status_code == 201
            path = urlsplit(first)
            refused = client.get(f"{path.path}?{path.query}")
            assert refused.headers["tether-error"].startswith("epoch-changed")
        assert server.stop() == 0


def test_after_going_back_to_a_backup_nothing_has_to_be_lost(
    new_server: Callable[..., Server], tmp_path: Path
) -> None:
    database, backup = tmp_path / "tether.db", tmp_path / "before-upgrade.db"
    server = new_server(database=str(database))
    partner = Partner(server)
    assert partner.client.post("/events", json=event(1)).status_code == 201
    tether_ok("backup", backup, "--database", database)
    assert partner.client.put("/chargers/C2", json={"chargePowers": [11]}).status_code == 201
    assert partner.client.post("/events", json=event(2, "C2")).status_code == 201
    assert server.stop() == 0

    tether_ok("restore", backup, "--database", database)
    (aside,) = tmp_path.glob("tether.db.before-*[0-9Z]")
    old, new = new_server(database=str(database)), new_server(database=str(aside))
    _, export = commands_below(RUNBOOK, "An upgrade failed: going back")
    commands = replaced(
        "\n".join(export.splitlines()[1:]),
        {
            "http://127.0.0.1:8001": new.url,
            "http://127.0.0.1:8000": old.url,
            "tether ": f"{TETHER} ",
        },
    )
    subprocess.run(
        ["sh", "-euc", commands], env={**os.environ, "TETHER_API_KEY": partner.key}, cwd=tmp_path,
        check=True, capture_output=True, timeout=300,
    )  # fmt: skip
    with old.client(partner.key) as client:
        assert timestamps(client) == [1, 2]
        assert client.get("/chargers/C2").status_code == 200
