"""A newcomer follows the documents word for word: every block of code, in order, as printed.

Only the port differs, because the port in the documents may be in use: `PORT=… make run`, as the
README says. The packages are installed already.
"""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from tests.services import free_port

ROOT = Path(__file__).parents[1]
PRINTED = "http://127.0.0.1:8000"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
EVENT_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
UPDATED_AT = re.compile(r'"updatedAt":"[^"]+"')


class Terminal:
    """A shell that keeps its variables from one block to the next."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            ["bash"], cwd=folder, env=environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def paste(self, code: str) -> str:
        """Runs a block, in which every command must succeed; returns its standard output."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        mark = uuid4().hex
        code = code.rstrip("\n")
        self.process.stdin.write(f"set -e\n{code}\nset +e\nprintf '\\n{mark}\\n'\n")
        self.process.stdin.flush()
        said = ""
        for line in self.process.stdout:
            if line.strip() == mark:
                return said[:-1]
            said += line
        assert self.process.stderr is not None
        raise AssertionError(f"{code}\n{said}{self.process.stderr.read()}")

    def close(self) -> None:
        """The terminal is closed."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()


class Newcomer:
    """A person in a copy of this repository, with an empty environment."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.ids: dict[str, str] = {}  # printed ids of events by the real ids
        for entry in ROOT.iterdir():
            if entry.name not in (".venv", ".tether", ".git"):
                (folder / entry.name).symlink_to(entry)
        (folder / ".venv").mkdir()
        for entry in (ROOT / ".venv").iterdir():
            if entry.name not in ("runs", "installed"):
                (folder / ".venv" / entry.name).symlink_to(entry)
        for name in ("runs", "installed"):
            (folder / ".venv" / name).touch()
        home = folder / "home"
        home.mkdir()
        path = f"{folder}/.venv/bin:{Path(sys.executable).parent}:{os.environ['PATH']}"
        self.environment = {"HOME": str(home), "PATH": path, "PORT": str(self.port),
                            "TETHER_PORT": str(self.port)}  # fmt: skip
        self.terminals: list[Terminal] = []
        self.servers: list[subprocess.Popen[str]] = []

    def terminal(self) -> Terminal:
        """One more terminal."""
        self.terminals.append(Terminal(self.folder, self.environment))
        return self.terminals[-1]

    def serve(self, command: str, ready: str) -> str:
        """Starts a server in its own terminal; returns its output until it is ready."""
        server = subprocess.Popen(
            ["bash", "-c", f"exec {command}"], cwd=self.folder, env=self.environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        self.servers.append(server)
        said = ""
        assert server.stdout is not None
        for line in server.stdout:
            said += line
            if ready in line:
                return said
        raise AssertionError(said)

    def stop(self) -> None:
        """Ctrl-C in the terminal of the server."""
        server = self.servers.pop()
        os.killpg(server.pid, signal.SIGINT)
        assert server.stdout is not None
        server.stdout.read()
        server.wait(timeout=180)
        server.stdout.close()

    def read(self, document: str) -> list[tuple[str, str]]:
        """The blocks of a document, with the address at which this server really is."""
        text = (ROOT / document).read_text().replace(PRINTED, self.url)
        return BLOCK.findall(text)

    def follow(self, terminal: Terminal, blocks: list[tuple[str, str]]) -> None:
        """Pastes each block, and compares its output with the next block if that shows output."""
        for (language, code), behind in zip(blocks, [*blocks[1:], ("", "")], strict=True):
            if language == "sh":
                said = terminal.paste(code)
                if behind[0] in ("json", "text"):
                    assert self.alike(said, behind[1]) == UPDATED_AT.sub("", behind[1]).strip()
            elif language == "python":
                (self.folder / "program.py").write_text(code)
                terminal.paste("python program.py")

    def alike(self, said: str, printed: str) -> str:
        """The output, with the ids of events from the document."""
        came = EVENT_ID.findall(said)
        self.ids.update(zip(came, EVENT_ID.findall(printed), strict=True))
        return UPDATED_AT.sub("", EVENT_ID.sub(lambda found: self.ids[found[0]], said)).strip()

    def leave(self) -> None:
        """Closes the terminals and stops the servers."""
        for terminal in self.terminals:
            terminal.close()
        while self.servers:
            self.stop()


@pytest.fixture
def newcomer(tmp_path: Path) -> Iterator[Newcomer]:
    newcomer = Newcomer(tmp_path)
    yield newcomer
    newcomer.leave()


def test_the_readme_word_for_word(newcomer: Newcomer) -> None:
    first, *blocks = newcomer.read("README.md")
    run, test = first[1].splitlines()
    assert (run.split()[:2], test.split()[:2]) == (["make", "run"], ["make", "test"])
    welcome = newcomer.serve("make run", "/events \\")
    assert f"Tether listens on {newcomer.url}" in welcome
    terminal = newcomer.terminal()
    serving = next(block for block in blocks if "tether serve" in block[1])
    newcomer.follow(terminal, blocks[: blocks.index(serving)])
    assert terminal.paste("echo $KEY") in welcome
    newcomer.stop()

    serve, *commands = serving[1].splitlines()
    newcomer.serve(serve.partition("#")[0].strip(), "listens on")
    for command in commands:
        terminal.paste(command)
    answer = terminal.paste(f'curl -s {newcomer.url}/chargers -H "x-api-key: $KEY"')
    assert answer.strip() == "[]"
    assert [language for language, _ in blocks[blocks.index(serving) + 1 :]] == []


def test_the_quickstart_and_the_troubleshooting_word_for_word(newcomer: Newcomer) -> None:
    run, setting, *blocks = newcomer.read("docs/quickstart.md")
    welcome = newcomer.serve(run[1].strip(), "/events \\")
    key = re.findall(r"ttr_live_\w+", welcome)[0]
    terminal = newcomer.terminal()
    terminal.paste(setting[1].replace("ttr_live_…", key))
    newcomer.follow(terminal, blocks)
    stored = terminal.paste('curl -s "$TETHER_URL/events" -H "X-API-Key: $TETHER_API_KEY"')
    assert stored.count('"id"') == 2
    assert '"vehicleId":"car-2","stateOfCharge":58.3' in stored

    newcomer.follow(terminal, newcomer.read("docs/troubleshooting.md"))
    state = terminal.paste(
        'curl -s "$TETHER_URL/vehicles/car-1/state" -H "X-API-Key: $TETHER_API_KEY"'
    )
    assert '"pluggedIn":false' in state
