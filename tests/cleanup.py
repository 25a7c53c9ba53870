"""Ends all processes of a test run that has ended or was killed. It finds them by a mark.

python cleanup.py MARK, which waits for the end of its standard input.
"""

import sys
from contextlib import suppress

import psutil

NAME = "TESTS_MARK"
"""The environment variable that what the tests start inherits."""


def end(mark: str) -> None:
    """Kills all processes with this mark."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get(NAME) == mark:
                process.kill()


if __name__ == "__main__":
    sys.stdin.read()
    end(sys.argv[1])
