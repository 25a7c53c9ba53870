"""Reads the table of real sessions with only the csv module."""

import csv
from importlib.resources import files
from pathlib import Path

SOURCE = files("tether.simulator").joinpath("data/level3-sessions.csv")


def rows() -> list[dict[str, str]]:
    return list(csv.DictReader(SOURCE.read_text().splitlines()))


def write(path: Path, table: list[dict[str, str]]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(table[0]))
        writer.writeheader()
        writer.writerows(table)
    return path
