"""What the commands print: tables in a terminal, aligned text in a pipe, JSON for scripts.

rich is slow to import, so it is imported on first use.
"""

import json
import os
import re
import sys
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import click

from tether.domain.errors import SetupError

if TYPE_CHECKING:
    from rich.table import Table


LONGEST_UNBROKEN = 12  # characters of a word that a table does not break


class Cell(str):
    """A text, and its style in a terminal, in rich's words such as `bold red`."""

    style: str

    def __new__(cls, text: str, style: str) -> "Cell":
        cell = super().__new__(cls, text)
        cell.style = style
        return cell


# Characters that control a terminal or hide text: control characters, invisible characters, and
# characters that change the direction of writing (Unicode's categories Cc, Cf, Cs, Zl, Zp).
_CONTROL = re.compile(
    "[\0-\x1f\x7f-\x9f\xad\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u180e\u200b-\u200f\u2028-"
    "\u202e\u2060-\u206f\ud800-\udfff\ufeff\ufff9-\ufffb\U000110bd\U000110cd\U00013430-\U0001343f"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0001\U000e0020-\U000e007f]"
)


def plain(text: str, keep: str = "") -> str:
    """The text with its control characters escaped, except the characters in `keep`.

    Names, ids and messages come from other people. They must not control the terminal.
    """
    return _CONTROL.sub(lambda found: found[0] if found[0] in keep else ascii(found[0])[1:-1], text)


def coloured(text: str, colour: str) -> str:
    """The text in a colour, unless NO_COLOR is set (no-color.org)."""
    return text if os.environ.get("NO_COLOR") else click.style(text, fg=colour)


def say(text: str) -> None:
    """Prints a message as the result of a command."""
    click.echo(plain(text, "\n"))


def note(text: str) -> None:
    """Prints a message on standard error, which is not part of the result."""
    click.echo(plain(text, "\n"), err=True)


def confirm(loss: str, question: str, unchanged: str) -> None:
    """Prints what would be lost, and asks. Raises SetupError with the text `unchanged`, unless the
    user says yes in a terminal.
    """
    note(loss)
    if not sys.stdin.isatty():
        raise SetupError(f"{unchanged}: without a terminal to ask in, pass --yes.")
    if not click.confirm(question, err=True):
        raise SetupError(f"{unchanged}.")


def show_json(value: object) -> None:
    """Prints the value for a script."""
    show_line(json.dumps(value, indent=2, ensure_ascii=False))


def show_line(document: bytes | str) -> None:
    """Prints JSON. A terminal gets the same value with control characters escaped."""
    text = document if isinstance(document, str) else document.decode()
    click.echo(safe_json(text) if sys.stdout.isatty() else text)


def safe_json(text: str) -> str:
    """The same JSON with the control characters in its strings escaped."""
    return _CONTROL.sub(
        lambda found: found[0] if found[0] == "\n" else json.dumps(found[0])[1:-1], text
    )


def show_table(
    titles: Sequence[str],
    rows: Sequence[Sequence[str]],
    wrapped: Collection[str] = (),
    empty: str = "",
) -> None:
    """Prints a table. A terminal wraps the text of the `wrapped` columns only.

    If the table is still too wide for the terminal, it prints each row as names and values. A
    terminal does not show empty columns. Without rows it prints the note `empty`, if there is one.
    """
    if empty and not rows:
        note(empty)
    elif not sys.stdout.isatty():
        _show_plain(titles, rows)
    else:
        from rich.console import Console

        used = [column for column in range(len(titles)) if any(row[column] for row in rows)]
        titles = [titles[column] for column in used]
        rows = [[row[column] for column in used] for row in rows]
        console = Console(highlight=False)
        if _readable_width(titles, rows, wrapped) <= console.width:
            console.print(table_of(titles, rows, wrapped))
        else:
            _show_one_by_one(titles, rows)


def _readable_width(
    titles: Sequence[str], rows: Sequence[Sequence[str]], wrapped: Collection[str]
) -> int:
    """The columns that a terminal needs for the table without a break within a short word.

    rich makes the widest column narrower first, so no column gets less than the others need.
    """
    from rich.cells import cell_len

    words: list[int] = [0]  # the longest of each wrapped column
    widths: list[tuple[int, bool]] = []
    for title, *cells in zip(titles, *rows, strict=True):
        texts = [*title.split("\n"), *map(plain, cells)]
        widths.append((max(map(cell_len, texts)), title in wrapped))
        if title in wrapped:
            words.append(max(cell_len(word) for text in texts for word in text.split() or [""]))
    narrowest = min(max(words), LONGEST_UNBROKEN)
    gaps = 2 * (len(titles) - 1)
    return gaps + sum(min(width, narrowest) if wraps else width for width, wraps in widths)


def _show_one_by_one(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    names = [title.replace("\n", " ") for title in titles]
    for number, row in enumerate(rows):
        if number:
            click.echo()
        show_pairs([(name, text) for name, text in zip(names, row, strict=True) if name])


def table_of(
    titles: Sequence[str],
    rows: Sequence[Sequence[str]],
    wrapped: Collection[str] = (),
    cut: Collection[str] = (),
) -> "Table":
    """The table for a terminal. If it is too wide, ids in the `cut` columns end in `…`."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(
        box=box.SIMPLE_HEAD,
        header_style="bold",
        show_edge=False,
        pad_edge=False,
        collapse_padding=True,
    )
    for title in titles:
        table.add_column(
            title,
            overflow="fold" if title in wrapped else "ellipsis",
            no_wrap=title not in wrapped and title not in cut,
        )
    for row in rows:
        table.add_row(*(Text(plain(cell), style=getattr(cell, "style", "")) for cell in row))
    return table


def _show_plain(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    lines = [list(titles), *(list(map(plain, row)) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        padded = (text.ljust(width) for text, width in zip(line, widths, strict=True))
        click.echo("  ".join(padded).rstrip())


def show_pairs(pairs: Sequence[tuple[str, str]]) -> None:
    """Prints names and their values, one a line. Empty values are left out."""
    given = [(name, text) for name, text in pairs if text]
    width = max((len(name) for name, _ in given), default=0)
    for name, text in given:
        click.echo(f"{click.style(name.ljust(width), dim=True)}  {plain(text)}")


def counted(number: int, one: str) -> str:
    """`1 key`, `2 keys`, `1,234 events`."""
    return f"{number:,} {one}" if number == 1 else f"{number:,} {one}s"
