"""Chargers, vehicles, events and sessions in files: NDJSON and CSV, one of them a line.

NDJSON has the API's objects. CSV has a header with the names of the API's members; an empty cell is
a member that is not given, and several powers stand in one cell as `11;22`. Numbers keep their
digits in both, so that what is written is what is read. Sessions are only written. Nothing here
opens a file or a connection.
"""

import csv
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from io import StringIO
from itertools import chain, islice, zip_longest
from typing import Any, NamedTuple, TypeAlias

import msgspec

from tether.domain.errors import Invalid, Malformed, SetupError
from tether.domain.identifiers import ENTITY_ID_RULE, is_entity_id
from tether.domain.models import Charger, Event, Vehicle, to_json
from tether.domain.timestamps import parse_instant
from tether.domain.validation import new_entity, new_event
from tether.domain.views import ChargePeriod, ChargerState, Flag, Session, VehicleState
from tether.ingest.json_reader import decode_document

Thing: TypeAlias = Charger | Vehicle | Event
Written: TypeAlias = Thing | Session | VehicleState | ChargerState


class Kind(StrEnum):
    """What a file holds."""

    CHARGERS = "chargers"
    VEHICLES = "vehicles"
    EVENTS = "events"

    @property
    def one(self) -> str:
        """One of them, in words."""
        return self.value.removesuffix("s")


MODELS: dict[Kind, type[Thing]] = {
    Kind.CHARGERS: Charger,
    Kind.VEHICLES: Vehicle,
    Kind.EVENTS: Event,
}


def columns_of(model: type[Written]) -> tuple[str, ...]:
    """The columns of a CSV of these."""
    return tuple(field.encode_name for field in msgspec.structs.fields(model))


COLUMNS = {kind: columns_of(model) for kind, model in MODELS.items()}
REPORT_COLUMNS = ("line", "reason")
"""What a report of refused rows adds. They are passed over, so that it can be imported again."""

LONGEST_LINE = 1 << 20  # bytes; as much as a body of the API may have
_LOOK_AHEAD = 100  # objects that are looked at to tell what an NDJSON file holds
_TEXTS = {"id", "type", "chargerId", "vehicleId", "timestamp"}
_LISTS = {"chargePowers", "dischargePowers"}
# How the reference's examples name some members: the rules know them too.
_ALIASES = {
    Kind.CHARGERS: {
        f"{end}{use}Power" for end in ("min", "max") for use in ("Charge", "Discharge")
    },
    Kind.EVENTS: {"chargeTime"},
}
_ALIASES[Kind.VEHICLES] = _ALIASES[Kind.CHARGERS]
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
# Whether an event is too far in the future is for the server's clock to say.
_FAR_AHEAD_MS = parse_instant("9999-01-01T00:00:00Z")


class Row(NamedTuple):
    """A line of a file: what it says, or the reason why it says nothing. `text` is the line."""

    line: int
    text: str
    thing: Thing | None
    reason: str = ""


class Table(NamedTuple):
    """What a file holds. `header` is that of a CSV, None if it is NDJSON."""

    kind: Kind
    header: tuple[str, ...] | None
    rows: Iterator[Row]


# Reading ----------------------------------------------------------------------------------------


class _Line(NamedTuple):
    number: int
    content: bytes


def read_table(content: Iterable[bytes], kind: Kind | None = None) -> Table | None:
    """What these lines hold, told by their members unless `kind` says it; None if nothing.

    Reads no further than it must. Raises SetupError if it cannot tell, or for a bad CSV header.
    """
    lines = (
        _Line(number, line)
        for number, line in enumerate(content, start=1)
        if line.strip(b" \t\r\n\xef\xbb\xbf")
    )
    first = next(lines, None)
    if first is None:
        return None
    first = first._replace(content=first.content.removeprefix(b"\xef\xbb\xbf"))
    if first.content.lstrip().startswith(b"["):
        raise SetupError("A JSON array is not read: write one object a line (NDJSON), or CSV.")
    if first.content.lstrip().startswith(b"{"):
        return _ndjson(chain([first], lines), kind)
    return _csv(first, lines, kind)


def _ndjson(lines: Iterator[_Line], kind: Kind | None) -> Table:
    if kind is None:
        seen = list(islice(lines, _LOOK_AHEAD))
        kind = _guessed(name for line in seen for name in _members_in(line))
        lines = chain(seen, lines)

    def rows(kind: Kind) -> Iterator[Row]:
        for line in lines:
            yield _row(kind, line, lambda text: _document(text.encode()))

    return Table(kind, None, rows(kind))


def _members_in(line: _Line) -> Iterable[str]:
    try:
        return decode_document(line.content).keys()
    except Malformed:
        return ()


def _document(line: bytes) -> dict[str, Any]:
    try:
        return decode_document(line)
    except Malformed as error:  # its words are those for a body of several lines
        words = error.message.replace("The body", "It").replace("(line 1, column", "(column")
        raise Malformed(words) from None


def _csv(first: _Line, lines: Iterator[_Line], kind: Kind | None) -> Table:
    try:
        header = tuple(name.strip() for name in _cells(first.content.decode()))
    except (UnicodeDecodeError, csv.Error) as error:
        raise SetupError(f"Line {first.number} is no header of a CSV: {error}.") from None
    if len(header) == 1 and (other := {";", "\t"} & set(header[0])):
        found = "semicolons" if ";" in other else "tabs"
        raise SetupError(f"Columns are separated by commas, not by {found}.")
    kind = kind or _guessed(header)
    _check_header(header, kind)

    def document(text: str) -> dict[str, Any]:
        cells = _cells(text)
        if len(cells) != len(header):
            raise Malformed(f"The header has {len(header)} cells, this row {len(cells)}.")
        return {
            name: _value(name, cell)
            for name, cell in zip(header, map(str.strip, cells), strict=True)
            if cell and name not in REPORT_COLUMNS
        }

    def rows(kind: Kind) -> Iterator[Row]:
        for line in lines:
            yield _row(kind, line, document)

    return Table(kind, header, rows(kind))


def _check_header(header: Sequence[str], kind: Kind) -> None:
    for name in header:
        if header.count(name) > 1:
            raise SetupError(f"The column {name!r} stands twice in the header.")
        if name not in {*COLUMNS[kind], *_ALIASES[kind], *REPORT_COLUMNS}:
            known = ", ".join(COLUMNS[kind])
            raise SetupError(f"{name!r} is no column of {kind}: these are {known}.")


def _cells(text: str) -> list[str]:
    """The cells of one line. No value of ours has a line break, so a row is always one line."""
    return next(csv.reader([text.rstrip("\r\n")], strict=True), [])


def _value(name: str, cell: str) -> Any:
    if name in _TEXTS:
        return cell
    if name in _LISTS:
        return [parse_number(name, power.strip()) for power in cell.split(";")]
    return parse_number(name, cell)


def parse_number(name: str, text: str) -> Decimal:
    """The number that a text says, with its digits. Raises Invalid."""
    try:
        if _NUMBER.fullmatch(text):
            return Decimal(text)
    except InvalidOperation:
        pass
    several = ", several with semicolons between them" if name in _LISTS else ""
    raise Invalid(name, f"It must be a number such as 7.4{several}.")


def _guessed(names: Iterable[str]) -> Kind:
    """What has these members: only events have a type, only vehicles a capacity."""
    found = set(names)
    if found & {"type", "chargerId", "vehicleId"}:
        return Kind.EVENTS
    if "chargeCapacity" in found:
        return Kind.VEHICLES
    if "id" in found and found & {*COLUMNS[Kind.CHARGERS], *_ALIASES[Kind.CHARGERS]} - {"id"}:
        return Kind.CHARGERS
    raise SetupError("It cannot be told what these are: say it with --kind.")


def _row(kind: Kind, line: _Line, document_of: Callable[[str], dict[str, Any]]) -> Row:
    text = line.content.decode(errors="replace").rstrip("\r\n")
    try:
        if len(line.content) > LONGEST_LINE:
            raise Malformed(f"It is longer than {LONGEST_LINE:,} bytes.")
        line.content.decode()
        return Row(line.number, text, thing_of(kind, document_of(text)))
    except UnicodeDecodeError:
        reason = "It is not valid UTF-8."
    except csv.Error:
        reason = 'It is no row of a CSV: a quote " is out of place.'
    except (Malformed, Invalid) as error:
        reason = error.message
    return Row(line.number, text, None, reason)


def thing_of(kind: Kind, document: dict[str, Any]) -> Thing:
    """The charger, vehicle or event which this object is, by the API's rules. Raises Invalid.

    The id of an event is passed over: the server gives it, the same one to the same event.
    """
    for name in REPORT_COLUMNS:
        document.pop(name, None)
    if kind is Kind.EVENTS:
        document.pop("id", None)
        return new_event(document, _FAR_AHEAD_MS)
    entity_id = document.get("id")
    if not isinstance(entity_id, str) or not is_entity_id(entity_id):
        raise Invalid("id", ENTITY_ID_RULE if "id" in document else "It is required.")
    if kind is Kind.CHARGERS:
        return new_entity(Charger, entity_id, document)
    return new_entity(Vehicle, entity_id, document)


# Writing ----------------------------------------------------------------------------------------


def csv_line(cells: Sequence[str]) -> str:
    """One row of a CSV, with its line end."""
    line = StringIO()
    csv.writer(line, lineterminator="\n").writerow(cells)
    return line.getvalue()


def to_csv(thing: Thing | Session) -> str:
    """The row of a charger, vehicle, event or session under the header of its `columns_of`.

    A session's flags are their names; a charge period is the words startedAt, stoppedAt,
    chargedEnergy, chargedTime and energySource, with - for what it does not have.
    """
    return csv_line([_cell(getattr(thing, field)) for field in thing.__struct_fields__])


def to_ndjson(thing: Written) -> str:
    """The line of an object of the API."""
    return to_json(thing).decode() + "\n"


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return ";".join(map(_part, value)) if isinstance(value, tuple) else str(value)


def _part(value: Any) -> str:
    """One of several in a cell."""
    if isinstance(value, Flag):
        return value.name
    if isinstance(value, ChargePeriod):
        return " ".join(_cell(word) or "-" for word in msgspec.structs.astuple(value))
    return str(value)


def refused_csv(row: Row, header: Sequence[str]) -> str:
    """A refused row of a CSV for its report, under the columns of `report_header`.

    It keeps its cells, too many or too few: as it is, it would be refused again.
    """
    try:
        cells = _cells(row.text)
        named = zip_longest(header[: len(cells)], cells)
        kept = [cell for name, cell in named if name not in REPORT_COLUMNS]
    except csv.Error:
        kept = [row.text]
    shown = ("".join(c if c.isprintable() else "\ufffd" for c in cell) for cell in kept)
    return csv_line([str(row.line), row.reason, *shown])


def report_header(header: Sequence[str]) -> list[str]:
    """The header of a report on a CSV with this header."""
    return [*REPORT_COLUMNS, *(name for name in header if name not in REPORT_COLUMNS)]


def refused_ndjson(row: Row) -> str:
    """A refused line for its report: the object with its line and the reason, or its text."""
    try:
        document = decode_document(row.text.encode())
    except Malformed:
        document = {"text": row.text[:LONGEST_LINE]}
    report = {"line": row.line, "reason": row.reason}
    return (
        to_json({**report, **{k: v for k, v in document.items() if k not in report}}).decode()
        + "\n"
    )
