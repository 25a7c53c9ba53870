"""What users see if they give the SDK a wrong address."""

import logging
import pydoc
from collections.abc import Callable
from typing import Any

import pytest

from tests.client.calls import asynchronous, blocking
from tests.services import free_port
from tether.client import AsyncClient, Client, Unavailable


@pytest.mark.parametrize("ask", [blocking, asynchronous])
def test_the_first_retry_warns_and_the_error_asks_whether_the_server_runs(
    ask: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    place = f"127.0.0.1:{free_port()}/tether"
    caplog.set_level(logging.INFO, "tether.client")
    with pytest.raises(Unavailable) as caught:
        ask(f"http://user:secret@{place}", lambda client: client.chargers.get("C1"), retries=2)
    asked = f"Is the server running at http://{place}?"
    assert caught.value.message.endswith(asked)
    assert "Connect" in caught.value.message
    assert caught.value.status is None
    first, second = (record for record in caplog.records if record.name == "tether.client")
    assert (first.levelname, second.levelname) == ("WARNING", "INFO")
    assert asked in first.getMessage()
    assert "Trying again in" in first.getMessage()
    assert "secret" not in caplog.text + str(caught.value)


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_help_shows_only_public_names(kind: type) -> None:
    text = pydoc.render_doc(kind)
    assert "users" not in text
    public = {name for name in vars(kind) if not name.startswith("_")}
    assert public == {"audit", "close", "energy", "stream"}
