"""The dialect of a CSV: its separator, decimal mark and time zone.

A CSV of Tether has commas, decimal points and instants in UTC. Spreadsheets in much of Europe read
and write semicolons, decimal commas and local time. Local times have no zone, so that a spreadsheet
takes them for dates. Only in the hour that occurs twice, when summer time ends, they have their
offset. Nothing here opens a file.
"""

import csv
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from io import StringIO
from typing import Literal, NamedTuple, TypeAlias
from zoneinfo import ZoneInfo

from tether.domain.errors import Invalid
from tether.domain.timestamps import moment_of, ms_of, parse_instant

SEPARATORS = (",", ";", "\t", "|")
BYTE_ORDER_MARK = "\ufeff"

DateOrder: TypeAlias = Literal["dmy", "mdy"]

_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
# Spreadsheets take these for the start of a formula.
_FORMULA = re.compile(r"[=+@\t\r-]")
_HIDDEN_FORMULA = re.compile(r"'[=+@\t\r-]")
# Numbers with grouped thousands: 1.234,5 and 1,234.5, also with blanks or apostrophes.
_GROUPED = re.compile(r"-?[1-9][0-9]{0,2}(?P<mark>[.,' \u2019\xa0\u202f])[0-9]{3}"
                      r"(?:(?P=mark)[0-9]{3})*(?P<rest>[.,][0-9]+)?")  # fmt: skip
_LOCAL = re.compile(
    r"(?:(?P<year>[0-9]{4})(?P<by>[-/])(?P<month>[0-9]{1,2})(?P=by)(?P<day>[0-9]{1,2})"
    r"|(?P<first>[0-9]{1,2})(?P<mark>[./-])(?P<second>[0-9]{1,2})(?P=mark)(?P<last>[0-9]{4}))"
    r"(?:[Tt]|,? +)(?P<hour>[0-9]{1,2}):(?P<minute>[0-9]{2})"
    r"(?::(?P<s>[0-9]{2})(?:[.,](?P<fraction>[0-9]+))?)?"
    r"(?: ?(?P<half>[AaPp])\.?[Mm]\.?)?"
    r"(?: ?(?P<zone>[Zz]|UTC|[+-](?:[01][0-9]|2[0-3]):?[0-5][0-9]))?"
)


class CsvDialect(NamedTuple):
    """The dialect of the cells of a CSV.

    `zone` is the zone of times; None means instants in UTC as in the API. `date_order` is the order
    in dates with slashes or dashes, such as 05/01/2026; None if none are known. `point_groups`
    says whether 1.234 is 1234; None means that it is not clear.
    """

    separator: str = ","
    decimal_comma: bool = False
    zone: ZoneInfo | None = None
    date_order: DateOrder | None = None
    point_groups: bool | None = False


API_DIALECT = CsvDialect()

# Writing ----------------------------------------------------------------------------------------


def csv_line(cells: Sequence[str], dialect: CsvDialect = API_DIALECT) -> str:
    """One row of a CSV, with its line end."""
    line = StringIO()
    csv.writer(line, delimiter=dialect.separator, lineterminator="\n").writerow(cells)
    return line.getvalue()


def number_cell(number: Decimal, dialect: CsvDialect) -> str:
    """The number with all its digits."""
    return str(number).replace(".", ",") if dialect.decimal_comma else str(number)


def text_cell(text: str) -> str:
    """The text, escaped if a spreadsheet would take it for a formula."""
    return f"'{text}" if _FORMULA.match(text) else text


def instant_cell(instant: str, dialect: CsvDialect) -> str:
    """An instant of the API in the zone of the dialect."""
    if dialect.zone is None:
        return instant
    local = moment_of(parse_instant(instant)).astimezone(dialect.zone)
    text = local.strftime("%Y-%m-%d %H:%M:%S")
    if local.microsecond:
        text += f"{',' if dialect.decimal_comma else '.'}{local.microsecond // 1000:03}"
    if len(_instants_of(local.replace(tzinfo=None), dialect.zone)) > 1:
        offset = local.strftime("%z")
        text += f"{offset[:3]}:{offset[3:5]}"
    return text


# Reading ----------------------------------------------------------------------------------------


def cells_of(text: str, dialect: CsvDialect) -> list[str]:
    """The cells of one row. Raises csv.Error."""
    rows = csv.reader([text.rstrip("\r\n")], delimiter=dialect.separator, strict=True)
    return next(rows, [])


def parse_text_cell(cell: str) -> str:
    """The text in a cell of `text_cell`."""
    return cell[1:] if _HIDDEN_FORMULA.match(cell) else cell


def parse_number_cell(name: str, cell: str, dialect: CsvDialect = API_DIALECT) -> Decimal:
    """The number in a cell, with all its digits. Raises Invalid with the member's name."""
    text = _without_grouping(name, cell, dialect)
    if dialect.decimal_comma and text.count(",") == 1 and "." not in text:
        text = text.replace(",", ".")
    try:
        if _NUMBER.fullmatch(text):
            return Decimal(text)
    except InvalidOperation:
        pass
    example = "7,4" if dialect.decimal_comma else "7.4"
    raise Invalid(name, f"It must be a number such as {example}.")


def _without_grouping(name: str, cell: str, dialect: CsvDialect) -> str:
    """The number without thousands separators. Raises Invalid if it can be two numbers."""
    match = _GROUPED.fullmatch(cell)
    if match is None:
        return cell
    mark, rest = match["mark"], match["rest"]
    if rest is not None and rest[0] == mark:
        return cell
    joined = (cell[: match.start("rest")] if rest else cell).replace(mark, "") + (rest or "")
    if mark not in ".," or rest or cell.count(mark) > 1:
        is_decimal = not rest or rest[0] == "." or dialect.decimal_comma
        return joined if is_decimal else cell
    if mark == ".":
        if dialect.point_groups is None:
            raise Invalid(
                name, f"{cell} can be {joined}: say --decimal-comma if it is, or write it so."
            )
        return joined if dialect.point_groups else cell
    if not dialect.decimal_comma:
        part = cell.replace(",", ".")
        raise Invalid(name, f"{cell} can be {joined} or {part}: write the one that it is.")
    return cell


def has_decimal_comma(cell: str) -> bool:
    """Whether the cell can only be a number with a decimal comma."""
    match = _GROUPED.fullmatch(cell)
    if match is not None:
        return match["mark"] != "," and (match["rest"] or "").startswith(",")
    return bool(_NUMBER.fullmatch(cell.replace(",", "."))) and "," in cell


def can_be_thousands(cell: str) -> bool:
    """Whether the point in the cell can separate thousands: 1.234."""
    match = _GROUPED.fullmatch(cell)
    return match is not None and cell.count(".") == 1 and match["rest"] is None


def safe_cell(cell: str) -> str:
    """A cell of another program, escaped if a spreadsheet would take it for a formula."""
    is_number = _NUMBER.fullmatch(cell.replace(",", ".", 1))
    return cell if is_number else text_cell(cell)


def is_local(cell: str) -> bool:
    """Whether the cell is a time without a zone."""
    match = _LOCAL.fullmatch(cell)
    return match is not None and match["zone"] is None


def date_order_of(cell: str) -> DateOrder | Literal["unknown"] | None:
    """The order of day and month that a time shows; None for a format with only one order."""
    match = _LOCAL.fullmatch(cell)
    if match is None or match["mark"] not in ("/", "-"):
        return None
    if int(match["first"]) > 12:
        return "dmy"
    return "mdy" if int(match["second"]) > 12 else "unknown"


def parse_instant_cell(name: str, cell: str, dialect: CsvDialect) -> int | None:
    """Milliseconds since 1970 of the time in a cell; None if the format of the time is not known.

    Raises Invalid with the member's name for a time that its zone does not have, or has twice, and
    if the zone or the order of day and month is not known.
    """
    try:
        return parse_instant(cell)
    except ValueError:
        pass
    match = _LOCAL.fullmatch(cell)
    if match is None:
        return None
    local = _local_of(name, cell, match, dialect)
    if (offset := match["zone"]) is not None:
        text = "+00:00" if offset.upper() in ("Z", "UTC") else f"{offset[:3]}:{offset[-2:]}"
        return ms_of(datetime.fromisoformat(f"{local.isoformat()}{text}"))
    if dialect.zone is None:
        raise Invalid(name, "It has no time zone: give one with --time-zone.")
    instants = _instants_of(local, dialect.zone)
    if not instants:
        raise Invalid(
            name, f"The clocks of {dialect.zone.key} went over {cell}: there was no such time."
        )
    if len(instants) > 1:
        offsets = " or ".join(f"{instant.astimezone(dialect.zone):%z}" for instant in instants)
        twice = f"The clocks of {dialect.zone.key} showed {cell} twice"
        raise Invalid(name, f"{twice}: add its offset, {offsets}.")
    return ms_of(instants[0])


def _local_of(name: str, cell: str, match: re.Match[str], dialect: CsvDialect) -> datetime:
    if match["year"]:
        year, month, day = match["year"], match["month"], match["day"]
    else:
        order = "dmy" if match["mark"] == "." else dialect.date_order
        if order is None:
            raise Invalid(name, f"It is not known which part of {cell} is the day.")
        year, day, month = match["last"], match["first"], match["second"]
        if order == "mdy":
            day, month = month, day
    hour = int(match["hour"])
    if match["half"]:
        if not 1 <= hour <= 12:
            raise Invalid(name, f"There is no time {cell}.")
        hour = hour % 12 + (12 if match["half"] in "Pp" else 0)
    fraction = (match["fraction"] or "")[:6].ljust(6, "0")
    try:
        return datetime(
            int(year), int(month), int(day), hour, int(match["minute"]), int(match["s"] or 0),
            int(fraction),
        )  # fmt: skip
    except ValueError:
        raise Invalid(name, f"There is no time {cell}.") from None


def _instants_of(local: datetime, zone: ZoneInfo) -> list[datetime]:
    """The instants at which clocks in the zone show this time: one, two, or none."""
    instants: list[datetime] = []
    for fold in (0, 1):
        at = local.replace(tzinfo=zone, fold=fold).astimezone(UTC)
        if at.astimezone(zone).replace(tzinfo=None, fold=0) == local and at not in instants:
            instants.append(at)
    return instants
