"""`tether replay` against a real server."""

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import pytest

from tests.conftest import TETHER, Server
from tests.lists import everything
from tests.replay.analysis import check_analysis, check_python
from tests.replay.sessions import check_sessions
from tests.replay.table import rows, write
from tests.services import free_port
from tether.domain.keys import Rate

NewServer = Callable[..., Server]


def replay(
    *arguments: str | Path, url: str, key: str | None = None, folder: Path | None = None
) -> "subprocess.CompletedProcess[str]":
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("TETHER_")
    }
    environment["TETHER_URL"] = url
    if key is not None:
        environment["TETHER_API_KEY"] = key
    return subprocess.run(
        [TETHER, "replay", *arguments],
        env=environment, cwd=folder, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip


def stored(client: httpx.Client) -> list[Any]:
    """All chargers, vehicles and events of a partner."""
    return [
        one for path in ("/chargers", "/vehicles", "/events") for one in everything(client, path)
    ]


def test_a_year_of_sessions_goes_through_and_a_second_time_changes_nothing(
    new_server: NewServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    server = new_server()
    with server.client() as client:
        key = client.headers["x-api-key"]
        first = replay("--verify", url=server.url, key=key)
        assert (first.returncode, first.stdout.splitlines()[1:]) == (
            0,
            [
                "  2 chargers",
                "  1,878 vehicles",
                "  9,390 events",
                "  60,441.94 kWh charged",
                "Read back: the server holds exactly that.",
            ],
        )
        held = stored(client)
        assert len(held) == 2 + 1878 + 9390
        times = [one["timestamp"] for one in held if "timestamp" in one]
        assert times == sorted(times)
        check_sessions(client)
        check_analysis(client)
        check_python(client, monkeypatch, capsys)
        part = write(tmp_path / "part.csv", rows()[::5])  # as good as all of them, and faster
        second = replay(part, url=server.url, key=key)
        assert second.returncode == 0
        assert "  1,880 events\n" in second.stdout
        assert stored(client) == held


def test_a_low_rate_is_waited_for(new_server: NewServer, tmp_path: Path) -> None:
    server = new_server()
    key = server.key(rate=Rate(20, 1))
    done = replay(write(tmp_path / "few.csv", rows()[:10]), url=server.url, key=key)
    assert done.returncode == 0
    assert "  50 events\n" in done.stdout
    assert "trying again by itself" in done.stderr


def test_a_restart_of_the_server_is_waited_for(new_server: NewServer, tmp_path: Path) -> None:
    server = new_server()
    port = int(server.url.rpartition(":")[2])
    restarted = False

    def restart(client: httpx.Client) -> None:
        nonlocal restarted
        while (answer := client.get("/events?limit=1")).status_code == 429 or not answer.json():
            time.sleep(0.05)
        server.kill()
        server.start(port)
        restarted = True

    # The key is so slow that the replay still runs when the server is back.
    with server.client(server.key(rate=Rate(400, 1))) as client:
        table = write(tmp_path / "some.csv", rows()[:400])
        restarting = Thread(target=restart, args=(client,))
        restarting.start()
        done = replay("--verify", table, url=server.url, key=client.headers["x-api-key"])
        assert restarted
        restarting.join()
        assert done.returncode == 0, done.stderr
        assert "  2,000 events\n" in done.stdout
        assert "trying again by itself" in done.stderr
        assert len(stored(client)) == 2 + 400 + 2000


def test_what_the_server_refuses_is_told_and_the_rest_is_sent(
    server: Server, tmp_path: Path
) -> None:
    table = rows()[:3]
    table[1]["soc_departure_pct"] = "100.5"
    done = replay(write(tmp_path / "odd.csv", table), url=server.url, key=server.key())
    assert done.returncode == 1
    assert "  3 vehicles\n" in done.stdout
    assert "  13 events\n" in done.stdout
    assert done.stderr.splitlines()[-3:] == [
        "The server refused 2 of them:",
        *["  session-1130: Parameter {stateOfCharge} is invalid. "
          "It must be a number from 0 to 100 (%)."] * 2,
    ]  # fmt: skip


def test_the_demo_key_is_used_where_there_is_one(server: Server, tmp_path: Path) -> None:
    (tmp_path / ".tether").mkdir()
    (tmp_path / ".tether" / "demo.key").write_text(server.key() + "\n")
    done = replay(write(tmp_path / "one.csv", rows()[:1]), url=server.url, folder=tmp_path)
    assert done.returncode == 0
    assert "With the demo key in .tether/demo.key." in done.stderr
    assert done.stdout.splitlines()[1:] == [
        "  1 charger",
        "  1 vehicle",
        "  5 events",
        "  5.16 kWh charged",
    ]


def test_what_is_missing_is_said_in_a_sentence(server: Server, tmp_path: Path) -> None:
    key = server.key()
    nobody = f"http://127.0.0.1:{free_port()}"
    empty = write(tmp_path / "none.csv", rows()[:1])
    empty.write_text(empty.read_text().splitlines()[0])
    for arguments, options, sentence in (
        ([], {"url": server.url}, "An API key is needed"),
        (
            [],
            {"url": server.url, "key": key[:-1] + "?"},
            "does not accept this API key (403)",
        ),
        ([], {"url": server.url, "key": "ein Schlüssel"}, "characters that no key has"),
        ([], {"url": server.url, "key": server.key(read_only=True)}, "may only read (403)"),
        ([], {"url": nobody, "key": key}, f"Nothing answers at {nobody}"),
        ([], {"url": "127.0.0.1:8000", "key": key}, "must be like https://"),
        ([], {"url": f"{server.url}/health", "key": key}, "does not answer like a Tether server"),
        ([empty], {"url": server.url, "key": key}, "no sessions"),
        ([Path(__file__)], {"url": server.url, "key": key}, "there is no column 'session'"),
    ):
        done = replay(*arguments, folder=tmp_path, **options)
        assert done.returncode == 1
        assert done.stdout == ""
        assert done.stderr.startswith("tether: ")
        assert sentence in done.stderr
        assert len(done.stderr.splitlines()) == 1
        assert key not in done.stderr
