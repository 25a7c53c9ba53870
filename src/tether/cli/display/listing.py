"""Shows lists and single things: tables in a terminal, JSON for programs."""

import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from typing import Any, TypeVar

import click

from tether.cli.display.output import note, show_line, show_table
from tether.cli.display.rows import TABLES, Table
from tether.cli.options import WholeNumber
from tether.domain.models import to_json

T = TypeVar("T")

MOST_IN_A_TABLE = 100

list_limit_option = click.option(
    "--limit",
    type=WholeNumber(1),
    help=f"At most so many.  [default: {MOST_IN_A_TABLE} in a terminal, else all]",
)
lines_option = click.option(
    "--json", "as_json", is_flag=True, help="Objects, one a line, as in a pipe."
)
_flag_of_stale = partial(
    click.option, is_flag=True, help="What is derived by now, also if more events wait."
)
stale_option = _flag_of_stale("--stale-allowed", "--stale", "stale_allowed")
stale_allowed_option = _flag_of_stale("--stale-allowed", "stale_allowed")
object_option = click.option("--json", "as_json", is_flag=True, help="The object, as in a pipe.")


def show_list(
    things: Iterator[T],
    show: Callable[[list[T]], None] | None = None,
    *,
    limit: int | None,
    as_json: bool,
    none_yet: str,
) -> None:
    """Shows at most `limit` things: JSON in a pipe, a table in a terminal.

    `show` prints them in a terminal, by default in the table of their type. `none_yet` is the
    message for an empty list.
    """
    if as_json or not sys.stdout.isatty():
        for thing in islice(things, limit):
            show_line(to_json(thing))
    else:
        show_some(things, show or _show_table, limit, none_yet)


def show_some(
    things: Iterator[T], show: Callable[[list[T]], None], limit: int | None, none_yet: str
) -> None:
    """Shows at most `limit` things in a terminal, and says if there are more, or none."""
    found = list(islice(things, limit or MOST_IN_A_TABLE))
    if not found:
        note(none_yet)
        return
    show(found)
    if limit is None and next(things, None) is not None:
        note(f"\nThere are more: --limit shows more than {MOST_IN_A_TABLE}, a pipe gets all.")


def _show_table(things: list[Any]) -> None:
    show_rows(TABLES[type(things[0])], things)


def show_rows(table: Table, things: Iterable[Any]) -> None:
    """Shows the things in this table."""
    rows = [table.row(thing) for thing in things]
    show_table(table.titles, rows, wrapped=("Charger", "Vehicle", "Vehicles"))


def show_one(thing: T, show: Callable[[T], None], *, as_json: bool) -> None:
    """Shows one thing: by `show` in a terminal, as the API's object in a pipe."""
    if as_json or not sys.stdout.isatty():
        show_line(to_json(thing))
    else:
        show(thing)
