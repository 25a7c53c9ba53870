"""`tether webhooks`: addresses that the server calls with what happens."""

import sys
from collections.abc import Callable
from decimal import Decimal
from functools import wraps
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar

import click

from tether.cli.access import Access, not_found_as_message, with_access, with_client
from tether.cli.data_options import INSTANT, POSITIVE_NUMBER, given
from tether.cli.display.listing import (
    json_lines_option,
    json_object_option,
    list_limit_option,
    page_size,
    show_list,
    show_one,
)
from tether.cli.display.output import (
    Cell,
    confirm,
    counted,
    note,
    say,
    show_line,
    show_pairs,
    show_table,
)
from tether.cli.options import OrderedGroup, WholeNumber, together
from tether.domain.errors import SetupError
from tether.domain.models import to_json
from tether.domain.webhooks import MAX_IN_BATCH, MessageType, SignatureKind

if TYPE_CHECKING:
    from tether.client import Client, Webhook, WebhookAttempt, WebhookOutcome

P = ParamSpec("P")
T = TypeVar("T")

_EXAMPLES = """\b
Examples:
  tether webhooks create https://partner.example.com/tether --type session.ended
  tether webhooks test 0199b4f2-5c1e-7b60-9d55-1c8a2f6e7d90
  tether webhooks attempts 0199b4f2-5c1e-7b60-9d55-1c8a2f6e7d90 --failed
  tether webhooks listen --forward http://localhost:3000/hook

The first characters of an ID are enough where no other begins so.
"""
_STYLES = {"active": "green", "failing": "yellow", "stopped": "red", "gone": "red"}

type_option = click.option(
    "--type",
    "types",
    multiple=True,
    type=click.Choice([kind.value for kind in MessageType]),
    help="Only these messages. Give it again for more.  [default: all]",
)


_settings = together(
    type_option,
    click.option("--charger", "charger_id", metavar="ID", help="Only about this charger."),
    click.option("--vehicle", "vehicle_id", metavar="ID", help="Only about this vehicle."),
    click.option("--from", "from_", metavar="PLACE",
                 help="Where to begin: now, start, or a cursor of events or of the stream."),
    click.option("--max-batch", type=WholeNumber(1, MAX_IN_BATCH), metavar="N",
                 help="The most messages in a request."),
    click.option("--rate", "rate_per_second", type=POSITIVE_NUMBER, metavar="N",
                 help="The most requests in a second."),
    click.option("--description", metavar="TEXT", help="A note for yourself."),
)  # fmt: skip
"""The options that `create` and `set` share."""


def _with_client(command: Callable[P, T]) -> Callable[..., T]:
    """As `with_client`, with messages for a webhook that does not exist and for a conflict."""

    @with_client
    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        from tether.client import Conflict

        with not_found_as_message("There is no such webhook; see: tether webhooks list"):
            try:
                return command(*args, **kwargs)
            except Conflict as error:
                raise SetupError(error.message) from None

    return run


@click.group(cls=OrderedGroup, epilog=_EXAMPLES)
def webhooks() -> None:
    """Have an address called with what happens."""


@webhooks.command("list")
@json_lines_option
@with_client
def list_webhooks(as_json: bool, client: "Client") -> None:
    """List your webhooks."""
    found = client.webhooks.list()
    none_yet = "There are no webhooks yet: tether webhooks create --help"
    show_list(iter(found), _show_table, limit=len(found), as_json=as_json, none_yet=none_yet)


@webhooks.command()
@click.argument("address", metavar="URL")
@_settings
@click.option(
    "--signature",
    type=click.Choice([kind.value for kind in SignatureKind]),
    default="v1",
    show_default=True,
    help="With a shared secret (v1), or with a key of which you get the public half (v1a).",
)
@json_object_option
@_with_client
def create(
    address: str, signature: Literal["v1", "v1a"], as_json: bool, client: "Client", **options: Any
) -> None:
    """Have URL called from now on.

    Prints the secret by which messages are verified: it is shown only now.
    """
    made = client.webhooks.create(address, signature=signature, **_members(options))
    _show_secret(made, f"Webhook {made.id} calls {made.url}.", as_json=as_json)


@webhooks.command()
@click.argument("id")
@json_object_option
@_with_client
def get(id: str, as_json: bool, client: "Client") -> None:
    """Show the webhook ID, and what it has not received yet."""
    show_one(client.webhooks.get(_full_id(client, id)), _show, as_json=as_json)


@webhooks.command("set")
@click.argument("id")
@click.option("--address", metavar="URL", help="Another address.")
@_settings
@click.option("--enable/--disable", "enabled", default=None, help="Switch it on or off.")
@json_object_option
@_with_client
def set_webhook(
    id: str, address: str | None, enabled: bool | None, as_json: bool, client: "Client",
    **options: Any,
) -> None:  # fmt: skip
    """Change the webhook ID.

    An empty option takes away what is set: --charger ''
    """
    changes = _members(options)
    if address is not None:
        changes["url"] = address
    if enabled is not None:
        changes["enabled"] = enabled
    if not changes:
        raise click.UsageError("Nothing is to be changed: give an option.")
    changed = client.webhooks.change(_full_id(client, id), **changes)
    show_one(changed, _show, as_json=as_json)


@webhooks.command()
@click.argument("id")
@click.option("--yes", is_flag=True, help="Do not ask.")
@_with_client
def delete(id: str, yes: bool, client: "Client") -> None:
    """Delete the webhook ID."""
    found = client.webhooks.get(_full_id(client, id))
    if not yes:
        loss = (
            f"This deletes the webhook that calls {found.url}, with the messages that wait for it."
        )
        confirm(loss, "Delete it?", "Nothing was deleted")
    client.webhooks.delete(found.id)
    say(f"Deleted webhook {found.id}.")


@webhooks.command()
@click.argument("id")
@json_object_option
@_with_client
def test(id: str, as_json: bool, client: "Client") -> None:
    """Send a test message to the webhook ID, and show the result."""
    outcome = client.webhooks.test(_full_id(client, id))
    show_one(outcome, lambda outcome: say(_outcome(outcome)), as_json=as_json)
    if not outcome.succeeded:
        sys.exit(1)


@webhooks.command()
@click.argument("id")
@click.option("--failed", is_flag=True, help="Only those that failed.")
@list_limit_option
@json_lines_option
@_with_client
def attempts(id: str, failed: bool, limit: int | None, as_json: bool, client: "Client") -> None:
    """List the last requests to the webhook ID, the newest first."""
    found = client.webhooks.attempts(
        _full_id(client, id), failed=failed, page_size=page_size(limit, 500)
    )
    none = "There are no such attempts."
    show_list(found, _show_attempts, limit=limit, as_json=as_json, none_yet=none)


@webhooks.command()
@click.argument("id")
@click.option("--message", "message_id", metavar="ID", help="Only this message.")
@click.option("--failed-since", type=INSTANT, help="Messages that finally failed since this time.")
@click.option(
    "--from", "from_", metavar="PLACE",
    help="Everything from this place: start, or a cursor of events or of the stream.",
)  # fmt: skip
@_with_client
def replay(id: str, client: "Client", **wanted: str | None) -> None:
    """Send messages to the webhook ID once more."""
    chosen = given(wanted)
    if len(chosen) != 1:
        raise click.UsageError("Give exactly one of --message, --failed-since and --from.")
    found = client.webhooks.replay(_full_id(client, id), **chosen)
    if found.replayed is None:
        say("They will be sent.")
    else:
        verb = "will be sent" if found.replayed else "to send"
        say(f"{counted(found.replayed, 'message')} {verb}.")


@webhooks.command()
@click.argument("id")
@click.option(
    "--overlap", type=WholeNumber(0, 604_800), metavar="SECONDS",
    help="How long the old secret signs, too.  [default: a day]",
)  # fmt: skip
@json_object_option
@_with_client
def rotate_secret(id: str, overlap: int | None, as_json: bool, client: "Client") -> None:
    """Get a new secret for the webhook ID, and print it."""
    made = client.webhooks.rotate_secret(_full_id(client, id), overlap=overlap)
    until = made.old_secret_until
    about = f"The old one signs, too, until {until}." if until else ""
    _show_secret(made, about, as_json=as_json)


@webhooks.command()
@click.option("--forward", metavar="URL", required=True, help="Where messages are posted.")
@click.option(
    "--secret", metavar="SECRET", help="What signs them.  [default: a new one, which is printed]"
)
@type_option
@with_access
def listen(forward: str, secret: str | None, types: tuple[str, ...], access: Access) -> None:
    """Post what happens from now on to a program on this machine.

    To try a receiver out, without an address on the internet: messages look as those of a webhook
    do, signatures included, but there are none about states, and `sequence` counts from 1. Nothing
    is tried again. Ctrl-C ends it.
    """
    from tether.cli.forwarding import forward_messages

    forward_messages(access, forward, secret, types)


# Output ------------------------------------------------------------------------------------------


def _show_secret(made: "Webhook", about: str, *, as_json: bool) -> None:
    """Prints the secret of a webhook, or the key that verifies its messages."""
    if as_json:
        show_line(to_json(made))
        return
    if about:
        note(about)
    note("Keep this well: it is shown only now.")
    say(made.secret or made.public_key or "")


def _show_table(found: "list[Webhook]") -> None:
    titles = ("Id", "Status", "Address", "Messages", "Description")
    rows: list[list[str]] = [
        [webhook.id, _status(webhook), webhook.url, _types(webhook), webhook.description]
        for webhook in found
    ]
    show_table(titles, rows, wrapped=("Address", "Messages", "Description"))


def _show_attempts(attempts: "list[WebhookAttempt]") -> None:
    titles = ("Time", "Message", "Result", "Took")
    show_table(titles, [_attempt(attempt) for attempt in attempts], wrapped=("Result",))


def _show(webhook: "Webhook") -> None:
    backlog = webhook.backlog
    show_pairs(
        [
            ("Id", webhook.id),
            ("Status", _status(webhook)),
            ("Address", webhook.url),
            ("Messages", _types(webhook)),
            ("Charger", webhook.charger_id or ""),
            ("Vehicle", webhook.vehicle_id or ""),
            ("Description", webhook.description),
            ("In a request", f"up to {webhook.max_batch}" if webhook.max_batch > 1 else ""),
            ("At most", f"{webhook.rate_per_second} requests/s" if webhook.rate_per_second else ""),
            ("Not sent yet", _backlog(backlog.events, backlog.sessions) if backlog else ""),
            ("Parked", counted(webhook.parked, "message") if webhook.parked else ""),
            ("Last success", webhook.last_success_at or ""),
            ("Failing since", webhook.failing_since or ""),
            ("Waits for", webhook.waits_for or ""),
            ("Next try", webhook.next_try_at or ""),
            ("Stops", webhook.stops_at or ""),
            ("Old secret until", webhook.old_secret_until or ""),
        ]
    )


def _backlog(events: int, sessions: int) -> str:
    if not events and not sessions:
        return "nothing"
    changes = f"{sessions:,}{' or more' if sessions >= 1_000 else ''}"
    return f"{counted(events, 'event')}, {changes} changes of sessions"


def _status(webhook: "Webhook") -> Cell:
    warning = f" ({webhook.warning} % of the time)" if webhook.warning else ""
    return Cell(f"{webhook.status}{warning}", _STYLES.get(webhook.status, ""))


def _types(webhook: "Webhook") -> str:
    return "all" if len(webhook.types) == len(MessageType) else ", ".join(webhook.types)


def _attempt(attempt: "WebhookAttempt") -> list[str]:
    more = f" and {attempt.messages - 1} more" if attempt.messages > 1 else ""
    result = (
        Cell(str(attempt.status), "green")
        if attempt.succeeded
        else Cell(attempt.error or "", "red")
    )
    return [attempt.at, f"{attempt.message_id}{more}", result, _duration(attempt.duration)]


def _duration(seconds: Decimal) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def _outcome(outcome: "WebhookOutcome") -> str:
    if outcome.succeeded:
        return f"It answered {outcome.status} after {_duration(outcome.duration)}."
    answer = f"\n{outcome.answer}" if outcome.answer else ""
    return f"It failed after {_duration(outcome.duration)}: {outcome.error}{answer}"


# Input -------------------------------------------------------------------------------------------


def _members(options: dict[str, Any]) -> dict[str, Any]:
    """The members to set, from the options that the user gave. An empty option removes a filter."""
    return {
        name: None if value == "" and name in ("charger_id", "vehicle_id") else value
        for name, value in given(options).items()
    }


def _full_id(client: "Client", beginning: str) -> str:
    """The id of the only webhook whose id begins like this. Raises SetupError."""
    if len(beginning) == 36:
        return beginning
    ids = [webhook.id for webhook in client.webhooks.list()]
    found = [id for id in ids if id.startswith(beginning)]
    if len(found) == 1 and beginning:
        return found[0]
    problem = f"{beginning!r} begins {len(found)} ids" if found else f"No id begins {beginning!r}"
    raise SetupError(f"{problem}; see: tether webhooks list")
