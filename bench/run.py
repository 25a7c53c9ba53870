"""Measures the speed of Tether against its targets, and prints one table.

python -m bench.run [--only NAME ...] [--rounds N] [--seconds S]
"""

import argparse
import sys

from bench.contest import FAILURES, Bench, open_bench, say
from bench.groups import GROUPS, LONG
from bench.machine import DiskError, busy_fraction, check_disk
from bench.processes import CORES
from bench.table import Row, table

BUSY = 0.05  # of all cores, from where on it is worth a warning


def main() -> int:
    """Returns 0 if all required rows were measured and reach their target, otherwise 1."""
    options = _options()
    names = _chosen(options.only)
    if len(CORES) < 2:
        say("There is one core only: the load generator takes its part of it from the server.")
    if (busy := busy_fraction()) > BUSY:
        say(f"Something else uses {busy:.0%} of this machine: the figures will be unsteady.")
    rows: list[Row] = []
    with open_bench(options.rounds, options.seconds) as bench:
        say(f"A write and a sync of 4 KiB take {check_disk(bench.folder):.2f} ms on this disk.")
        for name in names:
            say(name)
            rows += _measure(bench, name)
    print(table(rows))
    if not options.only:
        print(f"Not run, because it takes long: {', '.join(LONG)} (--only names what to run)")
    return 0 if all(row.good for row in rows) else 1


def _measure(bench: Bench, name: str) -> list[Row]:
    """The rows of one group; when it cannot run, the others still do."""
    try:
        return GROUPS[name](bench)
    except FAILURES as error:
        say(f"  left out: {error}")
        return [Row(name, verdict="LEFT OUT", remark=str(error).strip().splitlines()[-1])]


def _chosen(only: list[str]) -> list[str]:
    """The groups that `--only` names, or all that do not take long."""
    if only:
        return [name for name in GROUPS if name.startswith(tuple(only))]
    return [name for name in GROUPS if name not in LONG]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.run", description=__doc__)
    parser.add_argument(
        "--only",
        nargs="+",
        metavar="NAME",
        default=[],
        help=f"groups to run, or beginnings of their names: {', '.join(GROUPS)}",
    )
    parser.add_argument("--rounds", type=int, default=5, help="runs of each contestant (5)")
    parser.add_argument("--seconds", type=float, default=4, help="length of a run (4)")
    options = parser.parse_args()
    if not _chosen(options.only):
        parser.error(f"--only knows {', '.join(GROUPS)}")
    return options


if __name__ == "__main__":
    try:
        sys.exit(main())
    except DiskError as error:
        sys.exit(str(error))
