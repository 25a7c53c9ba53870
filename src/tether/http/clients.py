"""Who calls: the address from which a request came, also through proxies that we trust."""

from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from falcon.asgi import Request

LONGEST_FORWARDED = 2_000  # characters of X-Forwarded-For that are looked at, from its end
MOST_HOPS = 10


class Clients:
    """Tells the address of a request's client.

    X-Forwarded-For is a claim: it is believed as far as those who wrote it, from the last one
    backwards, are among the trusted networks.
    """

    def __init__(self, trusted: Sequence[str]) -> None:
        self._networks = [ip_network(network) for network in trusted]
        self._is_trusted = lru_cache(maxsize=1024)(self._lies_in_a_network)

    def of(self, req: Request) -> str | None:
        """The address; None where the connection has none."""
        peer = req.scope["client"]
        if peer is None:
            return None
        client: str = peer[0].removeprefix("::ffff:")  # of IPv4, on a socket for both
        if self._networks and self._is_trusted(client):
            return self._forwarded(req, client)
        return client

    def _forwarded(self, req: Request, client: str) -> str:
        claimed = (req.get_header("X-Forwarded-For") or "")[-LONGEST_FORWARDED:]
        for hop in claimed.rsplit(",", MOST_HOPS)[: -MOST_HOPS - 1 : -1]:
            address = _address(hop)
            if address is None:
                return client
            client = str(address)
            if not self._is_trusted(client):
                break
        return client

    def _lies_in_a_network(self, client: str) -> bool:
        address = _address(client)
        return address is not None and any(address in network for network in self._networks)


def _address(text: str) -> IPv4Address | IPv6Address | None:
    """The address, also if a port follows it, or IPv6 has one of IPv4 in it."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    if "%" in text:  # the zone of an address may be any text
        return None
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
