"""`tether copy`: moves everything to another database."""

import click

from tether.cli import stores
from tether.cli.commands.rebuild import differing_sessions
from tether.cli.display.output import counted, say
from tether.cli.display.progress import progress
from tether.cli.options import DATABASE
from tether.domain.errors import SetupError


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
    When it is interrupted, run it again: it goes on. In the end every row is compared, and all
    sessions are derived again and compared. Cursors of before go on in the copy.
    """
    from tether.server.bootstrap import database_of
    from tether.server.maintenance import copy

    from_, to = database_of(source), database_of(target)
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
