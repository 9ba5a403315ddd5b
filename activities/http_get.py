"""`http_get`: a tool that fetches a page of the public web, and nothing that stands behind the worker's own walls."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Collection
from typing import Any

from holdfast.activities.failures import failure
from holdfast.activities.html_text import text_of_html
from holdfast.bounds import cut_json, one_line
from holdfast.tools import Tool, tool

BODY_MAX_BYTES = 1024 * 1024
"""Of a page; what follows is not read."""
TEXT_MAX_BYTES = 48 * 1024
"""Of its text, as JSON: what a tool may record is a little more."""
REDIRECTS_MAX = 5
SECONDS = 20.0
"""For all of it, redirects included."""
_URL_MAX_CHARS = 2_000
_REDIRECTS = (301, 302, 303, 307, 308)
_TEXT = re.compile(r"text/.+|application/((.+\+)?(json|xml)|javascript|x-ndjson|yaml|toml)")
_CHARSET = re.compile(r"""charset=["']?([\w.:-]+)""", re.IGNORECASE)


def make_http_get(allow: Collection[str] = (), *, name: str = "http_get") -> Tool[..., Any]:
    """Make the tool; `allow` lists what it may fetch beside the public web, as `host:port`: "wiki.internal:8080"."""
    allowed = frozenset([allow] if isinstance(allow, str) else allow)

    @tool(name=name, effect="pure", timeout_seconds=SECONDS + 10, max_attempts=2)
    async def http_get(url: str) -> dict[str, Any]:
        """Fetch a public web page by its URL, and return its text.

        Args:
            url: An http:// or https:// address on the public internet.
        """
        try:
            async with asyncio.timeout(SECONDS):
                return await _get(url, allowed)
        except TimeoutError:
            raise TimeoutError(f"{_short(url)}: no answer within {SECONDS:g} s") from None

    return http_get


http_get = make_http_get()


async def _get(given: str, allow: Collection[str]) -> dict[str, Any]:
    import aiohttp
    from yarl import URL

    from holdfast.activities.addresses import AddressRefused, place_of
    from holdfast.activities.fetching import fetch

    told = given
    try:
        url = URL(given.strip())
        for _ in range(REDIRECTS_MAX + 1):
            told = str(url)
            if len(told) > _URL_MAX_CHARS:
                raise AddressRefused(f"it is longer than {_URL_MAX_CHARS:,} characters")
            status, headers, body = await fetch(url, await place_of(url, allow), BODY_MAX_BYTES)
            if status not in _REDIRECTS or "location" not in headers:
                return await asyncio.to_thread(_page, told, status, headers, body)
            url = url.join(URL(headers["location"]))
        raise AddressRefused(f"it redirects more than {REDIRECTS_MAX} times")
    except AddressRefused as error:
        raise failure("AddressRefused", f"{_short(told)}: {error}", retryable=False) from None
    except ValueError as error:
        raise failure("AddressRefused", f"{_short(told)}: it is no URL: {error}", retryable=False) from None
    except (aiohttp.ClientError, OSError) as error:
        raise ConnectionError(f"{_short(told)}: {type(error).__name__}: {error}") from None


def _page(url: str, status: int, headers: dict[str, str], body: bytes) -> dict[str, Any]:
    """Return what the model reads; a non-retryable failure for what is no text."""
    kind = headers.get("content-type", "text/plain").partition(";")[0].strip().lower()
    packed = headers.get("content-encoding", "identity").strip().lower()
    if not _TEXT.fullmatch(kind):
        raise failure("NoText", f"{_short(url)} is {one_line(kind, 100)}, and no text", retryable=False)
    if packed not in ("", "identity"):
        raise failure("NoText", f"{_short(url)} came packed, unasked: {one_line(packed, 100)}", retryable=False)
    text = _decoded(body, headers.get("content-type", ""))
    title = ""
    if "html" in kind:
        title, text = text_of_html(text)
    if len(body) >= BODY_MAX_BYTES:
        text += f"\n… [only the first {BODY_MAX_BYTES:,} bytes were read]"
    told = {"title": title} if title else {}
    source = {"url": url, **told}
    return {"url": url, "status": status, **told, "text": cut_json(text, TEXT_MAX_BYTES), "sources": [source]}


def _decoded(body: bytes, content_type: str) -> str:
    """Read a body in the encoding that the header names, or a page's first lines, or else as UTF-8."""
    found = _CHARSET.search(content_type) or _CHARSET.search(body[:1024].decode("ascii", errors="ignore"))
    try:
        return body.decode(found[1] if found else "utf-8", errors="replace")
    except (LookupError, UnicodeError):
        return body.decode(errors="replace")


def _short(url: str) -> str:
    return one_line(url, 200)
