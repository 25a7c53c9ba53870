"""Fixtures of the tests of the HTTP API."""

from collections.abc import Iterator

import httpx
import pytest

from tests.api.helpers import Wire
from tests.conftest import Server


@pytest.fixture(scope="module")
def shared(server: Server) -> Iterator[httpx.Client]:
    """A client of a partner that the tests of a module share, if they leave nothing behind."""
    with server.client() as client:
        yield client


@pytest.fixture
def wire(server: Server) -> Iterator[Wire]:
    """A connection for bytes of the test's own, with the key of a new partner."""
    with Wire(server.url, server.key()) as wire:
        yield wire
