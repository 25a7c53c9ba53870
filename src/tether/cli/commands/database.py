"""`tether migrate`, `tether backup` and `tether restore`."""

from pathlib import Path

import click

from tether.cli import stores
from tether.cli.display.output import counted, say
from tether.cli.display.progress import progress
from tether.cli.options import FilePath, database_option


@click.command()
@database_option
def migrate(database: str) -> None:
    """Create the database or bring it up to date.

    `tether serve` does this too when it starts; as a step of its own it can go first in a
    roll-out. The version before keeps working on the new schema.
    """
    from tether.server.bootstrap import database_of

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
    from tether.server.bootstrap import database_of

    found = database_of(database)
    stores.require(found)
    with progress("Copying", 1) as done:
        found.back_up(file, done, replace=force)
    size = file.stat().st_size / 1e6
    say(f"Copied {found.describe()} to {file} ({size:,.1f} MB).")


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@database_option
def restore(file: Path, database: str) -> None:
    """Put a copy of the backup FILE in the place of the database.

    Stop the server first. FILE is checked and stays; the database of before is kept beside the
    new one. What was acknowledged after the backup is lost, so a new epoch begins: consumers whose
    cursors are of before are told to begin again, in place of missing events.
    """
    from tether.server.bootstrap import database_of

    found = database_of(database)
    with progress("Copying", 1) as done:
        aside = found.restore(file, done)
    say(f"Restored {file} to {found.describe()}; a new epoch began.")
    if aside is not None:
        say(f"The database of before is {aside}: remove it when nothing of it is needed.")
