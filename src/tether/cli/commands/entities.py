"""`tether chargers` and `tether vehicles`: the same commands for both."""

from typing import IO, TYPE_CHECKING, Any, Literal, TypeVar

import click

from tether.cli.access import calls_of, not_found_as_message, with_client
from tether.cli.data_options import (
    CHARGER_MEMBERS,
    VEHICLE_MEMBERS,
    Members,
    document_of,
    member_options,
)
from tether.cli.display.listing import (
    json_lines_option,
    json_object_option,
    list_limit_option,
    page_size,
    show_list,
    show_one,
)
from tether.cli.display.output import confirm, say
from tether.cli.display.rows import show_entity
from tether.cli.options import OrderedGroup
from tether.domain.errors import SetupError
from tether.domain.models import Charger, Vehicle
from tether.domain.validation import changes_of, new_entity

if TYPE_CHECKING:
    from tether.client import Client

E = TypeVar("E", Charger, Vehicle)

_CHARGER_EXAMPLES = """\b
Examples:
  tether chargers put C1408 --charge-powers 11,22
  tether chargers patch C1408 --latitude 62.268 --longitude 17.448
  tether chargers get C1408 --json
  tether chargers list"""
_VEHICLE_EXAMPLES = """\b
Examples:
  tether vehicles put V0313 --charge-capacity 74.8 --charge-powers 11
  tether vehicles patch V0313 --discharge-powers 10
  tether vehicles get V0313 --json
  tether vehicles list"""
_file_argument = click.argument("file", required=False, type=click.File("rb"))


def _group(model: type[E], members: Members, examples: str) -> click.Group:
    """The commands for chargers, or for vehicles."""
    noun = model.__name__.lower()

    @click.group(
        f"{noun}s",
        cls=OrderedGroup,
        epilog=examples,
        help=f"List, show, put, change and delete your {noun}s.",
    )
    def group() -> None: ...

    @group.command("list", help=f"List your {noun}s, in order of their ids.")
    @list_limit_option
    @json_lines_option
    @with_client
    def list_entities(limit: int | None, as_json: bool, client: "Client") -> None:
        found = calls_of(client, noun).list(page_size=page_size(limit))
        none_yet = f"There are no {noun}s yet: tether {noun}s put --help"
        show_list(found, limit=limit, as_json=as_json, none_yet=none_yet)

    @group.command("get", help=f"Show the {noun} ID.")
    @click.argument("id")
    @json_object_option
    @with_client
    def get(id: str, as_json: bool, client: "Client") -> None:
        with not_found_as_message(f"There is no {noun} {id}."):
            show_one(calls_of(client, noun).get(id), show_entity, as_json=as_json)

    @group.command(
        help=f"Create or replace the {noun} ID.\n\nFrom a JSON FILE (- is standard input) or from "
        "options. What is not given, it does not have afterwards."
    )
    @member_options(members)
    @click.argument("id")
    @_file_argument
    @with_client
    def put(id: str, file: IO[bytes] | None, client: "Client", **options: Any) -> None:
        given = document_of(file, options)
        # An empty option leaves the member out, so that the PUT removes it.
        document = {name: value for name, value in given.items() if value != ""}
        saved = calls_of(client, noun).put(new_entity(model, id, document))
        say(f"{'Created' if saved.created else 'Replaced'} {noun} {id}.")

    @group.command(
        help=f"Change some members of the {noun} ID.\n\nFrom a JSON FILE (- is standard input) or "
        "from options. An empty option, or null in the FILE, removes a member: "
        "--discharge-powers ''"
    )
    @member_options(members)
    @click.argument("id")
    @_file_argument
    @with_client
    def patch(id: str, file: IO[bytes] | None, client: "Client", **options: Any) -> None:
        given = document_of(file, options)
        document = {name: None if value == "" else value for name, value in given.items()}
        with not_found_as_message(f"There is no {noun} {id}."):
            calls_of(client, noun).patch(id, **changes_of(model, id, document))
        say(f"Changed {noun} {id}.")

    @group.command(
        help=f"Delete the {noun} ID.\n\nIf it has events, this needs --events erase, which "
        "withdraws and deletes them, too, for good. Earlier backups still have them."
    )
    @click.argument("id")
    @click.option("--events", type=click.Choice(["erase"]), metavar="erase",
                  help="erase: with all its events.")  # fmt: skip
    @click.option("--yes", is_flag=True, help="Do not ask.")
    @with_client
    def delete(id: str, events: Literal["erase"] | None, yes: bool, client: "Client") -> None:
        from tether.client import Conflict

        calls = calls_of(client, noun)
        with not_found_as_message(f"There is no {noun} {id}."):
            calls.get(id)
            if not yes:
                all_of_it = ", with all its events" if events else ""
                loss = f"This deletes {noun} {id} for good{all_of_it}."
                confirm(loss, "Delete it?", "Nothing was deleted")
            try:
                done = calls.delete(id, events=events)
            except Conflict as error:  # the message has the words of the API
                said = error.message.replace("events=erase", "--events erase")
                raise SetupError(f"Nothing was deleted. {said}") from None
        what = f"{noun} {id}{' with all its events' if events else ''}"
        say(f"Deleted {what}." if done else f"The server continues to delete {what}.")

    return group


chargers = _group(Charger, CHARGER_MEMBERS, _CHARGER_EXAMPLES)
vehicles = _group(Vehicle, VEHICLE_MEMBERS, _VEHICLE_EXAMPLES)
