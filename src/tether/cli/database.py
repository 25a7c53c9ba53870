"""`tether migrate` and `tether backup`."""

from pathlib import Path

import click

from tether.cli import stores
from tether.cli.options import database_option
from tether.cli.output import counted, progress, say


@click.command()
@database_option
def migrate(database: str) -> None:
    """Create the database or bring it up to date.

    `tether serve` does this too when it starts; as a step of its own it can go first in a
    roll-out. The version before keeps working on the new schema.
    """
    from tether import wiring

    new = not stores.exists(database)
    steps, name = wiring.migrate(database), wiring.describe(database)
    if new:
        say(f"Created {name}.")
    elif steps:
        say(f"Brought {name} up to date: {counted(steps, 'step')}.")
    else:
        say(f"{name} is up to date.")


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Replace FILE if it exists.")
@database_option
def backup(file: Path, force: bool, database: str) -> None:
    """Copy the database to FILE while the server runs.

    The copy is consistent, checked, and a database by itself: to restore it, stop the server and
    put it in the place of the old one. FILE appears when the copy is whole.
    """
    from tether import upkeep, wiring

    stores.require(database)
    with progress("Copying", 1) as done:
        upkeep.back_up(database, file, done, replace=force)
    size = file.stat().st_size / 1e6
    say(f"Copied {wiring.describe(database)} to {file} ({size:,.1f} MB).")
