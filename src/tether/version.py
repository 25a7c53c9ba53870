"""Which Tether this is: its version, and the commit that it was made from."""

import subprocess
from functools import cache
from pathlib import Path

from tether import __version__

UNKNOWN = "unknown"


@cache
def commit() -> str:
    """The first 12 digits of the commit: of the package, or of the folder that it runs from."""
    here = Path(__file__).parent
    try:
        return (here / "COMMIT").read_text(encoding="ascii").strip()
    except FileNotFoundError:
        pass
    if not (here.parents[1] / ".git").exists():
        return UNKNOWN
    command = ["git", "-C", str(here), "rev-parse", "--verify", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=5)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):  # no git
        return UNKNOWN
    return done.stdout.strip()[:12] or UNKNOWN


def version() -> str:
    """Both, as `0.2.0 (3f2c1d0a9b8e)`."""
    return f"{__version__} ({commit()})"
