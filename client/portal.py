"""Calls from ordinary code into an event loop in a thread of its own; async is written once."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import threading
import weakref
from collections.abc import AsyncIterator, Coroutine, Iterator
from typing import Any, TypeVar, cast

T = TypeVar("T")
_END = object()


class Portal:
    """One event loop in a daemon thread, closed with the last reference to it or at exit, at the latest."""

    def __init__(self) -> None:
        runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        self._loop = runner.get_loop()
        self._thread = threading.Thread(target=_serve, args=[runner], name="holdfast", daemon=True)
        self._thread.start()
        self._end = weakref.finalize(self, _stop, self._loop, self._thread)

    @property
    def alive(self) -> bool:
        """False once closed, and in a process that was forked off: threads stay behind."""
        return self._end.alive and self._thread.is_alive()

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine there and wait for it; Ctrl-C cancels it. RuntimeError once closed."""
        future = self._submit(work)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    async def bridge(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine there from another event loop. RuntimeError once closed."""
        return await asyncio.wrap_future(self._submit(work))

    def _submit(self, work: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        if not self.alive:
            work.close()
            raise RuntimeError("this client is closed, or was made before a fork: make a new one")
        return asyncio.run_coroutine_threadsafe(work, self._loop)

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
            if close is not None and self.alive:
                await self.bridge(close())

    def _aclose(self, items: AsyncIterator[T]) -> None:
        close = getattr(items, "aclose", None)
        if close is not None and self.alive:
            self.call(close())

    def close(self) -> None:
        """Cancel what is under way and stop the loop; calling it twice does nothing."""
        self._end()


def _serve(runner: asyncio.Runner) -> None:
    with runner:  # leaving it cancels what is under way, and closes the loop
        runner.get_loop().run_forever()


def _stop(loop: asyncio.AbstractEventLoop, thread: threading.Thread) -> None:
    if not thread.is_alive():
        return
    loop.call_soon_threadsafe(loop.stop)
    if thread is not threading.current_thread():  # the collector may run there
        thread.join(timeout=5)
    # The native side of a worker that is collected after the interpreter has begun to end brings it down
    # (temporalio/sdk-python#300).
    gc.collect()


async def _next(items: AsyncIterator[T]) -> T | object:
    return await anext(items, _END)
