"""Runs a command again and again, and kills it a little later each time, until it ends before.

    python -m tests.abuse.killed FOLDER TIMES ARGUMENT…

FOLDER/template.db is the database; each run works on a copy of it in another folder. The commands
are forked from this process, which has imported everything, so that a kill hits the work and not
the imports. Prints a JSON array with the `Outcome` of each run.
"""

import json
import os
import shutil
import signal
import sys
import time
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

from tether.__main__ import main as tether
from tether.storage.sqlite.backup import damages_in
from tether.storage.sqlite.file import connect

COUNTS = """
SELECT p.name, (SELECT count(*) FROM events e WHERE e.partner = p.id),
       (SELECT count(*) FROM sessions s WHERE s.partner = p.id)
FROM partners p ORDER BY p.name
"""


@dataclass
class Outcome:
    """The state of the database after a kill, and after the same command ran again to its end."""

    killed: bool
    damages: list[str]
    backups: list[str]
    again: int
    damages_again: list[str]
    counts: list[tuple[str, int, int]]
    files: list[str]


def start(arguments: list[str], errors: Path) -> int:
    """The id of a process that runs the command."""
    pid = os.fork()
    if pid:
        return pid
    with errors.open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.argv = ["tether", *arguments]
    try:
        tether()
    except SystemExit as end:
        os._exit(int(end.code or 0))
    os._exit(0)


def ended(pid: int) -> int:
    """Its exit status, negative if a signal ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def fresh(folder: Path) -> Path:
    """A copy of the template to work on."""
    work = folder / "work"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    shutil.copy(folder / "template.db", work / "tether.db")
    return work


def damages(path: Path) -> list[str]:
    return damages_in(path, full=True)


def run(folder: Path, arguments: list[str], seconds: float) -> Outcome:
    """Kills the command after so many seconds, looks, and runs it once more."""
    work, errors = fresh(folder), folder / "errors"
    path = work / "tether.db"
    os.chdir(work)
    pid = start(arguments, errors)
    time.sleep(seconds)
    os.kill(pid, signal.SIGKILL)
    killed = ended(pid) < 0
    found = damages(path)
    backups = [f"{file.name}: {line}" for file in work.glob("b*.db") for line in damages(file)]
    again = ended(start(arguments, errors))
    with closing(connect(path)) as connection:
        counts = [(str(name), int(str(events)), int(str(sessions)))
                  for name, events, sessions in connection.execute(COUNTS)]  # fmt: skip
    files = sorted(file.name for file in work.iterdir())
    return Outcome(killed, found, backups, again, damages(path), counts, files)


def main() -> None:
    folder, times, *arguments = sys.argv[1:]
    place = Path(folder)
    os.chdir(fresh(place))
    began = time.monotonic()
    ended(start(arguments, place / "errors"))
    whole = time.monotonic() - began
    moments = [whole * (number + 0.5) / int(times) for number in range(int(times))]
    print(json.dumps([asdict(run(place, arguments, moment)) for moment in moments]))


if __name__ == "__main__":
    main()
