"""Options of the commands for a partner's data: members of objects, filters of sessions."""

import re
from collections.abc import Callable, Mapping
from datetime import UTC
from decimal import Decimal
from typing import IO, Any, TypeAlias
from zoneinfo import ZoneInfo

import click

from tether.cli.options import F, Parsed, together
from tether.cli.times import parse_time
from tether.domain.errors import Invalid, Malformed, SetupError
from tether.domain.models import EventType
from tether.domain.session_views import FLAGS
from tether.domain.timestamps import format_instant
from tether.files.csv_dialect import parse_number_cell
from tether.files.table import MAX_LINE_BYTES, event_type_of, short_type
from tether.ingest.json_reader import decode_document

Members: TypeAlias = Mapping[str, tuple[click.ParamType[Any], str]]
"""The type and the help of the option for each member."""


def _number(text: str) -> Decimal | str:
    """The number, or an empty text, which removes the member in a PATCH."""
    try:
        return parse_number_cell("", text) if text.strip() else ""
    except Invalid:
        raise ValueError(f"{text!r} is not a number such as 7.4.") from None


def _positive_number(text: str) -> Decimal:
    try:
        number = parse_number_cell("", text.strip())
    except Invalid:
        number = Decimal(0)
    if number <= 0:
        raise ValueError(f"{text!r} is not a number above 0 such as 7.4.")
    return number


def _numbers(text: str) -> list[Decimal]:
    try:
        return [parse_number_cell("", part.strip()) for part in text.split(",") if part.strip()]
    except Invalid:
        raise ValueError(f"{text!r} is not a list of numbers such as 11,22.") from None


class _Instant(click.ParamType[str]):
    """A point in time, in the API's form. A date is its first moment in the zone of --time-zone,
    otherwise in UTC.
    """

    name = "time"

    def convert(self, value: Any, param: Any, ctx: Any) -> str:
        given_zone = ctx.params.get("zone")
        zone = given_zone if isinstance(given_zone, ZoneInfo) else UTC
        try:
            return format_instant(parse_time(value.strip(), zone))
        except (ValueError, OverflowError):  # the last day of 9999 goes on in UTC
            self.fail(
                f"{value!r} is no point in time: write a date such as 2030-01-31, or a date-time "
                "with a zone such as 2030-01-31T18:00:00Z.", param, ctx,
            )  # fmt: skip


def _event_type(text: str) -> str:
    found = event_type_of(text)
    if found is None:
        raise ValueError(f"{text!r} is none of {', '.join(map(short_type, EventType))}.")
    return found.value


NUMBER = Parsed("number", _number)  # an empty text removes the member
POSITIVE_NUMBER = Parsed("number", _positive_number)
NUMBERS = Parsed("number,…", _numbers)  # an empty list removes the member
INSTANT = _Instant()
EVENT_TYPE = Parsed("type", _event_type)  # the last word is enough, in any case


def member_options(members: Members) -> Callable[[F], F]:
    """Adds an option for each member: --charge-power-min for `chargePowerMin`."""
    return together(
        *(
            click.option(re.sub("([A-Z])", r"-\1", f"--{name}").lower(), name, type=kind, help=text)
            for name, (kind, text) in members.items()
        )
    )


_POWER_MEMBERS: Members = {
    "chargePowers": (NUMBERS, "Powers it charges with, kW: 11,22."),
    "chargePowerMin": (NUMBER, "Lowest power it charges with, kW."),
    "chargePowerMax": (NUMBER, "Highest power it charges with, kW."),
    "dischargePowers": (NUMBERS, "Powers it feeds back with, kW."),
    "dischargePowerMin": (NUMBER, "Lowest power it feeds back with, kW."),
    "dischargePowerMax": (NUMBER, "Highest power it feeds back with, kW."),
}
CHARGER_MEMBERS: Members = {
    **_POWER_MEMBERS,
    "latitude": (NUMBER, "Where it stands, degrees."),
    "longitude": (NUMBER, "Where it stands, degrees."),
}
VEHICLE_MEMBERS: Members = {
    "chargeCapacity": (NUMBER, "What its battery holds, kWh."),
    **_POWER_MEMBERS,
}
EVENT_MEMBERS: Members = {
    "stateOfCharge": (NUMBER, "How full the battery is, %."),
    "chargePower": (NUMBER, "Power, kW; below 0 feeds back."),
    "chargedEnergy": (NUMBER, "Energy since the start, kWh."),
    "chargedTime": (NUMBER, "Seconds since the start."),
}


def document_of(file: IO[bytes] | None, options: Mapping[str, Any]) -> dict[str, Any]:
    """The members from the JSON file or from the options. Raises UsageError for both or neither."""
    given = {name: value for name, value in options.items() if value is not None}
    if file is None:
        if not given:
            raise click.UsageError("Give a JSON file (- is standard input), or options.")
        return given
    if given:
        raise click.UsageError("Give either a JSON file or options, not both.")
    content = file.read(MAX_LINE_BYTES + 1)
    if len(content) > MAX_LINE_BYTES:
        raise SetupError(f"{_name(file)} is longer than {MAX_LINE_BYTES:,} bytes.")
    try:
        return decode_document(content)
    except Malformed as error:
        raise SetupError(f"{_name(file)}: {error.message.replace('The body', 'It')}") from None


def _name(file: IO[bytes]) -> str:
    return "Standard input" if file.name in ("<stdin>", 0) else str(file.name)


# Filters ----------------------------------------------------------------------------------------

ids_options = together(
    click.option("--charger", "charger_id", metavar="ID", multiple=True,
                 help="Only at this charger. Give it again for more, up to 50."),
    click.option("--vehicle", "vehicle_id", metavar="ID", multiple=True,
                 help="Only of this vehicle. Give it again for more, up to 50."),
)  # fmt: skip
session_filters = together(
    ids_options,
    click.option("--status", type=click.Choice(["active", "ended"]),
                 help="Only active sessions, or only ended ones."),
    click.option("--flag", metavar="NAME", type=click.Choice(list(FLAGS)),
                 help="Only sessions with this flag, such as vehicle-shared."),
    click.option("--estimated/--not-estimated", default=None,
                 help="Only sessions with, or without, estimated energy."),
    click.option("--ended-from", type=INSTANT, help="Ended at this time or later."),
    click.option("--ended-to", type=INSTANT, help="Ended before this time."),
    click.option("--overlapping-from", type=INSTANT,
                 help="Plugged in at some time after this one."),
    click.option("--overlapping-to", type=INSTANT,
                 help="Plugged in at some time before this one."),
)  # fmt: skip
"""The options that filter sessions. Their parameters have the names of the SDK."""


def given(filters: dict[str, Any]) -> dict[str, Any]:
    """The options that the user gave."""
    return {name: value for name, value in filters.items() if value not in (None, ())}


def option_of(name: str) -> str:
    """The name of the option: `--charger` for `charger_id`."""
    words = {"charger_id": "charger", "vehicle_id": "vehicle"}
    return "--" + words.get(name, name).replace("_", "-")
