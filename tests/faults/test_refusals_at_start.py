"""A server that cannot start says why in one sentence, and changes nothing."""

import ctypes
import hashlib
import json
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import apsw
import pytest

from tests.conftest import TETHER, Server
from tests.wire import Partner, check_integrity
from tether.domain.errors import SetupError
from tether.storage import migrate
from tether.storage.dialect import SQLITE
from tether.storage.sqlite.file import APPLICATION_ID, SqliteFile, connect

PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 24, 1, 2


def respect_permissions() -> None:
    """Makes file modes apply to this process and its children, even to root."""
    system = ctypes.CDLL(None)
    if hasattr(system, "prctl"):
        for capability in (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH):
            system.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)


def refusal(database: Path | str, *options: str, seconds: float = 60) -> str:
    """The one sentence with which `tether serve` ends."""
    done = subprocess.run(
        [TETHER, "serve", "--database", str(database), "--port", "0", *options],
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
        preexec_fn=respect_permissions,
    )
    assert done.returncode == 1, done.stderr
    assert done.stdout == ""
    start, line = done.stderr.strip().splitlines()
    assert json.loads(start)["event"] == "start"
    assert line.startswith("tether: ")
    return line


@pytest.fixture
def unchanged(tmp_path: Path) -> Iterator[Path]:
    """A folder whose files must be the same at the end of the test, without new files."""
    folder = tmp_path / "unchanged"
    folder.mkdir()
    yield folder
    assert (folder / "sum").read_text() == checksum(folder)


def checksum(folder: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        if file.name != "sum":
            digest.update(file.name.encode())
            digest.update(file.read_bytes() if file.is_file() else b"")
    return digest.hexdigest()


def seal(folder: Path) -> None:
    (folder / "sum").write_text(checksum(folder))


def test_a_database_of_a_newer_version_is_refused(unchanged: Path) -> None:
    path = unchanged / "newer.db"
    SqliteFile(path).migrate()
    with closing(connect(path)) as connection:
        connection.execute("INSERT INTO tether_schema (version) VALUES (9999)")
    seal(unchanged)
    message = refusal(path)
    assert "newer Tether" in message
    assert "9999" in message


def test_a_database_of_another_program_is_refused(unchanged: Path) -> None:
    tables, marked = unchanged / "tables.db", unchanged / "marked.db"
    with closing(apsw.Connection(str(tables))) as connection:
        connection.execute("CREATE TABLE chargers (id)")
    with closing(apsw.Connection(str(marked))) as connection:
        connection.execute("PRAGMA application_id = 1196444487; CREATE TABLE gpkg (id)")
    seal(unchanged)
    for path in (tables, marked):
        assert "another program" in refusal(path)


def test_a_file_that_is_no_database_is_refused(unchanged: Path) -> None:
    letter, short = unchanged / "letter.txt", unchanged / "short"
    letter.write_text("Dear Sir or Madam, " * 1000)
    short.write_text("x")
    folder = unchanged / "folder"
    folder.mkdir()
    seal(unchanged)
    for path in (letter, short, folder):
        assert str(path) in refusal(path)


def test_a_damaged_database_is_refused_in_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "damaged.db"
    SqliteFile(path).migrate()
    content = bytearray(path.read_bytes())
    content[100:4096] = b"\xff" * 3996
    path.write_bytes(content)
    assert str(path) in refusal(path)


def test_what_may_not_be_written_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "locked"
    folder.mkdir()
    path = folder / "tether.db"
    SqliteFile(path).migrate()
    file_in_the_way = tmp_path / "file"
    file_in_the_way.touch()
    path.chmod(0o444)
    try:
        assert str(path) in refusal(path), "the file may not be written"
        path.chmod(0o644)
        folder.chmod(0o555)
        assert str(path.parent) in refusal(path), "SQLite's files beside it may not be made"
        assert "new.db" in refusal(folder / "new.db")
        assert "deeper" in refusal(folder / "deeper" / "new.db")
    finally:
        folder.chmod(0o755)
    assert str(file_in_the_way) in refusal(file_in_the_way / "tether.db")


def test_a_busy_port_is_refused(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert port in refusal(tmp_path / "tether.db", "--port", port)
        message = refusal(tmp_path / "tether.db", "--metrics", f"127.0.0.1:{port}")
        assert port in message
        assert "etrics" in message
    assert "name.invalid" in refusal(tmp_path / "tether.db", "--host", "name.invalid")


def test_a_database_that_is_locked_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tether.db"
    SqliteFile(path).migrate()
    with closing(connect(path)) as other:
        other.execute("BEGIN EXCLUSIVE")
        assert "locked" in refusal(path)


def test_a_second_server_on_the_same_file_is_refused_until_the_first_is_gone(
    new_server: Callable[..., Server],
) -> None:
    first = new_server()
    partner = Partner(first)
    message = refusal(first.database)
    assert str(first.process.pid if first.process else None) in message
    assert partner.client.get("/chargers/C1").status_code == 200
    first.kill()
    second = new_server(database=first.database)
    assert second.client(partner.key).get("/chargers/C1").status_code == 200
    assert second.stop() == 0
    third = new_server(database=first.database)
    assert third.stop() == 0


def test_an_older_database_is_brought_forward_with_what_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    first, *_ = migrate.steps(SQLITE)
    with closing(apsw.Connection(str(path))) as connection:
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(migrate.CREATE_VERSION_TABLE)
        connection.execute(first.script)
        connection.execute(f"INSERT INTO {migrate.VERSION_TABLE} VALUES ({first.version})")
        connection.execute(
            "INSERT INTO partners VALUES (1, 'Old', 0);"
            'INSERT INTO chargers VALUES (1, \'OLD\', 3, \'{"id":"OLD","chargePowers":[11]}\')'
        )
    server = Server(str(path)).start()
    client = server.client(server.key("Old"))
    assert client.get("/chargers/OLD").json() == {"id": "OLD", "chargePowers": [11]}
    assert server.stop() == 0
    with closing(connect(path)) as connection:
        ((version,),) = connection.execute(migrate.READ_VERSION).fetchall()
    assert version == migrate.steps(SQLITE)[-1].version


def test_the_next_step_is_taken_once_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "tether.db"
    SqliteFile(path).migrate()
    known = migrate.steps(SQLITE)
    number = known[-1].version + 1
    good = migrate.Step(number, "CREATE TABLE extra (id BIGINT);")
    bad = migrate.Step(number + 1, "CREATE TABLE more (id BIGINT); CREATE TABLE partners (id);")
    monkeypatch.setattr(migrate, "steps", lambda dialect: [*known, good, bad])
    with pytest.raises(SetupError, match="partners"):
        SqliteFile(path).migrate()
    assert tables_of(path).isdisjoint({"extra", "more"}), "all or nothing"
    monkeypatch.setattr(migrate, "steps", lambda dialect: [*known, good])
    assert [SqliteFile(path).migrate(), SqliteFile(path).migrate()] == [1, 0]
    assert "extra" in tables_of(path)
    check_integrity(path)
    monkeypatch.undo()
    assert "newer Tether" in refusal(path)


def tables_of(path: Path) -> set[str]:
    with closing(connect(path)) as connection:
        return {str(name) for (name,) in connection.execute("SELECT name FROM sqlite_master")}
