"""Processes that fork while they use a client get the answers to their own requests."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.abuse.forking import CALLS, CHILDREN, update
from tests.conftest import ROOT, Server
from tether.client import Charger, Client, Vehicle

Fork = Callable[..., None]


@pytest.fixture
def key(server: Server) -> str:
    """The key of a partner; only one process asks for each of its chargers."""
    key = server.key()
    with Client(server.url, key) as client:
        client.vehicles.put(Vehicle(id="V1", charge_capacity=50, charge_powers=[11]))
        for who in range(CHILDREN + 1):
            for call in range(CALLS):
                client.chargers.put(Charger(id=f"P{who}-{call}", charge_powers=[11]))
    return key


@pytest.fixture
def fork(server: Server, key: str) -> Fork:
    """Runs one of the programs that fork."""

    def run(name: str, *arguments: str) -> None:
        # Newer Pythons warn of forks beside threads, and these tests do exactly that.
        python = [sys.executable, "-W", "ignore::DeprecationWarning"]
        command = [*python, "-m", "tests.abuse.forking", name, server.url, key, *arguments]
        done = subprocess.run(
            command, capture_output=True, text=True, cwd=ROOT, timeout=240, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")

    return run


def energies(server: Server, key: str) -> list[int]:
    with Client(server.url, key) as client:
        return [int(event.charged_time or 0) for event in client.events.list()]


@pytest.mark.parametrize("name", ["plain", "processes", "threads", "awaiting"])
def test_everybody_gets_the_answers_to_his_own_questions(fork: Fork, name: str) -> None:
    fork(name)


def test_a_call_leaves_nothing_to_import(fork: Fork) -> None:
    fork("imports")


def test_posts_that_share_requests_are_those_of_one_process(
    fork: Fork, server: Server, key: str
) -> None:
    fork("posting")
    wanted = {1000 * who + call for who in range(CHILDREN + 1) for call in range(CALLS)}
    assert set(energies(server, key)) == wanted


def test_a_stream_goes_on_in_both(fork: Fork, server: Server, key: str) -> None:
    with Client(server.url, key) as client:
        client.events.post(update(0))
    fork("stream")


def test_an_outbox_is_delivered_once_and_in_order(
    fork: Fork, server: Server, key: str, tmp_path: Path
) -> None:
    fork("outbox", str(tmp_path / "outbox.db"))
    found = energies(server, key)
    assert len(found) == 1 + CHILDREN * CALLS
    for child in range(1, CHILDREN + 1):
        mine = [number for number in found if number // 1000 == child]
        assert mine == [1000 * child + number for number in range(CALLS)]
