"""The SQLite file is changed under a running server: no acknowledged event is lost."""

import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.commands import tether
from tests.conftest import TETHER, Server
from tests.wire import Partner


def beside(path: Path, ending: str) -> Path:
    return path.with_name(path.name + ending)


def post(partner: Partner, number: int) -> httpx.Response:
    return partner.client.post(
        "/events",
        json={
            "type": "VEHICLE_CONNECTED",
            "chargerId": "C1",
            "vehicleId": "V1",
            "timestamp": f"2026-01-01T00:{number // 60:02}:{number % 60:02}Z",
        },
    )


def until_logged(server: Server, text: str) -> None:
    end = time.monotonic() + 60
    while not any(text in line for line in server.log):
        assert time.monotonic() < end
        time.sleep(0.05)


def delete(path: Path) -> None:
    path.unlink()


def delete_all(path: Path) -> None:
    for ending in ("", "-wal", "-shm"):
        beside(path, ending).unlink()


def move(path: Path) -> None:
    path.rename(path.with_name("moved.db"))


def replace(path: Path) -> None:
    copy = path.with_name("copy.db")
    shutil.copy(path, copy)
    copy.replace(path)


def overwrite_with_a_backup(path: Path) -> None:
    shutil.copyfile(path.with_name("backup.db"), path)


def overwrite_with_noise(path: Path) -> None:
    with path.open("rb+") as file:
        file.write(os.urandom(16_384))


def empty(path: Path) -> None:
    os.truncate(path, 0)


def halve(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def delete_log(path: Path) -> None:
    beside(path, "-wal").unlink()


def delete_log_and_index(path: Path) -> None:
    beside(path, "-wal").unlink()
    beside(path, "-shm").unlink()


def delete_index(path: Path) -> None:
    beside(path, "-shm").unlink()


def empty_log(path: Path) -> None:
    os.truncate(beside(path, "-wal"), 0)


def replace_log(path: Path) -> None:
    log = beside(path, "-wal")
    data = log.read_bytes()
    log.unlink()
    log.write_bytes(data)


DAMAGES = [
    delete, delete_all, move, replace, overwrite_with_a_backup, overwrite_with_noise, empty, halve,
    delete_log, delete_index, delete_log_and_index, empty_log, replace_log,
]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_nothing_is_acknowledged_that_would_be_lost(
    tmp_path: Path, new_server: Callable[..., Server], damage: Callable[[Path], None]
) -> None:
    path = tmp_path / "tether.db"
    server = new_server(database=str(path))
    partner = Partner(server)
    if damage is overwrite_with_a_backup:
        assert tether("backup", path.with_name("backup.db"), "--database", path).returncode == 0
    assert [post(partner, number).status_code for number in range(20)] == [201] * 20
    damage(path)
    answers = [post(partner, number) for number in range(20, 40)]
    answers.append(partner.client.get("/ready"))
    answers += [partner.client.get(path) for path in ("/events", "/chargers/C1", "/sessions")]
    answers.append(partner.client.patch("/chargers/C1", json={"chargePowers": [1]}))
    answers += [post(partner, number) for number in range(40, 45)]
    assert [answer.status_code for answer in answers] == [503] * len(answers)
    assert {answer.headers["retry-after"] for answer in answers} <= {"1", "2"}
    assert partner.client.get("/health").status_code == 200
    until_logged(server, "nothing is read, written or acknowledged")
    assert server.failures() == []
    assert server.stop() == 0


def test_it_is_noticed_without_any_request(
    tmp_path: Path, new_server: Callable[..., Server]
) -> None:
    path = tmp_path / "tether.db"
    server = new_server(database=str(path))
    path.unlink()
    until_logged(server, "is gone")


def test_of_clients_that_write_meanwhile_none_is_told_what_is_not_so(
    tmp_path: Path, new_server: Callable[..., Server]
) -> None:
    path = tmp_path / "tether.db"
    server = new_server(database=str(path))
    partner = Partner(server)
    acknowledged: set[int] = set()
    stopped = threading.Event()

    def report(first: int) -> None:
        for number in range(first, 3_000, 4):
            if stopped.is_set():
                return
            if post(partner, number).status_code == 201:
                acknowledged.add(number)

    clients = [threading.Thread(target=report, args=(first,)) for first in range(4)]
    for client in clients:
        client.start()
    while len(acknowledged) < 60:
        time.sleep(0.005)
    moved = [beside(path, ending) for ending in ("", "-wal", "-shm")]
    (tmp_path / "aside").mkdir()
    for file in moved:
        file.rename(tmp_path / "aside" / file.name)
    time.sleep(0.5)
    stopped.set()
    for client in clients:
        client.join()
    server.kill()
    for file in moved:
        (tmp_path / "aside" / file.name).rename(file)
    server = new_server(database=str(path))
    with server.client(partner.key) as reader:
        stored = len(reader.get("/events?limit=1000").json())
    assert stored >= len(acknowledged)


def test_a_file_that_is_put_back_is_used_again(
    tmp_path: Path, new_server: Callable[..., Server]
) -> None:
    path, aside = tmp_path / "tether.db", tmp_path / "aside.db"
    server = new_server(database=str(path))
    partner = Partner(server)
    assert post(partner, 1).status_code == 201
    path.rename(aside)
    assert post(partner, 2).status_code == 503
    assert partner.client.get("/ready").status_code == 503
    aside.rename(path)
    assert partner.client.get("/ready").status_code == 200
    assert post(partner, 3).status_code == 201
    assert len(partner.client.get("/events").json()) in (2, 3)
    assert server.stop() == 0
    assert server.failures() == []


def test_what_only_a_deleted_log_had_is_saved(
    tmp_path: Path, new_server: Callable[..., Server]
) -> None:
    path = tmp_path / "tether.db"
    server = new_server(database=str(path))
    partner = Partner(server)
    assert [post(partner, number).status_code for number in range(30)] == [201] * 30
    delete_log_and_index(path)
    assert partner.client.get("/ready").status_code == 503
    server.kill()
    server = new_server(database=str(path))
    with server.client(partner.key) as client:
        assert len(client.get("/events").json()) == 30


def test_a_vacuum_and_other_work_beside_the_server_are_no_trouble(
    tmp_path: Path, new_server: Callable[..., Server]
) -> None:
    path = tmp_path / "tether.db"
    server = new_server(database=str(path))
    partner = Partner(server)
    script = (
        "import apsw, sys\n"
        "c = apsw.Connection(sys.argv[1])\n"
        "c.set_busy_timeout(5000)\n"
        "c.execute('CREATE TABLE waste AS WITH n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n "
        "LIMIT 500) SELECT randomblob(4000) FROM n; PRAGMA wal_checkpoint; DROP TABLE waste; "
        "VACUUM; PRAGMA wal_checkpoint(TRUNCATE)').fetchall()\n"
    )
    sizes = []
    for number in range(3):
        assert post(partner, number).status_code == 201
        subprocess.run([str(TETHER.with_name("python")), "-c", script, path], check=True)
        sizes.append(path.stat().st_size)
        assert tether("keys", "create", "else", "--database", path).returncode == 0
        assert partner.client.get("/ready").status_code == 200
    assert max(sizes) < 1_000_000
    assert len(partner.client.get("/events").json()) == 3
    assert server.failures() == []
    assert not any("acknowledged any more" in line for line in server.log)


# Other names --------------------------------------------------------------------------------------


@pytest.mark.parametrize("link", ["symbolic", "hard"])
def test_a_second_server_through_a_link_is_refused(
    tmp_path: Path, new_server: Callable[..., Server], link: str
) -> None:
    path, other = tmp_path / "tether.db", tmp_path / "other.db"
    server = new_server(database=str(path))
    partner = Partner(server)
    if link == "symbolic":
        other.symlink_to(path)
    else:
        os.link(path, other)
    done = tether("serve", "--database", other, "--port", "0")
    assert done.returncode == 1
    assert "is served by" in done.stderr
    command = tether("keys", "create", "acme", "--database", other)
    if link == "hard":  # SQLite itself does not see that it is the same
        assert command.returncode == 1
        assert "another name" in command.stderr
        assert tether("backup", tmp_path / "b.db", "--database", other).returncode == 1
    else:
        assert command.returncode == 0
    assert tether("keys", "create", "acme", "--database", path).returncode == 0
    assert post(partner, 1).status_code == 201
    assert server.stop() == 0


def test_a_second_server_is_refused_though_the_file_with_its_lock_was_removed(
    tmp_path: Path, new_server: Callable[..., Server]
) -> None:
    path = tmp_path / "tether.db"
    new_server(database=str(path))
    beside(path, "-server").unlink()
    done = tether("serve", "--database", path, "--port", "0")
    assert done.returncode == 1
    assert "is served by another process already" in done.stderr


def test_a_link_that_leads_to_another_file_now_is_noticed(
    tmp_path: Path, new_server: Callable[..., Server]
) -> None:
    link, real, other = tmp_path / "tether.db", tmp_path / "a.db", tmp_path / "b.db"
    link.symlink_to(real)
    server = new_server(database=str(link))
    partner = Partner(server)
    assert post(partner, 1).status_code == 201
    assert tether("migrate", "--database", other).returncode == 0
    link.unlink()
    link.symlink_to(other)
    assert post(partner, 2).status_code == 503
    assert partner.client.get("/ready").status_code == 503
    assert server.stop() == 0


# At the start -------------------------------------------------------------------------------------


def test_a_server_does_not_start_with_a_new_file_beside_the_log_of_another(
    tmp_path: Path, new_server: Callable[..., Server]
) -> None:
    path = tmp_path / "tether.db"
    server = new_server(database=str(path))
    partner = Partner(server)
    assert post(partner, 1).status_code == 201
    server.kill()
    aside = tmp_path / "aside.db"
    path.rename(aside)
    for exists in (False, True):
        if exists:
            path.touch()
        done = tether("serve", "--database", path, "--port", "0")
        assert done.returncode == 1
        assert "put both back" in done.stderr
    aside.replace(path)
    server = new_server(database=str(path))
    with server.client(partner.key) as client:
        assert len(client.get("/events").json()) == 1


def test_a_server_does_not_start_with_a_truncated_file(
    tmp_path: Path, new_server: Callable[..., Server]
) -> None:
    path = tmp_path / "tether.db"
    assert new_server(database=str(path)).stop() == 0
    halve(path)
    done = tether("serve", "--database", path, "--port", "0")
    assert done.returncode == 1
    assert "was truncated" in done.stderr
