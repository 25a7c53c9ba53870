"""Options that several commands share."""

import click

from tether.config import default_database

database_option = click.option(
    "--database",
    default=default_database,
    envvar="TETHER_DATABASE",
    show_envvar=True,
    metavar="URL",
    help="A file's path, sqlite:///path or postgresql://user:password@host/name. "
    "Default: a file in your data folder.",
)
