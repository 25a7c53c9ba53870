"""The command line: `tether --help`."""

import sys

import click

from tether import __version__
from tether.cli.serve import serve
from tether.errors import TetherError


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="tether")
def cli() -> None:
    """Tether: chargers, vehicles and charging events of your partners."""


cli.add_command(serve)


def main() -> None:
    """Runs the command line; what goes wrong on purpose ends it with one sentence."""
    try:
        cli()
    except TetherError as error:
        click.echo(f"tether: {error.message}", err=True)
        sys.exit(1)
