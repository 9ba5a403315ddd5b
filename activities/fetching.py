"""One HTTP request to a place that was looked at before: nothing is resolved anew, and nothing is taken along."""

from __future__ import annotations

import socket

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from holdfast.activities.addresses import Place

_HEADERS = {
    "User-Agent": "holdfast-http-get",
    "Accept": "text/html,application/xhtml+xml,application/json,text/*;q=0.9,*/*;q=0.1",
    "Accept-Encoding": "identity",  # what comes packed may be a thousand times as large once unpacked
}


class _Pinned(AbstractResolver):
    """Knows one host, and the addresses that were found for it."""

    def __init__(self, place: Place) -> None:
        self._place = place

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        if host.rstrip(".") != self._place.host or port != self._place.port:
            raise OSError(f"{host}:{port} is not what was looked at")
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in self._place.addresses
        ]

    async def close(self) -> None:
        """Nothing is held."""


async def fetch(url: URL, place: Place, max_bytes: int) -> tuple[int, dict[str, str], bytes]:
    """Return status, headers (names in lower case) and at most so many bytes of the body; no redirect is followed.

    Neither the environment's proxies nor cookies are used. aiohttp.ClientError where it fails.
    """
    connector = aiohttp.TCPConnector(resolver=_Pinned(place), use_dns_cache=False, force_close=True)
    async with (
        aiohttp.ClientSession(
            connector=connector, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False, auto_decompress=False
        ) as session,
        session.get(url, headers=_HEADERS, allow_redirects=False) as response,
    ):
        body = bytearray()
        async for chunk in response.content.iter_chunked(16 * 1024):
            body += chunk
            if len(body) >= max_bytes:
                break
        headers = {name.lower(): value for name, value in response.headers.items()}
        return response.status, headers, bytes(body[:max_bytes])
