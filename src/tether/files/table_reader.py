"""Reads NDJSON and CSV, and writes NDJSON: a charger, vehicle, event or session in each line.

NDJSON has the API's objects. CSV has a header with the names of the API's members. In both, a map
can translate other names. Numbers keep all their digits. Sessions are written as in the API, and
read from the lists that operators export. Nothing here opens a file or a connection.
"""

import re
from collections.abc import Iterable, Iterator
from decimal import Decimal
from itertools import chain, islice
from typing import Any

from tether.domain.errors import Malformed, SetupError
from tether.domain.models import to_json
from tether.domain.timestamps import format_instant
from tether.files.csv_dialect import CsvDialect, is_local, parse_instant_cell
from tether.files.csv_table import check_columns, detect_dialect, parse_cell, read_csv, scale
from tether.files.table import (
    LISTS,
    LOOK_AHEAD,
    MAX_LINE_BYTES,
    TEXTS,
    TIMES,
    Line,
    MappedColumn,
    ReadOptions,
    Row,
    Table,
    Tabular,
    guess_kind,
    read_row,
)
from tether.ingest.json_reader import decode_document

_WORKBOOK = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")  # .xlsx and .ods, .xls
_MAX_ID_LENGTH = 128
_SEPARATOR_LINE = re.compile(rb'"?sep=(.)"?', re.IGNORECASE)

# Reading ----------------------------------------------------------------------------------------


def read_table(content: Iterable[bytes], options: ReadOptions = ReadOptions()) -> Table | None:  # noqa: B008
    """The table in these lines; None if there is none. The kind is detected if it is not given.

    Reads no more lines than needed. Raises SetupError if the kind is not clear, for a bad CSV
    header, and for times without a zone or dates without an order if `options` do not say them.
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
    if separator := _SEPARATOR_LINE.fullmatch(first.content.strip()):  # for Excel
        options = options._replace(separator=options.separator or separator[1].decode("latin-1"))
        first = next(lines, None)
        if first is None:
            return None
    if first.content.startswith(_WORKBOOK):
        raise SetupError("It is a workbook of a spreadsheet: save it as CSV UTF-8 there.")
    if b"\0" in first.content:  # UTF-16 without a byte order mark
        name = "utf-16-be" if first.content.startswith(b"\0") else "utf-16-le"
        raise SetupError(f"It seems to be UTF-16: save it as CSV UTF-8, or say --encoding {name}.")
    if first.content.lstrip().startswith(b"["):
        raise SetupError("A JSON array is not read: write one object a line (NDJSON), or CSV.")
    if first.content.lstrip().startswith(b"{"):
        return _ndjson(chain([first], lines), options)
    return read_csv(first, lines, options)


def _ndjson(lines: Iterator[Line], options: ReadOptions) -> Table:
    if options.columns:
        return _mapped(lines, options)
    kind, dialect = options.kind, CsvDialect(zone=options.zone)
    if kind is None:
        sample = list(islice(lines, LOOK_AHEAD))
        names = dict.fromkeys(name for line in sample for name in _members_in(line))
        if not names:
            raise SetupError(
                "Its first lines are no JSON objects: write one object a line (NDJSON)."
            )
        kind = guess_kind(names, names)
        lines = chain(sample, lines)

    def document(text: str) -> dict[str, Any]:
        return {
            name: _instant_in_zone(name, value, dialect)
            for name, value in _document(text.encode()).items()
            if name not in options.ignored
        }

    return Table(kind, None, (read_row(kind, line, document) for line in lines))


def _mapped(lines: Iterator[Line], options: ReadOptions) -> Table:
    """The table of objects with the members of `options.columns`; other members are ignored.

    Texts are read like the cells of a CSV.
    """
    columns = {
        name: column for name, column in options.columns.items() if name not in options.ignored
    }
    kind = options.kind or guess_kind((column.member for column in columns.values()), columns)
    check_columns(list(columns), list(columns.values()), kind)
    sample = list(islice(lines, LOOK_AHEAD))
    found = [(line.number, _members_in(line)) for line in sample]
    names = list(dict.fromkeys(name for _, members in found for name in members))
    assumed = [
        f"Nothing is named {name!r} in the first {len(sample)} lines."
        for name in columns if name not in names
    ]  # fmt: skip
    cells = [
        (number, column, members[name].strip())
        for number, members in found
        for name, column in columns.items()
        if isinstance(members.get(name), str)
    ]
    dialect = CsvDialect(
        ",", options.decimal_comma, options.zone, options.date_order, options.decimal_comma
    )
    dialect, assumed_dialect = detect_dialect(dialect, cells, options)
    assumed += assumed_dialect
    if ignored := [name for name in names if name not in columns]:
        assumed.append(f"Ignored members: {', '.join(ignored)}.")

    def document(text: str) -> dict[str, Any]:
        members = _document(text.encode())
        values = {
            column.member: _member_value(column, members.get(name), dialect)
            for name, column in columns.items()
        }
        return {name: value for name, value in values.items() if value is not None}

    rows = (read_row(kind, line, document) for line in chain(sample, lines))
    return Table(kind, None, rows, assumed=tuple(assumed))


def _member_value(column: MappedColumn, value: Any, dialect: CsvDialect) -> Any:
    """The value in the API's terms; None if it is missing. Raises Invalid."""
    if isinstance(value, str):
        cell = value.strip()
        return parse_cell(column, cell, dialect) if cell else None
    if not isinstance(value, Decimal):
        return value
    if column.member in LISTS:
        return [value]
    if column.member in TEXTS:  # an id that is a number
        return f"{value:f}".removesuffix(".0") if abs(value.adjusted()) < _MAX_ID_LENGTH else value
    return scale(value, column)


def _members_in(line: Line) -> dict[str, Any]:
    try:
        return decode_document(line.content)
    except Malformed:
        return {}


def _instant_in_zone(name: str, value: Any, dialect: CsvDialect) -> Any:
    """The value. A time without a zone, as pandas writes it, gets the zone of the dialect."""
    if name in TIMES and isinstance(value, str) and is_local(value):
        at_ms = parse_instant_cell(name, value, dialect)
        return value if at_ms is None else format_instant(at_ms)
    return value


def _document(line: bytes) -> dict[str, Any]:
    try:
        return decode_document(line)
    except Malformed as error:  # its message is about a body with several lines
        text = error.message.replace("The body", "It").replace("(line 1, column", "(column")
        raise Malformed(text) from None


# Writing ----------------------------------------------------------------------------------------


def to_ndjson(item: Tabular) -> str:
    """A line with the object of the API."""
    return to_json(item).decode() + "\n"


def refused_ndjson(row: Row) -> str:
    """A refused line for the report: the object, or its text, with line number and reason."""
    try:
        document = decode_document(row.text.encode())
    except Malformed:
        document = {"text": row.text[:MAX_LINE_BYTES]}
    report = {"line": row.line, "reason": row.reason}
    return to_json(report | document | report).decode() + "\n"
