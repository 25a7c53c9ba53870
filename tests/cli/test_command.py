import resource
import signal
import sqlite3
import subprocess
import time
from contextlib import closing

import pytest

from tests.commands import Command
from tests.conftest import TETHER
from tether.cli.times import parse_duration, parse_when

NOW_MS = 1_700_000_000_000


def test_help_shows_the_commands_in_groups_with_examples(tether: Command) -> None:
    said = tether.ok("--help")
    assert said.index("\nServer:") < said.index("\n  serve ") < said.index("\nKeys and partners:")
    assert "KEY=$(tether keys create acme)" in said
    assert max(map(len, said.splitlines())) <= 80
    assert tether.ok("--version").startswith("tether, version ")


@pytest.mark.parametrize("module", ["rich", "uvicorn", "falcon", "apsw", "psycopg", "httpx2"])
def test_help_loads_nothing_heavy(module: str, imported_by_help: set[str]) -> None:
    assert module not in imported_by_help


@pytest.fixture(scope="module")
def imported_by_help() -> set[str]:
    """The names of all modules that `tether --help` imports."""
    done = subprocess.run(
        [TETHER.with_name("python"), "-X", "importtime", TETHER, "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    return {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}


@pytest.mark.parametrize(
    "group", ["", "keys", "partners", "chargers", "vehicles", "events", "state", "sessions",
              "webhooks", "epoch"],
)  # fmt: skip
def test_no_summary_of_a_command_is_cut_off(tether: Command, group: str) -> None:
    shown = tether.ok(*group.split(), "--help")
    assert [line for line in shown.splitlines()[1:] if line.endswith("...")] == []


def test_limits_of_numbers_are_told_in_words(tether: Command) -> None:
    assert "70000 is not in the range 0 to 65535." in tether.refused(
        "serve", "--port", "70000", status=2
    )
    assert "0 is not in the range 1 or more." in tether.refused("audit", "--limit", "0", status=2)
    assert "<=" not in tether.ok("serve", "--help")
    assert "is too large." in tether.refused("audit", "--limit", "9" * 30, status=2)


def test_a_bad_setting_is_named_with_its_variable(tether: Command) -> None:
    for variable, value in (
        ("TETHER_PORT", "http"),
        ("TETHER_METRICS", "yes"),
        ("TETHER_CORS_ORIGINS", "https://example.com/app"),
        ("TETHER_LOG_LEVEL", "loud"),
        ("TETHER_REDIS", "localhost"),
        ("TETHER_DATABASE", "mysql://host/name"),
    ):
        said = tether.refused("serve", status=2, **{variable: value})
        option = "--" + variable.removeprefix("TETHER_").lower().replace("_", "-")
        assert f"'{option}' (env var: '{variable}')" in said


def test_a_database_that_cannot_be_used_is_named_in_sentences(tether: Command) -> None:
    said = tether.refused("keys", "list", "--database", "postgresql://127.0.0.1:1/x")
    assert "Connection refused. Is the server running on that host" in said
    assert tether.refused("restore", ".") == ". is a folder: name a backup in it."


def test_an_address_that_cannot_be_listened_on_is_explained(tether: Command) -> None:
    said = tether.refused("serve", "--host", "a" * 70 + ".example")
    assert "--host (TETHER_HOST)" in said


def test_mistakes_in_the_command_have_status_2(tether: Command) -> None:
    assert tether.refused("bogus", status=2) == "No such command 'bogus'."
    assert tether.refused("key", "list", status=2).endswith("Did you mean 'keys'?")
    assert "PARTNER" in tether.refused("keys", "create", status=2)
    assert tether("keys").returncode == 2


def test_a_reader_that_goes_away_is_no_error(tether: Command) -> None:
    tether.key("acme")
    command = f"{TETHER} keys list --json | true; {TETHER} check | true; {TETHER} --help | true"
    done = subprocess.run(
        ["sh", "-c", command],
        env=tether.variables(PATH="/usr/bin:/bin"),
        cwd=tether.folder,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""


def test_output_that_cannot_be_written_is_explained(tether: Command) -> None:
    tether.key("acme")
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [TETHER, "keys", "list"],
            env=tether.variables(),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert (done.returncode, done.stderr) == (
        1,
        "tether: The output cannot be used: No space left on device.\n",
    )


@pytest.mark.parametrize("closed", [">&-", ">&- 2>&-", "<&-"])
def test_standard_files_may_be_closed(tether: Command, closed: str) -> None:
    tether.key("acme")
    done = subprocess.run(
        ["sh", "-c", f'"$0" keys list --json {closed}', TETHER],
        env=tether.variables(PATH="/usr/bin:/bin"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_what_is_printed_is_utf8_whatever_python_would_take(tether: Command) -> None:
    assert "--cors-origins ORIGIN,…" in tether.ok("serve", "--help", PYTHONIOENCODING="latin-1")


def test_a_full_disk_is_explained(tether: Command) -> None:
    tether.key("acme")
    done = subprocess.run(
        [TETHER, "keys", "create", "other"],
        env=tether.variables(),
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000)),
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("tether: ")
    assert len(done.stderr.splitlines()) == 1
    assert [partner["name"] for partner in tether.json("partners", "list")] == ["acme"]


def test_an_interrupted_command_is_quiet(tether: Command) -> None:
    tether.key("acme")
    process = subprocess.Popen(
        [TETHER, "partners", "delete", "acme", "--yes"],
        env=tether.variables(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    # Another command would be slower than this one.
    with closing(sqlite3.connect(tether.database)) as database:
        while database.execute("SELECT revoked_ms FROM keys").fetchone()[0] is None:
            time.sleep(0.01)
    process.send_signal(signal.SIGINT)  # it waits until no server knows the key any more
    printed = process.communicate(timeout=180)
    assert (process.returncode, printed) == (130, ("", "\n"))
    assert tether.ok("partners", "delete", "acme", "--yes").startswith("Erased acme: 1 key")


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [
        ("90d", 7_776_000_000),
        ("12h", 43_200_000),
        ("30m", 1_800_000),
        ("45s", 45_000),
        ("2w", 1_209_600_000),
        ("1d12h", 129_600_000),
        ("0", 0),
    ],
)
def test_durations_are_written_with_units(text: str, milliseconds: int) -> None:
    assert parse_duration(text) == milliseconds


@pytest.mark.parametrize("text", ["", "5", "-1d", "1.5h", "d", "1 y", "999999999d", "१d"])
def test_other_durations_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="90d, 12h or 30m"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("2030-01-31", 1_896_048_000_000),
        ("2030-01-31T00:00:00Z", 1_896_048_000_000),
        ("2030-01-31T01:00:00+01:00", 1_896_048_000_000),
        ("1h", NOW_MS + 3_600_000),
    ],
)
def test_a_point_in_time_is_a_date_a_date_time_or_a_duration(text: str, instant: int) -> None:
    assert parse_when(text, NOW_MS) == instant


@pytest.mark.parametrize("text", ["", "never", "2030-02-30", "2030-01-31T00:00:00", "31.1.2030"])
def test_other_points_in_time_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="a date such as 2030-01-31"):
        parse_when(text, NOW_MS)


def test_a_damaged_file_of_the_program_is_no_interruption(tether: Command) -> None:
    compiled = {"PYTHONPYCACHEPREFIX": str(tether.folder / "compiled")}
    tether("keys", "list", **compiled)
    (module,) = tether.folder.glob("compiled/**/commands/keys.*.pyc")
    module.write_bytes(module.read_bytes()[:-100])  # as Python leaves it when the disk is full
    done = tether("keys", "list", **compiled)
    assert done.returncode == 1
    assert "EOFError: marshal data too short" in done.stderr
