"""Files as tables: the kinds of rows, their columns, and what a row means by the API's rules.

Nothing here opens a file.
"""

import csv
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from enum import StrEnum
from typing import Any, NamedTuple, TypeAlias
from zoneinfo import ZoneInfo

import msgspec

from tether.domain.errors import Invalid, Malformed, SetupError
from tether.domain.models import Charger, Event, EventType, Vehicle, is_entity_id
from tether.domain.table_schema import INSTANTS
from tether.domain.timestamps import parse_instant
from tether.domain.validation import identified_entity, new_event
from tether.domain.views import EnergyStep, Session, SessionSummary
from tether.files import session_list
from tether.files.csv_dialect import API_DIALECT, CsvDialect, DateOrder
from tether.files.session_list import events_of_session

Entry: TypeAlias = Charger | Vehicle | Event
Sum: TypeAlias = SessionSummary | EnergyStep
Tabular: TypeAlias = Entry | Session | Sum


class Kind(StrEnum):
    """What the rows of a file are."""

    CHARGERS = "chargers"
    VEHICLES = "vehicles"
    EVENTS = "events"
    SESSIONS = "sessions"

    @property
    def one(self) -> str:
        """The singular."""
        return self.value.removesuffix("s")


MODELS: dict[Kind, type[Entry]] = {
    Kind.CHARGERS: Charger,
    Kind.VEHICLES: Vehicle,
    Kind.EVENTS: Event,
}


def csv_columns(model: type[Tabular]) -> tuple[str, ...]:
    """The columns of a CSV of this model."""
    return tuple(field.encode_name for field in msgspec.structs.fields(model))


COLUMNS = {
    **{kind: csv_columns(model) for kind, model in MODELS.items()},
    Kind.SESSIONS: session_list.COLUMNS,
}
ALL_COLUMNS = {name for columns in COLUMNS.values() for name in columns}
REPORT_COLUMNS = ("line", "reason")
"""Columns that a report of refused rows adds. Imports ignore them, so that a report can be read."""

NOT_UTF_8 = (
    "It is not UTF-8: save the file as CSV UTF-8, or say what it is, such as --encoding cp1252."
)
NO_SUCH_YEAR = "It has a time before the year 1, or after 9999, in UTC."
MAX_LINE_BYTES = 1 << 20  # as much as a body of the API may have
MAX_NAMES_SHOWN = 10  # in a message
MAX_NAME_SHOWN = 40  # characters of a name in a message
LOOK_AHEAD = 100  # lines that are read to detect the kind and the dialect
TEXTS = {"id", "type", "chargerId", "vehicleId"}
TIMES = INSTANTS
LISTS = {"chargePowers", "dischargePowers"}
# Names of members in the examples of the reference are valid, too.
ALIASES = {
    Kind.CHARGERS: {
        f"{end}{use}Power" for end in ("min", "max") for use in ("Charge", "Discharge")
    },
    Kind.EVENTS: {"chargeTime"},
    Kind.SESSIONS: set(),
}
ALIASES[Kind.VEHICLES] = ALIASES[Kind.CHARGERS]
# The server decides by its own clock which events are too far in the future.
_LATEST_MS = parse_instant("9999-01-01T00:00:00Z")


class Row(NamedTuple):
    """A row of a file, with its text and what it means, or with the reason for its refusal.

    `entries` are the charger, the vehicle, the event, or the events of a session.
    """

    line: int
    text: str
    entries: tuple[Entry, ...]
    reason: str = ""


class Line(NamedTuple):
    """A line as bytes, with its number."""

    number: int
    content: bytes


class Table(NamedTuple):
    """The contents of a file. `header` and `dialect` are a CSV's; NDJSON has no header.

    `assumed` are sentences about what was assumed where the file is not clear.
    """

    kind: Kind
    header: tuple[str, ...] | None
    rows: Iterator[Row]
    dialect: CsvDialect = API_DIALECT
    assumed: tuple[str, ...] = ()


class MappedColumn(NamedTuple):
    """The meaning of a column of another program: a member, and the factor of its numbers."""

    member: str
    factor: Decimal = Decimal(1)


class ReadOptions(NamedTuple):
    """How to read a file; None means: detect it.

    `columns` are the meanings of columns by their names. If given, other columns are ignored.
    Columns or members in `ignored` are always ignored.
    """

    kind: Kind | None = None
    separator: str | None = None
    decimal_comma: bool = False
    zone: ZoneInfo | None = None
    date_order: DateOrder | None = None
    columns: Mapping[str, MappedColumn] = {}
    ignored: Sequence[str] = ()


def guess_kind(members: Iterable[str], names: Collection[str]) -> Kind:
    """The kind of rows with these members. Raises SetupError if it is not clear; `names` are what
    the file calls its columns or members.
    """
    found = set(members)
    if "connectedAt" in found:
        return Kind.SESSIONS
    if found & {"type", "chargerId", "vehicleId"}:
        return Kind.EVENTS
    if "chargeCapacity" in found:
        return Kind.VEHICLES
    if "id" in found and found & {*COLUMNS[Kind.CHARGERS], *ALIASES[Kind.CHARGERS]} - {"id"}:
        return Kind.CHARGERS
    shown = ", ".join(name[:MAX_NAME_SHOWN] for name in [*names][:MAX_NAMES_SHOWN])
    if len(names) > MAX_NAMES_SHOWN:
        shown += ", …"
    raise SetupError(
        f"The names in it ({shown}) do not show what it contains: say it with --kind, or say what "
        "they are with --map, such as --map Start=connectedAt."
    )


def read_row(kind: Kind, line: Line, document_of: Callable[[str], dict[str, Any]]) -> Row:
    """The row of a line; `document_of` makes the members of its text."""
    text = line.content.decode(errors="replace").rstrip("\r\n")
    try:
        if len(line.content) > MAX_LINE_BYTES:
            raise Malformed(f"It is longer than {MAX_LINE_BYTES:,} bytes.")
        line.content.decode()
        document = document_of(text)
        try:
            members = {k: v for k, v in document.items() if k not in REPORT_COLUMNS}
            if kind is Kind.SESSIONS:
                return Row(line.number, text, events_of_session(members, _LATEST_MS))
            return Row(line.number, text, (entry_of(kind, members),))
        except Invalid as error:
            value = document.get(error.parameter) if error.parameter in TEXTS else None
            reason = f"{error.message}{_advice(value)}"
    except UnicodeDecodeError:
        reason = NOT_UTF_8
    except csv.Error:
        reason = 'It is no row of a CSV: a quote " is out of place.'
    except (Malformed, Invalid) as error:
        reason = error.message
    except OverflowError:  # some write 01.01.0001 for "no time": in UTC it may be before the year 1
        reason = NO_SUCH_YEAR
    return Row(line.number, text, (), reason)


def _advice(value: object) -> str:
    """Advice for a refused id with blanks, such as a licence plate."""
    words = value.split() if isinstance(value, str) else []
    if len(words) < 2 or not is_entity_id("-".join(words)):
        return ""
    return f" It has blanks: write {'-'.join(words)} or {''.join(words)}, the same everywhere."


def short_type(kind: EventType) -> str:
    """The last word of the type: `connected` for VEHICLE_CONNECTED."""
    return kind.value.rpartition("_")[2].lower()


def event_type_of(text: str) -> EventType | None:
    """The event type with this name, or with this last word, in any case."""
    name = text.strip().upper().replace("-", "_")
    return next((kind for kind in EventType if name and f"_{kind}".endswith(f"_{name}")), None)


def entry_of(kind: Kind, document: dict[str, Any]) -> Entry:
    """The charger, vehicle or event of this object, by the API's rules. Raises Invalid.

    The id of an event is ignored: the server gives the same event the same id.
    """
    if kind is Kind.EVENTS:
        document.pop("id", None)
        if isinstance(name := document.get("type"), str) and (found := event_type_of(name)):
            document["type"] = found.value
        return new_event(document, _LATEST_MS)
    if kind is Kind.CHARGERS:
        return identified_entity(Charger, document)
    return identified_entity(Vehicle, document)
