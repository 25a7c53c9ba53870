"""What one check of `tether check` found."""

import enum
from typing import NamedTuple


class Status(enum.IntEnum):
    """How bad it is."""

    OK = 0
    WARNING = 1
    PROBLEM = 2


class Finding(NamedTuple):
    """What one check found; `advice` is what to do about it."""

    check: str
    status: Status
    message: str
    advice: str = ""


def ok(check: str, message: str) -> Finding:
    """It is as it should be."""
    return Finding(check, Status.OK, message)


def warning(check: str, message: str, advice: str) -> Finding:
    """It works, but somebody should know."""
    return Finding(check, Status.WARNING, message, advice)


def problem(check: str, message: str, advice: str) -> Finding:
    """It does not work."""
    return Finding(check, Status.PROBLEM, message, advice)
