import re
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.commands import Command
from tests.conftest import Server
from tether.domain.keys import Rate, is_well_formed


def test_a_new_key_stands_alone_on_standard_output(tether: Command) -> None:
    done = tether("keys", "create", "acme")
    key = done.stdout.removesuffix("\n")
    assert is_well_formed(key)
    assert key.startswith("ttr_live_")
    assert "New partner acme." in done.stderr
    assert key not in done.stderr


def test_the_options_of_a_key_are_what_the_list_shows(tether: Command) -> None:
    tether.ok("keys", "create", "acme")
    options = ("--name", "billing", "--rate", "90/min", "--burst", "7", "--read-only", "--test")
    key = tether.ok("keys", "create", "acme", *options, "--expires", "2100-01-31")
    plain, special = tether.json("keys", "list")
    assert (plain["rate"], plain["burst"]) == ({"requests": 1000, "windowSeconds": 1}, 1000)
    assert (plain["name"], plain["expiresAt"], plain["readOnly"]) == ("", None, False)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", plain.pop("createdAt"))
    assert special.pop("createdAt")
    assert special == {
        "prefix": key[:17],
        "partner": "acme",
        "name": "billing",
        "state": "active",
        "rate": {"requests": 90, "windowSeconds": 60},
        "burst": 7,
        "readOnly": True,
        "test": True,
        "expiresAt": "2100-01-31T00:00:00.000Z",
        "revokedAt": None,
        "lastUsedAt": None,
        "lastUsedFrom": None,
    }
    assert key.startswith("ttr_test_")


def test_a_list_in_a_pipe_is_aligned_text_and_in_a_terminal_fits_80_columns(
    tether: Command,
) -> None:
    name = "Energie & Söhne GmbH (Nord)"
    key = tether.key(name, name="a [red]name[/red] in brackets", rate=Rate(5000, 3600))
    header, row = tether.ok("keys", "list").splitlines()
    assert header.split() == ["Key", "Partner", "Name", "Rate", "Access", "State", "Used"]
    assert row.startswith(f"{key[:17]}  {name}  a [red]name[/red] in brackets  5000/h ")
    assert header.index("Rate") == row.index("5000/h")
    status, seen = tether.in_terminal("keys", "list")
    assert status == 0
    assert key[:17] in seen
    assert max(map(len, seen.splitlines())) <= 80


def test_revoked_and_expired_keys_stay_in_the_list_with_their_state(tether: Command) -> None:
    revoked = tether.key("acme")
    tether.key("acme", expires_ms=time.time_ns() // 1_000_000 + 500)
    tether.key("other")
    assert "Revoked" in tether.ok("keys", "revoke", revoked[:17])
    time.sleep(0.5)
    assert [key["state"] for key in tether.json("keys", "list", "acme")] == ["revoked", "expired"]
    listed = tether.ok("keys", "list")
    assert "revoked 20" in listed
    assert "expired 20" in listed
    assert "is revoked since" in tether.ok("keys", "revoke", revoked[:17])


def test_a_key_goes_by_any_unambiguous_beginning(tether: Command) -> None:
    keys = [tether.key(f"partner {number}", test=number == 3) for number in range(5)]
    while len({key[9:12] for key in keys}) < 5:  # practically never
        keys = [tether.key(f"partner {number}") for number in range(5)]
    beginnings = {
        "some of it": keys[0][:13],
        "more than what is stored": keys[1][:30],
        "all of it": keys[2],
        "without ttr_test_": keys[3][9:14],
    }
    for beginning in beginnings.values():
        tether.ok("keys", "revoke", beginning)
    states = {key["prefix"]: key["state"] for key in tether.json("keys", "list")}
    assert [states[key[:17]] for key in keys] == ["revoked"] * 4 + ["active"]


def test_an_ambiguous_beginning_names_the_candidates_and_does_nothing(tether: Command) -> None:
    keys = [tether.key("acme"), tether.key("other")]
    said = tether.refused("keys", "revoke", "ttr_live_")
    assert f"{keys[0][:17]} of acme" in said
    assert f"{keys[1][:17]} of other" in said
    assert "There is no key" in tether.refused("keys", "revoke", "ttr_live_000")
    mistyped = keys[0][:-1] + ("0" if keys[0][-1] != "0" else "1")
    assert "There is no key" in tether.refused("keys", "revoke", mistyped)
    assert {key["state"] for key in tether.json("keys", "list")} == {"active"}


def test_no_message_and_no_file_holds_a_whole_key(tether: Command) -> None:
    key = tether.key("acme")
    for words in (
        ("keys", "list", key),
        ("keys", "create", key),
        ("keys", "create", "acme", "--name", key),
        ("keys", "revoke", key, key),
        ("partners", "show", key),
        ("partners", "rename", "acme", key),
    ):
        done = tether(*words)
        assert done.returncode in (1, 2)
        assert key not in done.stdout + done.stderr
    files = [file for file in tether.folder.rglob("*") if file.is_file()]
    assert files
    assert not any(key.encode() in file.read_bytes() for file in files)


def test_a_rotated_key_may_do_the_same_and_the_old_one_works_during_the_overlap(
    new_server: Callable[..., Server], tether: Command
) -> None:
    old = tether.key("acme", name="app", rate=Rate(50, 60), read_only=True, test=True)
    server = new_server(database=tether.database)
    new = tether.ok("keys", "rotate", old[:17], "--overlap", "3s").rstrip("\n")
    rotated = time.monotonic()
    assert is_well_formed(new)
    assert new != old
    assert _status(server, old) == _status(server, new) == 200
    first, second = tether.json("keys", "list")
    same = ("partner", "name", "rate", "burst", "readOnly", "test")
    assert [first[member] for member in same] == [second[member] for member in same]
    assert (first["expiresAt"] is None) != (second["expiresAt"] is None)
    time.sleep(max(0, rotated + 3.5 - time.monotonic()))
    assert (_status(server, old), _status(server, new)) == (403, 200)
    assert "does not work any more" in tether.refused("keys", "rotate", old)


def test_a_key_with_an_end_is_rotated_into_one_that_lives_as_long(tether: Command) -> None:
    old = tether.key("acme", expires_ms=time.time_ns() // 1_000_000 + 90 * 86_400_000)
    tether.ok("keys", "rotate", old[:17], "--overlap", "0")
    ends = {key["prefix"] == old[:17]: key["expiresAt"] for key in tether.json("keys", "list")}
    assert ends[True] < ends[False]
    assert len(ends) == 2


def test_what_a_key_may_do_is_changed_and_a_running_server_follows(
    server: Server, tether_on: Callable[[str], Command]
) -> None:
    tether = tether_on(server.database)
    key = tether.ok("keys", "create", "set", "--name", "old", "--expires", "90d").rstrip("\n")

    def shown() -> dict[str, Any]:
        (found,) = tether.json("keys", "list", "set")
        return dict(found)

    said = tether.ok("keys", "set", key[:17], "--rate", "2/h", "--name", "new")
    assert "2/h (burst 2)" in said
    assert (shown()["rate"], shown()["burst"], shown()["name"]) == (
        {"requests": 2, "windowSeconds": 3600},
        2,
        "new",
    )
    assert shown()["expiresAt"] is not None
    assert [_status(server, key) for _ in range(3)] == [200, 200, 429]

    tether.ok("keys", "set", key[:17], "--burst", "7", "--expires", "never")
    assert (shown()["burst"], shown()["expiresAt"], shown()["rate"]["requests"]) == (7, None, 2)
    tether.ok("keys", "set", key, "--rate", "1000/s")
    assert (shown()["burst"], shown()["name"]) == (7, "new")
    _until_status(server, key, 200)

    assert "in the past" in tether.refused("keys", "set", key[:17], "--expires", "2001-01-01")
    assert "Give what to change" in tether.refused("keys", "set", key[:17], status=2)
    assert "printable" in tether.refused("keys", "set", key[:17], "--name", "a\x1b[2Jb")
    tether.ok("keys", "set", key[:17], "--expires", "6s")
    _until_status(server, key, 403)
    assert shown()["state"] == "expired"
    tether.ok("keys", "set", key[:17], "--expires", "1h")
    _until_status(server, key, 200)
    tether.ok("keys", "revoke", key[:17])
    assert "for good" in tether.refused("keys", "set", key[:17], "--expires", "1h")


def test_a_key_is_rotated_into_one_with_another_rate(tether: Command) -> None:
    old = tether.key("acme", rate=Rate(50, 60), burst=50)
    tether.ok("keys", "rotate", old[:17], "--rate", "90/min")
    tether.ok("keys", "rotate", old[:17], "--rate", "70/h", "--burst", "9")
    rates = {(key["rate"]["requests"], key["burst"]) for key in tether.json("keys", "list")}
    assert rates == {(50, 50), (90, 90), (70, 9)}


@pytest.mark.parametrize("engine", ["sqlite", "postgres"])
def test_the_list_says_when_and_from_where_a_key_was_used_last(
    new_server: Callable[..., Server],
    tether_on: Callable[[str], Command],
    new_postgres_database: Callable[[], str],
    tmp_path: Path,
    engine: str,
) -> None:
    database = new_postgres_database() if engine == "postgres" else str(tmp_path / "tether.db")
    server = new_server("--trusted-proxy", "127.0.0.1", database=database)
    tether = tether_on(database)
    used, unused = tether.key("acme"), tether.key("acme")
    before = time.time()
    headers = {"x-api-key": used, "X-Forwarded-For": "203.0.113.9"}
    for _ in range(3):
        assert httpx.get(f"{server.url}/chargers", headers=headers).status_code == 200
    assert server.stop() == 0
    found = {key["prefix"]: key for key in tether.json("keys", "list")}
    assert found[used[:17]]["lastUsedFrom"] == "203.0.113.9"
    at = datetime.fromisoformat(found[used[:17]]["lastUsedAt"]).timestamp()
    assert before - 1 <= at <= time.time() + 1
    assert found[unused[:17]]["lastUsedAt"] is None
    assert " 203.0.113.9" in tether.ok("keys", "list")


def _until_status(server: Server, key: str, status: int) -> None:
    deadline = time.monotonic() + 90
    while _status(server, key) != status:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_running_server_follows_within_two_seconds(
    server: Server, tether_on: Callable[[str], Command]
) -> None:
    tether = tether_on(server.database)
    key = tether.ok("keys", "create", "follower", "--rate", "1000000").rstrip("\n")
    assert _status(server, key) == 200
    tether.ok("keys", "revoke", key[:17])
    revoked = time.monotonic()
    asked = revoked
    while _status(server, key) != 403:
        assert asked < revoked + 2  # the answer itself may take its time
        time.sleep(0.05)
        asked = time.monotonic()


def test_bad_options_are_refused_with_what_would_be_right(tether: Command) -> None:
    for option, value, sentence in (
        ("--rate", "90/fortnight", "write 100 (a second), 90/min or 5000/h"),
        ("--expires", "tomorrow", "a date such as 2030-01-31"),
        ("--expires", "2001-01-01", "'2001-01-01' is in the past."),
        ("--burst", "none", "'none' is not a valid whole number"),
    ):
        said = tether.refused("keys", "create", "acme", option, value, status=2)
        assert option in said
        assert sentence in said
    assert "cannot be a partner's name" in tether.refused("keys", "create", "../acme")
    assert "printable" in tether.refused("keys", "create", "acme", "--name", "a\x1b[2Jb")
    assert not Path(tether.database).exists()  # nothing was made


def test_only_the_owner_can_read_a_new_database(tether: Command) -> None:
    tether.ok("keys", "create", "acme")
    assert Path(tether.database).stat().st_mode & 0o777 == 0o600
    with closing(sqlite3.connect(f"file:{tether.database}?mode=ro", uri=True)) as database:
        ((digest, prefix),) = database.execute("SELECT digest, prefix FROM keys").fetchall()
    assert re.fullmatch("[0-9a-f]{64}", digest)
    assert len(prefix) == 17


def _status(server: Server, key: str) -> int:
    return httpx.get(f"{server.url}/chargers", headers={"x-api-key": key}).status_code
