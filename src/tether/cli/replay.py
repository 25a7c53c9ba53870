"""`tether replay`: real charging sessions through the API of a running server."""

import asyncio
import csv
import sys
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tether.cli.access import Access, with_access
from tether.cli.output import counted, note, say
from tether.errors import SetupError
from tether.replay import sessions_of

if TYPE_CHECKING:
    from tether.cli.sending import Report

MOST_SHOWN = 10


@click.command()
@click.argument("file", required=False, type=click.Path(exists=True, dir_okay=False))
@with_access
@click.option("--verify", is_flag=True, help="Read everything back and compare.")
def replay(file: str | None, verify: bool, access: Access) -> None:
    """Send real charging sessions through the API of a running server.

    Without FILE these are the 1,878 sessions which one fast charging station in Switzerland saw in
    fifteen months. FILE is a CSV with the same columns. Sent twice, nothing changes.
    """
    from tether.cli.sending import send_sessions

    sessions = sessions_of(_rows(file))
    if not sessions:
        raise SetupError("There are no sessions in the file.")
    access.note_demo()
    report = asyncio.run(send_sessions(sessions, access.url, access.key, verify=verify))
    _print(report, access.url)
    if report.refusals:
        sys.exit(1)


def _rows(file: str | None) -> list[dict[str, str]]:
    source = files("tether").joinpath("data/level3-sessions.csv") if file is None else Path(file)
    try:
        text = source.read_text(encoding="utf-8-sig")
        return list(csv.DictReader(text.splitlines()))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SetupError(f"{source} cannot be read: {error}") from None


def _print(report: "Report", url: str) -> None:
    """The summary, on standard output; refusals on standard error."""
    rate = report.requests / report.seconds
    say(f"Sent to {url} in {report.seconds:.1f} s ({rate:,.0f} requests/s):")
    say(f"  {counted(len(report.chargers), 'charger')}")
    say(f"  {counted(len(report.vehicles), 'vehicle')}")
    say(f"  {counted(len(report.events), 'event')}")
    say(f"  {report.energy_kwh:,f} kWh charged")
    if report.verified:
        say("Read back: the server holds exactly that.")
    for cause, times in report.delays.items():
        say(f"Waited and sent again {counted(times, 'time')}: {cause}")
    if report.refusals:
        note(f"The server refused {counted(len(report.refusals), 'request')}:")
        for refusal in report.refusals[:MOST_SHOWN]:
            note(f"  {refusal}")
        if len(report.refusals) > MOST_SHOWN:
            note(f"  and {len(report.refusals) - MOST_SHOWN:,} more")
