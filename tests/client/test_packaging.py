"""A partner installs only the SDK, with types, and the few packages that it needs."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
BASE = {"aiohttp", "httpx2", "msgspec"}
# What httpx2 itself needs. aiohttp is loaded together with AsyncClient, on first use.
WITH_BASE = {"anyio", "certifi", "h11", "httpcore2", "idna", "truststore", "typing_extensions"}

IMPORTER = """
import importlib.abc, sys

class OnlyTheseMayBeImported(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        root = name.partition(".")[0]
        if root not in ALLOWED and root not in sys.stdlib_module_names:
            raise ModuleNotFoundError(f"{name} is not installed", name=name)

ALLOWED = set(sys.argv[1].split(","))
sys.meta_path.insert(0, OnlyTheseMayBeImported())
import tether.client
print(*sorted(name for name in sys.modules if name.startswith("tether.")))
"""

EXAMPLE = """
import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal

from tether.client import AsyncClient, Charger, Client, Event, EventType, Invalid, Outbox, Vehicle


def blocking(client: Client) -> Iterator[str]:
    created: bool = client.chargers.put(Charger(id="C1", charge_powers=[11, 22.0, "7.4"])).created
    client.vehicles.put(Vehicle(id="V1", charge_capacity=Decimal("74.8"), charge_powers=(11,)))
    client.vehicles.patch("V1", charge_capacity=75, charge_powers=None)
    power: Decimal | None = client.chargers.get("C1").charge_power_max
    event = Event(
        type=EventType.VEHICLE_CONNECTED,
        charger_id="C1",
        vehicle_id="V1",
        state_of_charge=58.3,
        timestamp=datetime.now(UTC),
    )
    yield client.events.post(event)
    for result in client.events.bulk([event]):
        yield result.message if result.id is None and result.message else str((created, power))
    for found in client.events.list(type="VEHICLE_CONNECTED", to=datetime.now(UTC), order="desc"):
        moment: datetime = found.time
        yield f"{found.state_of_charge} {moment}"
    feed = client.events.follow(poll_s=2)
    for found in feed:
        yield feed.cursor
    with Outbox("outbox.db", client) as outbox:
        outbox.put(event)
        yield from (refused.message for refused in outbox.refused)


async def awaiting() -> None:
    async with AsyncClient() as client:
        try:
            await client.chargers.patch("C1", latitude="52.1", longitude=4)
        except Invalid as error:
            parameter: str | None = error.parameter
            print(parameter)
        async for charger in client.chargers.list():
            print(charger.id)


asyncio.run(awaiting())
"""

MISTAKES = """
from tether.client import Charger, Client, Event, Vehicle

client = Client()
Charger(id="C1", charge_powers=[object()])
Vehicle(id="V1")
Event(type="VEHICLE_CONNECTED", charger_id=1, vehicle_id="V1")
client.chargers.patch("C1", charge_capacity=1)
client.vehicles.put(Charger(id="C1"))
client.chargers.get("C1").colour
client.events.list(order="newest")
"""


def test_the_sdk_imports_only_the_base_installation() -> None:
    names = {re.split(r"[<>=\[]", package)[0] for package in PROJECT["dependencies"]}
    assert names == BASE
    allowed = BASE - {"aiohttp"} | WITH_BASE | {"tether"}
    done = subprocess.run(
        [sys.executable, "-c", IMPORTER, ",".join(allowed)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert not re.search(r"tether\.(api|store|cli|wiring|admin|limits)\b", done.stdout)


@pytest.mark.parametrize(("source", "mistakes"), [(EXAMPLE, set()), (MISTAKES, set(range(5, 12)))])
def test_strict_type_checking_of_a_users_program(
    tmp_path: Path, source: str, mistakes: set[int]
) -> None:
    program = tmp_path / "program.py"
    program.write_text(source)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file=", program.name],
        cwd=tmp_path, capture_output=True, text=True, check=False,
        env={"MYPY_CACHE_DIR": str(ROOT / ".mypy_cache" / "users")},
    )  # fmt: skip
    lines = {int(line) for line in re.findall(r"^program\.py:(\d+): error", done.stdout, re.M)}
    assert lines == mistakes, done.stdout + done.stderr
    assert "found 0" in done.stdout or "no issues" in done.stdout or mistakes
