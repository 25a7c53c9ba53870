"""Which database a command uses when a server runs on another one."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.commands import Command
from tests.conftest import TETHER

ELSEWHERE = {"TETHER_PORT": "1"}  # nothing listens there


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[str]:
    """The address of a demo that runs in the folder of the command."""
    program = [str(TETHER), "demo", "--port", "0"]
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        assert process.stdout is not None
        yield next(line.split()[-1] for line in process.stdout if "listens on" in line)
        process.terminate()


def test_each_command_says_which_database_it_uses_if_nobody_named_it(tmp_path: Path) -> None:
    tether = Command(tmp_path, "", {"TETHER_PORT": "1"})
    default = tmp_path / "home" / ".local" / "share" / "tether" / "tether.db"
    done = tether("keys", "create", "acme")
    assert f"New database {default}." in done.stderr
    for words in (["keys", "list", "--json"], ["partners", "list"], ["epoch", "show"],
                  ["rebuild"], ["keys", "create", "acme"]):  # fmt: skip
        done = tether(*words)
        assert done.returncode == 0
        assert done.stderr.splitlines()[0] == f"Database: {default}"
        assert done.stderr.count("Database:") == 1
    assert f"For servers of {default}." in done.stderr
    assert str(default) in tether.ok("backup", "copy.db")
    assert "Database:" not in tether("keys", "list", TETHER_DATABASE="copy.db").stderr


def test_a_key_is_not_made_in_a_new_database_beside_the_one_that_is_served(
    tether: Command, demo: str
) -> None:
    tether.environment |= ELSEWHERE
    said = tether.refused("keys", "create", "my-company")
    assert said == (
        f"There is no database {tether.database}, and a server runs here on .tether/tether.db: "
        "name its database with --database (TETHER_DATABASE), or make this one with --create."
    )
    assert not Path(tether.database).exists()
    key = tether.ok("keys", "create", "acme", "--database", ".tether/tether.db").strip()
    assert tether.ok("chargers", "list", "--json", "--url", demo, "--api-key", key) == ""
    assert tether.ok("keys", "create", "acme", "--create")
    done = tether("keys", "list")
    assert done.stderr.splitlines() == [
        f"Database: {tether.database}",
        "A server runs here on .tether/tether.db, and none on this one.",
    ]


@pytest.mark.parametrize("variable", ["TETHER_PORT", "TETHER_URL"])
def test_a_server_in_another_folder_is_found_by_its_address(
    tether: Command, demo: str, variable: str, tmp_path: Path
) -> None:
    tether.folder = tmp_path / "elsewhere"
    tether.folder.mkdir()
    value = demo if variable == "TETHER_URL" else demo.rpartition(":")[2]
    tether.environment |= {**ELSEWHERE, variable: value}
    said = tether.refused("keys", "create", "my-company")
    assert f"a server runs at {demo} on another: name its database" in said


def test_check_says_that_the_server_on_the_port_uses_another_database(
    demo: str, tmp_path: Path
) -> None:
    port = demo.rpartition(":")[2]
    at = f"A Tether server answers on {port}"
    for database, said in (
        ("other.db", ["warning", f"{at}, but not on this database."]),
        (".tether/tether.db", ["ok", f"{at}, and is ready."]),
    ):
        report = json.loads(Command(tmp_path, database)("check", "--json", "--port", port).stdout)
        found = {one["check"]: [one["status"], one["message"]] for one in report["checks"]}
        assert found["port"] == said
