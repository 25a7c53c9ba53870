"""Runs the real `tether`: in the environment of the tests, or in a clean one (`Command`)."""

import asyncio
import json
import os
import pty
import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.conftest import NOBODY_LISTENS, TETHER
from tether.domain import timestamps
from tether.server import admin
from tether.server.databases import database_of
from tether.server.store import open_store

MEASURED = ("COVERAGE_PROCESS_START", "COVERAGE_PROCESS_CONFIG")
Result = subprocess.CompletedProcess[str]


def tether(*words: str | Path, **variables: str) -> Result:
    """Runs `tether` in the environment of the tests, with these variables added."""
    return subprocess.run(
        [TETHER, *words], env={**os.environ, **variables}, capture_output=True, text=True,
        timeout=240, check=False,
    )  # fmt: skip


def tether_ok(*words: str | Path, **variables: str) -> str:
    """Runs `tether`, which must succeed, and returns what it prints."""
    done = tether(*words, **variables)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@dataclass
class Command:
    """`tether` in its own folder, with only the given environment variables."""

    folder: Path
    database: str
    environment: dict[str, str] = field(default_factory=dict)

    def variables(self, **more: str) -> dict[str, str]:
        """The whole environment of the process."""
        home = str(self.folder / "home")
        named = {
            "HOME": home, "TETHER_DATABASE": self.database, **NOBODY_LISTENS, **self.environment,
            **more,
        }  # fmt: skip
        return {name: os.environ[name] for name in MEASURED if name in os.environ} | named

    def __call__(self, *words: str, stdin: str = "", **variables: str) -> Result:
        return subprocess.run(
            [TETHER, *words], input=stdin, capture_output=True, text=True, cwd=self.folder,
            env=self.variables(**variables), timeout=240, check=False,
        )  # fmt: skip

    def ok(self, *words: str, **variables: str) -> str:
        """Runs the command, which must succeed; returns its output."""
        done = self(*words, **variables)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def json(self, *words: str) -> Any:
        """The output of the command with `--json`."""
        return json.loads(self.ok(*words, "--json"))

    def refused(self, *words: str, status: int = 1, **variables: str) -> str:
        """Runs the command, which must fail without a traceback; returns its sentence."""
        done = self(*words, **variables)
        assert (done.returncode, done.stdout) == (status, ""), done
        assert "Traceback" not in done.stderr
        last = done.stderr.strip().splitlines()[-1]
        assert last.startswith("tether: ")
        return last.removeprefix("tether: ")

    def key(self, partner: str, **options: Any) -> str:
        """A new key, made without a process, for tests of something else."""

        async def make() -> str:
            async with open_store(self.database) as store:
                key, _ = await admin.create_key(store, timestamps.now_ms(), partner, **options)
                return key

        database_of(self.database).migrate()
        return asyncio.run(make())

    def in_terminal(self, *words: str, answer: str = "", columns: int = 80) -> tuple[int, str]:
        """The exit status, and the output in a terminal of this width."""
        leader, follower = pty.openpty()
        variables = self.variables(COLUMNS=str(columns), TERM="xterm")
        process = subprocess.Popen(
            [TETHER, *words],
            stdin=follower,
            stdout=follower,
            stderr=follower,
            cwd=self.folder,
            env=variables,
        )
        os.close(follower)
        os.write(leader, answer.encode())
        seen = b""
        while True:
            try:
                chunk = os.read(leader, 65_536)
            except OSError:  # Linux says so when nobody writes any more
                break
            if not chunk:
                break
            seen += chunk
        os.close(leader)
        plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen.decode())
        return process.wait(timeout=180), plain.replace("\r\n", "\n")
