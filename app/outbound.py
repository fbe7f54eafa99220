"""Connections to others: the address is looked at where it is connected to, so that no name can lead elsewhere.

A name is resolved once, every address of it is judged, and only a judged one is connected to: an answer of the DNS
that changes in between (rebinding) changes nothing. Link-local addresses, where clouds keep their credentials, are
refused always; private ones unless the configuration allows them for this target.
"""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
from collections.abc import Sequence
from typing import Any

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

_METADATA = (
    ipaddress.ip_network("169.254.0.0/16"),
    ipaddress.ip_network("fe80::/10"),
    ipaddress.ip_network("fd00:ec2::/32"),  # Amazon
    ipaddress.ip_network("100.100.100.200/32"),  # Alibaba
    ipaddress.ip_network("192.0.0.192/32"),  # Oracle
)
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


class AddressRefused(OSError):
    """A target that must not be connected to; for callers, one that does not answer."""


def refused_because(address: str, *, allow_private: bool) -> str | None:
    """Why an address must not be connected to; None where it may.

    Parameters
    ----------
    address
        An IPv4 or IPv6 address, with or without a zone.
    allow_private
        Whether loopback, private and shared addresses are what the configuration means.
    """
    judged = _inner(ipaddress.ip_address(address.partition("%")[0]))
    if any(judged.version == network.version and judged in network for network in _METADATA) or judged.is_link_local:
        return "link_local"
    if judged.is_unspecified or judged.is_multicast or (judged.is_reserved and not judged.is_loopback):
        return "not_a_host"
    if not judged.is_global and not allow_private:
        return "private"
    return None


def judged_addresses(host: str, port: int, *, allow_private: bool) -> list[tuple[int, str]]:
    """Family and address of each place that a name stands for and that may be connected to.

    Raises
    ------
    AddressRefused
        None of them may.
    OSError
        The name is not known.
    """
    found = [
        (int(family), str(address[0]))
        for family, _, _, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        if family in (socket.AF_INET, socket.AF_INET6)
    ]
    good = [one for one in found if refused_because(one[1], allow_private=allow_private) is None]
    if not good:
        reasons = sorted({refused_because(one[1], allow_private=allow_private) or "" for one in found})
        raise AddressRefused(f"The target's address is refused: {', '.join(reasons) or 'none'}.")
    return good


def connect(
    host: str,
    port: int,
    timeout_s: float | None,
    *,
    allow_private: bool,
    options: Sequence[tuple[int, int, int | bytes]] = (),
) -> socket.socket:
    """A TCP connection to the first address of a name that may be had.

    Raises
    ------
    AddressRefused, OSError
        As `judged_addresses`; or nobody listens there.
    """
    trouble: OSError = AddressRefused("The target has no address.")
    for family, address in judged_addresses(host, port, allow_private=allow_private):
        made = socket.socket(family, socket.SOCK_STREAM)
        try:
            for option in options:
                made.setsockopt(*option)
            made.settimeout(timeout_s)
            made.connect((address, port))
        except OSError as error:
            made.close()
            trouble = error
        else:
            return made
    raise trouble


class GuardedConnection(http.client.HTTPConnection):
    """HTTP to a judged address, without a proxy and without following redirects.

    Parameters
    ----------
    host, port
        Of the URL.
    timeout_s
        For connecting and each wait.
    allow_private
        See `refused_because`.
    context
        For TLS; None speaks plain HTTP.
    """

    def __init__(
        self, host: str, port: int | None, timeout_s: float, *, allow_private: bool, context: ssl.SSLContext | None
    ) -> None:
        super().__init__(host, port or (443 if context else 80), timeout=timeout_s)
        self._allow_private = allow_private
        self._context = context

    def connect(self) -> None:
        """Connect, and agree on TLS by the name of the URL."""
        made: Any = connect(self.host, self.port, self.timeout, allow_private=self._allow_private)
        self.sock = self._context.wrap_socket(made, server_hostname=self.host) if self._context else made


def _inner(address: IpAddress) -> IpAddress:
    """The IPv4 address that an IPv6 address stands for, where it does."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return address
