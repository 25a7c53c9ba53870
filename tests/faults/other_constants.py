"""Runs `tether` with other time limits, so that no test waits for the real ones.

python other_constants.py tether.server.protocol.REQUEST_TIMEOUT_S=2 serve --database …
"""

import sys
from importlib import import_module

from tether.__main__ import main


def set_constants(words: list[str]) -> list[str]:
    """Sets each `module.NAME=number` at the beginning of the words; returns the others."""
    while words and "=" in words[0]:
        place, _, number = words.pop(0).partition("=")
        module, _, name = place.rpartition(".")
        kind = type(getattr(import_module(module), name))
        setattr(import_module(module), name, kind(float(number)))
    return words


if __name__ == "__main__":
    sys.argv[1:] = set_constants(sys.argv[1:])
    main()
