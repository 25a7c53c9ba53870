"""`tether sessions`: the charging sessions that the server derives from the events."""

import sys
import threading
import time
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from tether.cli.access import Access, with_access
from tether.cli.display.listing import (
    lines_option,
    list_limit_option,
    object_option,
    show_list,
    stale_allowed_option,
    stale_option,
)
from tether.cli.display.output import note, say, show_line
from tether.cli.display.rows import (
    SILENT_SESSION_TITLES,
    session_line,
    show_session,
    silent_session_row,
)
from tether.cli.following import (
    cursor_file_option,
    poll_option,
    print_followed,
    start_again_option,
)
from tether.cli.group import OrderedGroup
from tether.cli.members import InstantType
from tether.cli.options import DurationType
from tether.cli.times import clock
from tether.domain.errors import SetupError
from tether.domain.models import to_json
from tether.domain.timestamps import format_instant
from tether.domain.validation import EARLIEST_MS

if TYPE_CHECKING:
    from tether.client import Client, Session
    from tether.client.sync import Following

_EXAMPLES = """\b
Examples:
  tether sessions list --status active
  tether sessions list --vehicle V0313 --from 2023-05-01 --to 2023-06-01
  tether sessions get 01880cda-1c62-8ddf-a043-2c8c729ae5ea
  tether sessions follow --cursor-file last | ./my-consumer
  tether sessions list --stale 7d
  tether sessions end 01880cda-1c62-8ddf-a043-2c8c729ae5ea --at 2023-05-12T07:45:30Z
"""
_updated_from_option = click.option(
    "--updated-from", type=InstantType(), help="Only what changed at this time or later."
)


@click.group(cls=OrderedGroup, epilog=_EXAMPLES)
def sessions() -> None:
    """List, show, follow and end your charging sessions."""


@sessions.command("list")
@click.option("--charger", metavar="ID", help="At this charger only.")
@click.option("--vehicle", metavar="ID", help="Of this vehicle only.")
@click.option("--from", "from_", type=InstantType(), help="Begun not before this time.")
@click.option("--to", type=InstantType(), help="Begun before this time.")
@click.option("--status", type=click.Choice(["active", "ended"]),
              help="Only those that go on, or the others.")  # fmt: skip
@_updated_from_option
@click.option("--stale", "silent_ms", type=DurationType(), metavar="AGE",
              help="Active ones not heard of for so long, such as 7d.")  # fmt: skip
@list_limit_option
@stale_allowed_option
@lines_option
@with_access
def list_sessions(
    charger: str | None,
    vehicle: str | None,
    from_: str | None,
    to: str | None,
    status: Literal["active", "ended"] | None,
    updated_from: str | None,
    silent_ms: int | None,
    limit: int | None,
    stale_allowed: bool,
    as_json: bool,
    access: Access,
) -> None:
    """List your sessions in the order in which they began.

    With --updated-from in the order in which they last changed, and removed ones with them. Times
    are dates (their first moment in UTC) or date-times with a zone. In a table, ~ marks energy
    that is estimated; a terminal of 120 columns shows the ids too.

    --stale finds those whose unplug was probably lost: `tether sessions end` reports it.
    """
    if status and updated_from:
        raise click.UsageError("--status does not go with --updated-from.")
    if silent_ms is not None and (from_ or to or updated_from or status == "ended"):
        raise click.UsageError("With --stale go --charger, --vehicle and --status active.")
    with access.client() as client:
        if silent_ms is not None:
            now_ms = int(time.time() * 1000)
            silent = client.sessions.silent_since(
                format_instant(max(EARLIEST_MS, now_ms - silent_ms)),
                charger_id=charger,
                vehicle_id=vehicle,
                page_size=min(limit or 1000, 1000),
                stale_allowed=stale_allowed,
            )
            table = SILENT_SESSION_TITLES, partial(silent_session_row, now_ms=now_ms)
            none = "Every active session was heard of since."
            show_list(silent, limit=limit, as_json=as_json, none_yet=none, table=table)
            return
        found = client.sessions.list(
            charger_id=charger,
            vehicle_id=vehicle,
            from_=from_,
            to=to,
            status=status,
            updated_from=updated_from,
            page_size=min(limit or 1000, 1000),
            stale_allowed=stale_allowed,
        )
        filtered = any((charger, vehicle, from_, to, status, updated_from))
        none_yet = "No such session." if filtered else "There are no sessions yet."
        show_list(found, limit=limit, as_json=as_json, none_yet=none_yet)


@sessions.command("get")
@click.argument("id")
@stale_option
@object_option
@with_access
def get_session(id: str, stale_allowed: bool, as_json: bool, access: Access) -> None:
    """Show the session ID: its charge periods, and what is odd about it."""
    from tether.client import NotFound

    with access.client() as client:
        try:
            session = client.sessions.get(id, stale_allowed=stale_allowed)
        except NotFound:
            raise SetupError(f"There is no session {id}.") from None
    if as_json or not sys.stdout.isatty():
        show_line(to_json(session))
    else:
        show_session(session)


@sessions.command("end")
@click.argument("id")
@click.option("--at", type=InstantType(), required=True, help="When the vehicle was unplugged.")
@click.option("--dry-run", is_flag=True, help="Send nothing: show the event.")
@with_access
def end_session(id: str, at: str, dry_run: bool, access: Access) -> None:
    """Report the missing unplug of the active session ID.

    It is an event like any other, a VEHICLE_DISCONNECTED of the session's vehicle at its charger. A
    time before the session's newest event is refused. Run again, it says that the session ended.
    """
    from tether.client import NotFound

    with access.client() as client:
        try:
            if dry_run:
                show_line(to_json(client.sessions.ending(id, at=at)))
                note("Nothing is sent.")
                return
            session = client.sessions.end(id, at=at)
        except NotFound:
            raise SetupError(f"There is no session {id}.") from None
    length = clock(session.plugged_time or Decimal(0))
    say(
        f"Ended session {id}: {session.vehicle_id} left {session.charger_id} at "
        f"{session.disconnected_at}, after {length} h."
    )


@sessions.command()
@cursor_file_option("change")
@_updated_from_option
@poll_option
@start_again_option
@lines_option
@with_access
def follow(
    cursor_file: Path | None,
    updated_from: str | None,
    poll: float,
    start_again: bool,
    as_json: bool,
    access: Access,
) -> None:
    """Print all sessions, then each again that changes, as it is then.

    One that a late event did away with comes with the status removed. Never ends by itself, not by
    an outage either; Ctrl-C ends it. With --cursor-file it goes on where it was.
    """

    def begin(client: "Client", cursor: str | None, stop: threading.Event) -> "Following[Session]":
        return client.sessions.changes(
            cursor, updated_from=updated_from, poll_s=poll, stop=stop, start_again=start_again
        )

    print_followed(access, begin, session_line, cursor_file=cursor_file, as_json=as_json)
