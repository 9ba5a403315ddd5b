"""A run's events, live: its history as it grows and, for who asks for it, a model's text before it is history."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from temporalio.client import Client

from holdfast.client.history import find_cursor, read
from holdfast.client.live import LiveText
from holdfast.client.presence import PATIENCE_SECONDS, while_served
from holdfast.client.timeline import Timeline
from holdfast.event import Event

_LOOK_SECONDS = 0.25


async def stream(client: Client, run_id: str, after: str | None, *, deltas: bool) -> AsyncGenerator[Event, None]:
    """Yield a run's events, after a cursor if one is given, until the run has ended; see AsyncRuns.stream_events."""
    cursor = None if after is None else await find_cursor(client, run_id, after)
    folded, text = Timeline(client.data_converter), LiveText(client, run_id)
    lines = read(client, run_id, live=True)
    while True:
        line = asyncio.ensure_future(anext(lines, None))
        following = asyncio.ensure_future(while_served(client, run_id, line, PATIENCE_SECONDS))
        try:
            while deltas and cursor is None and text.is_growing and not await _done(following):
                for event in await text.look():
                    yield event
            reached = await following
        finally:
            following.cancel()
            following.add_done_callback(_looked_at)
        if reached is None:
            break
        text.enter(reached)
        for event in await folded.add(reached):
            told = text.follow(reached, event)
            if cursor is None:
                for each in told if deltas else [event]:
                    yield each
            elif event.id == cursor.event:
                if cursor.shown is not None and not text.resume(*cursor.shown):
                    raise cursor.refused()
                cursor = None
        if cursor is not None and cursor.is_told_by(reached):
            raise cursor.refused()


async def _done(following: asyncio.Future[Any]) -> bool:
    await asyncio.wait([following], timeout=_LOOK_SECONDS)
    return following.done()


def _looked_at(future: asyncio.Future[Any]) -> None:
    """Keep asyncio from logging an error that nobody asks for: the reader has left."""
    if not future.cancelled():
        future.exception()
