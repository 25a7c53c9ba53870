"""Compares docs/analysis.md with the answers of a server that has the real data."""

import re
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.derivation.helpers import read_all

PAGE = (Path(__file__).parents[2] / "docs/analysis.md").read_text(encoding="utf-8")
PLUGS = ("CCS1", "CCS2")


def table(name: str) -> dict[str, list[str]]:
    """The rows of the table with this first title, by their first cell."""
    found = re.search(rf"^\| {name} \|.*\n\|.*\n((?:\|.*\n)+)", PAGE, re.M)
    assert found is not None
    rows = (line.strip("| ").split(" | ") for line in found[1].splitlines())
    return {first: rest for first, *rest in rows}


def check_analysis(client: httpx.Client) -> None:
    """The tables, recomputed from what the server answers."""
    months: dict[str, dict[str, Any]] = {}
    for row in read_all(client, "/sessions/summary", bucket="month", by="charger"):
        months.setdefault(row["from"][:7], {})[row["chargerId"]] = row
    shown = table("month")
    assert list(shown) == list(months)
    total = Decimal(0)
    for month, cells in shown.items():
        each = [months[month][plug] for plug in PLUGS]
        energies = [row["chargedEnergy"] for row in each]
        assert cells == [
            f"{sum(row['sessions'] for row in each)}",
            *(f"{energy:.1f}" for energy in (*energies, sum(energies))),
            *(f"{100 * row['utilisation']:.1f} %" for row in each),
        ], month
        total += sum(energies)
    assert total == Decimal("60441.9355749999998")
    hours: Counter[tuple[str, str]] = Counter()
    for row in read_all(client, "/sessions/summary", bucket="hour", by="charger"):
        hours[row["from"][11:13], row["chargerId"]] += row["chargedEnergy"]
    assert sum(hours.values()) == total
    assert table("hour") == {
        f"{hour:02}:00": [f"{one:.1f}" for one in (*each, sum(each))]
        for hour in range(24)
        for each in [[Decimal(hours[f"{hour:02}", plug]) for plug in PLUGS]]
    }


def check_python(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The page's Python, run as it stands there."""
    monkeypatch.setenv("TETHER_URL", str(client.base_url))
    monkeypatch.setenv("TETHER_API_KEY", client.headers["x-api-key"])
    names: dict[str, Any] = {}
    for block in re.findall(r"^```python\n(.*?)^```$", PAGE, re.M | re.DOTALL):
        exec(block, names)
    assert capsys.readouterr().out == "60441.9\n"
    assert names["by_month"].shape == (len(table("month")), 2)
    assert names["by_hour"].sum().sum().round(1) == 60441.9
    assert names["in_use"]["CCS1"].iloc[0].round(3) == 0.045
