"""Installs a wheel in an empty environment, and makes a partner's first calls with it.

`python scripts/try_release.py dist/NAME.whl`; the packages are those of requirements-run.txt.
"""

import json
import os
import subprocess
import sys
import tempfile
import urllib.request
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[1]
CONNECTED = {"type": "VEHICLE_CONNECTED", "chargerId": "C1408", "vehicleId": "V0313"}
CALLS: tuple[tuple[str, str, object, int], ...] = (
    ("PUT", "/chargers/C1408", {"chargePowers": [11, 22]}, 201),
    ("PUT", "/vehicles/V0313", {"chargeCapacity": 74.8, "chargePowers": [11]}, 201),
    ("POST", "/events", CONNECTED, 201),
    ("GET", "/vehicles/V0313/state", None, 200),
    ("GET", "/sessions", None, 200),
    ("GET", "/openapi.json", None, 200),
    ("GET", "/docs", None, 200),
    ("GET", "/metrics", None, 200),
)


def main(wheel: str) -> None:
    """Tries the wheel. Fails if something is wrong."""
    with tempfile.TemporaryDirectory(prefix="tether-release-") as name:
        folder = Path(name)
        venv.create(folder / "venv", with_pip=True)
        python = folder / "venv" / "bin" / "python"
        install(python, "--require-hashes", "--requirement", str(ROOT / "requirements-run.txt"))
        install(python, "--no-deps", str(Path(wheel).resolve()))
        try_it(folder / "venv" / "bin" / "tether", folder)


def try_it(tether: Path, folder: Path) -> None:
    """Makes the first calls with this program, on a database in the folder."""
    database = str(folder / "tether.db")
    print(run(tether, "--version", cwd=folder).strip())
    new_key = "keys", "create", "acme", "--create", "--database", database
    key = run(tether, *new_key, cwd=folder).strip()
    with serving(tether, database, folder) as url:
        for method, path, body, status in CALLS:
            found = call(url, method, path, body, key)
            print(f"{method} {path}: {found}")
            if found != status:
                sys.exit(f"{method} {path} was answered with {found}, not {status}.")
        port = url.rpartition(":")[2]
        print(run(tether, "check", "--live", "--port", port, cwd=folder).strip())
    print(run(tether, "check", "--port", "0", "--database", database, cwd=folder).strip())


def install(python: Path, *words: str) -> None:
    """Installs into the environment with pip."""
    run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *words, cwd=ROOT)


def run(program: Path, *words: str, cwd: Path) -> str:
    """Runs the program; returns its output. Its errors are shown."""
    done = subprocess.run(
        [program, *words], cwd=cwd, env=clean(), check=True, stdout=subprocess.PIPE, text=True
    )
    return done.stdout


def clean() -> dict[str, str]:
    """The environment without our settings and without other packages."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("TETHER_") and name not in ("PYTHONPATH", "VIRTUAL_ENV")
    }


@contextmanager
def serving(tether: Path, database: str, folder: Path) -> Iterator[str]:
    """A server; yields its URL."""
    process = subprocess.Popen(
        [tether, "serve", "--port", "0", "--database", database, "--log-format", "json"],
        cwd=folder, env=clean(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())["url"]
    finally:
        process.terminate()
        status = process.wait(timeout=60)
    if status:
        sys.exit(f"The server ended with status {status}.")


def call(url: str, method: str, path: str, body: object, key: str) -> int:
    """The status of the answer."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url + path, data, {"x-api-key": key}, method=method)
    with urllib.request.urlopen(request, timeout=30) as answer:
        answer.read()
        return int(answer.status)


if __name__ == "__main__":
    main(*sys.argv[1:])
