"""`tether events`: report, list and follow them."""

import threading
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

import click

from tether.cli import OrderedGroup
from tether.cli.access import Access, with_access
from tether.cli.display.listing import event_line, lines_option, list_limit_option, show_list
from tether.cli.display.output import note, say
from tether.cli.following import (
    cursor_file_option,
    poll_option,
    print_followed,
    start_again_option,
)
from tether.cli.members import (
    OF_EVENTS,
    EventTypeType,
    InstantType,
    document_of,
    member_options,
)
from tether.domain.models import Event
from tether.files.contents import Kind, entry_of

if TYPE_CHECKING:
    from tether.client import Client
    from tether.client.sync_run import Following

_EXAMPLES = """\b
Examples:
  tether events post --type connected --charger C1408 --vehicle V0313
  tether events post event.json
  tether events list --charger C1408 --from 2023-05-01 --to 2023-06-01
  tether events follow --from-now
  tether events follow --cursor-file last | ./my-consumer

Types: connected, started, updated, stopped, disconnected.
"""


@click.group(cls=OrderedGroup, epilog=_EXAMPLES)
def events() -> None:
    """Report, list and follow your events."""


@events.command()
@click.argument("file", required=False, type=click.File("rb"))
@click.option("--type", "type", type=EventTypeType(), help="What happened.")
@click.option("--charger", "chargerId", metavar="ID", help="At which charger.")
@click.option("--vehicle", "vehicleId", metavar="ID", help="To which vehicle.")
@member_options(OF_EVENTS)
@click.option("--timestamp", type=InstantType(), help="When it happened.  [default: now]")
@with_access
def post(file: IO[bytes] | None, access: Access, **options: Any) -> None:
    """Report an event and print its id.

    From a JSON FILE (- is standard input) or from options. The same event can be posted again
    without harm if it has a timestamp.
    """
    from tether.client import RateLimited, Unavailable

    given = {name: None if value == "" else value for name, value in options.items()}
    event = entry_of(Kind.EVENTS, document_of(file, given))
    assert isinstance(event, Event)
    with access.client() as client:
        try:
            say(client.events.post(event))
        except (RateLimited, Unavailable) as error:
            if error.event is not None and not event.timestamp:
                note(f"To try again safely, add --timestamp {error.event.timestamp}")
            raise


@events.command("list")
@click.option("--type", "type", type=EventTypeType(), help="Of this type only.")
@click.option("--charger", metavar="ID", help="At this charger only.")
@click.option("--vehicle", metavar="ID", help="Of this vehicle only.")
@click.option("--from", "from_", type=InstantType(), help="Not before this time.")
@click.option("--to", type=InstantType(), help="Before this time.")
@click.option(
    "--order",
    type=click.Choice(["asc", "desc"]),
    default="asc",
    show_default=True,
    help="As they came in, or the newest first.",
)
@list_limit_option
@lines_option
@with_access
def list_events(
    type: str | None,
    charger: str | None,
    vehicle: str | None,
    from_: str | None,
    to: str | None,
    order: Literal["asc", "desc"],
    limit: int | None,
    as_json: bool,
    access: Access,
) -> None:
    """List your events, as they came in.

    Times are dates (their first moment in UTC) or date-times with a zone.
    """
    with access.client() as client:
        found = client.events.list(
            type=type,
            charger_id=charger,
            vehicle_id=vehicle,
            from_=from_,
            to=to,
            order=order,
            page_size=min(limit or 1000, 1000),
        )
        filtered = any((type, charger, vehicle, from_, to))
        none_yet = "No such event." if filtered else "There are no events yet."
        show_list(found, limit=limit, as_json=as_json, none_yet=none_yet)


@events.command()
@cursor_file_option("event")
@poll_option
@click.option("--from-now", is_flag=True, help="Begin with the next event that comes in.")
@start_again_option
@lines_option
@with_access
def follow(
    cursor_file: Path | None,
    from_now: bool,
    poll: float,
    start_again: bool,
    as_json: bool,
    access: Access,
) -> None:
    """Print all events, then each new one as it comes in.

    Never ends by itself, not by an outage either; Ctrl-C ends it. With --cursor-file it goes on
    where it was, however it ended; --from-now counts for the first time only.
    """

    def begin(client: "Client", cursor: str | None, stop: threading.Event) -> "Following[Any]":
        if from_now and cursor is None:
            cursor = client.events.now()
        return client.events.follow(cursor, poll_s=poll, stop=stop, start_again=start_again)

    print_followed(access, begin, event_line, cursor_file=cursor_file, as_json=as_json)
