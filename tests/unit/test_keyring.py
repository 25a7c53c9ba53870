"""How often the store is asked for a key."""

import asyncio

import pytest

from tether.domain.errors import Forbidden, Unavailable
from tether.domain.keys import Key, Rate, digest_of, new_key
from tether.server.authenticator import CACHED_MS, Authenticator

SECRET = new_key()


class Keys:
    """A store of one key, and a clock."""

    def __init__(self) -> None:
        self.now_ms = 1_000_000
        self.asked = 0
        self.fails = False
        self.found: Key | None = Key(
            digest_of(SECRET), "p", 1, "acme", "", Rate(1, 1), 1, False, 0, None, None
        )
        self.ring = Authenticator(self.find, lambda: self.now_ms)

    async def find(self, digest: str) -> Key | None:
        self.asked += 1
        await asyncio.sleep(0)
        if self.fails:
            raise Unavailable
        return self.found


async def at_once(keys: Keys, count: int) -> list[object]:
    asking = (keys.ring.authenticate(SECRET) for _ in range(count))
    return list(await asyncio.gather(*asking, return_exceptions=True))


def test_requests_at_the_same_time_ask_once() -> None:
    async def run() -> None:
        keys = Keys()
        assert await at_once(keys, 50) == [keys.found] * 50
        keys.now_ms += CACHED_MS
        assert await at_once(keys, 50) == [keys.found] * 50
        assert keys.asked == 2

    asyncio.run(run())


def test_all_learn_that_the_key_is_gone_or_the_store_is() -> None:
    async def run() -> None:
        keys = Keys()
        keys.fails = True
        assert {type(answer) for answer in await at_once(keys, 5)} == {Unavailable}
        keys.fails, keys.found = False, None
        assert {type(answer) for answer in await at_once(keys, 5)} == {Forbidden}
        assert keys.asked == 2

    asyncio.run(run())


def test_whoever_gives_up_takes_it_from_nobody_else() -> None:
    async def run() -> None:
        keys = Keys()
        first = asyncio.create_task(keys.ring.authenticate(SECRET))
        second = asyncio.create_task(keys.ring.authenticate(SECRET))
        await asyncio.sleep(0)
        first.cancel()
        assert await second == keys.found
        with pytest.raises(asyncio.CancelledError):
            await first
        assert keys.asked == 1

    asyncio.run(run())
