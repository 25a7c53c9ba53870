"""`tether epoch`: which history of the database cursors belong to."""

import time

import click

from tether.cli import OrderedGroup, stores
from tether.cli.display.output import say, show_json
from tether.cli.options import database_option, json_option
from tether.domain.timestamps import format_instant
from tether.storage.database import Database
from tether.storage.log_positions import EPOCH_REMEMBERED_S, EpochState


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
    known = _database(database).epoch()
    if as_json:
        show_json(
            {
                "epoch": known.epoch.id or None,
                "beganAt": format_instant(known.epoch.began_ms) if known.epoch.id else None,
                "endsAtStart": known.ends,
            }
        )
    else:
        say(described(known))


@epoch.command()
@database_option
def new(database: str) -> None:
    """Begin a new epoch, after a recovery that lost something.

    A step of every recovery that goes back in time, such as a restored snapshot, a plain copy of
    the file, or PostgreSQL's point-in-time recovery; not of a fail-over that loses nothing.
    `tether restore` does it by itself. Running servers follow before this returns.
    """
    found = _database(database)
    found.begin_epoch()
    time.sleep(2 * EPOCH_REMEMBERED_S)  # servers read it once a second
    say(f"A new epoch began: {found.epoch().epoch.id}.")


def described(known: EpochState) -> str:
    """The epoch in a sentence or two."""
    id, began_ms = known.epoch
    text = f"{id}, since {format_instant(began_ms)}." if id else "None yet: cursors carry none."
    return f"{text} This is a copy: a new one begins when it is served." if known.ends else text


def _database(name: str) -> Database:
    from tether.server.bootstrap import database_of

    stores.say_which(name)
    found = database_of(name)
    stores.require_current(found)
    return found
