"""Checks the machine: is it idle, and is the disk a real disk?"""

import os
import time
from pathlib import Path
from statistics import median

SYNCS = 200
LOOK_S = 2.0
BLOCK = b"\0" * 4096


class DiskError(Exception):
    """The folder is not on a disk."""


def check_disk(folder: Path) -> float:
    """How long one write and fdatasync of 4 KiB takes, in ms (median).

    Raises DiskError on a memory file system, where a sync costs nothing.
    """
    if _file_system(folder) in ("tmpfs", "ramfs"):
        raise DiskError(f"{folder} is in memory: set TMPDIR to a folder on a disk.")
    taken = []
    file = os.open(folder / "sync", os.O_CREAT | os.O_WRONLY, 0o600)
    try:
        for _ in range(SYNCS):
            started = time.perf_counter()
            os.write(file, BLOCK)
            os.fdatasync(file)
            taken.append(time.perf_counter() - started)
    finally:
        os.close(file)
        os.unlink(folder / "sync")
    return 1000 * median(taken)


def _file_system(folder: Path) -> str:
    """The type of the file system that holds the folder."""
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    holding = [
        (len(point), kind)
        for _, point, kind, *_ in mounts
        if folder.resolve().is_relative_to(point)
    ]
    return max(holding)[1]


def busy_fraction() -> float:
    """The share of all cores that others use now, 0 to 1."""
    before = _ticks()
    time.sleep(LOOK_S)
    idle, total = (after - then for after, then in zip(_ticks(), before, strict=True))
    return 1 - idle / total


def _ticks() -> tuple[int, int]:
    """Idle and all ticks of all cores since the machine was started."""
    ticks = [int(field) for field in Path("/proc/stat").read_text().split("\n")[0].split()[1:9]]
    return ticks[3] + ticks[4], sum(ticks)
