"""Puts the commit that a package is built from into it: git knows it only here."""

import os
import subprocess
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithCommit(build_py):
    """The usual build, and a file with the commit, where that is known."""

    def run(self) -> None:
        super().run()
        commit = os.environ.get("TETHER_COMMIT") or _commit()
        if commit and not self.editable_mode:
            Path(self.build_lib, "tether", "COMMIT").write_text(commit + "\n", encoding="ascii")


def _commit() -> str:
    command = ["git", "rev-parse", "--verify", "HEAD"]
    try:
        done = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False
        )
    except OSError:  # no git
        return ""
    return done.stdout.strip()[:12]


setup(cmdclass={"build_py": BuildWithCommit})
