"""The form of keys, their checksum, and how rates are written."""

import asyncio
import re
from collections import Counter

import pytest

from tether.domain.errors import Forbidden
from tether.domain.keys import Key, Rate, digest_of, is_well_formed, new_key, parse_rate, prefix_of
from tether.server.authenticator import Authenticator


def test_a_key_has_its_form_and_is_never_made_twice() -> None:
    keys = [new_key() for _ in range(500)]
    assert len(set(keys)) == 500
    assert all(re.fullmatch(r"ttr_live_[0-9A-Za-z]{36}", key) for key in keys)
    assert new_key(test=True).startswith("ttr_test_")
    characters = Counter("".join(key[9:39] for key in keys))
    assert len(characters) == 62


def test_the_checksum_finds_every_single_mistyped_character() -> None:
    key = new_key()
    assert is_well_formed(key)
    for place in range(len(key)):
        for wrong in "0aZ_":
            if key[place] != wrong:
                assert not is_well_formed(key[:place] + wrong + key[place + 1 :])


@pytest.mark.parametrize("bad", ["", " ", "ttr_live_", "ttr_live_" + "é" * 36, "x" * 45])
def test_what_has_not_the_form_is_no_key(bad: str) -> None:
    assert not is_well_formed(bad)
    assert not is_well_formed(new_key() + bad + "\n")
    assert not is_well_formed("\n" + new_key())


def test_what_is_stored_of_a_key_does_not_tell_it() -> None:
    key = new_key()
    assert len(digest_of(key)) == 64
    assert prefix_of(key) == key[:17]


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("100", Rate(100, 1)),
        ("100/s", Rate(100, 1)),
        ("90/min", Rate(90, 60)),
        ("5000/h", Rate(5000, 3600)),
        ("0.5", Rate(1, 2)),
        ("100/30s", Rate(100, 30)),
        (" 2 / M ", Rate(2, 60)),
    ],
)
def test_a_rate_is_read_as_people_write_it(text: str, rate: Rate) -> None:
    assert parse_rate(text) == rate


@pytest.mark.parametrize(
    "text", ["", "0", "-1", "many", "1/fortnight", "1e400", "nan", "inf", "1/0s", "1/2d", "/s"]
)
def test_what_is_not_a_rate_is_refused_with_a_sentence(text: str) -> None:
    with pytest.raises(ValueError, match="is not a rate: write"):
        parse_rate(text)


class Clock:
    """A clock that stands until it is moved, and a store of one key that counts its reads."""

    def __init__(self) -> None:
        self.now_ms = 1_000_000
        self.reads = 0
        self.secret = new_key()
        self.key: Key | None = Key(
            digest_of(self.secret), prefix_of(self.secret), 1, "p", "", Rate(1, 1), 1, False, 0
        )

    async def find(self, digest: str) -> Key | None:
        self.reads += 1
        return self.key if self.key is not None and self.key.digest == digest else None


async def _works(ring: Authenticator, secret: str) -> bool:
    try:
        await ring.authenticate(secret)
    except Forbidden:
        return False
    return True


def test_a_key_is_looked_up_once_a_second_and_a_revoked_one_is_forgotten_within_two() -> None:
    async def story() -> None:
        clock = Clock()
        ring = Authenticator(clock.find, lambda: clock.now_ms)
        assert await _works(ring, clock.secret)
        clock.now_ms += 999
        assert await _works(ring, clock.secret)
        assert clock.reads == 1
        clock.key = None
        clock.now_ms += 1001
        assert not await _works(ring, clock.secret)
        assert not await _works(ring, new_key())
        assert not await _works(ring, "nonsense")
        assert clock.reads == 3

    asyncio.run(story())
