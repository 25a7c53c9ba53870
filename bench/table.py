"""The rows of the result, and the table that shows them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Verdict = Literal["ok", "MISSED", "INVALID", "LEFT OUT", ""]


@dataclass(frozen=True)
class Limit:
    """A target: a ratio or a value must be at least, or at most, this number."""

    text: str  # as printed: ">= 0.55"
    value: float

    def allows(self, measured: float) -> bool:
        return measured >= self.value if self.text.startswith(">") else measured <= self.value


def at_least(value: float) -> Limit:
    return Limit(f">= {value:g}", value)


def at_most(value: float, unit: str = "") -> Limit:
    return Limit(f"<= {value:g}{unit}", value)


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    name: str
    measured: str = ""
    compared: str = ""
    ratio: str = ""
    spread: str = ""
    required: str = ""
    verdict: Verdict = ""
    remark: str = ""  # why it is invalid or left out

    @property
    def good(self) -> bool:
        return self.verdict in ("ok", "")


def verdict(measured: float, required: Limit | None) -> Verdict:
    """The note beside a figure."""
    if required is None:
        return ""
    return "ok" if required.allows(measured) else "MISSED"


HEAD = Row("", "measured", "compared with", "ratio", "rounds", "required", "", "")


def table(rows: Sequence[Row]) -> str:
    """The table of all rows, and below it the reasons why some are invalid."""
    lines = [_cells(row) for row in (HEAD, *rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    printed = [_line(line, widths) for line in lines]
    printed.insert(1, "-" * max(map(len, printed)))
    remarks = [f"  {row.name}: {row.remark}" for row in rows if row.remark]
    return "\n".join([*printed, *remarks])


def _cells(row: Row) -> list[str]:
    return [
        *(row.name, row.measured, row.compared, row.ratio),
        *(row.spread, row.required, row.verdict),
    ]


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    name, *figures, last = cells
    padded = [cell.rjust(width) for cell, width in zip(figures, widths[1:-1], strict=True)]
    return "  ".join([name.ljust(widths[0]), *padded, last]).rstrip()


def single(name: str, value: float, form: str, required: Limit) -> Row:
    """A row of one figure that has a limit of its own."""
    return Row(name, form.format(value), required=required.text, verdict=verdict(value, required))
