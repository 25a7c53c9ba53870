"""Erased data are gone: from the file, from its log, and from every later backup."""

import fcntl
import os
import random
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.commands import tether_ok
from tests.conftest import TETHER, Server
from tests.sql import execute, query
from tests.wire import Partner

KEPT, GONE = "KEPTVEHICLE", "GONEVEHICLE"


def report(server: Server, key: str, name: str, first: int) -> None:
    """Events of a fleet between those of the other partner, so that they share database pages."""
    rows = random.Random(first)
    with server.client(key) as client:
        if not first:
            client.put("/chargers/C1", json={"chargePowers": [11]}).raise_for_status()
            for number in range(40):
                body = {"chargePowers": [11], "chargeCapacity": 50}
                client.put(f"/vehicles/{name}-{number}", json=body).raise_for_status()
        events = [
            {
                "type": rows.choice(["VEHICLE_CONNECTED", "VEHICLE_DISCONNECTED"]),
                "chargerId": "C1",
                "vehicleId": f"{name}-{rows.randrange(40)}",
                "timestamp": f"2026-01-0{1 + first // 500}T{number // 60:02}:{number % 60:02}:00Z",
            }
            for number in range(500)
        ]
        (first_one, *_) = client.post("/events/bulk", json=events).raise_for_status().json()
        client.delete(f"/events/{first_one['id']}").raise_for_status()
        client.get("/sessions").raise_for_status()


@pytest.mark.parametrize("serving", [True, False], ids=["while it serves", "after it stopped"])
def test_nothing_of_an_erased_partner_is_in_the_file_its_log_or_a_backup(
    tmp_path: Path, new_server: Callable[..., Server], *, serving: bool
) -> None:
    path, backup = tmp_path / "tether.db", tmp_path / "backup.db"
    server = new_server(database=str(path))
    kept, gone = server.key("kept"), server.key("gone")
    for first in range(0, 2_000, 500):
        report(server, kept, KEPT, first)
        report(server, gone, GONE, first)
    if not serving:
        assert server.stop() == 0
    tether_ok("partners", "delete", "gone", "--yes", "--database", path)
    if serving:
        with server.client(gone) as client:
            assert client.get("/events").status_code == 403
        with server.client(kept) as client:
            event = {"type": "VEHICLE_CONNECTED", "chargerId": "C1", "vehicleId": f"{KEPT}-1"}
            assert client.post("/events", json=event).status_code == 201
            assert client.get("/sessions").status_code == 200
    tether_ok("backup", backup, "--database", path)
    found = {
        file.name: file.read_bytes().count(GONE.encode())
        for file in tmp_path.iterdir()
        if file.is_file()
    }
    assert set(found.values()) == {0}, found
    assert backup.read_bytes().count(KEPT.encode()) > 2_000
    tether_ok("check", "--full", "--database", backup, "--port", "0")
    if serving:
        assert server.failures() == []
        assert server.stop() == 0


def test_on_postgres_the_room_of_an_erased_partner_is_free_again(
    new_postgres_database: Callable[[], str], new_server: Callable[..., Server]
) -> None:
    database = new_postgres_database()
    server = new_server(database=database)
    gone = server.key("gone")
    report(server, gone, GONE, 0)
    tether_ok("partners", "delete", "gone", "--yes", "--database", database)
    for table in ("events", "vehicles", "sessions"):
        assert query(database, f"SELECT pg_relation_size('{table}')") == [(0,)]
    assert server.failures() == []


def test_on_postgres_the_statistics_have_no_erased_ids(
    new_postgres_database: Callable[[], str], new_server: Callable[..., Server]
) -> None:
    database = new_postgres_database()
    server = new_server(database=database)
    kept, gone = server.key("kept"), server.key("gone")
    report(server, kept, KEPT, 0)
    report(server, gone, GONE, 0)
    execute(database, "ANALYZE")
    naming = (
        "SELECT DISTINCT tablename FROM pg_stats WHERE schemaname = current_schema() AND strpos("
        f"concat(CAST(most_common_vals AS TEXT), CAST(histogram_bounds AS TEXT)), '{GONE}') > 0"
    )
    assert len(query(database, naming)) >= 3
    tether_ok("partners", "delete", "gone", "--yes", "--database", database)
    assert query(database, naming) == []
    assert server.failures() == []


# What killed backups leave ------------------------------------------------------------------------


def left_by_a_killed_backup(folder: Path, name: str) -> Path:
    left = folder / f".tether-backup-{name}"
    left.mkdir()
    (left / "copy.db").write_bytes(b"x" * 100_000)
    return left


def test_a_backup_removes_what_killed_ones_left_but_nothing_else(
    tmp_path: Path, new_server: Callable[..., Server]
) -> None:
    server = new_server(database=str(tmp_path / "tether.db"))
    Partner(server)
    folder, elsewhere = tmp_path / "backups", tmp_path / "elsewhere"
    folder.mkdir()
    elsewhere.mkdir()
    (elsewhere / "precious").write_text("stays")
    left = left_by_a_killed_backup(folder, "left")
    at_work = left_by_a_killed_backup(folder, "at-work")
    (folder / ".tether-backup-link").symlink_to(elsewhere)
    (folder / ".tether-backup-file").write_text("stays")
    (folder / "other").mkdir()
    lock = os.open(at_work, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    tether_ok("backup", folder / "one.db", "--database", server.database)
    assert not left.exists()
    assert (at_work / "copy.db").exists()
    assert (elsewhere / "precious").exists()
    names = [".tether-backup-at-work", ".tether-backup-file", ".tether-backup-link"]
    assert sorted(file.name for file in folder.iterdir()) == [*names, "one.db", "other"]
    os.close(lock)
    tether_ok("backup", folder / "two.db", "--database", server.database)
    assert not at_work.exists()


def test_backups_at_once_do_not_disturb_each_other(
    tmp_path: Path, new_server: Callable[..., Server]
) -> None:
    server = new_server(database=str(tmp_path / "tether.db"))
    Partner(server)
    running = [
        subprocess.Popen(
            [TETHER, "backup", tmp_path / f"{number}.db", "--database", server.database],
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(4)
    ]
    for backup in running:
        _, said = backup.communicate(timeout=180)
        assert backup.returncode == 0, said
    assert list(tmp_path.glob(".tether-backup-*")) == []
    assert len(list(tmp_path.glob("[0-9].db"))) == 4
