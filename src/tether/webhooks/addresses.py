"""The addresses to which webhooks may be sent: those of the internet, but no internal ones.

The check is for the address to which a socket is about to connect. So it holds for addresses in
URLs and for names, even if a name changes its address at any moment.
"""

import socket
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any, TypeAlias

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network

# IPv6 networks whose addresses have an IPv4 address after this number of bits.
_EMBEDDED = {
    ip_network("::/96"): 96,  # IPv4-compatible
    ip_network("::ffff:0:0/96"): 96,  # IPv4-mapped
    ip_network("::ffff:0:0:0/96"): 96,  # IPv4-translated
    ip_network("64:ff9b::/96"): 96,  # NAT64
    ip_network("2002::/16"): 16,  # 6to4
}
# Networks that Python does not know as internal, or not in every version.
_NOT_GLOBAL = [
    ip_network(text)
    for text in (
        "100.64.0.0/10", "192.0.0.0/24", "192.88.99.0/24", "198.18.0.0/15", "240.0.0.0/4",
        "64:ff9b:1::/48", "100::/64", "2001::/23", "2001:db8::/32", "3fff::/20", "5f00::/16",
        "fc00::/7", "fe80::/10", "fec0::/10",
    )
]  # fmt: skip


class ForbiddenAddress(OSError):
    """No request may go to this address."""


class AddressRules:
    """Allows all addresses of the internet, and the given networks."""

    def __init__(self, allowed: Sequence[Network] = ()) -> None:
        self._allowed = allowed

    def check(self, text: str) -> None:
        """Raises ForbiddenAddress if no request may go to this IP address."""
        address = ip_address(text.partition("%")[0])
        if any(form in network for form in _forms(address) for network in self._allowed):
            return
        for form in _forms(address):
            if kind := _internal_kind(form):
                raise ForbiddenAddress(f"{text} is {kind}: no request goes there.")
        if _is_our_own(address):
            raise ForbiddenAddress(f"{text} is an address of this server: no request goes there.")

    def open_socket(self, found: tuple[Any, ...]) -> socket.socket:
        """A socket for a result of getaddrinfo. Raises ForbiddenAddress."""
        family, kind, protocol, _, address = found
        self.check(address[0])
        return socket.socket(family, kind, protocol)


def _forms(address: Address) -> Iterator[Address]:
    """The address, and the IPv4 address in it, if there is one."""
    yield address
    if isinstance(address, IPv6Address):
        for network, skipped in _EMBEDDED.items():
            if address in network and int(address) > 1:  # :: and ::1 have names of their own
                yield IPv4Address(int(address) >> (96 - skipped) & 0xFFFFFFFF)


def _internal_kind(address: Address) -> str | None:
    """The kind of an address that is not on the internet; None for an address of the internet."""
    has_ipv4 = any(address in network for network in _EMBEDDED)  # then that one decides
    kinds = {
        "unspecified": address.is_unspecified,
        "a loopback address": address.is_loopback,
        "a link-local address": address.is_link_local,
        "a multicast address": address.is_multicast,
        "not an address of the internet": any(address in network for network in _NOT_GLOBAL),
        "a private address": not has_ipv4 and (address.is_private or not address.is_global),
    }
    return next((kind for kind, holds in kinds.items() if holds), None)


def _is_our_own(address: Address) -> bool:
    """Whether this machine has the address. To connect a datagram socket sends nothing."""
    family = socket.AF_INET if isinstance(address, IPv4Address) else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((str(address), 9))
            return ip_address(probe.getsockname()[0].partition("%")[0]) == address
    except OSError:  # it cannot be reached at all
        return False
