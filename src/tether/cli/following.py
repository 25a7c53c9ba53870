"""Shared by the `follow` commands: a signal stops them between entries, a file keeps the cursor."""

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from tether.cli.access import Access
from tether.cli.display.output import say, show_line
from tether.cli.options import F, FilePath
from tether.cli.writing import replacing
from tether.domain.errors import SetupError
from tether.domain.models import to_json

if TYPE_CHECKING:
    from tether.client import Client
    from tether.client.sync_run import Following

poll_option = click.option(
    "--poll",
    default=1.0,
    type=click.FloatRange(0.05, 3600),
    metavar="SECONDS",
    show_default=True,
    help="How often to look for new ones.",
)


def cursor_file_option(what: str) -> Callable[[F], F]:
    """The option for the file that keeps the cursor of the last printed entry."""
    return click.option(
        "--cursor-file",
        type=FilePath(dir_okay=False, path_type=Path),
        help=f"Continue after the last printed {what}, which this file remembers.",
    )


start_again_option = click.option(
    "--start-again",
    is_flag=True,
    help="If the server's database was restored, begin again from the start.",
)


def print_followed(
    access: Access,
    begin: "Callable[[Client, str | None, threading.Event], Following[Any]]",
    line_of: Callable[[Any], str],
    *,
    cursor_file: Path | None,
    as_json: bool,
) -> None:
    """Prints the entries after the cursor in the file, until Ctrl-C or SIGTERM.

    A terminal shows lines of `line_of`, a pipe gets JSON.
    """
    is_terminal = sys.stdout.isatty() and not as_json
    cursor = _read_cursor(cursor_file) if cursor_file else None
    with (
        access.client(patient=True) as client,
        _cursor_explained(cursor_file),
        stopped_by_signals() as stop,
    ):
        following = begin(client, cursor, stop)
        if cursor_file and cursor is None:
            # Save the start, so that a stop before the first entry loses nothing.
            _write_cursor(cursor_file, following.cursor)
        for entry in following:
            # Print before saving the cursor, so that no entry is lost.
            if is_terminal:
                say(line_of(entry))
            else:
                show_line(to_json(entry))
            if cursor_file:
                _write_cursor(cursor_file, following.cursor)


@contextmanager
def _cursor_explained(cursor_file: Path | None) -> Iterator[None]:
    from tether.client import EpochChanged, Invalid

    try:
        yield
    except EpochChanged as error:
        file = f"remove {cursor_file} or " if cursor_file else ""
        raise SetupError(
            "The server's database was restored: what was printed may not be there any more, and "
            f"something may be missing. To begin again from the start, {file}add --start-again. "
            f"({error.message})"
        ) from None
    except Invalid as error:
        if cursor_file is None or error.parameter != "cursor":
            raise
        raise _no_cursor_in(cursor_file) from None


@contextmanager
def stopped_by_signals() -> Iterator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set, so that a command stops between two entries.

    A second signal has its usual effect. The exit status is the status of the signal.
    """
    stop = threading.Event()
    caught: list[int] = []
    signals = (signal.SIGINT, signal.SIGTERM)

    def note_signal(number: int, frame: FrameType | None) -> None:
        caught.append(number)
        stop.set()
        restore()

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    before = {number: signal.signal(number, note_signal) for number in signals}
    try:
        yield stop
    finally:
        restore()
    if caught:
        sys.exit(128 + caught[0])


def _read_cursor(file: Path) -> str | None:
    try:
        return file.read_text(encoding="ascii").strip() or None
    except FileNotFoundError:
        return None
    except UnicodeDecodeError:
        raise _no_cursor_in(file) from None


def _no_cursor_in(file: Path) -> SetupError:
    command = click.get_current_context().command_path
    return SetupError(f"{file} is no cursor file of `{command}`: name another one.")


def _write_cursor(file: Path, cursor: str) -> None:
    with replacing(file) as new:
        new.write_text(cursor + "\n", encoding="ascii")
