import json
import os
import resource
import socket
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.api.helpers import create_both, create_event
from tests.cli.test_partners import CONNECTED
from tests.commands import Command
from tests.conftest import SECRET_KEY, TETHER, Server
from tests.fleet import put_fleet
from tests.services import free_port


@pytest.fixture
def busy_server(new_server: Callable[..., Server]) -> Iterator[Server]:
    """A server to which events are sent all the time; the answered ones are in `log`."""
    server = new_server("--log-level", "error")
    client = server.client()
    put_fleet(client)
    stop = threading.Event()

    def send() -> None:
        while not stop.is_set():
            server.log.append(client.post("/events", json=CONNECTED).json()["id"])

    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    yield server
    stop.set()
    sender.join(timeout=180)
    client.close()


# Backup -------------------------------------------------------------------------------------------


def test_a_backup_beside_a_busy_server_is_whole_and_starts_a_server(
    busy_server: Server, tether_on: Callable[[str], Command], new_server: Callable[..., Server]
) -> None:
    tether = tether_on(busy_server.database)
    while len(busy_server.log) < 50:
        time.sleep(0.02)
    before = list(busy_server.log)
    said = tether.ok("backup", "copy.db")
    copy = tether.folder / "copy.db"
    assert said.startswith(f"Copied {busy_server.database} to copy.db (")
    assert copy.stat().st_mode & 0o777 == 0o600
    assert [file.name for file in tether.folder.glob("*copy*")] == ["copy.db"]
    with closing(sqlite3.connect(copy)) as database:
        ids = {one for (one,) in database.execute("SELECT id FROM events")}
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert set(before) <= ids
    assert new_server(database=str(copy)).stop() == 0


def test_a_backup_replaces_a_file_only_when_told_to_and_never_the_database(
    tether: Command,
) -> None:
    tether.key("acme")
    target = tether.folder / "copy.db"
    target.write_text("precious")
    assert "--force" in tether.refused("backup", "copy.db")
    assert target.read_text() == "precious"
    tether.ok("backup", "copy.db", "--force")
    assert target.read_bytes().startswith(b"SQLite format 3")
    assert "the database itself" in tether.refused("backup", tether.database, "--force")
    for end in ("-wal", "-shm", "-server"):
        refusal = tether.refused("backup", tether.database + end, "--force")
        assert "of the database itself" in refusal
    (tether.folder / "used.db-wal").touch()
    assert "in use" in tether.refused("backup", "used.db")
    assert "is a folder" in tether.refused("backup", ".")
    assert "no folder" in tether.refused("backup", "missing/copy.db")


def test_a_backup_that_fails_leaves_nothing_behind(tether: Command) -> None:
    tether.key("acme")
    files = sorted(tether.folder.iterdir())
    done = subprocess.run(
        [TETHER, "backup", "copy.db"],
        cwd=tether.folder,
        # Python would write its compiled modules in part, and every command would fail after that.
        env={**tether.variables(), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
        # No file grows beyond this, as on a full disk.
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000)),
    )
    assert done.returncode == 1
    assert "The backup to copy.db failed" in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(tether.folder.iterdir()) == files


# Migrate ------------------------------------------------------------------------------------------


def test_migrate_says_what_it_did(tether: Command) -> None:
    assert tether.ok("migrate") == f"Created {tether.database}.\n"
    assert tether.ok("migrate") == f"{tether.database} is up to date.\n"


def test_what_is_no_database_of_ours_is_refused_with_a_sentence(tether: Command) -> None:
    folder = tether.folder
    (folder / "folder.db").mkdir()
    (folder / "text.db").write_text("This is a letter, and has been one for a long time.")
    with closing(sqlite3.connect(folder / "foreign.db")) as database:
        database.execute("CREATE TABLE recipes (name)")
    tether.ok("migrate")
    with closing(sqlite3.connect(tether.database)) as database, database:
        database.execute("INSERT INTO tether_schema VALUES (9999)")
    for name, sentence in (
        ("folder.db", "folder"),
        ("text.db", "text.db is not a SQLite database"),
        ("foreign.db", "of another program"),
        ("tether.db", "made by a newer Tether"),
    ):
        before = (folder / name).read_bytes() if name != "folder.db" else b""
        for words in (("migrate",), ("keys", "create", "acme")):
            assert sentence in tether.refused(*words, "--database", name)
        if before:
            assert (folder / name).read_bytes() == before
    assert "cannot be made" in tether.refused("migrate", "--database", "text.db/tether.db")
    assert "`tether serve` makes it" in tether.refused("keys", "list", "--database", "no.db")
    assert not (folder / "no.db").exists()


def test_a_damaged_database_is_reported_not_dumped(tether: Command) -> None:
    tether.key("acme")
    content = bytearray(Path(tether.database).read_bytes())
    content[8192:] = b"\xaa" * (len(content) - 8192)
    Path(tether.database).write_bytes(content)
    for words in (("keys", "list"), ("partners", "list"), ("backup", "copy.db")):
        said = tether.refused(*words)
        assert "damaged" in said or "malformed" in said


def test_a_damaged_table_is_reported_not_dumped(tether: Command) -> None:
    tether.key("acme")
    with closing(sqlite3.connect(tether.database)) as database:
        ((page_bytes,),) = database.execute("PRAGMA page_size")
        pages = [row[0] for row in database.execute(
            "SELECT rootpage FROM sqlite_master WHERE tbl_name = 'keys'"
        )]  # fmt: skip
    content = bytearray(Path(tether.database).read_bytes())
    for page in pages:
        content[(page - 1) * page_bytes : page * page_bytes] = b"\xaa" * page_bytes
    Path(tether.database).write_bytes(content)
    assert "malformed" in tether.refused("keys", "list")
    assert _checks(tether, status=1)["integrity"][0].startswith("problem: Damaged")


# Check --------------------------------------------------------------------------------------------


def _checks(tether: Command, *words: str, status: int, **variables: str) -> dict[str, list[str]]:
    done = tether("check", "--json", *words, **variables)
    assert (done.returncode, done.stderr) == (status, "")
    report = json.loads(done.stdout)
    assert report["ok"] == (status == 0)
    found: dict[str, list[str]] = {}
    for one in report["checks"]:
        found.setdefault(one["check"], []).append(f"{one['status']}: {one['message']}")
        assert set(one) == {"check", "status", "message", "advice"}
    return found


def test_check_finds_nothing_wrong_with_a_good_setup(
    new_server: Callable[..., Server], tether_on: Callable[[str], Command]
) -> None:
    server = new_server()
    tether = tether_on(server.database)
    tether.key("acme")
    port = server.url.rpartition(":")[2]
    found = _checks(tether, "--full", "--port", port, status=0)
    expected = (
        "python settings temporary engine folder disk database permissions schema integrity clock "
        "epoch"
    )
    assert list(found) == [*expected.split(), "keys", "webhooks", "port"]
    assert all(one.startswith("ok: ") for many in found.values() for one in many)
    assert found["port"] == [f"ok: A Tether server answers on {port}, and is ready."]
    status, seen = tether.in_terminal("check", "--port", port)
    assert (status, "Everything is as it should be." in seen) == (0, True)
    assert max(map(len, seen.splitlines())) <= 80


def test_check_finds_events_that_a_list_lacks(
    new_server: Callable[..., Server], tether_on: Callable[[str], Command]
) -> None:
    server = new_server()
    with server.client() as client:
        create_both(client)
        create_event(client)
        client.get("/vehicles/V1/state").raise_for_status()
    assert server.stop() == 0
    tether = tether_on(server.database)
    assert _checks(tether, "--full", status=0)["integrity"] == ["ok: No damage found."]
    with closing(sqlite3.connect(server.database)) as database:
        assert database.execute("DELETE FROM list_of_vehicle").rowcount == 1
        database.commit()
    (integrity,) = _checks(tether, "--full", status=1)["integrity"]
    assert integrity == (
        "problem: Damaged: list_of_vehicle should have 1 events; it has 0, 0 of them rightly"
    )


def test_check_knows_both_engines(server: Server, tether_on: Callable[[str], Command]) -> None:
    tether = tether_on(server.database)
    tether.key("checked")
    port, secret = server.url.rpartition(":")[2], {"TETHER_SECRET_KEY": SECRET_KEY}
    found = _checks(tether, "--port", port, status=0, **secret)  # others may have made webhooks
    engine = "PostgreSQL" if server.database.startswith("postgresql") else "SQLite"
    assert found["engine"][0].startswith(f"ok: {engine} ")
    assert found["schema"] == ["ok: Up to date."]
    if engine == "PostgreSQL":
        assert "pg_dump" in tether.refused("backup", "copy.db")
        away = server.database.replace("127.0.0.1", "user:secret@127.0.0.1:1")
        done = tether("check", "--database", away)
        assert done.returncode == 1
        assert "secret" not in done.stdout + done.stderr


def test_check_says_what_is_wrong_and_changes_nothing(tether: Command) -> None:
    port = {"TETHER_PORT": str(free_port())}
    found = _checks(tether, status=0, **port)
    assert found["database"][0].startswith("warning: ")
    assert not Path(tether.database).exists()
    tether.ok("migrate")
    os.chmod(tether.database, 0o644)
    found = _checks(tether, status=0, **port)
    assert found["permissions"][0].startswith("warning: Every user of this machine")
    assert found["keys"] == ["warning: No key works: nobody can call the API."]
    wrong = {"TETHER_METRICS": "yes", "TETHER_DATABSE": "x.db", "TETHER_WORKERS": "many"}
    found = _checks(tether, status=1, **port, **wrong)
    assert "TETHER_METRICS" in found["settings"][0]
    assert "TETHER_WORKERS" in found["settings"][1]
    assert found["settings"][2] == "warning: TETHER_DATABSE is not a setting."
    Path(tether.database).write_text("no database")
    assert _checks(tether, status=1, **port)["database"][0].startswith("problem: ")
    text = tether("check", **port)
    assert text.returncode == 1
    assert "\nproblem  database" in text.stdout
    assert text.stdout.endswith("1 problem.\n")


def test_check_tells_another_program_on_the_port(tether: Command) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        threading.Thread(target=_hang_up_on, args=(other,), daemon=True).start()
        found = _checks(tether, "--port", port, status=1)
    assert found["port"] == [f"problem: 127.0.0.1 port {port}: Address already in use."]


def _hang_up_on(listener: socket.socket) -> None:
    listener.accept()[0].close()
