"""Rate limits of the console, in all workers together."""

import time
from ipaddress import IPv6Address, ip_address, ip_network
from typing import NamedTuple

from tether.domain.errors import RateLimited
from tether.domain.keys import Rate
from tether.server.authenticator import TokenBuckets


class _Client(NamedTuple):
    digest: str
    rate: Rate
    burst: int


class RateLimit:
    """Limits how often each client may do something. A text tells clients apart."""

    def __init__(self, rate: Rate, workers: int, *, burst: int | None = None) -> None:
        """The default burst is the number of the rate."""
        self._rate = rate
        self._burst = burst or rate.requests
        self._buckets = TokenBuckets(time.monotonic, workers, max_keys=10_000)

    async def check(self, client: str) -> None:
        """Counts an attempt of this client. Raises RateLimited if there are too many."""
        verdict = await self._buckets.take(_Client(client, self._rate, self._burst))
        if not verdict.allowed:
            raise RateLimited(verdict.retry_after_s)


def network_of(address: str | None) -> str:
    """The IPv4 address, or the /64 network of the IPv6 address, which belongs to one customer.

    Empty if there is no address.
    """
    try:
        found = ip_address(address or "")
    except ValueError:
        return ""
    if isinstance(found, IPv6Address):
        return str(ip_network((found, 64), strict=False))
    return str(found)
