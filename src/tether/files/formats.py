"""Chargers, vehicles, events and sessions in files: NDJSON and CSV, one of them a line.

NDJSON has the API's objects. CSV has a header with the names of the API's members; in both a map
translates others. In a CSV an empty cell is a member that is not given, and several powers stand in
one cell as `11;22`. Numbers keep their digits in both, so that what is written is what is read.
Sessions are written as they are; read are lists of them, as operators have them. Nothing here opens
a file or a connection.
"""

import re
from collections.abc import Iterable, Iterator
from decimal import Decimal
from itertools import chain, islice
from typing import Any

from tether.domain.errors import Malformed, SetupError
from tether.domain.models import to_json
from tether.domain.timestamps import format_instant
from tether.files.contents import (
    LISTS,
    LONGEST_LINE,
    LOOK_AHEAD,
    TEXTS,
    TIMES,
    Kind,
    Line,
    MappedColumn,
    Reading,
    Row,
    Table,
    Written,
    guessed,
    read_row,
)
from tether.files.csv_form import CsvForm, instant_in, is_local
from tether.files.csv_table import check_columns, read_csv, scaled, told_by, value_in
from tether.ingest.json_reader import decode_document

_WORKBOOK = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")  # .xlsx and .ods, .xls
_LONGEST_ID = 128
_SEPARATOR_LINE = re.compile(rb'"?sep=(.)"?', re.IGNORECASE)

# Reading ----------------------------------------------------------------------------------------


def read_table(content: Iterable[bytes], reading: Reading = Reading()) -> Table | None:  # noqa: B008
    """What these lines hold, told by their members unless `reading` says it; None if nothing.

    Reads no further than it must. Raises SetupError if it cannot tell, for a bad CSV header, and
    where times have no zone, or dates no order, and `reading` says none.
    """
    lines = (
        Line(number, line)
        for number, line in enumerate(content, start=1)
        if line.strip(b" \t\r\n\xef\xbb\xbf")
    )
    first = next(lines, None)
    if first is None:
        return None
    first = first._replace(content=first.content.removeprefix(b"\xef\xbb\xbf"))
    if separator := _SEPARATOR_LINE.fullmatch(first.content.strip()):  # a word to Excel
        reading = reading._replace(separator=reading.separator or separator[1].decode("latin-1"))
        first = next(lines, None)
        if first is None:
            return None
    if first.content.startswith(_WORKBOOK):
        raise SetupError("It is a workbook of a spreadsheet: save it as CSV UTF-8 there.")
    if first.content.lstrip().startswith(b"["):
        raise SetupError("A JSON array is not read: write one object a line (NDJSON), or CSV.")
    if first.content.lstrip().startswith(b"{"):
        return _ndjson(chain([first], lines), reading)
    return read_csv(first, lines, reading)


def _ndjson(lines: Iterator[Line], reading: Reading) -> Table:
    if reading.columns:
        return _mapped(lines, reading)
    kind, form = reading.kind, CsvForm(zone=reading.zone)
    if kind is None:
        seen = list(islice(lines, LOOK_AHEAD))
        kind = guessed(name for line in seen for name in _members_in(line))
        lines = chain(seen, lines)

    def document(text: str) -> dict[str, Any]:
        found = _document(text.encode())
        return {
            name: _in_zone(name, value, form)
            for name, value in found.items()
            if name not in reading.ignored
        }

    def rows(kind: Kind) -> Iterator[Row]:
        for line in lines:
            yield read_row(kind, line, document)

    return Table(kind, None, rows(kind))


def _mapped(lines: Iterator[Line], reading: Reading) -> Table:
    """The table of objects whose members mean what `reading` says; the others are passed over.

    Texts in them are read as the cells of a CSV, in whatever form.
    """
    columns = {name: one for name, one in reading.columns.items() if name not in reading.ignored}
    kind = reading.kind or guessed(column.member for column in columns.values())
    check_columns(list(columns), list(columns.values()), kind)
    seen = list(islice(lines, LOOK_AHEAD))
    found = [(line.number, _members_in(line)) for line in seen]
    names = list(dict.fromkeys(name for _, members in found for name in members))
    assumed = [
        f"Nothing is named {name!r} in the first {len(seen)} lines."
        for name in columns if name not in names
    ]  # fmt: skip
    cells = [
        (number, column, members[name].strip())
        for number, members in found
        for name, column in columns.items()
        if isinstance(members.get(name), str)
    ]
    form = CsvForm(
        ",", reading.decimal_comma, reading.zone, reading.date_order, reading.decimal_comma
    )
    form, told = told_by(form, cells, reading)
    assumed += told
    if passed_over := [name for name in names if name not in columns]:
        assumed.append(f"Members that are passed over: {', '.join(passed_over)}.")

    def document(text: str) -> dict[str, Any]:
        members = _document(text.encode())
        given = {
            column.member: _meant(column, members.get(name), form)
            for name, column in columns.items()
        }
        return {name: value for name, value in given.items() if value is not None}

    rows = (read_row(kind, line, document) for line in chain(seen, lines))
    return Table(kind, None, rows, assumed=tuple(assumed))


def _meant(column: MappedColumn, value: Any, form: CsvForm) -> Any:
    """What the value of a member is here; None if it is not given. Raises Invalid."""
    if isinstance(value, str):
        cell = value.strip()
        return value_in(column, cell, form) if cell else None
    if not isinstance(value, Decimal):
        return value
    if column.member in LISTS:
        return [value]
    if column.member in TEXTS:  # a number of a station, or of a car
        return f"{value:f}".removesuffix(".0") if abs(value.adjusted()) < _LONGEST_ID else value
    return scaled(value, column)


def _members_in(line: Line) -> dict[str, Any]:
    try:
        return decode_document(line.content)
    except Malformed:
        return {}


def _in_zone(name: str, value: Any, form: CsvForm) -> Any:
    """The value; a time without a zone, such as pandas writes into Parquet, in that of the form."""
    if form.zone is None or name not in TIMES or not isinstance(value, str) or not is_local(value):
        return value
    at_ms = instant_in(name, value, form)
    return value if at_ms is None else format_instant(at_ms)


def _document(line: bytes) -> dict[str, Any]:
    try:
        return decode_document(line)
    except Malformed as error:  # its words are those for a body of several lines
        words = error.message.replace("The body", "It").replace("(line 1, column", "(column")
        raise Malformed(words) from None


# Writing ----------------------------------------------------------------------------------------


def to_ndjson(thing: Written) -> str:
    """The line of an object of the API."""
    return to_json(thing).decode() + "\n"


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
