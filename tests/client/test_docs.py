"""The examples of the documents about the SDK run, and pass a strict type check."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Server
from tether.client import Client

ROOT = Path(__file__).parents[2]
DOCUMENTS = {  # with lines that their examples print
    "quickstart.md": ["VEHICLE_CONNECTED car-2 58.3"],
    "sdk.md": [
        "1.40 7.4",
        "unknown: 409 Parameter {vehicleId} is invalid",
        "van-1 VEHICLE_CHARGE_UPDATED",
        "True hall-1 58.3",
        "True ['van-1']",
        "2026-03-01T08:00:00.000Z 1.54 kWh True",
        "active ended",
        "chargeCapacity",
        "Parameter {chargeCapacity} is invalid. It must be a number above 0",
        "None",
        "van-1",
    ],
    "stream.md": ["VEHICLE_CONNECTED van-1", "van-1 True 41.5"],
}


def fenced(text: str, language: str) -> list[str]:
    """The blocks of code in this language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def examples(name: str) -> str:
    """All Python of a document, as one program."""
    return "\n".join(fenced((ROOT / "docs" / name).read_text(), "python"))


@pytest.fixture
def environment(server: Server, key: str) -> dict[str, str]:
    """The environment of a partner."""
    return {**os.environ, "TETHER_URL": server.url, "TETHER_API_KEY": key}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_examples_run(name: str, environment: dict[str, str], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", examples(name)],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    for line in DOCUMENTS[name]:
        assert line in done.stdout


def test_the_calls_of_the_quickstart(environment: dict[str, str]) -> None:
    text = (ROOT / "docs" / "quickstart.md").read_text()
    calls = [block for block in fenced(text, "sh") if block.startswith("curl")]
    assert len(calls) == 3
    shown = [
        subprocess.run(
            ["sh", "-ec", call],
            env=environment, capture_output=True, text=True, timeout=240, check=True,
        ).stdout
        for call in calls
    ]  # fmt: skip
    assert shown[0].startswith('{"id":"garage-1"}{"id":"car-1"}{"id":"')
    assert '"stateOfCharge":41.5,"timestamp":"2026-03-01T07:30:00.000Z"' in shown[1]
    assert [shown[2] + "\n"] == fenced(text, "json")
    with Client(environment["TETHER_URL"], environment["TETHER_API_KEY"]) as client:
        assert [charger.id for charger in client.chargers.list()] == ["garage-1"]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_examples_pass_a_strict_type_check(name: str, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(examples(name))
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file=", program.name],
        cwd=tmp_path, capture_output=True, text=True, check=False,
        env={"MYPY_CACHE_DIR": str(ROOT / ".mypy_cache" / "users")},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
