"""Where async tools run: a loop of their own, so that one that blocks stalls neither runs nor heartbeats."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from collections.abc import Callable, Coroutine
from typing import Any

from temporalio import activity

_START_SECONDS = 2.0
_STOP_SECONDS = 10.0
_LEAVE_SECONDS = 0.5


class ToolLoops:
    """One event loop in a thread for all async tools; a new one when it does not take a call within two seconds.

    Tools may therefore share clients and locks made at module level, as in any asyncio program. A tool that blocks its
    loop delays those calls that were on it already; later ones run in a new loop, where what is bound to the old one
    (a client made at module level, say) fails.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    async def run(self, make: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        """Run a coroutine there and return its result; a cancellation waits at most 10 s for its end."""
        while True:
            loop = self._current()
            call = _Call(make, loop)
            if await call.started(_patience()):
                return await call.result()
            if not call.give_up():
                return await call.result()
            self._retire(loop)

    def _current(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None or self._loop.is_closed():
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=_host, args=(self._loop,), name="holdfast-tools", daemon=True).start()
            return self._loop

    def _retire(self, loop: asyncio.AbstractEventLoop) -> None:
        with self._lock:
            if self._loop is loop:
                self._loop = None
                loop.call_soon_threadsafe(lambda: loop.create_task(_leave()))


class _Call:
    """One coroutine on its way to another thread's loop; it starts there once, or not at all."""

    def __init__(self, make: Callable[[], Coroutine[Any, Any, Any]], there: asyncio.AbstractEventLoop) -> None:
        self._make = make
        self._there = there
        self._here = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._begun = False
        self._abandoned = False
        self._task: asyncio.Task[Any] | None = None
        self._start = asyncio.Event()
        self._done: asyncio.Future[Any] = self._here.create_future()
        there.call_soon_threadsafe(self._begin, context=contextvars.copy_context())

    def _begin(self) -> None:
        self._task = self._there.create_task(self._work())
        self._task.add_done_callback(self._settle)

    async def _work(self) -> Any:
        with self._lock:  # here and not before: a task that is made in the same turn of the loop may block it first
            if self._abandoned:
                return None
            self._begun = True
        self._here.call_soon_threadsafe(self._start.set)
        return await self._make()

    def _settle(self, task: asyncio.Task[Any]) -> None:
        self._here.call_soon_threadsafe(self._hand_over, task)

    def _hand_over(self, task: asyncio.Task[Any]) -> None:
        if self._done.done():
            return
        if task.cancelled():
            self._done.cancel()
        elif (error := task.exception()) is not None:
            self._done.set_exception(error)
        else:
            self._done.set_result(task.result())

    async def started(self, seconds: float) -> bool:
        """Say whether it started within so many seconds."""
        try:
            await asyncio.wait_for(self._start.wait(), seconds)
        except TimeoutError:
            return False
        except asyncio.CancelledError:
            if not self.give_up():
                await self._stop()
            raise
        return True

    def give_up(self) -> bool:
        """Make sure that it never starts; False when it has begun after all."""
        with self._lock:
            self._abandoned = not self._begun
            return self._abandoned

    async def result(self) -> Any:
        """Wait for what it returns."""
        try:
            return await asyncio.shield(self._done)
        except asyncio.CancelledError:
            if not self._done.done():
                await self._stop()
            raise

    async def _stop(self) -> None:
        self._there.call_soon_threadsafe(lambda: self._task and self._task.cancel())
        await asyncio.wait([self._done], timeout=_STOP_SECONDS)


def _patience() -> float:
    """Return how long a loop may take to begin a call: 2 s, or a third of what a quicker tool may take."""
    allowed = activity.info().start_to_close_timeout if activity.in_activity() else None
    return min(_START_SECONDS, allowed.total_seconds() / 3) if allowed else _START_SECONDS


def _host(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    while loop not in _leaving:  # a tool may stop the loop, or end a task of its own with SystemExit: the others go on
        with contextlib.suppress(SystemExit, KeyboardInterrupt):
            loop.run_forever()
    _leaving.discard(loop)
    loop.close()


_leaving: set[asyncio.AbstractEventLoop] = set()


async def _leave() -> None:
    """End the loop that this runs on, and its thread, once nothing else runs there."""
    while len(asyncio.all_tasks()) > 1:  # noqa: ASYNC110 - tools start tasks that nobody tells of
        await asyncio.sleep(_LEAVE_SECONDS)
    _leaving.add(asyncio.get_running_loop())
    asyncio.get_running_loop().stop()
