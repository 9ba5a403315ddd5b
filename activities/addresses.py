"""Which addresses a worker may call on behalf of a model: those of the public internet, and no others."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Collection
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

from yarl import URL

PORTS = {"http": 80, "https": 443}
_EMBEDDING = (IPv6Network("64:ff9b::/96"), IPv6Network("::/96"))
"""NAT64, and what was called IPv4-compatible: the last 32 bits are an address of IPv4."""


class AddressRefused(ValueError):
    """A URL that a worker does not fetch."""


@dataclass(frozen=True)
class Place:
    """Where a URL leads: its host and port, and the addresses that the host was resolved to."""

    host: str
    port: int
    addresses: tuple[str, ...]


async def place_of(url: URL, allow: Collection[str] = ()) -> Place:
    """Resolve a URL's host, once; AddressRefused for what is not the public web, unless its `host:port` is allowed.

    Connect to the addresses returned, and to nothing that is resolved anew: the answer may be another by then.
    """
    host, port = (url.raw_host or "").rstrip("."), url.port or 0
    if url.scheme not in PORTS or not host:
        raise AddressRefused("only http:// and https:// with a host are fetched")
    if url.raw_user is not None or url.raw_password is not None:
        raise AddressRefused("it must name no user")
    if host.replace(".", "").isdigit() and not _is_address(host):
        raise AddressRefused(f"{host} is an address in an odd form")
    allowed = (f"[{host}]:{port}" if ":" in host else f"{host}:{port}") in allow
    if not allowed and port not in PORTS.values():
        raise AddressRefused(f"port {port} is not one of the web's: {', '.join(map(str, PORTS.values()))}")
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise AddressRefused(f"{host}: no address was found") from None
    addresses = tuple(dict.fromkeys(str(each[4][0]) for each in found))
    for address in () if allowed else addresses:
        if not is_public(address):
            raise AddressRefused(f"{host} is at {address}, which is not on the public internet")
    return Place(host, port, addresses)


def is_public(address: str) -> bool:
    """Say whether an address is one of the public internet, in whatever form it is written."""
    return all(map(_is_public, _meant(ip_address(address))))


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _meant(address: IPv4Address | IPv6Address) -> list[IPv4Address | IPv6Address]:
    """Return what an address stands for: itself, or those of IPv4 that are written into it."""
    if isinstance(address, IPv4Address):
        return [address]
    if address.ipv4_mapped is not None:
        return [address.ipv4_mapped]
    if any(address in each for each in _EMBEDDING):
        return [IPv4Address(int(address) & 0xFFFFFFFF)]
    inner = [] if address.sixtofour is None else [address.sixtofour]
    return [address, *inner, *(address.teredo or ())]


def _is_public(address: IPv4Address | IPv6Address) -> bool:
    shut = address.is_multicast or address.is_reserved or address.is_unspecified or address.is_loopback
    local = address.is_link_local or (isinstance(address, IPv6Address) and address.is_site_local)
    return address.is_global and not shut and not local
