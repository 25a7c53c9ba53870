"""Where requests to endpoints may go: to the internet, and nowhere inside.

What counts is the address that a socket is about to connect to. So it does not matter whether it
stood in the URL or a name led to it, at which moment, or how often that name changes.
"""

import socket
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any, TypeAlias

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network

# In which an IPv4 address stands at the end, or behind so many bits.
_EMBEDDED = {
    ip_network("::/96"): 96,  # IPv4-compatible
    ip_network("::ffff:0:0/96"): 96,  # IPv4-mapped
    ip_network("::ffff:0:0:0/96"): 96,  # IPv4-translated
    ip_network("64:ff9b::/96"): 96,  # NAT64
    ip_network("2002::/16"): 16,  # 6to4
}
# Those that the lists of Python do not have, or not in every version.
_NOT_GLOBAL = [
    ip_network(text)
    for text in (
        "100.64.0.0/10", "192.0.0.0/24", "192.88.99.0/24", "198.18.0.0/15", "240.0.0.0/4",
        "64:ff9b:1::/48", "100::/64", "2001::/23", "2001:db8::/32", "3fff::/20", "5f00::/16",
        "fc00::/7", "fe80::/10", "fec0::/10",
    )
]  # fmt: skip


class Refused(OSError):
    """The address is one to which no request may go."""


class Addresses:
    """To which addresses requests may go: all of the internet, and these networks."""

    def __init__(self, allowed: Sequence[Network] = ()) -> None:
        self._allowed = allowed

    def check(self, text: str) -> None:
        """Raises Refused if no request may go to this IP address."""
        address = ip_address(text.partition("%")[0])
        if any(_is_in(one, network) for one in _forms(address) for network in self._allowed):
            return
        for one in _forms(address):
            if kind := _kind(one):
                raise Refused(f"{text} is {kind}: no request goes there.")
        if _is_our_own(address):
            raise Refused(f"{text} is an address of this server: no request goes there.")

    def open_socket(self, found: tuple[Any, ...]) -> socket.socket:
        """A socket for what getaddrinfo found. Raises Refused."""
        family, kind, protocol, _, place = found
        self.check(place[0])
        return socket.socket(family, kind, protocol)


def _forms(address: Address) -> Iterator[Address]:
    """The address, and the IPv4 address that is in it, if there is one."""
    yield address
    if isinstance(address, IPv6Address):
        for network, skipped in _EMBEDDED.items():
            if address in network and int(address) > 1:  # :: and ::1 have names of their own
                yield IPv4Address(int(address) >> (96 - skipped) & 0xFFFFFFFF)


def _kind(address: Address) -> str | None:
    """What it is that is not on the internet; None if it is there."""
    embeds = any(_is_in(address, network) for network in _EMBEDDED)  # what is in it decides
    kinds = {
        "unspecified": address.is_unspecified,
        "a loopback address": address.is_loopback,
        "a link-local address": address.is_link_local,
        "a multicast address": address.is_multicast,
        "not an address of the internet": any(_is_in(address, one) for one in _NOT_GLOBAL),
        "a private address": not embeds and (address.is_private or not address.is_global),
    }
    return next((kind for kind, holds in kinds.items() if holds), None)


def _is_in(address: Address, network: Network) -> bool:
    return address.version == network.version and address in network


def _is_our_own(address: Address) -> bool:
    """Whether this machine has the address. To connect a datagram socket sends nothing."""
    family = socket.AF_INET if isinstance(address, IPv4Address) else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((str(address), 9))
            return ip_address(probe.getsockname()[0].partition("%")[0]) == address
    except OSError:  # it cannot be reached at all
        return False
