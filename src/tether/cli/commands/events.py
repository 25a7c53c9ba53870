"""`tether events`: report, list, follow and withdraw them."""

import json
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

import click

from tether.cli.access import Access, with_access, with_client
from tether.cli.data_options import EVENT_MEMBERS, EVENT_TYPE, INSTANT, document_of, member_options
from tether.cli.display.listing import json_lines_option, list_limit_option, page_size, show_list
from tether.cli.display.output import confirm, counted, note, say
from tether.cli.display.rows import event_line
from tether.cli.following import cursor_file_option, poll_option, print_followed, start_again_option
from tether.cli.options import F, OrderedGroup, together
from tether.domain.errors import SetupError
from tether.domain.models import Event, event_id_from_path
from tether.domain.validation import MAX_ITEMS
from tether.files.table import Kind, entry_of

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
  tether events withdraw 01a2023f-be90-768e-b3b4-4268a7fa0708

Types: connected, started, updated, stopped, disconnected.
"""
MAX_UNASKED = 20  # events that are withdrawn without a question
MAX_IDS_SHOWN = 5  # in a message


def _filters(of: str) -> Callable[[F], F]:
    """The options that filter events, by the names of the SDK; `of` is for the help of --type."""
    return together(
        click.option("--type", type=EVENT_TYPE, help=f"Only {of} this type."),
        click.option("--charger", "charger_id", metavar="ID", help="Only at this charger."),
        click.option("--vehicle", "vehicle_id", metavar="ID", help="Only of this vehicle."),
    )


order_option = click.option(
    "--order",
    type=click.Choice(["asc", "desc"]),
    default="asc",
    show_default=True,
    help="In the order of arrival, or the newest first.",
)


@click.group(cls=OrderedGroup, epilog=_EXAMPLES)
def events() -> None:
    """Report, list, follow and withdraw your events."""


@events.command()
@click.argument("file", required=False, type=click.File("rb"))
@click.option("--type", type=EVENT_TYPE,
              help="What happened: connected, started, updated, stopped or disconnected."
              )  # fmt: skip
@click.option("--charger", "chargerId", metavar="ID", help="At which charger.")
@click.option("--vehicle", "vehicleId", metavar="ID", help="To which vehicle.")
@member_options(EVENT_MEMBERS)
@click.option("--timestamp", type=INSTANT,
              help="When it happened, such as 2026-01-05T22:06:40Z.  [default: now]")  # fmt: skip
@with_client
def post(file: IO[bytes] | None, client: "Client", **options: Any) -> None:
    """Report an event and print its id.

    From a JSON FILE (- is standard input) or from options. The same event can be posted again
    without harm if it has a timestamp.
    """
    from tether.client import RateLimited, Unavailable

    given = {name: None if value == "" else value for name, value in options.items()}
    event = entry_of(Kind.EVENTS, document_of(file, given))
    assert isinstance(event, Event)
    try:
        say(client.events.post(event))
    except (RateLimited, Unavailable) as error:
        if error.event is not None and not event.timestamp:
            note(f"To try again safely, add --timestamp {error.event.timestamp}")
        raise


@events.command("list")
@_filters("of")
@click.option("--from", "from_", type=INSTANT, help="At this time or later.")
@click.option("--to", type=INSTANT, help="Before this time.")
@order_option
@list_limit_option
@json_lines_option
@with_client
def list_events(
    order: Literal["asc", "desc"],
    limit: int | None,
    as_json: bool,
    client: "Client",
    **filters: Any,
) -> None:
    """List your events, as they came in.

    Times are dates (their first moment in UTC) or date-times with a zone.
    """
    found = client.events.list(order=order, page_size=page_size(limit), **filters)
    none_yet = "No such event." if any(filters.values()) else "There are no events yet."
    show_list(found, limit=limit, as_json=as_json, none_yet=none_yet)


@events.command()
@click.argument("ids", metavar="[ID]...", nargs=-1)
@click.option("--file", type=click.File("rb"), help="Those in this file as well (- is standard "
              "input): an id a line, or an event, as `tether events list` prints it.")  # fmt: skip
@click.option("--yes", is_flag=True, help=f"Do not ask, also if they are more than {MAX_UNASKED}.")
@with_access
def withdraw(ids: tuple[str, ...], file: IO[bytes] | None, yes: bool, access: Access) -> None:
    """Withdraw events that were sent by mistake.

    What was withdrawn before does no harm, so the same command can be run again.
    """
    wanted = [_event_id(text, "Argument") for text in ids]
    if file is not None:
        lines = ((number, line.strip()) for number, line in enumerate(file, 1))
        wanted += [_id_in(line, f"Line {number}") for number, line in lines if line]
    wanted = list(dict.fromkeys(wanted))
    if not wanted:
        raise click.UsageError("Name events by their ids, or a file of them.")
    if len(wanted) > MAX_UNASKED and not yes:
        loss = f"This withdraws {counted(len(wanted), 'event')}, and what sessions have of them."
        confirm(loss, "Withdraw them?", "Nothing was withdrawn")
    done, unknown = 0, list[str]()
    try:
        with access.client(patient=True) as client:
            for start in range(0, len(wanted), MAX_ITEMS):
                results = client.events.withdraw_many(wanted[start : start + MAX_ITEMS])
                done += sum(result.ok for result in results)
                unknown += (result.id for result in results if not result.ok)
    except BaseException:
        if done:
            note(f"Withdrew {counted(done, 'event')}. To continue, run the same command again.")
        raise
    say(f"Withdrew {counted(done, 'event')}.")
    if unknown:
        listed = ", ".join(unknown[:MAX_IDS_SHOWN])
        more = f" and {len(unknown) - MAX_IDS_SHOWN:,} more" if len(unknown) > MAX_IDS_SHOWN else ""
        raise SetupError(f"{counted(len(unknown), 'event')} not known: {listed}{more}.")


def _id_in(line: bytes, where: str) -> str:
    """The id on the line, or of the event on the line. Raises SetupError."""
    text = line.decode("utf-8-sig", errors="replace")
    if text.startswith(("{", '"')):
        with suppress(ValueError, RecursionError):
            found = json.loads(text)
            text = str(found.get("id") if isinstance(found, dict) else found)
    return _event_id(text, where)


def _event_id(text: str, where: str) -> str:
    event_id = event_id_from_path(text)
    if event_id is None:
        raise SetupError(f"{where}: {text[:60]!r} is no id of an event. Nothing was withdrawn.")
    return event_id


@events.command()
@_filters("events of")
@order_option
@list_limit_option
@json_lines_option
@with_client
def withdrawn(
    order: Literal["asc", "desc"],
    limit: int | None,
    as_json: bool,
    client: "Client",
    **filters: Any,
) -> None:
    """List withdrawn events, in the order of their withdrawal."""
    found = client.events.withdrawn(order=order, page_size=page_size(limit), **filters)
    show_list(found, limit=limit, as_json=as_json, none_yet="No event was withdrawn.")


@events.command()
@cursor_file_option("event")
@poll_option
@click.option("--from-now", is_flag=True, help="Begin with the next event that comes in.")
@start_again_option
@json_lines_option
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

    It does not end by itself, not even in an outage: press Ctrl-C. With --cursor-file it
    continues where it ended; --from-now counts for the first time only.
    """

    def begin(client: "Client", cursor: str | None, stop: threading.Event) -> "Following[Any]":
        if from_now and cursor is None:
            cursor = client.events.now()
        return client.events.follow(cursor, poll_s=poll, stop=stop, start_again=start_again)

    print_followed(access, begin, event_line, cursor_file=cursor_file, as_json=as_json)
