"""`tether serve`."""

from collections.abc import Callable
from dataclasses import Field, fields
from typing import Any

import click

from tether.cli.options import Parsed, WholeNumber, database_option, together
from tether.domain.errors import TetherError
from tether.domain.keys import without_keys
from tether.server.databases import database_of
from tether.server.settings import Settings


def _option(setting: "Field[Any]") -> Callable[[Any], Any]:
    """The option for a setting, with its default and its environment variable."""
    how, default = setting.metadata, setting.default
    flag = how["flag"] or f"--{setting.name.replace('_', '-')}"
    kind: Any = None
    if how["choices"]:
        kind = click.Choice(how["choices"])
    elif how["bounds"]:
        kind = WholeNumber(*how["bounds"])
    elif how["parse"]:
        kind = Parsed(how["metavar"], how["parse"])
    return click.option(
        flag,
        setting.name,
        type=kind,
        is_flag=default is False,
        metavar=how["metavar"] or None,
        default="" if default == () else default,
        show_default=default is not False and default not in ("", ()),
        envvar=f"TETHER_{flag.removeprefix('--').replace('-', '_').upper()}",
        show_envvar=True,
        help=how["help"],
    )


@click.command()
@database_option
@together(*(_option(setting) for setting in fields(Settings) if setting.metadata))
def serve(**settings: Any) -> None:
    """Serve the API until SIGTERM or Ctrl-C.

    Creates the database if there is none and brings an older one up to date.
    """
    start(Settings(**settings))


def start(settings: Settings) -> None:
    """Migrates and serves with these settings, in this process."""
    from tether.server import logging
    from tether.server.launch import launch

    try:
        launch(settings, lambda url: _say_listening(url, settings))
    except (TetherError, OSError) as error:
        if settings.log_format != "json":
            raise
        # With --log-format json every line is JSON.
        cause = error.__cause__ and repr(error.__cause__)
        logging.log.error("cannot serve", message=without_keys(str(error)), cause=cause)
        raise SystemExit(1) from error


def _say_listening(url: str, settings: Settings) -> None:
    from tether.server import logging

    database = database_of(settings.database).describe()
    text = f"Tether listens on {url} (database: {database})"
    logging.announce("ready", text, url=url, database=database)
