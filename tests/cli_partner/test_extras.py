"""A sentence says that an extra is not installed. No command needs an extra without using it."""

import subprocess
from pathlib import Path

from tests.commands import Command
from tests.conftest import TETHER

SERVER_ONLY = (
    "apsw", "falcon", "httptools", "httpx", "prometheus_client", "psycopg", "redis", "structlog",
    "throttled", "uuid_utils", "uvicorn", "uvloop", "yaml",
)  # fmt: skip


def without(folder: Path, *modules: str) -> str:
    """A folder that, on Python's path, makes these modules look as if they were not installed."""
    for module in modules:
        (folder / f"{module}.py").write_text(f"raise ModuleNotFoundError(name={module!r})")
    return str(folder)


def test_without_click_the_command_says_what_to_install(tmp_path: Path) -> None:
    done = subprocess.run(
        [TETHER.with_name("python"), "-m", "tether", "--help"],
        env={"PYTHONPATH": without(tmp_path, "click")},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (
        1, "", "tether: The command line needs click: pip install '.[cli]' in Tether's folder\n",
    )  # fmt: skip


def test_a_partner_needs_nothing_of_the_servers(partner: Command, tmp_path: Path) -> None:
    (tmp_path / "missing").mkdir()
    partner.environment["PYTHONPATH"] = without(tmp_path / "missing", *SERVER_ONLY)
    assert "Your data:" in partner.ok("--help")
    assert "Created" in partner.ok("chargers", "put", "C1", "--charge-powers", "11")
    assert partner.in_terminal("chargers", "list")[0] == 0
    partner.ok("export", "chargers", "--output", "c.csv")
    partner.ok("import", "c.csv")
    span = ("--from", "2026-01-05", "--for", "6h", "--speed", "1000000")
    partner.ok("simulate", "--chargers", "2", "--vehicles", "2", *span)
    said = partner.refused("serve")
    assert said.endswith("pip install '.[server]' in Tether's folder")
    assert said.startswith("This command needs ")


def test_without_rich_the_command_says_what_to_install(partner: Command, tmp_path: Path) -> None:
    (tmp_path / "missing").mkdir()
    partner.environment["PYTHONPATH"] = without(tmp_path / "missing", "rich")
    partner.ok("export", "chargers")  # a pipe gets nothing that is drawn
    status, said = partner.in_terminal("export", "chargers", "--output", "c.csv")
    assert status == 1
    assert "This command needs rich: pip install '.[cli]' in Tether's folder" in said
