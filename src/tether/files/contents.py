"""What files hold: chargers, vehicles, events and lists of sessions, whatever form they are in.

Members have the API's names and rules. Nothing here opens a file.
"""

import csv
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from enum import StrEnum
from typing import Any, NamedTuple, TypeAlias
from zoneinfo import ZoneInfo

import msgspec

from tether.domain.columns import INSTANTS
from tether.domain.errors import Invalid, Malformed, SetupError
from tether.domain.models import Charger, Event, EventType, Vehicle, Withdrawal, is_entity_id
from tether.domain.timestamps import parse_instant
from tether.domain.validation import identified_entity, new_event
from tether.domain.views import ChargerState, EnergyStep, Session, SessionSummary, VehicleState
from tether.files import session_list
from tether.files.csv_form import API_FORM, CsvForm, DateOrder
from tether.files.session_list import ListedSession, listed_session

Entry: TypeAlias = Charger | Vehicle | Event
Thing: TypeAlias = Entry | ListedSession
Sum: TypeAlias = SessionSummary | EnergyStep
Tabular: TypeAlias = Entry | Session | Sum
Written: TypeAlias = Tabular | VehicleState | ChargerState | Withdrawal


class Kind(StrEnum):
    """What a file holds."""

    CHARGERS = "chargers"
    VEHICLES = "vehicles"
    EVENTS = "events"
    SESSIONS = "sessions"

    @property
    def one(self) -> str:
        """One of them, in words."""
        return self.value.removesuffix("s")


MODELS: dict[Kind, type[Entry]] = {
    Kind.CHARGERS: Charger,
    Kind.VEHICLES: Vehicle,
    Kind.EVENTS: Event,
}


def csv_columns(model: type[Written]) -> tuple[str, ...]:
    """The columns of a CSV of these."""
    return tuple(field.encode_name for field in msgspec.structs.fields(model))


COLUMNS = {
    **{kind: csv_columns(model) for kind, model in MODELS.items()},
    Kind.SESSIONS: session_list.COLUMNS,
}
ALL_COLUMNS = {name for columns in COLUMNS.values() for name in columns}
REPORT_COLUMNS = ("line", "reason")
"""What a report of refused rows adds. They are passed over, so that it can be imported again."""

NOT_UTF_8 = (
    "It is not UTF-8: save the file as CSV UTF-8, or say what it is, such as --encoding cp1252."
)
NO_SUCH_YEAR = "It has a time before the year 1, or after 9999, in UTC."
LONGEST_LINE = 1 << 20  # bytes; as much as a body of the API may have
LOOK_AHEAD = 100  # objects that are looked at to tell what an NDJSON file holds
TEXTS = {"id", "type", "chargerId", "vehicleId"}
TIMES = INSTANTS
LISTS = {"chargePowers", "dischargePowers"}
# How the reference's examples name some members: the rules know them too.
ALIASES = {
    Kind.CHARGERS: {
        f"{end}{use}Power" for end in ("min", "max") for use in ("Charge", "Discharge")
    },
    Kind.EVENTS: {"chargeTime"},
    Kind.SESSIONS: set(),
}
ALIASES[Kind.VEHICLES] = ALIASES[Kind.CHARGERS]
# Whether an event is too far in the future is for the server's clock to say.
_FAR_AHEAD_MS = parse_instant("9999-01-01T00:00:00Z")


class Row(NamedTuple):
    """A line of a file: what it says, or the reason why it says nothing. `text` is the line."""

    line: int
    text: str
    thing: Thing | None
    reason: str = ""


class Line(NamedTuple):
    """A line as bytes, with its number."""

    number: int
    content: bytes


class Table(NamedTuple):
    """What a file holds. `header` is that of a CSV, None if it is NDJSON; `form` is the CSV's.

    `assumed` are sentences on what the file does not say itself.
    """

    kind: Kind
    header: tuple[str, ...] | None
    rows: Iterator[Row]
    form: CsvForm = API_FORM
    assumed: tuple[str, ...] = ()


class MappedColumn(NamedTuple):
    """What a column of somebody else's file is here: a member, and by what its numbers are
    multiplied.
    """

    member: str
    factor: Decimal = Decimal(1)


class Reading(NamedTuple):
    """What is said of a file beside it; None where the file itself shall tell.

    `columns` are the meanings of columns by their names: others are passed over then.
    """

    kind: Kind | None = None
    separator: str | None = None
    decimal_comma: bool = False
    zone: ZoneInfo | None = None
    date_order: DateOrder | None = None
    columns: Mapping[str, MappedColumn] = {}
    ignored: Sequence[str] = ()
    """Columns, or members, that are passed over whatever they are."""


def guessed(names: Iterable[str]) -> Kind:
    """What has these members: only events have a type, only vehicles a capacity."""
    found = set(names)
    if "connectedAt" in found:
        return Kind.SESSIONS
    if found & {"type", "chargerId", "vehicleId"}:
        return Kind.EVENTS
    if "chargeCapacity" in found:
        return Kind.VEHICLES
    if "id" in found and found & {*COLUMNS[Kind.CHARGERS], *ALIASES[Kind.CHARGERS]} - {"id"}:
        return Kind.CHARGERS
    raise SetupError("It cannot be told what these are: say it with --kind.")


def read_row(kind: Kind, line: Line, document_of: Callable[[str], dict[str, Any]]) -> Row:
    """What the line says, of whose text `document_of` makes the members."""
    text = line.content.decode(errors="replace").rstrip("\r\n")
    try:
        if len(line.content) > LONGEST_LINE:
            raise Malformed(f"It is longer than {LONGEST_LINE:,} bytes.")
        line.content.decode()
        document = document_of(text)
        try:
            return Row(line.number, text, thing_of(kind, dict(document)))
        except Invalid as error:
            given = document.get(error.parameter) if error.parameter in TEXTS else None
            reason = f"{error.message}{_advice(given)}"
    except UnicodeDecodeError:
        reason = NOT_UTF_8
    except csv.Error:
        reason = 'It is no row of a CSV: a quote " is out of place.'
    except (Malformed, Invalid) as error:
        reason = error.message
    except OverflowError:  # 01.01.0001, by which some mean nothing, is in the year before in UTC
        reason = NO_SUCH_YEAR
    return Row(line.number, text, None, reason)


def _advice(value: object) -> str:
    """What to write in place of a refused id such as a licence plate, if this is one."""
    words = value.split() if isinstance(value, str) else []
    if len(words) < 2 or not is_entity_id("-".join(words)):
        return ""
    return f" It has blanks: write {'-'.join(words)} or {''.join(words)}, the same everywhere."


def event_type_of(text: str) -> EventType | None:
    """The type of events of which this is the name, or the last word; in capitals or not."""
    name = text.strip().upper().replace("-", "_")
    return next((kind for kind in EventType if name and f"_{kind}".endswith(f"_{name}")), None)


def thing_of(kind: Kind, document: dict[str, Any]) -> Thing:
    """The charger, vehicle, event or session which this object is, by the API's rules.

    Raises Invalid.
    """
    for name in REPORT_COLUMNS:
        document.pop(name, None)
    return (
        listed_session(document, _FAR_AHEAD_MS)
        if kind is Kind.SESSIONS
        else entry_of(kind, document)
    )


def entry_of(kind: Kind, document: dict[str, Any]) -> Entry:
    """The charger, vehicle or event which this object is, by the API's rules. Raises Invalid.

    The id of an event is passed over: the server gives it, the same one to the same event.
    """
    if kind is Kind.EVENTS:
        document.pop("id", None)
        if isinstance(kind_of := document.get("type"), str) and (found := event_type_of(kind_of)):
            document["type"] = found.value
        return new_event(document, _FAR_AHEAD_MS)
    if kind is Kind.CHARGERS:
        return identified_entity(Charger, document)
    return identified_entity(Vehicle, document)
