"""Makes rows from runs: ratios of medians, and whether the runs are valid."""

from collections.abc import Callable, Sequence
from statistics import median
from typing import NamedTuple

from bench.contest import Outcome
from bench.load import Run
from bench.table import Limit, Row, verdict


class Figure(NamedTuple):
    """The figure that is taken from a run, and its format."""

    of: Callable[[Run], float]
    form: str


RATE = Figure(lambda run: run.rate, "{:,.0f} /s")
CONTAINED = Figure(lambda run: run.contained_rate, "{:,.0f} /s")
LATENCY = Figure(lambda run: run.median_ms, "{:.2f} ms")


def compare_rates(
    name: str, outcome: Outcome, pair: tuple[str, str], required: Limit | None
) -> Row:
    """Requests a second of the first of the pair, divided by those of the second."""
    return _compare(name, outcome, pair, required, RATE)


def compare_contained(
    name: str, outcome: Outcome, pair: tuple[str, str], required: Limit | None
) -> Row:
    """The same, each until the sessions contain the events, if that was measured."""
    return _compare(name, outcome, pair, required, CONTAINED)


def compare_latencies(
    name: str, outcome: Outcome, pair: tuple[str, str], required: Limit | None
) -> Row:
    """The median latency of the first of the pair, divided by that of the second."""
    return _compare(name, outcome, pair, required, LATENCY)


def _compare(
    name: str,
    outcome: Outcome,
    pair: tuple[str, str],
    required: Limit | None,
    figure: Figure,
) -> Row:
    text = required.text if required else ""
    missing = [_why(outcome, one) for one in pair if not outcome.runs.get(one)]
    if missing:
        return Row(name, required=text, verdict="LEFT OUT", remark=missing[0])
    first, second = ([figure.of(run) for run in outcome.runs[one]] for one in pair)
    ratio = median(first) / median(second)
    invalid = [outcome.invalid[one] for one in pair if one in outcome.invalid]
    return Row(
        name,
        measured=figure.form.format(median(first)),
        compared=figure.form.format(median(second)),
        ratio=f"{ratio:.2f}",
        spread=_spread(first, second),
        required=text,
        verdict="INVALID" if invalid else verdict(ratio, required),
        remark="; ".join(invalid),
    )


def _why(outcome: Outcome, name: str) -> str:
    reason = outcome.left_out.get(name, "was not measured")
    return f"{name}: {reason.strip().splitlines()[-1]}"


def _spread(first: Sequence[float], second: Sequence[float]) -> str:
    """The smallest and the largest ratio of one round: how far to trust the median."""
    each = [one / other for one, other in zip(first, second, strict=True)]
    return f"{min(each):.2f} to {max(each):.2f}"
