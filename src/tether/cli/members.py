"""Options for the members of chargers, vehicles and events, and documents from files."""

import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import IO, Any, TypeAlias, TypeVar

import click

from tether.domain.errors import Invalid, Malformed, SetupError
from tether.domain.models import EventType
from tether.domain.timestamps import format_instant, parse_instant
from tether.files.contents import LONGEST_LINE, event_type_of
from tether.files.csv_form import number_in
from tether.ingest.json_reader import decode_document

Command = TypeVar("Command", bound=Callable[..., Any])

Members: TypeAlias = Mapping[str, tuple[click.ParamType[Any], str]]

NOTHING = ""  # what removes a member in a PATCH


class NumberType(click.ParamType[Decimal | str]):
    """A number, with its digits; or nothing, which removes it."""

    name = "number"

    def convert(self, value: Any, param: Any, ctx: Any) -> Decimal | str:
        try:
            return number_in("", value) if value.strip() else NOTHING
        except Invalid:
            self.fail(f"{value!r} is not a number such as 7.4.", param, ctx)


class PositiveNumberType(click.ParamType[Decimal]):
    """A number above 0, with its digits."""

    name = "number"

    def convert(self, value: Any, param: Any, ctx: Any) -> Decimal:
        try:
            number = number_in("", value.strip())
        except Invalid:
            number = Decimal(0)
        if number <= 0:
            self.fail(f"{value!r} is not a number above 0 such as 7.4.", param, ctx)
        return number


class NumbersType(click.ParamType[list[Decimal]]):
    """Numbers, between commas; none removes them."""

    name = "number,…"

    def convert(self, value: Any, param: Any, ctx: Any) -> list[Decimal]:
        try:
            return [number_in("", part.strip()) for part in value.split(",") if value.strip()]
        except Invalid:
            self.fail(f"{value!r} is not a list of numbers such as 11,22.", param, ctx)


class InstantType(click.ParamType[str]):
    """A date (its first moment in UTC) or a date-time with a zone, in the API's form."""

    name = "time"

    def convert(self, value: Any, param: Any, ctx: Any) -> str:
        text = value.strip()
        day = re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text)
        try:
            return format_instant(parse_instant(f"{text}T00:00:00Z" if day else text))
        except (ValueError, OverflowError):  # the last day of 9999 goes on in UTC
            self.fail(
                f"{value!r} is no point in time: write a date such as 2030-01-31, or a date-time "
                "with a zone such as 2030-01-31T18:00:00Z.",
                param,
                ctx,
            )


class EventTypeType(click.ParamType[str]):
    """A type of events: its last word is enough, in capitals or not."""

    name = "type"

    def convert(self, value: Any, param: Any, ctx: Any) -> str:
        found = event_type_of(value)
        if found is None:
            known = ", ".join(map(short_type, EventType))
            self.fail(f"{value!r} is none of {known}.", param, ctx)
        return found.value


def short_type(kind: EventType) -> str:
    """The last word of the type, which tells it from the others."""
    return kind.value.rpartition("_")[2].lower()


def member_options(members: Members) -> Callable[[Command], Command]:
    """Adds an option for each of these members, named like it: --charge-power-min."""

    def add(command: Command) -> Command:
        for name, (kind, text) in reversed(list(members.items())):
            command = click.option(f"--{_kebab(name)}", name, type=kind, help=text)(command)
        return command

    return add


def _kebab(name: str) -> str:
    return re.sub(r"([A-Z])", r"-\1", name).lower()


_POWERS: Members = {
    "chargePowers": (NumbersType(), "Powers it charges with, kW: 11,22."),
    "chargePowerMin": (NumberType(), "Lowest power it charges with, kW."),
    "chargePowerMax": (NumberType(), "Highest power it charges with, kW."),
    "dischargePowers": (NumbersType(), "Powers it feeds back with, kW."),
    "dischargePowerMin": (NumberType(), "Lowest power it feeds back with, kW."),
    "dischargePowerMax": (NumberType(), "Highest power it feeds back with, kW."),
}
OF_CHARGERS: Members = {
    **_POWERS,
    "latitude": (NumberType(), "Where it stands, degrees."),
    "longitude": (NumberType(), "Where it stands, degrees."),
}
OF_VEHICLES: Members = {"chargeCapacity": (NumberType(), "What its battery holds, kWh."), **_POWERS}
OF_EVENTS: Members = {
    "stateOfCharge": (NumberType(), "How full the battery is, %."),
    "chargePower": (NumberType(), "Power, kW; below 0 feeds back."),
    "chargedEnergy": (NumberType(), "Energy since the start, kWh."),
    "chargedTime": (NumberType(), "Seconds since the start."),
}


def document_of(file: IO[bytes] | None, options: Mapping[str, Any]) -> dict[str, Any]:
    """The members in the JSON file or those in options, as they were given: not both, not none."""
    given = {name: value for name, value in options.items() if value is not None}
    if file is None:
        if not given:
            raise click.UsageError("Give a JSON file (- is standard input), or options.")
        return given
    if given:
        raise click.UsageError("Give either a JSON file or options, not both.")
    content = file.read(LONGEST_LINE + 1)
    if len(content) > LONGEST_LINE:
        raise SetupError(f"{_name(file)} is longer than {LONGEST_LINE:,} bytes.")
    try:
        return decode_document(content)
    except Malformed as error:
        raise SetupError(f"{_name(file)}: {error.message.replace('The body', 'It')}") from None


def _name(file: IO[bytes]) -> str:
    return "Standard input" if file.name in ("<stdin>", 0) else str(file.name)
