"""`tether sessions`: the charging sessions that the server derives from the events."""

import sys
import threading
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from zoneinfo import ZoneInfo

import click

from tether.cli.access import Access, not_found_as_message, with_access, with_client
from tether.cli.data_options import INSTANT, given, option_of, session_filters
from tether.cli.display.listing import (
    json_lines_option,
    json_object_option,
    list_limit_option,
    page_size,
    show_list,
    show_one,
    show_rows,
    stale_allowed_option,
    stale_option,
)
from tether.cli.display.output import note, say, show_line
from tether.cli.display.rows import session_line, show_session, silent_sessions_table
from tether.cli.following import cursor_file_option, poll_option, print_followed, start_again_option
from tether.cli.options import DURATION, OrderedGroup, together
from tether.cli.sums import calendar_zone_option, show_sums, sum_options, sum_output
from tether.cli.times import format_hours
from tether.domain.calendar import Unit
from tether.domain.models import to_json
from tether.domain.timestamps import format_instant, now_ms
from tether.domain.validation import EARLIEST_MS
from tether.domain.views import SessionSummary

if TYPE_CHECKING:
    from tether.client import Client, Session
    from tether.client.sync_run import Following

_EXAMPLES = """\b
Examples:
  tether sessions list --status active
  tether sessions list --vehicle V0313 --from 2023-05-01 --to 2023-06-01
  tether sessions list --overlapping-from 2023-05-11 --overlapping-to 2023-05-12
  tether sessions summary --bucket month --time-zone Europe/Berlin --by charger
  tether sessions get 01880cda-1c62-8ddf-a043-2c8c729ae5ea
  tether sessions follow --cursor-file last | ./my-consumer
  tether sessions list --stale 7d
  tether sessions end 01880cda-1c62-8ddf-a043-2c8c729ae5ea --at 2023-05-12T07:45:30Z
"""
_CHANGES_FILTERS = {"charger_id", "vehicle_id", "from_", "to", "updated_from"}
_begun_options = together(
    click.option("--from", "from_", type=INSTANT, help="Begun at this time or later."),
    click.option("--to", type=INSTANT, help="Begun before this time."),
)
_updated_from_option = click.option(
    "--updated-from", type=INSTANT, help="Changed at this time or later."
)


@click.group(cls=OrderedGroup, epilog=_EXAMPLES)
def sessions() -> None:
    """List, sum up, show, follow and end your charging sessions."""


@sessions.command("list")
@_begun_options
@session_filters
@_updated_from_option
@click.option("--stale", "silent_ms", type=DURATION, metavar="AGE",
              help="Active sessions without an event for this long, such as 7d.")  # fmt: skip
@click.option("--order", type=click.Choice(["asc", "desc"]),
              help="The oldest or the newest first.  [default: desc in a terminal, else asc]",
              )  # fmt: skip
@list_limit_option
@stale_allowed_option
@json_lines_option
@with_client
def list_sessions(
    silent_ms: int | None,
    order: Literal["asc", "desc"] | None,
    limit: int | None,
    stale_allowed: bool,
    as_json: bool,
    client: "Client",
    **filters: Any,
) -> None:
    """List your sessions, in a terminal the newest first.

    With --updated-from in the order in which they last changed, and removed ones with them. Times
    are dates (their first moment in UTC) or date-times with a zone. In a table, ~ marks energy
    that is estimated; a terminal of 120 columns shows the ids too.

    --stale finds those whose unplug was probably lost: `tether sessions end` reports it.
    """
    chosen = given(filters)
    if "updated_from" in chosen:
        if order == "desc":
            raise click.UsageError("--order desc does not go with --updated-from.")
        for name in chosen.keys() - _CHANGES_FILTERS:
            raise click.UsageError(f"{option_of(name)} does not go with --updated-from.")
    if silent_ms is not None and (
        chosen.keys() - {"charger_id", "vehicle_id", "status"} or chosen.get("status") == "ended"
    ):
        raise click.UsageError("With --stale go --charger, --vehicle and --status active.")
    is_table = sys.stdout.isatty() and not as_json
    newest_first = is_table and "updated_from" not in chosen
    if silent_ms is not None:
        now = now_ms()
        silent = client.sessions.silent_since(
            format_instant(max(EARLIEST_MS, now - silent_ms)),
            charger_id=chosen.get("charger_id"),
            vehicle_id=chosen.get("vehicle_id"),
            page_size=page_size(limit),
            stale_allowed=stale_allowed,
        )
        none = "Every active session has had an event since."
        show = partial(show_rows, silent_sessions_table(now))
        show_list(silent, show, limit=limit, as_json=as_json, none_yet=none)
        return
    found = client.sessions.list(
        order=order or ("desc" if newest_first else "asc"),
        page_size=page_size(limit),
        stale_allowed=stale_allowed,
        **chosen,
    )
    none_yet = "No such session." if chosen else "There are no sessions yet."
    show_list(found, limit=limit, as_json=as_json, none_yet=none_yet)


@sessions.command("summary")
@click.option("--bucket", type=click.Choice([unit.value for unit in Unit]), help="A sum for each.")
@calendar_zone_option
@click.option("--by", type=click.Choice(["charger", "vehicle", "flag", "area"]),
              help="A sum for each.")  # fmt: skip
@_begun_options
@session_filters
@sum_options
@stale_allowed_option
@with_access
def summarize(
    bucket: Literal["hour", "day", "week", "month"] | None,
    zone: ZoneInfo | None,
    limit: int | None,
    access: Access,
    **options: Any,
) -> None:
    """Sum up your sessions: energy, times, powers, utilisation.

    docs/summaries.md has the rules. Dates begin at midnight of the zone. Times of a table or CSV
    are those of the zone. In a table numbers are rounded.
    """
    output = sum_output(SessionSummary, options, zone)
    with access.client(patient=True) as client:
        found = client.sessions.summary(
            bucket=bucket,
            time_zone=zone.key if zone and bucket else None,
            page_size=page_size(limit),
            **given(options),
        )
        show_sums(found, output, limit, days=bucket != "hour")


@sessions.command("get")
@click.argument("id")
@stale_option
@json_object_option
@with_client
def get_session(id: str, stale_allowed: bool, as_json: bool, client: "Client") -> None:
    """Show the session ID, its charge periods and its flags."""
    with not_found_as_message(f"There is no session {id}."):
        session = client.sessions.get(id, stale_allowed=stale_allowed)
    show_one(session, show_session, as_json=as_json)


@sessions.command("end")
@click.argument("id")
@click.option("--at", type=INSTANT, required=True, help="When the vehicle was unplugged.")
@click.option("--dry-run", is_flag=True, help="Send nothing: show the event.")
@with_client
def end_session(id: str, at: str, dry_run: bool, client: "Client") -> None:
    """Report the missing unplug of the active session ID.

    It is an event like any other, a VEHICLE_DISCONNECTED of the session's vehicle at its charger. A
    time before the session's newest event is refused. Run again, it says that the session ended.
    """
    with not_found_as_message(f"There is no session {id}."):
        if dry_run:
            show_line(to_json(client.sessions.ending(id, at=at)))
            note("Nothing is sent.")
            return
        session = client.sessions.end(id, at=at)
    length = format_hours(session.plugged_time or Decimal(0))
    say(
        f"Ended session {id}: {session.vehicle_id} left {session.charger_id} at "
        f"{session.disconnected_at}, after {length} h."
    )


@sessions.command()
@cursor_file_option("change")
@_updated_from_option
@poll_option
@start_again_option
@json_lines_option
@with_access
def follow(
    cursor_file: Path | None,
    updated_from: str | None,
    poll: float,
    start_again: bool,
    as_json: bool,
    access: Access,
) -> None:
    """Print all sessions, then each session that changes.

    One that a late event did away with comes with the status removed. Never ends by itself, not by
    an outage either; Ctrl-C ends it. With --cursor-file it continues where it was.
    """

    def begin(client: "Client", cursor: str | None, stop: threading.Event) -> "Following[Session]":
        return client.sessions.changes(
            cursor, updated_from=updated_from, poll_s=poll, stop=stop, start_again=start_again
        )

    print_followed(access, begin, session_line, cursor_file=cursor_file, as_json=as_json)
