"""Programs of Debian that the tests need: PgBouncer and nginx."""

import os
import shutil
import subprocess
from functools import cache

_SYSTEM = "/usr/local/sbin:/usr/sbin:/sbin"  # not on everybody's PATH


@cache
def program(name: str) -> str:
    """The path of a program; root gets the Debian package of this name where it is missing."""
    found = _find(name)
    if found is None and os.geteuid() == 0 and shutil.which("apt-get"):
        _install(name)
        found = _find(name)
    assert found is not None, (
        f"This test needs {name}. Install it (on Debian and Ubuntu: sudo apt-get install {name}), "
        "or run the tests as root, then they do it."
    )
    return found


def _find(name: str) -> str | None:
    return shutil.which(name) or shutil.which(name, path=_SYSTEM)


def _install(name: str) -> None:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for words in (["update"], ["install", "-y", "--no-install-recommends", name]):
        done = subprocess.run(
            ["apt-get", "-qq", *words],
            env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"apt-get {' '.join(words)} failed: {done.stderr}"
