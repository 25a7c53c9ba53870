"""`openapi.yaml` in the tools of others: a linter, and the clients of two generators."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from hashlib import sha256
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import pytest

from tests.api.helpers import ON_ONE_ENGINE
from tests.conftest import Server
from tests.debian import program
from tests.test_docs import ROOT
from tether.domain.keys import Rate

TOOLS = ROOT / "tests" / "openapi_tools"
PACKAGE = "tether_partner_api_client"  # as openapi-python-client names it


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    """Standard output and error of a command that succeeds."""
    done = subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, check=False, timeout=300,
        env={**os.environ, **environment},
    )  # fmt: skip
    assert done.returncode == 0, f"{command} failed:\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def tools() -> Path:
    """The folder of the commands of the npm packages, which are installed once for each lock."""
    npm, node = program("npm"), program("node", package="nodejs")
    version = run(node, "--version", cwd=TOOLS)
    numbers = tuple(int(number) for number in re.findall(r"\d+", version)[:2])
    assert numbers >= (20, 19), f"These tests need Node.js 20.19 or newer; this is {version}"
    lock = sha256((TOOLS / "package-lock.json").read_bytes()).hexdigest()
    mark = TOOLS / "node_modules" / ".installed"
    if not mark.exists() or mark.read_text() != lock:
        run(npm, "ci", "--no-audit", "--no-fund", cwd=TOOLS)
        mark.write_text(lock)
    return TOOLS / "node_modules" / ".bin"


@pytest.fixture(scope="module")
def document() -> Iterator[Path]:
    with as_file(files("tether.http") / "openapi.yaml") as path:
        yield path


def test_the_lock_of_the_tools_has_hashes_and_no_addresses() -> None:
    lock = json.loads((TOOLS / "package-lock.json").read_text())["packages"]
    del lock[""]
    assert all(package["integrity"].startswith("sha512-") for package in lock.values())
    assert all("resolved" not in package for package in lock.values())


def test_the_linter_finds_nothing_and_the_examples_fit(tools: Path, document: Path) -> None:
    quiet = {"REDOCLY_TELEMETRY": "off", "REDOCLY_SUPPRESS_UPDATE_NOTICE": "true"}
    found = run(tools / "redocly", "lint", document, "--format=json", cwd=TOOLS, **quiet)
    report = json.loads(found[found.index("{") : found.rindex("}") + 1])
    assert report["problems"] == []


@ON_ONE_ENGINE
def test_a_client_in_typescript_makes_the_first_calls(
    tools: Path, document: Path, server: Server, tmp_path: Path
) -> None:
    """The compiler also has to see the mistakes that `calls.ts` has."""
    for name in ("calls.ts", "tsconfig.json", "package.json"):
        shutil.copy(TOOLS / name, tmp_path)
    (tmp_path / "node_modules").symlink_to(TOOLS / "node_modules")
    run(tools / "openapi-typescript", document, "-o", "api.d.ts", cwd=tmp_path)
    assert ": any" not in (tmp_path / "api.d.ts").read_text()
    run(tools / "tsc", "-p", ".", cwd=tmp_path)
    said = run(program("node"), "calls.js", server.url, server.key(), cwd=tmp_path)
    check(json.loads(said))


@ON_ONE_ENGINE
def test_the_page_on_typescript_is_a_program_that_compiles_and_runs(
    tools: Path, document: Path, server: Server, tmp_path: Path
) -> None:
    """The key's rate is so low that the program has to wait again and again."""
    text = (ROOT / "docs" / "typescript.md").read_text()
    blocks = re.findall(r"^```ts\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    (tmp_path / "main.ts").write_text("".join(blocks))
    settings = json.loads((TOOLS / "tsconfig.json").read_text())
    (tmp_path / "tsconfig.json").write_text(json.dumps({**settings, "files": ["main.ts"]}))
    shutil.copy(TOOLS / "package.json", tmp_path)
    (tmp_path / "node_modules").symlink_to(TOOLS / "node_modules")
    run(tools / "openapi-typescript", document, "--output", "api.d.ts", cwd=tmp_path)
    run(tools / "tsc", "-p", ".", cwd=tmp_path)
    key = server.key(rate=Rate(10, 1), burst=3)
    said = run(program("node"), "main.js", cwd=tmp_path, TETHER_URL=server.url, TETHER_API_KEY=key)
    assert said.splitlines() == ["charger-unknown chargerId", "12 updates", "active 40 51"]
    printed = re.findall(r"console\.log\(.*; // (.*)$", text, re.MULTILINE)
    assert set(printed) < set(said.splitlines())


@ON_ONE_ENGINE
def test_a_client_in_python_makes_the_first_calls(
    document: Path, server: Server, tmp_path: Path
) -> None:
    (tmp_path / "config.yaml").write_text("post_hooks: []\n")  # they only format
    generator = Path(sys.executable).with_name("openapi-python-client")
    said = run(
        generator, "generate", "--path", document, "--meta=none", "--config=config.yaml",
        "--fail-on-warning", "--output-path", PACKAGE, cwd=tmp_path,
    )  # fmt: skip
    assert "WARNING" not in said, said
    shutil.copy(TOOLS / "calls.py", tmp_path)
    cache = str(ROOT / ".mypy_cache" / "strangers")
    checked = run(
        sys.executable, "-m", "mypy", "--strict", "--config-file=", "--follow-imports=silent",
        "calls.py", cwd=tmp_path, MYPY_CACHE_DIR=cache,
    )  # fmt: skip
    assert "no issues" in checked
    check(json.loads(run(sys.executable, "calls.py", server.url, server.key(), cwd=tmp_path)))


def check(result: dict[str, Any]) -> None:
    """Both clients must get this result."""
    event = result["event"]
    assert result == {
        "charger": "C1408",
        "vehicle": "V0313",
        "event": event,
        "again": event,
        "refused": 409,
        "listed": [event],
        "patched": 200,
        "stateOfCharge": 22,
        "unknown": "Not Found",
    }
