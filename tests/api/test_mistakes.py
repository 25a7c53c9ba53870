"""The mistakes of newcomers, each with the whole answer: see the table in mistakes.md."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from tests.api.helpers import CHARGER, CONNECTED, ON_ONE_ENGINE, VEHICLE, message
from tests.conftest import Server

TABLE = Path(__file__).with_name("mistakes.md").read_text(encoding="utf-8")


class Mistake(NamedTuple):
    """A row of the table."""

    name: str
    request: str
    headers: str
    body: str
    status: str
    code: str
    message: str


def rows() -> list[Mistake]:
    found = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in TABLE.splitlines()
        if re.match(r"\| (?!mistake \|)", line)
    ]
    return [Mistake(*(cell.removeprefix("`").removesuffix("`") for cell in row)) for row in found]


MISTAKES = rows()


class Partner(NamedTuple):
    """The partner that makes the mistakes, and the words for its keys in the table."""

    client: httpx.Client
    keys: dict[str, str]

    def filled(self, text: str) -> str:
        """The text of a cell with real keys in the places of those words; `$KEY` stays."""
        return re.sub(r"(?<!\$)\b(" + "|".join(self.keys) + r")\b", self._key, text)

    def _key(self, word: re.Match[str]) -> str:
        return self.keys[word[0]]

    def headers(self, text: str) -> dict[str, str]:
        pairs = (one.partition(":") for one in text.split("; ") if one not in ("", "none"))
        given = {name: self.filled(value.strip()) for name, _, value in pairs}
        of_key = not text or (text != "none" and set(given) <= {"Content-Encoding"})
        return {"x-api-key": self.keys["KEY"], **given} if of_key else given


@pytest.fixture(scope="module")
def partner(server: Server) -> Iterator[Partner]:
    key = server.key("a newcomer")
    keys = {
        "KEY": key,
        "READONLY": server.key("a newcomer", read_only=True),
        "MISTYPED": key[:-1] + ("a" if key[-1] != "a" else "b"),
        "PREFIX": key[:17],
    }
    with server.client(key) as client:
        client.put("/chargers/C1", json=CHARGER)
        client.put("/chargers/R1", json={"chargePowerMin": 4, "chargePowerMax": 22})
        client.put("/vehicles/V1", json=VEHICLE)
        assert client.post("/events", json=CONNECTED).status_code == 201
    with httpx.Client(base_url=server.url, verify=False, timeout=30) as client:
        yield Partner(client, keys)


def test_there_are_enough_of_them() -> None:
    assert len(MISTAKES) >= 85
    assert len({one.name for one in MISTAKES}) == len(MISTAKES)


@ON_ONE_ENGINE
@pytest.mark.parametrize("mistake", MISTAKES, ids=[one.name for one in MISTAKES])
def test_a_mistake_is_answered_with_what_to_do(partner: Partner, mistake: Mistake) -> None:
    method, path = mistake.request.split(" ", 1)
    answer = partner.client.request(
        method,
        partner.filled(path),
        headers=partner.headers(mistake.headers),
        content=mistake.body.encode("latin-1").decode("unicode_escape").encode("latin-1")
        if "\\x" in mistake.body
        else mistake.body,
    )
    told = (str(answer.status_code), answer.headers["tether-error"], message(answer))
    assert told == (mistake.status, mistake.code, mistake.message)
