"""Reads Server-Sent Events as the HTML standard says, without code of our SDK."""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any, NamedTuple

import httpx

PATIENCE_S = 40.0  # a stream has no end, but a test has


class Message(NamedTuple):
    """A message, and the last event id as it is when the message is dispatched."""

    name: str
    id: str
    data: Any

    @property
    def is_place(self) -> bool:
        """There was a new id and no message."""
        return self.data is None


def messages(lines: Iterable[str]) -> Iterator[Message]:
    """The messages in these lines, and the ids that come without one."""
    name, last_id, told = "", "", False
    data: list[str] = []
    deadline = monotonic() + PATIENCE_S
    for line in lines:
        assert monotonic() < deadline, "what the test waits for does not come"
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not line:
            if data or told:
                yield Message(name, last_id, json.loads("\n".join(data)) if data else None)
            name, data, told = "", [], False
        elif field == "event":
            name = value
        elif field == "data":
            data.append(value)
        elif field == "id":
            last_id, told = value, True


@contextmanager
def streaming(
    client: httpx.Client, last_id: str | None = None, **query: str
) -> Iterator[Iterator[Message]]:
    """The messages of a new stream; the first is its position."""
    headers = {} if last_id is None else {"Last-Event-ID": last_id}
    with client.stream("GET", "/stream", params=query, headers=headers) as answer:
        assert answer.status_code == 200, answer.read()
        yield messages(answer.iter_lines())


def up_to(found: Iterator[Message], last_id: str) -> list[Message]:
    """The messages up to and including the one with this id."""
    taken = []
    for message in found:
        if not message.is_place:
            taken.append(message)
        if message.id == last_id:
            break
    return taken


def without_age(state: dict[str, Any]) -> dict[str, Any]:
    """A state without the values that depend on the time of the read."""
    return {name: value for name, value in state.items() if name != "asOf" and "Age" not in name}


def events_in(found: Iterable[Message]) -> list[Any]:
    """The events among them."""
    return [message.data for message in found if message.name == "event"]


def states_in(found: Iterable[Message]) -> dict[str, Any]:
    """The newest state of each vehicle among them."""
    states = (message.data for message in found if message.name == "state")
    return {state["vehicleId"]: without_age(state) for state in states}
