"""Names, ids and messages come from others, so they must not control the terminal."""

import json
import os
import pty
import subprocess
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from tests.commands import Command
from tests.conftest import TETHER

EVIL = (
    "V\x1b[31mred\x1b]0;title\x07\x9b2J\x7f\u202egnp.exe\u2066\u200e\r\n"
    "\tall is well\u2028\U000e0041"
)
RAW = ["\x1b[31mred", "\x1b]0;", *"\x07\x9b\x7f\u202e\u2066\u200e\u2028\U000e0041"]

AT = "2026-01-05T10:00:00.000Z"
EVENT = {
    "id": EVIL, "type": "VEHICLE_CONNECTED", "chargerId": EVIL, "vehicleId": EVIL,
    "stateOfCharge": 5, "timestamp": AT,
}  # fmt: skip
STATE = {
    "vehicleId": EVIL, "asOf": AT, "pluggedIn": True, "charging": True, "chargerId": EVIL,
    "pluggedInSince": AT, "chargePower": 7, "lastEvent": EVENT, "lastEventAge": 5,
}  # fmt: skip
CHARGER_STATE = {
    "chargerId": EVIL, "asOf": AT, "occupied": True, "charging": True, "vehicles": [STATE],
}  # fmt: skip
SESSION = {
    "id": EVIL, "vehicleId": EVIL, "chargerId": EVIL, "status": "ended", "connectedAt": AT,
    "disconnectedAt": AT, "chargedTime": 5, "estimated": False, "periods": [], "version": 1,
    "flags": [{"name": EVIL, "message": EVIL}], "updatedAt": AT,
}  # fmt: skip
CHARGER = {"id": EVIL, "chargePowers": [11]}
VEHICLE = {"id": EVIL, "chargeCapacity": 50, "chargePowers": [11]}
STREAM = "".join(
    f"event: {name}\nid: 1.2\ndata: {json.dumps(data)}\n\n"
    for name, data in (("event", EVENT), ("state", STATE))
)


class _Server(ThreadingHTTPServer):
    down = ""  # a path that the server answers with 503


class _Evil(BaseHTTPRequestHandler):
    server: _Server
    answers: ClassVar[dict[str, Any]] = {
        "/chargers": [CHARGER], "/vehicles": [VEHICLE], "/events": [EVENT], "/sessions": [SESSION],
        "/chargers/C1": CHARGER, "/vehicles/V1": VEHICLE, "/sessions/S1": SESSION,
        "/chargers/C1/state": CHARGER_STATE, "/vehicles/V1/state": STATE,
    }  # fmt: skip

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == self.server.down:
            self._say(503, json.dumps({"message": EVIL}))
            return
        if path == "/stream":
            self._say(200, STREAM, "text/event-stream")
        elif "include=state" in self.path:
            self._say(200, json.dumps([{**CHARGER, "state": CHARGER_STATE}]))
        elif path in self.answers:
            self._say(200, json.dumps(self.answers[path], ensure_ascii=False))
        else:
            self._say(409, json.dumps({"message": EVIL}))

    def do_PUT(self) -> None:
        self._say(409, json.dumps({"message": EVIL}))

    def do_POST(self) -> None:
        found = {"id": EVIL} if self.path == "/events" else [{"status": 409, "message": EVIL}]
        self._say(201 if self.path == "/events" else 200, json.dumps(found))

    def _say(self, status: int, text: str, kind: str = "application/json") -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        with suppress(OSError):
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


@pytest.fixture
def server() -> Iterator[_Server]:
    """A server that answers with control characters."""
    with _Server(("127.0.0.1", 0), _Evil) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def command(server: _Server, tmp_path: Path) -> Command:
    """The command of a partner of that server."""
    url = f"http://127.0.0.1:{server.server_address[1]}"
    environment = {"TETHER_URL": url, "TETHER_API_KEY": "key", "LANG": "C.UTF-8"}
    return Command(tmp_path, str(tmp_path / "tether.db"), environment)


def check(seen: str) -> None:
    """No raw control character is there; it is shown in a readable form."""
    for raw in RAW:
        assert raw not in seen
    assert "x1b[31mred" in seen or "u001b[31mred" in seen


SHOWN = [
    "chargers list", "vehicles list", "events list", "sessions list", "state vehicles V1",
    "chargers get C1", "vehicles get V1", "sessions get S1", "state chargers C1",
    "events post --type connected --charger C1 --vehicle V1",
]  # fmt: skip


@pytest.mark.parametrize("words", SHOWN)
def test_what_is_shown_commands_no_terminal(command: Command, words: str) -> None:
    status, seen = command.in_terminal(*words.split(), columns=400)
    assert status == 0, seen
    check(seen)


@pytest.mark.parametrize("words", SHOWN[:-1])
def test_json_is_exact_in_a_pipe_and_says_the_same_in_a_terminal(
    command: Command, words: str
) -> None:
    exact = command.ok(*words.split(), "--json")
    assert json.dumps(EVIL, ensure_ascii=False)[1:-1].replace("\x7f", "\x7f") in exact
    status, seen = command.in_terminal(*words.split(), "--json", columns=400)
    assert status == 0, seen
    check(seen)
    assert json.loads(seen) == json.loads(exact)


def test_errors_command_no_terminal(command: Command) -> None:
    done = command("vehicles", "put", "V1", "--charge-capacity", "5", "--charge-powers", "11")
    assert done.returncode != 0
    check(done.stderr)
    assert len(done.stderr.splitlines()) == 1


def test_the_board_commands_no_terminal(command: Command) -> None:
    variables = command.variables(COLUMNS="300", LINES="20", TERM="xterm")
    leader, follower = pty.openpty()
    with subprocess.Popen([TETHER, "watch"], stdout=follower, stderr=follower, env=variables) as it:
        os.close(follower)
        seen = ""
        while "1 vehicle plugged in" not in seen:
            seen += os.read(leader, 65_536).decode(errors="replace")
        it.kill()
    os.close(leader)
    check(seen)


def test_what_is_told_of_outages_commands_no_terminal(server: _Server, command: Command) -> None:
    server.down = "/events"
    with subprocess.Popen(
        [TETHER, "events", "follow", "--poll", "0.05"],
        stderr=subprocess.PIPE,
        env=command.variables(),
        encoding="utf-8",
    ) as following:
        assert following.stderr is not None
        told = following.stderr.readline()
        following.kill()
    assert "interrupted" in told
    check(told)


@pytest.mark.parametrize("form", ["csv", "ndjson"])
def test_an_export_to_a_terminal_commands_nothing(command: Command, form: str) -> None:
    status, seen = command.in_terminal("export", "events", "--format", form, columns=400)
    assert status == 0, seen
    check(seen)
    exact = command.ok("export", "events", "--format", form)
    assert "\u202egnp.exe\u2066" in exact


def test_refused_rows_and_refusals_command_no_terminal(command: Command) -> None:
    (command.folder / "v.ndjson").write_text(json.dumps({**EVENT, "id": None}) + "\n")
    status, seen = command.in_terminal("import", "v.ndjson")
    assert status == 1
    for raw in RAW:
        assert raw not in seen
