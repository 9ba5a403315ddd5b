"""Calls from ordinary code into an event loop in a thread of its own; async is written once."""

from __future__ import annotations

import asyncio
import atexit
import gc
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator
from typing import Any, TypeVar, cast

T = TypeVar("T")
_END = object()


class Portal:
    """One event loop in a daemon thread, closed at exit at the latest."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="holdfast", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine there and wait for it; Ctrl-C cancels it."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    async def bridge(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine there from another event loop."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))

    def iterate(self, items: AsyncIterator[T]) -> Iterator[T]:
        """Walk an asynchronous iterator from ordinary code."""
        try:
            while (item := self.call(_next(items))) is not _END:
                yield cast(T, item)
        finally:
            self._aclose(items)

    async def bridge_items(self, items: AsyncIterator[T]) -> AsyncIterator[T]:
        """Walk an asynchronous iterator of this loop from another event loop."""
        try:
            while (item := await self.bridge(_next(items))) is not _END:
                yield cast(T, item)
        finally:
            close = getattr(items, "aclose", None)
            if close is not None:
                await self.bridge(close())

    def _aclose(self, items: AsyncIterator[T]) -> None:
        close = getattr(items, "aclose", None)
        if close is not None and self._loop.is_running():
            self.call(close())

    def close(self) -> None:
        """Stop the loop; calling it twice does nothing."""
        atexit.unregister(self.close)
        if not self._thread.is_alive():
            return
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=5)
        # The native side of a worker that is collected after the interpreter has begun to end brings it down
        # (temporalio/sdk-python#300).
        gc.collect()


async def _next(items: AsyncIterator[T]) -> T | object:
    return await anext(items, _END)
