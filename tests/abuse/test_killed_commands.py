"""Commands are killed at many moments: the database stays consistent, and they can be repeated."""

import json
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.abuse.test_erased_bytes import GONE, KEPT, report
from tests.conftest import ROOT, Server
from tests.older import make_older
from tests.sql import execute
from tests.store.test_upgrades import CLUSTERED_SESSIONS
from tether.storage.sqlite.file import connect

MOMENTS = 8
EVENTS = 1_000


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with two partners without keys: commands need not wait until servers forget keys."""
    path = tmp_path_factory.mktemp("killed") / "tether.db"
    server = Server(str(path)).start()
    for partner, name in (("kept", KEPT), ("gone", GONE)):
        key = server.key(partner)
        for first in range(0, EVENTS, 500):
            report(server, key, name, first)
    assert server.stop() == 0
    execute(str(path), "DELETE FROM keys")
    return path


def counts_in(path: Path) -> list[list[Any]]:
    with closing(connect(path)) as connection:
        return [
            [name, events, sessions]
            for name, events, sessions in connection.execute(
                "SELECT p.name, (SELECT count(*) FROM events e WHERE e.partner = p.id), count(*) "
                "FROM partners p JOIN sessions s ON s.partner = p.id "
                "GROUP BY p.name ORDER BY p.name"
            )
        ]


def killed(folder: Path, *arguments: str) -> list[dict[str, Any]]:
    """What was found after each kill of the command on FOLDER/template.db."""
    command = [sys.executable, "-m", "tests.abuse.killed", str(folder), str(MOMENTS), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    outcomes: list[dict[str, Any]] = json.loads(done.stdout)
    assert any(outcome["killed"] for outcome in outcomes)
    for outcome in outcomes:
        assert outcome["damages"] == outcome["damages_again"] == outcome["backups"] == []
    return outcomes


def errors(folder: Path) -> str:
    return (folder / "errors").read_text()


def test_migrate(tmp_path: Path, database: Path) -> None:
    make_older(tmp_path / "template.db", database, CLUSTERED_SESSIONS)
    for outcome in killed(tmp_path, "migrate", "--database", "tether.db"):
        assert outcome["again"] == 0, errors(tmp_path)
        assert outcome["counts"] == counts_in(database)


def test_rebuild(tmp_path: Path, database: Path) -> None:
    template = tmp_path / "template.db"
    template.write_bytes(database.read_bytes())
    with closing(connect(template)) as connection:
        connection.execute("DELETE FROM sessions WHERE vehicle_id LIKE '%1%'").fetchall()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    assert counts_in(template) != counts_in(database)
    for outcome in killed(tmp_path, "rebuild", "--database", "tether.db"):
        assert outcome["again"] == 0, errors(tmp_path)
        assert outcome["counts"] == counts_in(database)


def test_backup(tmp_path: Path, database: Path) -> None:
    (tmp_path / "template.db").write_bytes(database.read_bytes())
    arguments = ("backup", "backup.db", "--force", "--database", "tether.db")
    for outcome in killed(tmp_path, *arguments):
        assert outcome["again"] == 0, errors(tmp_path)
        assert outcome["counts"] == counts_in(database)
        left = [name for name in outcome["files"] if not name.startswith("tether.db")]
        assert left == ["backup.db"]


def test_delete(tmp_path: Path, database: Path) -> None:
    (tmp_path / "template.db").write_bytes(database.read_bytes())
    [_, kept] = counts_in(database)
    arguments = ("partners", "delete", "gone", "--yes", "--database", "tether.db")
    for outcome in killed(tmp_path, *arguments):
        if outcome["again"] != 0:  # it was killed when all was done
            assert "no partner 'gone'" in errors(tmp_path)
        assert outcome["counts"] == [kept]
