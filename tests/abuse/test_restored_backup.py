"""After a restore no consumer skips an event without an error: earlier cursors are refused."""

import asyncio
import os
import shutil
import sqlite3
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import httpx
import psycopg
import pytest

from tests.api.helpers import message
from tests.commands import tether, tether_ok
from tests.conftest import TETHER, Server
from tests.fleet import put_fleet
from tests.older import make_older
from tests.services import postgres_programs
from tests.sse import streaming
from tether.client import AsyncClient, Client, EpochChanged
from tether.server.databases import database_of
from tether.storage.sqlite.file import connect

BEGIN_AGAIN = "Begin again without it."
LISTS = ("/events", "/sessions", "/chargers", "/vehicles")
CHANGES = "/sessions?updatedFrom=2000-01-01T00:00:00Z"


def report(client: httpx.Client, minutes: range) -> None:
    """A stay of an hour of V1 at C1 from each of these minutes on: two events."""
    for minute in minutes:
        for kind, second in (("CONNECTED", 0), ("DISCONNECTED", 30)):
            answer = client.post("/events", json={
                "type": f"VEHICLE_{kind}", "chargerId": "C1", "vehicleId": "V1",
                "timestamp": f"2024-01-01T{minute // 60:02}:{minute % 60:02}:{second:02}.000Z",
            })  # fmt: skip
            assert answer.status_code == 201, answer.text


def next_of(client: httpx.Client, target: str, limit: int) -> str:
    """The path of the second page."""
    link = client.get(target, params={**httpx.URL(target).params, "limit": limit}).links["next"]
    return httpx.URL(link["url"]).raw_path.decode()


class Places(NamedTuple):
    """The positions of a consumer in every feed."""

    pages: list[str]
    stream: str

    def check_refused(self, client: httpx.Client) -> None:
        """Each cursor is refused with a message that says what to do."""
        for page in self.pages:
            answer = client.get(page)
            assert answer.status_code == 400, page
            assert answer.headers["tether-error"] == 'epoch-changed; parameter="cursor"'
            assert message(answer).startswith(
                "Parameter {cursor} is invalid. It is from before the "
            )
            assert message(answer).endswith(BEGIN_AGAIN)
        for name, options in (
            ("Last-Event-ID", {"headers": {"Last-Event-ID": self.stream}}),
            ("cursor", {"params": {"cursor": self.stream}}),
        ):
            answer = client.get("/stream", **options)  # type: ignore[arg-type]
            assert answer.status_code == 400
            assert message(answer).startswith(f"Parameter {{{name}}} is invalid. It is from before")
            assert message(answer).endswith("Begin again with cursor=start.")
            assert answer.headers["tether-error"] == f'epoch-changed; parameter="{name}"'

    def check_good(self, client: httpx.Client) -> None:
        """Each cursor is accepted."""
        for page in self.pages:
            assert client.get(page).status_code == 200, page
        with streaming(client, self.stream) as found:
            next(found)


def places(client: httpx.Client) -> Places:
    lists = [next_of(client, target, 1) for target in LISTS]
    everything = [next_of(client, target, 1000) for target in ("/events", CHANGES)]
    descending = next_of(client, "/events?order=desc", 1)
    with streaming(client) as found:
        return Places([*lists, *everything, descending], next(found).id)


def ok(database: str, *words: str) -> str:
    return tether_ok(*words, "--database", database)


def refusal(database: str, *words: str) -> str:
    """What the command says on standard error when it refuses to work."""
    done = tether(*words, "--database", database)
    assert (done.returncode, done.stdout) == (1, "")
    assert "Traceback" not in done.stderr
    return done.stderr


@pytest.fixture
def served(new_server: Callable[..., Server]) -> Server:
    return new_server()


@pytest.fixture
def key(served: Server) -> str:
    return served.key("acme")


@pytest.fixture
def partner(served: Server, key: str) -> Iterator[httpx.Client]:
    with served.client(key) as client:
        put_fleet(client, ("C1", "C2"), ("V1", "V2"))
        report(client, range(3))
        yield client


def restart(server: Server, key: str) -> httpx.Client:
    server.start()
    return server.client(key)


# SQLite -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by_hand", [False, True], ids=["restore", "copied into place"])
def test_a_backup_that_is_served_again_begins_a_new_epoch(
    served: Server, key: str, partner: httpx.Client, tmp_path: Path, by_hand: bool
) -> None:
    backup = tmp_path / "backup.db"
    ok(served.database, "backup", str(backup))
    report(partner, range(3, 10))
    held = places(partner)
    served.stop()
    if by_hand:
        for file in tmp_path.glob("tether-0.db*"):
            file.unlink()
        shutil.copy(backup, served.database)
    else:
        ok(served.database, "restore", str(backup))
    with restart(served, key) as client:
        assert len(client.get("/events").json()) == 6
        report(client, range(10, 20))  # as many as were lost, and more
        held.check_refused(client)
        again = places(client)
        assert len(client.get("/events?limit=1000").json()) == 26
        told = any("a new epoch begins" in line for line in served.log)
        assert told == by_hand  # the command itself says it
    served.stop()
    with restart(served, key) as client:  # a restart is not a restore
        again.check_good(client)
        held.check_refused(client)


def test_restore_twice_and_backup_of_a_backup(
    served: Server, key: str, partner: httpx.Client, tmp_path: Path
) -> None:
    first, second = str(tmp_path / "first.db"), str(tmp_path / "second.db")
    ok(served.database, "backup", first)
    ok(first, "backup", second)
    served.stop()
    held: list[Places] = []
    epochs = {ok(served.database, "epoch", "show")}
    for backup in (first, first, second):
        ok(served.database, "restore", backup)
        epochs.add(ok(served.database, "epoch", "show"))
        with restart(served, key) as client:
            for places_of_before in held:
                places_of_before.check_refused(client)
            held.append(places(client))
        served.stop()
    assert len(epochs) == 4
    kept = sorted(tmp_path.glob("tether-0.db.before-*"))
    assert len([file for file in kept if file.suffix not in ("-wal", "-shm")]) == 3
    # The database that was put aside has its old epoch.
    assert ok(str(kept[0]), "epoch", "show") in epochs


def test_cursors_of_before_epochs_go_on_until_the_first(
    served: Server,
    key: str,
    partner: httpx.Client,
    tmp_path: Path,
    new_server: Callable[..., Server],
) -> None:
    served.stop()
    older = str(tmp_path / "older.db")
    make_older(Path(older), Path(served.database), schema=5)
    server = new_server(database=older)
    assert ok(older, "epoch", "show").startswith("None yet")
    with server.client(key) as client:
        assert "tether-epoch" not in client.get("/events").headers
        # The forms of earlier versions: a number, an instant and an id, an id.
        known = client.get("/sessions?limit=1").links["next"]["url"]
        plain = [
            "/events?cursor=Mg",
            "/chargers?cursor=QzE",
            f"/sessions?{known.partition('?')[2]}",
        ]
        held = Places(plain, "Mg")
        assert [client.get(page).status_code for page in plain] == [200] * 3
        held.check_good(client)
        tag = client.get("/chargers/C1").headers["etag"]
        assert tag == '"1"'
        assert next_of(client, "/events", 2) == "/events?limit=2&cursor=Mg"
        ok(older, "epoch", "new")
        held.check_refused(client)
        found = client.get("/chargers/C1", headers={"If-None-Match": tag})
        assert (found.status_code, found.headers["etag"] != tag) == (200, True)
        places(client).check_good(client)


def test_a_backup_of_an_older_version_is_restored(
    served: Server, key: str, partner: httpx.Client, tmp_path: Path
) -> None:
    held = places(partner)
    served.stop()
    older = tmp_path / "older.db"
    make_older(older, Path(served.database), schema=5)
    ok(served.database, "restore", str(older))
    with restart(served, key) as client:
        held.check_refused(client)
        assert len(client.get("/events").json()) == 6
    # So is one that this version made of it before an upgrade, also if it is just put in place.
    copy = tmp_path / "copy.db"
    ok(str(older), "backup", str(copy))
    ok(str(copy), "migrate")
    assert not ok(str(copy), "epoch", "show").startswith("None yet")


def test_restore_refuses_what_would_do_harm_and_changes_nothing(
    served: Server, partner: httpx.Client, tmp_path: Path
) -> None:
    backup = tmp_path / "backup.db"
    ok(served.database, "backup", str(backup))
    files = {
        name: tmp_path / f"{name}.db"
        for name in ("text", "foreign", "empty", "torn", "bent", "newer")
    }
    files["text"].write_text("This is a letter, and has been one for a long time.")
    with closing(sqlite3.connect(files["foreign"])) as database:
        database.execute("CREATE TABLE recipes (name)")
    files["empty"].touch()
    content = backup.read_bytes()
    with closing(sqlite3.connect(backup)) as database:
        find = "SELECT rootpage FROM sqlite_master WHERE name = 'events_by_identity'"
        ((page,),) = database.execute(find)
    place = (page - 1) * 4096
    files["bent"].write_bytes(content[:place] + b"\xaa" * 4096 + content[place + 4096 :])
    files["torn"].write_bytes(content[:8192] + b"\xaa" * 65536 + content[73728:])
    shutil.copy(backup, files["newer"])
    with closing(sqlite3.connect(files["newer"])) as database, database:
        database.execute("INSERT INTO tether_schema VALUES (9999)")

    def refused(file: object) -> str:
        before = database_of(served.database).epoch()
        listed = sorted(tmp_path.iterdir())
        said = refusal(served.database, "restore", str(file))
        assert sorted(path for path in tmp_path.iterdir() if path in listed) == listed
        assert not list(tmp_path.glob(".tether-*"))
        assert database_of(served.database).epoch() == before
        return said

    assert "is served by process" in refused(backup)
    served.stop()
    with closing(connect(Path(served.database))):
        assert "is in use" in refused(backup)
    assert "is the database itself" in refused(served.database)
    assert "There is no file" in refused(tmp_path / "missing.db")
    assert "is a folder" in refused(tmp_path)
    assert "is not a SQLite database" in refused(files["text"])
    assert "of another program" in refused(files["foreign"])
    assert "is empty" in refused(files["empty"])
    assert "malformed" in refused(files["torn"])
    assert "damaged" in refused(files["bent"])
    assert "newer Tether" in refused(files["newer"])
    assert len(list(tmp_path.glob("tether-0.db.before-*"))) == 0
    assert "tether epoch new" in refusal("postgresql://u@h/d", "restore", str(backup))


def test_a_database_that_cannot_be_read_is_replaced_and_kept(
    served: Server, key: str, partner: httpx.Client, tmp_path: Path
) -> None:
    backup = tmp_path / "backup.db"
    ok(served.database, "backup", str(backup))
    served.kill()  # leaves its files beside
    place = Path(served.database)
    for file in (place, place.with_name(place.name + "-wal")):
        assert file.exists()
        file.write_bytes(b"\xaa" * 100_000)
    place.chmod(0o640)
    ok(served.database, "restore", str(backup))
    (kept,) = (file for file in tmp_path.glob("*.before-*") if file.name.endswith("Z"))
    assert kept.read_bytes() == b"\xaa" * 100_000
    assert not place.with_name(place.name + "-wal").exists()
    assert place.stat().st_mode & 0o777 == 0o640
    with restart(served, key) as client:
        assert len(client.get("/events").json()) == 6
    assert ok(served.database, "check", "--full")


def test_a_backup_is_restored_where_there_is_no_database(
    served: Server, key: str, partner: httpx.Client, tmp_path: Path
) -> None:
    backup, place = tmp_path / "backup.db", Path(served.database)
    held = places(partner)
    ok(served.database, "backup", str(backup))
    place.rename(tmp_path / "moved.db")
    assert "is served by process" in refusal(served.database, "restore", str(backup))
    served.kill()
    ok(served.database, "restore", str(backup))
    assert place.stat().st_mode & 0o777 == 0o600
    with restart(served, key) as client:
        assert len(client.get("/events").json()) == 6
        held.check_refused(client)


@pytest.mark.parametrize("kind", ["chargers", "vehicles"])
def test_the_tag_of_a_version_of_before_is_that_of_none_after_it(
    served: Server, key: str, partner: httpx.Client, tmp_path: Path, kind: str
) -> None:
    """Versions are counters, so the same number is used again for other content."""
    path, bulk = f"/{kind}/{kind[0].upper()}1", f"/{kind}/bulk"
    backup = tmp_path / "backup.db"
    ok(served.database, "backup", str(backup))
    lost = partner.patch(path, json={"chargePowers": [3]}).headers["etag"]
    item = {**partner.get(path).json(), "chargePowers": [4]}
    in_bulk = partner.post(bulk, json=[item]).json()[0]["etag"]
    served.stop()
    ok(served.database, "restore", str(backup))
    with restart(served, key) as client:
        for tag in (lost, in_bulk):
            current = client.patch(path, json={"chargePowers": [5]}).headers["etag"]
            assert current.partition("-")[0] == tag.partition("-")[0]
            read = client.get(path, headers={"If-None-Match": tag})
            assert (read.status_code, read.json()["chargePowers"]) == (200, [5])
            body = {name: value for name, value in read.json().items() if name != "id"}
            for method in ("PUT", "PATCH"):
                change = {**body, "chargePowers": [6]}
                refused = client.request(method, path, json=change, headers={"If-Match": tag})
                assert refused.status_code == 412
            assert client.get(path, headers={"If-None-Match": current}).status_code == 304
            spared = client.patch(path, json=body, headers={"If-None-Match": current})
            assert spared.status_code == 412


# PostgreSQL ---------------------------------------------------------------------------------------


def test_on_postgres_a_new_epoch_begins_by_command_and_ends_streams(
    new_server: Callable[..., Server], new_postgres_database: Callable[[], str]
) -> None:
    server = new_server("--workers", "2", database=new_postgres_database())
    key = server.key("acme")
    with server.client(key) as client:
        put_fleet(client, ("C1", "C2"), ("V1", "V2"))
        report(client, range(3))
        held = places(client)
        tag = {"If-None-Match": client.get("/chargers/C1").headers["etag"]}
    server.stop()
    with restart(server, key) as client:  # such as a fail-over without loss
        held.check_good(client)
        assert client.get("/chargers/C1", headers=tag).status_code == 304
        with streaming(client, held.stream) as found:
            next(found)
            ok(server.database, "epoch", "new")
            for _ in range(10):  # whichever worker answers
                with server.client(key) as other:
                    held.check_refused(other)
                    assert other.get("/chargers/C1", headers=tag).status_code == 200
            assert list(found) == []
        report(client, range(3, 5))
        places(client).check_good(client)


def test_on_postgres_a_restored_dump_begins_a_new_epoch_by_itself(
    new_server: Callable[..., Server], new_postgres_database: Callable[[], str], tmp_path: Path
) -> None:
    server = new_server(database=new_postgres_database())
    key = server.key("acme")
    with server.client(key) as client:
        put_fleet(client, ("C1", "C2"), ("V1", "V2"))
        report(client, range(3))
        held = places(client)
    server.stop()
    dump, programs = str(tmp_path / "dump"), postgres_programs()
    arguments = ("--format=custom", f"--file={dump}", f"--dbname={server.database}")
    subprocess.run([programs / "pg_dump", *arguments], check=True)

    restored = new_postgres_database()
    subprocess.run(
        [programs / "pg_restore", "--no-owner", f"--dbname={restored}", dump], check=True
    )
    assert "a new one begins when it is served" in ok(restored, "epoch", "show")
    with new_server(database=restored).client(key) as client:
        assert len(client.get("/events").json()) == 6
        held.check_refused(client)
    assert "This is a copy" not in ok(restored, "epoch", "show")

    copied = new_postgres_database()  # a copy by PostgreSQL itself has the numbers of its tables
    name = copied.rpartition("/")[2]
    with psycopg.connect(restored.rpartition("/")[0] + "/postgres", autocommit=True) as admin:
        admin.execute(f'DROP DATABASE "{name}"')
        template = server.database.rpartition("/")[2]
        admin.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
    with new_server(database=copied).client(key) as client:
        held.check_refused(client)


# The SDK and the command line ---------------------------------------------------------------------


def restored(server: Server, backup: Path) -> None:
    """The database as of the backup, behind the same address."""
    port = int(server.url.rpartition(":")[2])
    server.stop()
    ok(server.database, "restore", str(backup))
    server.start(port)


def test_followers_raise_or_start_again_where_told(
    served: Server, key: str, partner: httpx.Client, tmp_path: Path
) -> None:
    backup = tmp_path / "backup.db"
    ok(served.database, "backup", str(backup))
    report(partner, range(3, 6))
    with Client(served.url, key) as sdk:
        at_the_end, in_a_page = sdk.events.follow(poll_s=0.05), sdk.events.follow(poll_s=0.05)
        assert len(list(islice(at_the_end, 12))) == 12
        assert len(list(islice(in_a_page, 8))) == 8  # behind what the backup has
        changes, telling = sdk.sessions.changes(poll_s=0.05), sdk.sessions.changes(poll_s=0.05)
        assert len(list(islice(changes, 5))) == 5
        assert len(list(islice(telling, 6))) == 6
        again = sdk.events.follow(in_a_page.cursor, poll_s=0.05, start_again=True)
        changed_again = sdk.sessions.changes(changes.cursor, poll_s=0.05, start_again=True)
        stream, listed = sdk.stream(), sdk.events.list(page_size=2)
        with stream:
            next(listed), next(listed)
            now = sdk.events.now()
            restored(served, backup)
            for feed in (
                at_the_end,
                telling,
                stream,
                listed,
                sdk.events.follow(in_a_page.cursor, poll_s=0.05),
                sdk.events.follow(now, poll_s=0.05),
                sdk.sessions.changes(changes.cursor, poll_s=0.05),
            ):
                with pytest.raises(EpochChanged) as caught:
                    list(islice(feed, 100))  # what came before the restore may still be read
                assert caught.value.parameter in ("cursor", "Last-Event-ID")
                assert "Begin again" in caught.value.message
        everything = list(sdk.events.list())
        assert list(islice(again, 6)) == everything
        assert [one.id for one in islice(changed_again, 3)] == [
            one.id for one in sdk.sessions.list()
        ]
        report_again = httpx.Client(base_url=served.url, headers={"x-api-key": key})
        with report_again, sdk.stream(stream.cursor, start_again=True) as begun:
            seen = [next(begun) for _ in range(6)]
            assert [one for one in seen if one in everything]
            report(report_again, range(10, 12))
            assert len(list(islice(again, 4))) == 4
            place = again.cursor
        assert sdk.events.follow(place, poll_s=0.05).cursor == place


def test_the_awaiting_client_likewise(
    served: Server, key: str, partner: httpx.Client, tmp_path: Path
) -> None:
    backup = tmp_path / "backup.db"
    ok(served.database, "backup", str(backup))
    report(partner, range(3, 6))

    async def all_of(stream: AsyncIterator[object]) -> None:
        """The events from before the restore that can still be read."""
        async for _ in stream:
            pass

    async def use() -> None:
        async with AsyncClient(served.url, key) as sdk:
            feed = sdk.events.follow(poll_s=0.05)
            for _ in range(8):
                await anext(feed)
            changes = sdk.sessions.changes(poll_s=0.05)
            await anext(changes)
            async with sdk.stream() as stream:
                await asyncio.to_thread(restored, served, backup)
                with pytest.raises(EpochChanged):
                    await all_of(stream)
            with pytest.raises(EpochChanged):
                await anext(sdk.events.follow(feed.cursor, poll_s=0.05))
            with pytest.raises(EpochChanged):
                await anext(sdk.sessions.changes(changes.cursor, poll_s=0.05))
            again = sdk.events.follow(feed.cursor, poll_s=0.05, start_again=True)
            assert [await anext(again) for _ in range(6)] == [
                one async for one in sdk.events.list()
            ]
            changed = sdk.sessions.changes(changes.cursor, poll_s=0.05, start_again=True)
            assert (await anext(changed)).version >= 1
            async with sdk.stream(stream.cursor, start_again=True) as begun:
                assert await anext(begun)

    asyncio.run(use())


def test_follow_on_the_command_line_says_what_to_do(
    served: Server, key: str, partner: httpx.Client, tmp_path: Path
) -> None:
    backup, place = tmp_path / "backup.db", tmp_path / "place"
    ok(served.database, "backup", str(backup))
    report(partner, range(3, 6))

    def follow(lines: int, kind: str, *words: str) -> tuple[list[str], str]:
        """This number of lines, or all lines before it fails, and its message."""
        command = [
            str(TETHER),
            kind,
            "follow",
            "--cursor-file",
            str(place),
            "--poll",
            "0.05",
            *words,
        ]
        environment = {**os.environ, "TETHER_URL": served.url, "TETHER_API_KEY": key}
        with subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as running:
            assert running.stdout is not None
            assert running.stderr is not None
            found = list(islice(running.stdout, lines))
            if len(found) == lines:
                running.terminate()
            return found, running.stderr.read()

    assert len(follow(8, "events")[0]) == 8
    restored(served, backup)
    found, said = follow(1, "events")
    assert found == []
    assert f"remove {place} or add --start-again" in said
    assert "Traceback" not in said
    assert len(follow(6, "events", "--start-again")[0]) == 6
    place.unlink()
    assert len(follow(3, "sessions")[0]) == 3
    ok(served.database, "epoch", "new")
    with served.client(key) as client:
        report(client, range(10, 11))
    assert "begin again from the start" in follow(1, "sessions")[1]
    assert len(follow(4, "sessions", "--start-again")[0]) == 4
