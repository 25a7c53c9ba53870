"""Installs the peers' packages, each into a place of its own below bench/."""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

BENCH = Path(__file__).parent
PEERS = BENCH / "peers"
CACHE = BENCH / ".cache"
FASTAPI_VENV = CACHE / "fastapi-sqlmodel"
DUCKDB_VENV = CACHE / "duckdb"


class InstallError(Exception):
    """A peer cannot be installed here; its rows are left out."""


def install_node_peer(folder: Path) -> None:
    """`npm ci`, once for each lock file."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        raise InstallError("Node.js 20 or newer and npm are not installed")
    lock = folder / "package-lock.json"
    if not _is_done(folder.name, lock):
        _run(["npm", "ci", "--no-audit", "--no-fund"], cwd=folder, env=_node_environment())
        _mark_done(folder.name, lock)


def install_fastapi_peer() -> None:
    """The packages of FastAPI's peer."""
    _install_python("fastapi-sqlmodel", FASTAPI_VENV)


def install_duckdb() -> None:
    """DuckDB, with which sums are compared."""
    _install_python("duckdb", DUCKDB_VENV)


def _install_python(name: str, venv: Path) -> None:
    """A virtual environment with the pinned requirements, once for each list of them."""
    requirements = PEERS / name / "requirements.txt"
    if not _is_done(name, requirements):
        _run([sys.executable, "-m", "venv", "--clear", str(venv)])
        _run(
            [
                str(venv / "bin" / "pip"),
                "install",
                "-q",
                "--require-hashes",
                "-r",
                str(requirements),
            ]
        )
        _mark_done(name, requirements)


def _node_environment() -> dict[str, str]:
    """better-sqlite3 is compiled; let it use the headers beside node if there are any."""
    environment = dict(os.environ)
    prefix = Path(shutil.which("node") or "/").resolve().parent.parent
    if (prefix / "include" / "node" / "node.h").exists():
        environment.setdefault("npm_config_nodedir", str(prefix))
    return environment


def _run(
    command: Sequence[str], cwd: Path | None = None, env: dict[str, str] | None = None
) -> None:
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise InstallError(f"{' '.join(command)} failed:\n{(done.stdout + done.stderr)[-2000:]}")


def _digest(lock: Path) -> str:
    return hashlib.sha256(lock.read_bytes()).hexdigest()


def _is_done(name: str, lock: Path) -> bool:
    mark = CACHE / f"{name}.installed"
    return mark.exists() and mark.read_text() == _digest(lock)


def _mark_done(name: str, lock: Path) -> None:
    CACHE.mkdir(exist_ok=True)
    (CACHE / f"{name}.installed").write_text(_digest(lock))
