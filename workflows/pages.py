"""The answer to the query `transcript`: as many messages as one answer may hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from holdfast.bounds import PAGE_MAX_BYTES, json_size
from holdfast.calls import Page
from holdfast.message import Message

_FRAME = 64
"""Bytes of a page's JSON around its messages."""


def page(messages: Sequence[Message], start: int, stop: int | None) -> Page:
    """Return messages from `start` to `stop`, as many as fit into 1 MB."""
    found: list[dict[str, Any]] = []
    size, stop = _FRAME, len(messages) if stop is None else min(max(stop, 0), len(messages))
    for message in messages[start:stop]:
        form = message.wire()
        size += json_size(form) + 1
        if size > PAGE_MAX_BYTES and found:
            break
        found.append(form)
    end = start + len(found)
    return Page(messages=tuple(found), next=end if end < stop else None)


def span(given: Any) -> tuple[int, int | None]:
    """Read the query's argument; ValueError for one that does not fit."""
    given = given if isinstance(given, dict) else {}
    start, stop = given.get("start", 0), given.get("stop")
    if not isinstance(start, int) or start < 0 or not isinstance(stop, int | None):
        raise ValueError('the argument must be {"start": int ≥ 0, "stop": int or null}')
    return start, stop
