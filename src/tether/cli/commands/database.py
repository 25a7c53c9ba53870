"""The commands for a database as a whole: `migrate`, `backup`, `restore`, `copy` and `epoch`."""

import time
from pathlib import Path

import click

from tether.cli import stores
from tether.cli.commands.rebuild import differing_sessions
from tether.cli.display.output import counted, say, show_json
from tether.cli.display.progress import progress
from tether.cli.options import DATABASE, FilePath, OrderedGroup, database_option, json_option
from tether.domain.errors import SetupError
from tether.domain.timestamps import format_instant
from tether.server.databases import database_of
from tether.storage.database import Database
from tether.storage.log_positions import EPOCH_REMEMBERED_S, EpochState


@click.command()
@database_option
def migrate(database: str) -> None:
    """Create the database or bring it up to date.

    `tether serve` does this, too, when it starts. In a roll-out you can do it first, as the
    version before works with the new schema.
    """
    found = database_of(database)
    new = not found.exists()
    steps, name = found.migrate(), found.describe()
    if new:
        say(f"Created {name}.")
    elif steps:
        say(f"Brought {name} up to date: {counted(steps, 'step')}.")
    else:
        say(f"{name} is up to date.")


@click.command()
@click.argument("file", type=FilePath(path_type=Path))
@click.option("--force", is_flag=True, help="Replace FILE if it exists.")
@database_option
def backup(file: Path, force: bool, database: str) -> None:
    """Copy the database to FILE while the server runs.

    The copy is consistent, checked, and a database by itself; `tether restore` puts it back. FILE
    appears when the copy is whole.
    """
    found = database_of(database)
    stores.require_existing(found)
    with progress("Copying", 1) as done:
        found.back_up(file, done, replace=force)
    size = file.stat().st_size / 1e6
    say(f"Copied {found.describe()} to {file} ({size:,.1f} MB).")


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@database_option
def restore(file: Path, database: str) -> None:
    """Replace the database with a copy of the backup FILE.

    Stop the server first. FILE is checked and stays as it is; the old database is kept beside the
    new one. What was acknowledged after the backup is lost. So a new epoch begins: consumers with
    older cursors are told to begin again, because they would miss events.
    """
    found = database_of(database)
    with progress("Copying", 1) as done:
        aside = found.restore(file, done)
    say(f"Restored {file} to {found.describe()}; a new epoch began.")
    if aside is not None:
        say(f"The old database is {aside}: remove it when you do not need it any more.")


@click.command()
@click.option("--from", "source", type=DATABASE, required=True, metavar="URL",
              help="What is copied: a file's path or postgresql://user:password@host/name.",
              )  # fmt: skip
@click.option("--to", "target", type=DATABASE, required=True, metavar="URL",
              help="A new, empty database, or a copy that was interrupted.")  # fmt: skip
def copy(source: str, target: str) -> None:
    """Copy a database into another one, of either kind.

    From a SQLite file to PostgreSQL, back, or between two of a kind: partners, keys, chargers,
    vehicles, events with their ids and order, and what is derived. Stop the servers of both first.
    If it is interrupted, run it again: it continues. In the end every row is compared, and all
    sessions are derived again and compared. Cursors stay valid in the copy.
    """
    from tether.storage.copying import copy

    from_, to = database_of(source), database_of(target)
    if not from_.exists():
        raise SetupError(f"There is no database {from_.describe()}.")
    stores.require_current(from_)
    name = to.describe()
    if name == from_.describe():
        raise SetupError("--from and --to are the same database.")
    rows = copy(from_, to, progress)
    say(f"Copied {from_.describe()} to {name}: {counted(rows, 'row')}, none differs.")
    differing = stores.in_store(target, differing_sessions)
    if differing:
        raise SetupError(
            f"{counted(differing, 'session')} of {name} differ from what the events say, as in "
            f"{from_.describe()}: run tether rebuild."
        )
    say("All sessions are what their events say. It can be served.")


@click.group(cls=OrderedGroup)
def epoch() -> None:
    """Show or begin the epoch that cursors carry.

    A new epoch tells every consumer that something it has had may be lost: its cursors are refused
    with 400, in place of missing events in silence.
    """


@epoch.command()
@json_option
@database_option
def show(as_json: bool, database: str) -> None:
    """Show the epoch of the database."""
    known = _current_database(database).epoch()
    if as_json:
        show_json(
            {
                "epoch": known.epoch.id or None,
                "beganAt": format_instant(known.epoch.began_ms) if known.epoch.id else None,
                "endsAtStart": known.ends,
            }
        )
    else:
        say(epoch_text(known))


@epoch.command()
@database_option
def new(database: str) -> None:
    """Begin a new epoch, after a recovery that lost something.

    A step of every recovery that goes back in time, such as a restored snapshot, a plain copy of
    the file, or PostgreSQL's point-in-time recovery; not of a fail-over that loses nothing.
    `tether restore` does it by itself. Running servers follow before this returns.
    """
    found = _current_database(database)
    found.begin_epoch()
    time.sleep(2 * EPOCH_REMEMBERED_S)  # servers read it once a second
    say(f"A new epoch began: {found.epoch().epoch.id}.")


def epoch_text(known: EpochState) -> str:
    """The epoch in a sentence or two."""
    id, began_ms = known.epoch
    text = f"{id}, since {format_instant(began_ms)}." if id else "None yet: cursors carry none."
    return f"{text} This is a copy: a new one begins when it is served." if known.ends else text


def _current_database(name: str) -> Database:
    stores.announce_database(name)
    found = database_of(name)
    stores.require_current(found)
    return found
