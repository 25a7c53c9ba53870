"""Programs of Debian that the tests need, such as PgBouncer, nginx and Node.js."""

import fcntl
import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

_SYSTEM = "/usr/local/sbin:/usr/sbin:/sbin"  # not on everybody's PATH


@cache
def program(name: str, package: str | None = None) -> str:
    """The path of a program. If it is missing, root installs its Debian package.

    The package has the name of the program unless another is given.
    """
    package = package or name
    found = _find(name)
    if found is None and os.geteuid() == 0 and shutil.which("apt-get"):
        # apt-get fails while another apt-get runs, such as that of another test process.
        with (Path(tempfile.gettempdir()) / "tether-tests-apt.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if _find(name) is None:
                _install(package)
        found = _find(name)
    assert found is not None, (
        f"This test needs {name}. Install it (on Debian and Ubuntu: sudo apt-get install "
        f"{package}), or run the tests as root, then they do it."
    )
    return found


def _find(name: str) -> str | None:
    return shutil.which(name) or shutil.which(name, path=_SYSTEM)


def _install(package: str) -> None:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for words in (["update"], ["install", "-y", "--no-install-recommends", package]):
        done = subprocess.run(
            ["apt-get", "-qq", "-o", "DPkg::Lock::Timeout=120", *words],
            env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"apt-get {' '.join(words)} failed: {done.stderr}"
