"""Shows lists and single objects: tables in a terminal, JSON for programs."""

import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from typing import Any, TypeVar

import click

from tether.cli.display.output import note, show_line, show_table
from tether.cli.display.rows import TABLES, TableFormat
from tether.cli.options import WholeNumber
from tether.domain.models import to_json

T = TypeVar("T")

MAX_TABLE_ROWS = 100
MAX_PAGE = 1000  # of the API

list_limit_option = click.option(
    "--limit",
    type=WholeNumber(1),
    metavar="N",
    help=f"Show at most this many.  [default: {MAX_TABLE_ROWS} in a terminal, else all]",
)
json_lines_option = click.option(
    "--json", "as_json", is_flag=True, help="Print objects, one a line, as in a pipe."
)
_flag_of_stale = partial(
    click.option, is_flag=True, help="Show what is derived by now, even if more events wait."
)
stale_option = _flag_of_stale("--stale-allowed", "--stale", "stale_allowed")
stale_allowed_option = _flag_of_stale("--stale-allowed", "stale_allowed")
json_object_option = click.option(
    "--json", "as_json", is_flag=True, help="Print the object, as in a pipe."
)


def page_size(limit: int | None, most: int = MAX_PAGE) -> int:
    """How many items to ask for in a request, to show at most `limit`."""
    return min(limit or most, most)


def show_list(
    items: Iterator[T],
    show: Callable[[list[T]], None] | None = None,
    *,
    limit: int | None,
    as_json: bool,
    none_yet: str,
) -> None:
    """Shows at most `limit` items: JSON in a pipe, a table in a terminal.

    `show` prints them in a terminal, by default in the table of their type. `none_yet` is the
    message for an empty list.
    """
    if as_json or not sys.stdout.isatty():
        for item in islice(items, limit):
            show_line(to_json(item))
    else:
        show_first(items, show or _show_table, limit, none_yet)


def show_first(
    items: Iterator[T], show: Callable[[list[T]], None], limit: int | None, none_yet: str
) -> None:
    """Shows at most `limit` items in a terminal, and says if there are more, or none."""
    found = list(islice(items, limit or MAX_TABLE_ROWS))
    if not found:
        note(none_yet)
        return
    show(found)
    if limit is None and next(items, None) is not None:
        note(f"\nThere are more: --limit shows more than {MAX_TABLE_ROWS}, a pipe gets all.")


def _show_table(items: list[Any]) -> None:
    show_rows(TABLES[type(items[0])], items)


def show_rows(table: TableFormat, items: Iterable[Any]) -> None:
    """Shows the items in this table."""
    rows = [table.row(item) for item in items]
    show_table(table.titles, rows, wrapped=("Charger", "Vehicle", "Vehicles"))


def show_one(item: T, show: Callable[[T], None], *, as_json: bool) -> None:
    """Shows one object: by `show` in a terminal, as the API's JSON in a pipe."""
    if as_json or not sys.stdout.isatty():
        show_line(to_json(item))
    else:
        show(item)
