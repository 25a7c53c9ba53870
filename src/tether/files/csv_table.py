"""Reads and writes tables in CSV. The header, or a map of the columns, says what they mean.

An empty cell is a missing member. Several powers are in one cell, as `11;22`.
"""

import csv
import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from decimal import Context, Decimal
from itertools import chain, islice, zip_longest
from shlex import quote
from typing import Any

import msgspec

from tether.domain.audit import AuditEntry
from tether.domain.errors import Invalid, Malformed, SetupError
from tether.domain.models import to_json
from tether.domain.timestamps import format_instant
from tether.domain.views import ChargePeriod, Flag
from tether.files.csv_dialect import (
    API_DIALECT,
    SEPARATORS,
    CsvDialect,
    can_be_thousands,
    cells_of,
    csv_line,
    date_order_of,
    has_decimal_comma,
    instant_cell,
    is_local,
    number_cell,
    parse_instant_cell,
    parse_number_cell,
    parse_text_cell,
    safe_cell,
    text_cell,
)
from tether.files.table import (
    ALIASES,
    ALL_COLUMNS,
    COLUMNS,
    LISTS,
    LOOK_AHEAD,
    MAX_LINE_BYTES,
    NOT_UTF_8,
    REPORT_COLUMNS,
    TEXTS,
    TIMES,
    Kind,
    Line,
    MappedColumn,
    ReadOptions,
    Row,
    Table,
    Tabular,
    guess_kind,
    read_row,
)

AUDIT_COLUMNS = (
    "at", "actor", "key", "action", "target", "before", "after", "requestId", "address", "id",
)  # fmt: skip
_DURATION = re.compile(r"([0-9]{1,4}):([0-5][0-9])(?::([0-5][0-9]))?")
_SCALED = re.compile(r"(?P<member>\w+)(?:(?P<sign>[*/])(?P<factor>[0-9]+(?:\.[0-9]+)?))?")
_CONTEXT = Context(prec=15)  # as many digits as the API takes
_MAX_EXPONENT = 1000  # of a number; the API takes less
_TIME_RULE = (
    "It must be a time such as 2026-01-05T08:00:00Z, or with a time zone 2026-01-05 08:00, "
    "05.01.2026 08:00 or 1/5/2026 8:00 AM."
)
_MAX_LINES = 100  # of one row with line breaks in its cells
_SEPARATOR_NAMES = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}


# Reading ----------------------------------------------------------------------------------------


def column_of(text: str) -> tuple[str, MappedColumn]:
    """Name and meaning of a column from `Energy (Wh)=chargedEnergy/1000`. Raises ValueError."""
    name, _, meaning = text.rpartition("=")
    found = _SCALED.fullmatch(meaning.strip())
    if not name.strip() or found is None or found["member"] not in ALL_COLUMNS:
        known = ", ".join(COLUMNS[Kind.SESSIONS])
        raise ValueError(
            f"{text!r} does not say what a column is: write 'Start Date=connectedAt' or "
            f"'Energy (Wh)=chargedEnergy/1000'. Sessions have {known}."
        )
    factor = Decimal(found["factor"] or 1)
    if not factor:
        raise ValueError(f"{text!r}: the factor must be above 0.")
    if found["sign"] == "/":
        factor = _CONTEXT.divide(Decimal(1), factor)
    return name.strip(), MappedColumn(found["member"], factor)


def read_csv(first: Line, lines: Iterator[Line], options: ReadOptions) -> Table:
    """The table under this header. Raises SetupError as `read_table` does."""
    try:
        # Names of columns hardly contain separators.
        separator = options.separator or max(SEPARATORS, key=first.content.decode().count)
        dialect = CsvDialect(
            separator, options.decimal_comma or separator != ",", options.zone,
            options.date_order, options.decimal_comma,
        )  # fmt: skip
        lines = join_lines(chain([first], lines), separator)
        names = cells_of(next(lines, first).content.decode(), dialect)
        header = tuple(" ".join(name.split()) for name in names)
    except UnicodeDecodeError:
        raise SetupError(NOT_UTF_8) from None
    except csv.Error as error:
        if b"\r" in first.content.rstrip(b"\r\n"):  # as old Macs wrote lines
            raise SetupError("Its lines have no line feed: save it as CSV UTF-8.") from None
        raise SetupError(f"Line {first.number} is no header of a CSV: {error}.") from None
    columns = _columns(header, options)
    kind = options.kind or guess_kind((column.member for column in columns if column), header)
    check_columns(header, columns, kind)
    sample = list(islice(lines, LOOK_AHEAD))
    sample_cells = list(_cells_of_rows(dialect, columns, sample))
    dialect, assumed = detect_dialect(dialect, sample_cells, options)
    ignored = [name for name, column in zip(header, columns, strict=True) if name and not column]
    if ignored:
        assumed.append(f"Ignored columns: {', '.join(ignored)}.")

    def document(text: str) -> dict[str, Any]:
        cells = cells_of(text, dialect)
        if len(cells) != len(header):
            raise Malformed(f"The header has {len(header)} cells, this row {len(cells)}.")
        return {
            column.member: parse_cell(column, cell, dialect)
            for column, cell in zip(columns, map(str.strip, cells), strict=True)
            if cell and column is not None and column.member not in REPORT_COLUMNS
        }

    rows = (read_row(kind, line, document) for line in chain(sample, lines))
    return Table(kind, header, rows, dialect, tuple(assumed))


def join_lines(lines: Iterator[Line], separator: str) -> Iterator[Line]:
    """The lines. The lines of a row with line breaks in quoted cells are joined.

    A line whose quote is never closed is not joined, so that only this line is refused.
    """
    waiting: deque[Line] = deque()
    while (first := waiting.popleft() if waiting else next(lines, None)) is not None:
        if not _has_open_quote(first.content, separator):
            yield first
            continue
        row, size, joined = [first], len(first.content), None
        while joined is None and len(row) < _MAX_LINES and size <= MAX_LINE_BYTES:
            following = waiting.popleft() if waiting else next(lines, None)
            if following is None:
                break
            row.append(following)
            size += len(following.content)
            if b'"' in following.content:
                joined = b"".join(line.content for line in row)
                joined = None if _has_open_quote(joined, separator) else joined
        if joined is not None and _is_row(joined, separator):
            yield first._replace(content=joined)
        else:
            yield first
            waiting.extendleft(reversed(row[1:]))


def _is_row(content: bytes, separator: str) -> bool:
    try:
        return bool(cells_of(content.decode(errors="replace"), CsvDialect(separator)))
    except csv.Error:
        return False


def _has_open_quote(content: bytes, separator: str) -> bool:
    """Whether a quoted cell is still open at the end."""
    mark, unquoted = separator.encode(), content.replace(b'""', b"")
    is_open, at = False, 0
    while (at := unquoted.find(b'"', at)) >= 0:
        is_open = not is_open and (at == 0 or unquoted[at - 1 : at] in (mark, b"\n"))
        at += 1
    return is_open


def _columns(header: Sequence[str], options: ReadOptions) -> list[MappedColumn | None]:
    """The meaning of each column; None for an ignored one."""
    for name in (*options.columns, *options.ignored):
        if name not in header:
            raise SetupError(f"There is no column {name!r}: these are {', '.join(header)}.")
    return [
        None
        if name in options.ignored or not name
        else options.columns.get(name)
        or (None if options.columns and name not in REPORT_COLUMNS else MappedColumn(name))
        for name in header
    ]


def check_columns(
    header: Sequence[str], columns: Sequence[MappedColumn | None], kind: Kind
) -> None:
    """Raises SetupError for an unknown member, or for one that two columns have."""
    name_of: dict[str, str] = {}
    for name, column in zip(header, columns, strict=True):
        if column is None:
            continue
        if (first := name_of.get(column.member)) == name:
            raise SetupError(f"The column {name!r} stands twice in the header.")
        if first is not None:
            raise SetupError(f"The columns {first!r} and {name!r} are both {column.member}.")
        name_of[column.member] = name
        if column.member not in {*COLUMNS[kind], *ALIASES[kind], *REPORT_COLUMNS}:
            known = ", ".join(COLUMNS[kind])
            raise SetupError(
                f"{column.member!r} is no column of {kind}: these are {known}. Ignore it with "
                f"--ignore {quote(name)}, or say what it is with --map {quote(f'{name}=MEMBER')}."
            )


def detect_dialect(
    dialect: CsvDialect, cells: Sequence[tuple[int, MappedColumn, str]], options: ReadOptions
) -> tuple[CsvDialect, list[str]]:
    """The dialect that the cells of the first rows show, and the assumptions that were made.

    Each cell has the number of its line. Raises SetupError if the dialect is not clear.
    """
    dialect, assumed = _detect_numbers(dialect, cells, options)
    unclear: tuple[int, str] | None = None  # the first date that could be either
    for number, column, cell in cells:
        if column.member not in TIMES:
            continue
        if dialect.zone is None and is_local(cell):
            raise SetupError(
                f"Line {number} has a time without a zone, {cell}: "
                "say which it is with --time-zone, such as --time-zone Europe/Berlin."
            )
        order = date_order_of(cell)
        if order == "unknown":
            unclear = unclear or (number, cell)
        if order in ("dmy", "mdy") and dialect.date_order not in (order, None, options.date_order):
            raise SetupError(
                f"Line {number}: in {cell} day and month are not in the order of other lines: "
                "mend it, or say which is right with --date-order."
            )
        if order in ("dmy", "mdy") and dialect.date_order is None:
            dialect = dialect._replace(date_order=order)
            first = "day" if order == "dmy" else "month"
            assumed.append(f"In dates such as {cell} the {first} comes first.")
    if dialect.date_order is None and unclear is not None:
        number, cell = unclear
        raise SetupError(
            f"Line {number}: nothing tells whether the day or the month comes first "
            f"in {cell}: say it with --date-order dmy or --date-order mdy."
        )
    return dialect, assumed


def _detect_numbers(
    dialect: CsvDialect, cells: Sequence[tuple[int, MappedColumn, str]], options: ReadOptions
) -> tuple[CsvDialect, list[str]]:
    """The dialect of numbers that the first rows show, and the assumptions that were made."""
    assumed = []
    if dialect.separator != "," and options.separator is None:
        name = _SEPARATOR_NAMES.get(dialect.separator, repr(dialect.separator))
        assumed.append(f"Cells are separated by {name}, and numbers may have a comma: 7,4.")
    if not dialect.decimal_comma or options.decimal_comma:
        return dialect, assumed
    numbers = [cell for _, column, cell in cells if column.member not in {*TEXTS, *TIMES}]
    if any(map(has_decimal_comma, numbers)):
        dialect = dialect._replace(point_groups=None)
    elif unclear := next(filter(can_be_thousands, numbers), None):
        assumed.append(f"Points are decimal points: {unclear} is more with --decimal-comma.")
    return dialect, assumed


def _cells_of_rows(
    dialect: CsvDialect, columns: Sequence[MappedColumn | None], rows: Iterable[Line]
) -> Iterator[tuple[int, MappedColumn, str]]:
    """The cells of columns with a meaning, with the numbers of their lines."""
    for line in rows:
        try:
            cells = cells_of(line.content.decode(errors="replace"), dialect)
        except csv.Error:
            continue
        for column, cell in zip(columns, map(str.strip, cells), strict=False):
            if column is not None:
                yield line.number, column, cell


def parse_cell(column: MappedColumn, cell: str, dialect: CsvDialect) -> Any:
    """The value of a cell that is not empty. Raises Invalid with the member's name."""
    name = column.member
    if name in TEXTS:
        return parse_text_cell(cell)
    if name in TIMES:
        at_ms = parse_instant_cell(name, cell, dialect)
        if at_ms is None:
            raise Invalid(name, _TIME_RULE)
        return format_instant(at_ms)
    if name in LISTS:
        return [_parse_power(name, power.strip(), dialect) for power in cell.split(";")]
    if name == "chargedTime" and (found := _DURATION.fullmatch(cell)):
        hours, minutes, seconds = (int(part or 0) for part in found.groups())
        return Decimal(hours * 3600 + minutes * 60 + seconds)
    return scale(parse_number_cell(name, cell, dialect), column)


def scale(number: Decimal, column: MappedColumn) -> Decimal:
    """The number in the unit of the member. A number that is far too large or small stays."""
    if column.factor == 1 or abs(number.adjusted()) > _MAX_EXPONENT:
        return number
    return _CONTEXT.multiply(number, column.factor)


def _parse_power(name: str, text: str, dialect: CsvDialect) -> Decimal:
    """One of several numbers in a cell. Raises Invalid."""
    try:
        return parse_number_cell(name, text, dialect)
    except Invalid:
        rule = "It must be a number such as 7.4, several with semicolons between them."
        raise Invalid(name, rule) from None


# Writing ----------------------------------------------------------------------------------------


def to_csv(item: Tabular, dialect: CsvDialect = API_DIALECT) -> str:
    """The row of a charger, vehicle, event, session or sum under the header of `csv_columns`.

    Flags of a session are their names. A charge period is its values of startedAt, stoppedAt,
    chargedEnergy, chargedTime and energySource, as in the API, with - for a missing one.
    """
    cells = [
        _cell(field.encode_name, getattr(item, field.name), dialect)
        for field in msgspec.structs.fields(type(item))
    ]
    return csv_line(cells, dialect)


def _cell(name: str, value: Any, dialect: CsvDialect) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return ";".join(_part(part, dialect) for part in value)
    if isinstance(value, Decimal):
        return number_cell(value, dialect)
    if name in TIMES:
        return instant_cell(value, dialect)
    return text_cell(value) if isinstance(value, str) else str(value)


def _part(value: Any, dialect: CsvDialect) -> str:
    """One of several values in a cell."""
    if isinstance(value, Flag):
        return value.name
    if isinstance(value, ChargePeriod):
        members = msgspec.structs.astuple(value)
        return " ".join("-" if member is None else str(member) for member in members)
    return number_cell(value, dialect)


def refused_csv(row: Row, header: Sequence[str], dialect: CsvDialect = API_DIALECT) -> str:
    """A refused row of a CSV for the report, under the columns of `report_header`.

    It keeps all its cells, even if they are too many or too few.
    """
    try:
        cells = cells_of(row.text, dialect)
        named = zip_longest(header[: len(cells)], cells)
        kept = [cell for name, cell in named if name not in REPORT_COLUMNS]
    except csv.Error:
        kept = [row.text]
    safe = (safe_cell("".join(c if c.isprintable() else "\ufffd" for c in cell)) for cell in kept)
    return csv_line([str(row.line), row.reason, *safe], dialect)


def report_header(header: Sequence[str]) -> list[str]:
    """The header of a report on a CSV with this header."""
    return [*REPORT_COLUMNS, *(name for name in header if name not in REPORT_COLUMNS)]


def audit_csv(entry: AuditEntry) -> str:
    """The row of an entry. The values before and after are JSON."""
    before, after = (
        to_json(state).decode() if state else "" for state in (entry.before, entry.after)
    )
    return csv_line(
        [
            entry.at, entry.actor, entry.key or "", entry.action, text_cell(entry.target),
            before, after, text_cell(entry.request_id or ""), entry.address or "", entry.id,
        ]
    )  # fmt: skip
