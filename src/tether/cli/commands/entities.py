"""`tether chargers` and `tether vehicles`: the same commands for both."""

from collections.abc import Callable
from typing import IO, Any, Literal

import click

from tether.cli.access import Access, calls_of, with_access
from tether.cli.display.listing import (
    lines_option,
    list_limit_option,
    object_option,
    show_list,
    show_one,
)
from tether.cli.display.output import confirm, say
from tether.cli.display.rows import show_entity
from tether.cli.members import (
    CHARGER_MEMBERS,
    VEHICLE_MEMBERS,
    Members,
    document_of,
    member_options,
)
from tether.cli.options import OrderedGroup
from tether.domain.models import Charger, Vehicle
from tether.domain.validation import changes_of, new_entity

_EXAMPLES = {
    "charger": """\b
Examples:
  tether chargers put C1408 --charge-powers 11,22
  tether chargers patch C1408 --latitude 62.268 --longitude 17.448
  tether chargers get C1408 --json
  tether chargers list""",
    "vehicle": """\b
Examples:
  tether vehicles put V0313 --charge-capacity 74.8 --charge-powers 11
  tether vehicles patch V0313 --discharge-powers 10
  tether vehicles get V0313 --json
  tether vehicles list""",
}
_MODELS: dict[str, Any] = {"charger": Charger, "vehicle": Vehicle}
_file_argument = click.argument("file", required=False, type=click.File("rb"))


@click.group(cls=OrderedGroup, epilog=_EXAMPLES["charger"])
def chargers() -> None:
    """List, show, put, change and delete your chargers."""


@click.group(cls=OrderedGroup, epilog=_EXAMPLES["vehicle"])
def vehicles() -> None:
    """List, show, put, change and delete your vehicles."""


# The commands -----------------------------------------------------------------------------------


def _list_command(one: str) -> Callable[..., None]:
    @list_limit_option
    @lines_option
    @with_access
    def command(limit: int | None, as_json: bool, access: Access) -> None:
        with access.client() as client:
            size = min(limit or 1000, 1000)
            show_list(
                calls_of(client, one).list(page_size=size),
                limit=limit,
                as_json=as_json,
                none_yet=f"There are no {one}s yet: tether {one}s put --help",
            )

    return command


def _get_command(one: str) -> Callable[..., None]:
    @click.argument("id")
    @object_option
    @with_access
    def command(id: str, as_json: bool, access: Access) -> None:
        with access.asking_for(f"{one} {id}") as client:
            show_one(calls_of(client, one).get(id), show_entity, as_json=as_json)

    return command


def _put_command(one: str) -> Callable[..., None]:
    @click.argument("id")
    @_file_argument
    @with_access
    def command(id: str, file: IO[bytes] | None, access: Access, **options: Any) -> None:
        document = {
            # An empty option leaves the member out: a PUT removes it then.
            name: value
            for name, value in document_of(file, options).items()
            if value != ""
        }
        with access.client() as client:
            saved = calls_of(client, one).put(new_entity(_MODELS[one], id, document))
        say(f"{'Created' if saved.created else 'Replaced'} {one} {id}.")

    return command


def _patch_command(one: str) -> Callable[..., None]:
    @click.argument("id")
    @_file_argument
    @with_access
    def command(id: str, file: IO[bytes] | None, access: Access, **options: Any) -> None:
        document = {
            name: None if value == "" else value
            for name, value in document_of(file, options).items()
        }
        with access.asking_for(f"{one} {id}") as client:
            calls_of(client, one).patch(id, **changes_of(_MODELS[one], id, document))
        say(f"Changed {one} {id}.")

    return command


def _delete_command(one: str) -> Callable[..., None]:
    @click.argument("id")
    @click.option("--events", type=click.Choice(["erase"]), metavar="erase",
                  help="erase: with all that was reported of it.")  # fmt: skip
    @click.option("--yes", is_flag=True, help="Do not ask.")
    @with_access
    def command(id: str, events: Literal["erase"] | None, yes: bool, access: Access) -> None:
        with access.asking_for(f"{one} {id}") as client:
            calls = calls_of(client, one)
            calls.get(id)
            if not yes:
                all_of_it = ", with all its events" if events else ""
                loss = f"This deletes {one} {id} for good{all_of_it}."
                confirm(loss, "Delete it?", "Nothing was deleted")
            done = calls.delete(id, events=events)
        what = f"{one} {id}{' with all its events' if events else ''}"
        say(f"Deleted {what}." if done else f"The server is deleting {what}, and goes on with it.")

    return command


def _add_commands(group: click.Group, one: str, members: Members) -> None:
    group.command("list", help=f"List your {one}s, in order of their ids.")(_list_command(one))
    group.command("get", help=f"Show the {one} ID.")(_get_command(one))
    group.command(
        "put",
        help=f"Create or replace the {one} ID.\n\nFrom a JSON FILE (- is standard input) or from "
        "options. What is not given, it does not have afterwards.",
    )(member_options(members)(_put_command(one)))
    group.command(
        "patch",
        help=f"Change some members of the {one} ID.\n\nFrom a JSON FILE (- is standard input) or "
        "from options. An empty option, or null in the FILE, removes a member: "
        "--discharge-powers ''",
    )(member_options(members)(_patch_command(one)))
    group.command(
        "delete",
        help=f"Delete the {one} ID.\n\nOne with events only with --events erase: then all that was "
        "reported of it goes too, for good, and followers are told. Backups that were made before "
        "still have it.",
    )(_delete_command(one))


_add_commands(chargers, "charger", CHARGER_MEMBERS)
_add_commands(vehicles, "vehicle", VEHICLE_MEMBERS)
