"""scripts/unasync.py generates the blocking half of the SDK from the async half."""

import shutil
import subprocess
import sys
from pathlib import Path

from tether import client

CLIENT = Path(client.__file__).parent
SCRIPT = CLIENT.parents[2] / "scripts/unasync.py"


def unasync(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, SCRIPT, *arguments], capture_output=True, text=True, check=False
    )


def test_the_generated_half_is_not_stale() -> None:
    assert unasync("--check").returncode == 0


def test_a_stale_file_is_found_and_generated_again(tmp_path: Path) -> None:
    folder = shutil.copytree(CLIENT, tmp_path / "client")
    source, made = folder / "aio.py", folder / "sync.py"
    source.write_text(source.read_text().replace("Closes the connections.", "Closes them."))
    before = made.read_text()
    done = unasync("--check", folder)
    assert done.returncode == 1
    assert "Closes them." in done.stderr
    assert "make unasync" in done.stderr
    assert made.read_text() == before
    assert unasync(folder).returncode == 0
    assert "Closes them." in made.read_text()
    assert unasync("--check", folder).returncode == 0


def test_both_halves_have_the_same_surface() -> None:
    blocking, awaiting = client.Client("http://h", "key"), client.AsyncClient("http://h", "key")
    for calls in ("chargers", "vehicles", "events", "sessions", "capacity"):
        both = [
            {name for name in dir(getattr(one, calls)) if not name.startswith("_")}
            for one in (blocking, awaiting)
        ]
        assert both[0] == both[1]
    blocking.close()
