"""A release: its version and commit, and the script that tries it."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from tests.commands import Command
from tests.conftest import TETHER
from tether import __version__

ROOT = Path(__file__).parents[2]
SOURCES = ("pyproject.toml", "setup.py", "README.md", "LICENSE")


def test_the_version_has_its_entry_and_the_commit(tether: Command) -> None:
    said = tether.ok("--version")
    assert re.fullmatch(rf"tether, version {__version__} \(([0-9a-f]{{12}}|unknown)\)\n", said)
    assert f"\n## [{__version__}] - 20" in (ROOT / "CHANGELOG.md").read_text()


def test_a_wheel_has_the_commit_that_it_was_built_from(tmp_path: Path) -> None:
    sources, wheels = tmp_path / "sources", tmp_path / "wheels"
    sources.mkdir()
    for name in SOURCES:
        shutil.copy(ROOT / name, sources / name)
    shutil.copytree(ROOT / "src" / "tether", sources / "src" / "tether")
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation",
         "--wheel-dir", wheels, sources],
        check=True, capture_output=True, env={**os.environ, "TETHER_COMMIT": "0123456789ab"},
    )  # fmt: skip
    (wheel,) = wheels.iterdir()
    with zipfile.ZipFile(wheel) as opened:
        assert opened.read("tether/COMMIT") == b"0123456789ab\n"
        assert "tether/http/openapi.yaml" in opened.namelist()


def test_the_first_calls_of_a_release_work(tmp_path: Path) -> None:
    """What `make release` does with the wheel, here with the command that is installed already."""
    script = "import sys; from try_release import try_it; from pathlib import Path as P; "
    done = subprocess.run(
        [sys.executable, "-c", f"{script}try_it(P(sys.argv[1]), P(sys.argv[2]))", TETHER, tmp_path],
        env={**os.environ, "PYTHONPATH": str(ROOT / "scripts")},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "GET /vehicles/V0313/state: 200" in done.stdout
    assert "Everything is as it should be." in done.stdout
