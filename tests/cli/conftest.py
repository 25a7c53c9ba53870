"""The command on a database of the test's own."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.commands import Command


@pytest.fixture
def tether(tmp_path: Path) -> Command:
    """The command, on a database that does not exist yet."""
    return Command(tmp_path, str(tmp_path / "tether.db"))


@pytest.fixture
def tether_on(tmp_path: Path) -> Callable[[str], Command]:
    """Makes the command on a given database."""
    return lambda database: Command(tmp_path, database)
