"""Tables in CSV: read by their header or by a map of their columns, and written.

An empty cell is a member that is not given; several powers stand in one cell as `11;22`.
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

from tether.domain.errors import Invalid, Malformed, SetupError
from tether.domain.timestamps import format_instant
from tether.domain.views import ChargePeriod, Flag
from tether.files.contents import (
    ALIASES,
    ALL_COLUMNS,
    COLUMNS,
    LISTS,
    LONGEST_LINE,
    LOOK_AHEAD,
    NOT_UTF_8,
    REPORT_COLUMNS,
    TEXTS,
    TIMES,
    Kind,
    Line,
    MappedColumn,
    Reading,
    Row,
    Table,
    Tabular,
    guessed,
    read_row,
)
from tether.files.csv_form import (
    API_FORM,
    SEPARATORS,
    CsvForm,
    can_be_thousands,
    cells_of,
    csv_line,
    harmless,
    has_decimal_comma,
    instant_cell,
    instant_in,
    is_local,
    number_cell,
    number_in,
    order_in,
    text_cell,
    text_in,
)

_DURATION = re.compile(r"([0-9]{1,4}):([0-5][0-9])(?::([0-5][0-9]))?")
_SCALED = re.compile(r"(?P<member>\w+)(?:(?P<sign>[*/])(?P<factor>[0-9]+(?:\.[0-9]+)?))?")
_FEW_DIGITS = Context(prec=15)  # as many as the API takes
_FARTHEST = 1000  # digits of a number before or behind the point: the API takes fewer
_TIME_RULE = (
    "It must be a time such as 2026-01-05T08:00:00Z, or with a time zone 2026-01-05 08:00, "
    "05.01.2026 08:00 or 1/5/2026 8:00 AM."
)
_MOST_LINES = 100  # of one row, whose cells have line breaks
_SEPARATOR_NAMES = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}


# Reading ----------------------------------------------------------------------------------------


def column_of(text: str) -> tuple[str, MappedColumn]:
    """The column's name and its meaning of `Energy (Wh)=chargedEnergy/1000`. Raises ValueError."""
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
        factor = _FEW_DIGITS.divide(Decimal(1), factor)
    return name.strip(), MappedColumn(found["member"], factor)


def read_csv(first: Line, lines: Iterator[Line], reading: Reading) -> Table:
    """The table under this header. Raises SetupError as `read_table` does."""
    try:
        # Names of columns have none of these, those of others hardly any.
        separator = reading.separator or max(SEPARATORS, key=first.content.decode().count)
        form = CsvForm(separator, reading.decimal_comma or separator != ",", reading.zone,
                       reading.date_order, reading.decimal_comma)  # fmt: skip
        lines = joined_lines(chain([first], lines), separator)
        names = cells_of(next(lines, first).content.decode(), form)
        header = tuple(" ".join(name.split()) for name in names)
    except UnicodeDecodeError:
        raise SetupError(NOT_UTF_8) from None
    except csv.Error as error:
        raise SetupError(f"Line {first.number} is no header of a CSV: {error}.") from None
    columns = _columns(header, reading)
    kind = reading.kind or guessed(column.member for column in columns if column)
    check_columns(header, columns, kind)
    seen = list(islice(lines, LOOK_AHEAD))
    form, assumed = told_by(form, list(_cells_of_rows(form, columns, seen)), reading)
    passed_over = [name for name, column in zip(header, columns, strict=True)
                   if name and column is None]  # fmt: skip
    if passed_over:
        assumed.append(f"Columns that are passed over: {', '.join(passed_over)}.")

    def document(text: str) -> dict[str, Any]:
        cells = cells_of(text, form)
        if len(cells) != len(header):
            raise Malformed(f"The header has {len(header)} cells, this row {len(cells)}.")
        return {
            column.member: value_in(column, cell, form)
            for column, cell in zip(columns, map(str.strip, cells), strict=True)
            if cell and column is not None and column.member not in REPORT_COLUMNS
        }

    def rows(kind: Kind) -> Iterator[Row]:
        for line in chain(seen, lines):
            yield read_row(kind, line, document)

    return Table(kind, header, rows(kind), form, tuple(assumed))


def joined_lines(lines: Iterator[Line], separator: str) -> Iterator[Line]:
    """The lines, but those of which quoted cells go on in the next: such a row is one line.

    A quote that nothing closes is one line's fault: that is refused, the next ones are not.
    """
    waiting: deque[Line] = deque()
    while (first := waiting.popleft() if waiting else next(lines, None)) is not None:
        if not _is_open(first.content, separator):
            yield first
            continue
        row, size, whole = [first], len(first.content), None
        while whole is None and len(row) < _MOST_LINES and size <= LONGEST_LINE:
            following = waiting.popleft() if waiting else next(lines, None)
            if following is None:
                break
            row.append(following)
            size += len(following.content)
            if b'"' in following.content:
                whole = b"".join(line.content for line in row)
                whole = None if _is_open(whole, separator) else whole
        if whole is not None and _is_row(whole, separator):
            yield first._replace(content=whole)
        else:
            yield first
            waiting.extendleft(reversed(row[1:]))


def _is_row(content: bytes, separator: str) -> bool:
    try:
        return bool(cells_of(content.decode(errors="replace"), CsvForm(separator)))
    except csv.Error:
        return False


def _is_open(content: bytes, separator: str) -> bool:
    """Whether a quoted cell has no end yet."""
    mark, unquoted = separator.encode(), content.replace(b'""', b"")
    is_open, place = False, 0
    while (place := unquoted.find(b'"', place)) >= 0:
        begins = place == 0 or unquoted[place - 1 : place] in (mark, b"\n")
        is_open = not is_open if is_open or begins else is_open
        place += 1
    return is_open


def _columns(header: Sequence[str], reading: Reading) -> list[MappedColumn | None]:
    """What each column is; None for one that is passed over, as others have a meaning."""
    for name in (*reading.columns, *reading.ignored):
        if name not in header:
            raise SetupError(f"There is no column {name!r}: these are {', '.join(header)}.")
    return [
        None
        if name in reading.ignored or not name
        else reading.columns.get(name)
        or (None if reading.columns and name not in REPORT_COLUMNS else MappedColumn(name))
        for name in header
    ]


def check_columns(
    header: Sequence[str], columns: Sequence[MappedColumn | None], kind: Kind
) -> None:
    """Raises SetupError for what cannot be a member, or is one twice."""
    seen: dict[str, str] = {}
    for name, column in zip(header, columns, strict=True):
        if column is None:
            continue
        if column.member in seen:
            one, other = seen[column.member], name
            twice = f"The columns {one!r} and {other!r} are both {column.member}."
            raise SetupError(
                twice if one != other else f"The column {name!r} stands twice in the header."
            )
        seen[column.member] = name
        if column.member not in {*COLUMNS[kind], *ALIASES[kind], *REPORT_COLUMNS}:
            known = ", ".join(COLUMNS[kind])
            raise SetupError(
                f"{column.member!r} is no column of {kind}: these are {known}. Pass over it with "
                f"--ignore {quote(name)}, or say what it is with --map {quote(f'{name}=MEMBER')}."
            )


def told_by(
    form: CsvForm, cells: Sequence[tuple[int, MappedColumn, str]], reading: Reading
) -> tuple[CsvForm, list[str]]:
    """The form as the cells of the first rows tell it, each with the number of its line, and what
    had to be assumed.

    Raises SetupError for what they leave open and cannot be assumed.
    """
    form, assumed = _numbers_told_by(form, cells, reading)
    unclear: tuple[int, str] | None = None  # the first date that could be either
    for number, column, cell in cells:
        if column.member not in TIMES:
            continue
        if form.zone is None and is_local(cell):
            raise SetupError(
                f"Line {number} has a time without a zone, {cell}: "
                "say which it is with --time-zone, such as --time-zone Europe/Berlin."
            )
        order = order_in(cell)
        if order == "unknown":
            unclear = unclear or (number, cell)
        if order in ("dmy", "mdy") and form.date_order not in (order, None, reading.date_order):
            raise SetupError(
                f"Line {number}: in {cell} day and month are not in the order of other lines: "
                "mend it, or say which is right with --date-order."
            )
        if order in ("dmy", "mdy") and form.date_order is None:
            form = form._replace(date_order=order)
            first = "day" if order == "dmy" else "month"
            assumed.append(f"In dates such as {cell} the {first} comes first.")
    if form.date_order is None and unclear is not None:
        number, cell = unclear
        raise SetupError(
            f"Line {number}: nothing tells whether the day or the month comes first "
            f"in {cell}: say it with --date-order dmy or --date-order mdy."
        )
    return form, assumed


def _numbers_told_by(
    form: CsvForm, cells: Sequence[tuple[int, MappedColumn, str]], reading: Reading
) -> tuple[CsvForm, list[str]]:
    """The form of numbers as the first rows tell it, and what had to be assumed."""
    assumed = []
    if form.separator != "," and reading.separator is None:
        name = _SEPARATOR_NAMES.get(form.separator, repr(form.separator))
        assumed.append(f"Cells are separated by {name}, and numbers may have a comma: 7,4.")
    if not form.decimal_comma or reading.decimal_comma:
        return form, assumed
    numbers = [cell for _, column, cell in cells if column.member not in {*TEXTS, *TIMES}]
    if any(map(has_decimal_comma, numbers)):
        form = form._replace(point_groups=None)
    elif unclear := next(filter(can_be_thousands, numbers), None):
        assumed.append(f"Points are decimal points: {unclear} is more with --decimal-comma.")
    return form, assumed


def _cells_of_rows(
    form: CsvForm, columns: Sequence[MappedColumn | None], rows: Iterable[Line]
) -> Iterator[tuple[int, MappedColumn, str]]:
    """The cells that mean something, with the numbers of their lines."""
    for line in rows:
        try:
            cells = cells_of(line.content.decode(errors="replace"), form)
        except csv.Error:
            continue
        for column, cell in zip(columns, map(str.strip, cells), strict=False):
            if column is not None:
                yield line.number, column, cell


def value_in(column: MappedColumn, cell: str, form: CsvForm) -> Any:
    """What a cell that is not empty says. Raises Invalid, with the member's name."""
    name = column.member
    if name in TEXTS:
        return text_in(cell)
    if name in TIMES:
        at_ms = instant_in(name, cell, form)
        if at_ms is None:
            raise Invalid(name, _TIME_RULE)
        return format_instant(at_ms)
    if name in LISTS:
        return [_power(name, power.strip(), form) for power in cell.split(";")]
    if name == "chargedTime" and (found := _DURATION.fullmatch(cell)):
        hours, minutes, seconds = (int(part or 0) for part in found.groups())
        return Decimal(hours * 3600 + minutes * 60 + seconds)
    return scaled(number_in(name, cell, form), column)


def scaled(number: Decimal, column: MappedColumn) -> Decimal:
    """The number in the unit of the member; one that is out of all bounds stays as it is."""
    if column.factor == 1 or abs(number.adjusted()) > _FARTHEST:
        return number
    return _FEW_DIGITS.multiply(number, column.factor)


def _power(name: str, text: str, form: CsvForm) -> Decimal:
    """One of several numbers in a cell. Raises Invalid."""
    try:
        return number_in(name, text, form)
    except Invalid:
        rule = "It must be a number such as 7.4, several with semicolons between them."
        raise Invalid(name, rule) from None


# Writing ----------------------------------------------------------------------------------------


def to_csv(thing: Tabular, form: CsvForm = API_FORM) -> str:
    """The row of a charger, vehicle, event, session or sum under the header of its `csv_columns`.

    A session's flags are their names; a charge period is the words startedAt, stoppedAt,
    chargedEnergy, chargedTime and energySource, as the API has them, with - for what it does not
    have.
    """
    cells = [
        _cell(field.encode_name, getattr(thing, field.name), form)
        for field in msgspec.structs.fields(type(thing))
    ]
    return csv_line(cells, form)


def _cell(name: str, value: Any, form: CsvForm) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return ";".join(_part(part, form) for part in value)
    if isinstance(value, Decimal):
        return number_cell(value, form)
    if name in TIMES:
        return instant_cell(value, form)
    return text_cell(value) if isinstance(value, str) else str(value)


def _part(value: Any, form: CsvForm) -> str:
    """One of several in a cell."""
    if isinstance(value, Flag):
        return value.name
    if isinstance(value, ChargePeriod):
        return " ".join(
            "-" if word is None else str(word) for word in msgspec.structs.astuple(value)
        )
    return number_cell(value, form)


def refused_csv(row: Row, header: Sequence[str], form: CsvForm = API_FORM) -> str:
    """A refused row of a CSV for its report, under the columns of `report_header`.

    It keeps its cells, too many or too few: as it is, it would be refused again.
    """
    try:
        cells = cells_of(row.text, form)
        named = zip_longest(header[: len(cells)], cells)
        kept = [cell for name, cell in named if name not in REPORT_COLUMNS]
    except csv.Error:
        kept = [row.text]
    shown = (harmless("".join(c if c.isprintable() else "\ufffd" for c in cell)) for cell in kept)
    return csv_line([str(row.line), row.reason, *shown], form)


def report_header(header: Sequence[str]) -> list[str]:
    """The header of a report on a CSV with this header."""
    return [*REPORT_COLUMNS, *(name for name in header if name not in REPORT_COLUMNS)]
