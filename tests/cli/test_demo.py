import json
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tests.commands import Command
from tests.conftest import TETHER


@dataclass
class Demo:
    """A running `tether demo` and what it printed."""

    process: "subprocess.Popen[str]"
    welcome: str

    @property
    def key(self) -> str:
        """The key that it printed."""
        return next(word for word in self.welcome.split() if word.startswith("ttr_live_"))

    @property
    def commands(self) -> list[str]:
        """The commands that it offers for pasting."""
        blocks = self.welcome.split("\n\n")
        return [block for block in blocks if block.startswith("curl ")]


@contextmanager
def _demo(tether: Command, *words: str) -> Iterator[Demo]:
    process = subprocess.Popen(
        [TETHER, "demo", "--port", "0", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tether.folder,
        env=tether.variables(),
    )
    assert process.stdout is not None
    lines: list[str] = []
    while "curl http" not in "".join(lines[-2:-1]):  # the last command has two lines
        line = process.stdout.readline()
        assert line, process.communicate()
        lines.append(line)
    yield Demo(process, "".join(lines))
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=180)
    assert process.returncode == 0
    assert "Traceback" not in errors
    assert "Stopped." in errors


def test_the_commands_of_the_demo_work_as_pasted_and_data_and_key_stay(tether: Command) -> None:
    curl = shutil.which("curl")
    with _demo(tether) as demo:
        assert len(demo.commands) == 4
        if curl:
            answers = [_paste(command) for command in demo.commands]
            assert answers[:2] == [{"id": "C1408"}, {"id": "V0313"}]
            assert answers[3] == [
                {
                    "id": answers[2]["id"],
                    "type": "VEHICLE_CONNECTED",
                    "chargerId": "C1408",
                    "vehicleId": "V0313",
                    "stateOfCharge": 22.0,
                    "timestamp": "2023-05-11T22:06:40.738Z",
                }
            ]
        assert max(map(len, demo.welcome.splitlines())) <= 80
    file = tether.folder / ".tether" / "demo.key"
    assert file.read_text() == f"{demo.key}\n"
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700
    with _demo(tether) as again:
        assert again.key == demo.key
        if curl:
            assert len(_paste(again.commands[3])) == 1


def test_a_lost_or_revoked_demo_key_is_replaced(tether: Command) -> None:
    database = ("--database", "here/tether.db")
    with _demo(tether, "--data", "here") as first:
        pass
    tether.ok("keys", "revoke", first.key, *database)
    with _demo(tether, "--data", "here") as second:
        pass
    (tether.folder / "here" / "demo.key").unlink()
    with _demo(tether, "--data", "here") as third:
        pass
    assert len({first.key, second.key, third.key}) == 3
    keys = json.loads(tether.ok("keys", "list", "demo", "--json", *database))
    assert [key["state"] for key in keys] == ["revoked", "active", "active"]
    assert keys[0]["rate"] == {"requests": 10_000, "windowSeconds": 1}


def test_a_busy_port_is_explained_with_the_command_to_type(tether: Command) -> None:
    with _demo(tether) as demo:
        port = int(demo.welcome.split("http://127.0.0.1:")[1].split()[0])
        said = tether.refused("demo", "--port", str(port), "--data", "other")
        assert said == f"Port {port} is in use; take another one: PORT={port + 1} make run"
        for again in (port, 0):  # the newcomer's second `make run`
            assert "runs on .tether already" in tether.refused("demo", "--port", str(again))


def test_an_unwritable_folder_is_explained(tether: Command) -> None:
    (tether.folder / "file").touch()
    assert "cannot be made" in tether.refused("demo", "--port", "0", "--data", "file/here")


def _paste(command: str) -> Any:
    done = subprocess.run(
        ["sh", "-c", command.replace("curl ", "curl -sS ", 1)],
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)
