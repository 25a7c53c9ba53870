"""Options, types of option values, and a group of commands: what several commands share."""

import os
import sys
from collections.abc import Callable
from typing import Any, TypeVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import click

from tether.cli.times import parse_duration, parse_when
from tether.domain.errors import SetupError
from tether.domain.keys import DEFAULT_RATE, parse_rate
from tether.domain.timestamps import now_ms
from tether.files.csv_dialect import SEPARATORS
from tether.server.databases import database_of, default_database

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


class OrderedGroup(click.Group):
    """A group that lists its commands in the order in which they were added."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


class Parsed(click.ParamType[T]):
    """A value that `parse` converts. Its ValueError or SetupError becomes a usage error."""

    def __init__(self, name: str, parse: Callable[[str], T]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        if not isinstance(value, str):  # a default
            return value
        try:
            return self._parse(value)
        except (ValueError, SetupError) as error:
            self.fail(str(error), param, ctx)


class FilePath(click.Path):
    """A path. It expands `~`, because shells do not expand it in `--output=~/x`."""

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        path = os.path.expanduser(value)
        if path.startswith("~"):
            self.fail(f"{path} begins with a user who is not known here.", param, ctx)
        return super().convert(path, param, ctx)


class WholeNumber(click.IntRange):
    """A whole number within limits. Click would call it an integer range."""

    name = "whole number"

    def convert(self, value: Any, param: Any, ctx: Any) -> int:
        number = super().convert(value, param, ctx)
        if number > sys.maxsize:
            self.fail(f"{number} is too large.", param, ctx)
        return number

    def _describe_range(self) -> str:  # Click writes 1<=x<=10
        return f"{self.min} or more" if self.max is None else f"{self.min} to {self.max}"


NEVER = -1  # instead of ms since 1970: there is no end


def _database(text: str) -> str:
    text = text.strip()
    if not text:
        raise ValueError("it names no database.")
    database_of(text)  # raises SetupError for an invalid name
    return text


def _zone(text: str) -> ZoneInfo:
    try:
        return ZoneInfo(text.strip())
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"{text!r} is no time zone such as Europe/Berlin.") from None


def _separator(text: str) -> str:
    names = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";"}
    found = names.get(text.lower(), text)
    if found not in SEPARATORS:
        raise ValueError(f"{text!r} is none of , ; | and tab.")
    return found


def _when(text: str) -> int:
    return parse_when(text, now_ms())


def _later(text: str) -> int:
    if (at_ms := _when(text)) <= now_ms():
        raise ValueError(f"{text!r} is in the past.")
    return at_ms


def _since(text: str) -> int:
    try:
        return now_ms() - parse_duration(text)
    except ValueError:
        return _when(text)


DATABASE = Parsed("url", _database)  # a file's path, sqlite:///path or a PostgreSQL URL
ZONE = Parsed("zone", _zone)
SEPARATOR = Parsed("character", _separator)  # between the cells of a CSV
RATE = Parsed("rate", parse_rate)
WHEN = Parsed("when", _later)  # ms since 1970
WHEN_OR_NEVER = Parsed("when", lambda text: NEVER if text.strip() == "never" else _when(text))
SINCE = Parsed("since", _since)  # ms since 1970; a duration means that long ago
DURATION = Parsed("duration", parse_duration)  # ms


def together(*options: Callable[[Any], Any]) -> Callable[[F], F]:
    """One decorator for all of these options. The help shows them in this order."""

    def add(command: F) -> F:
        for option in reversed(options):
            command = option(command)
        return command

    return add


database_option = click.option(
    "--database",
    type=DATABASE,
    default=default_database,
    envvar="TETHER_DATABASE",
    show_envvar=True,
    metavar="URL",
    help="A file's path, sqlite:///path or postgresql://user:password@host/name.  "
    "[default: a file in your data folder]",
)

rate_options = together(
    click.option("--rate", type=RATE, default=DEFAULT_RATE, show_default=True,
                 help="Requests allowed: 100 (a second), 90/min, 5000/h."),
    click.option("--burst", type=WholeNumber(1, 10**9), metavar="N",
                 help="Requests allowed at once.  [default: the number of --rate]"),
)  # fmt: skip
test_option = click.option(
    "--test", is_flag=True, help="A key that begins with ttr_test_ instead of ttr_live_."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")
