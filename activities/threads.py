"""Threads and their runs: a run asks for its turn and reads the memory, a thread takes over what a run has said."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

from temporalio import activity
from temporalio.client import Client, WorkflowHandle, WorkflowQueryFailedError
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode

from holdfast import ids, wire
from holdfast.activities.failures import failure
from holdfast.activities.keys import run_key
from holdfast.activities.past import Past, piece_of
from holdfast.activities.transcripts import Held, TranscriptCache
from holdfast.bounds import CONTINUE_AFTER_BYTES, CONTINUE_AFTER_EVENTS, cut, summary
from holdfast.calls import Page, Restored
from holdfast.carried import Reference
from holdfast.errors import HoldfastError, RunNotFound
from holdfast.message import Message, whole_turns
from holdfast.request import After
from holdfast.threads import Collect, Collected, Enter, ReadMemory, Visit

_WORKFLOW_TASK = timedelta(seconds=4)
_QUERY = timedelta(seconds=15)
_NOT_READY = timedelta(seconds=0.3)
_WAIT_SECONDS = 20.0
"""How long one `thread.collect` waits for an end that is near."""
_FIRST_LOOK_SECONDS = 0.02
_LAST_LOOK_SECONDS = 1.0

_SERVED_REST = timedelta(seconds=1)
"""Between two looks for a worker of the thread: with all attempts about 20 seconds."""

Served = Callable[[Client, str], Awaitable[bool]]
"""Says whether somebody polls a task queue."""
Ended = Callable[[Client, Visit], Awaitable[str | None]]
"""Returns the last link of a run's start, once it has ended; HoldfastError."""


class ThreadActivities:
    """What one worker does for threads; `task_queue` is where new ones live, that of the run by default."""

    def __init__(
        self,
        past: Callable[[After, str], Awaitable[Past]],
        ended: Ended,
        cache: TranscriptCache,
        *,
        served: Served,
        task_queue: str | None = None,
        continue_after: tuple[int, int] = (CONTINUE_AFTER_EVENTS, CONTINUE_AFTER_BYTES),
    ) -> None:
        self._past = past
        self._ended = ended
        self._cache = cache
        self._served = served
        self._task_queue = task_queue
        self._continue_after = continue_after

    @activity.defn(name=wire.THREAD_ENTER)
    async def enter(self, call: Enter) -> None:
        """Ask for the run's turn, and begin the thread where there is none; asking twice counts once.

        NoWorker where nobody serves the thread, which lives on the task queue of whoever began it.
        """
        events, size = self._continue_after
        asking = call.visit.model_copy(update={"continue_after_events": events, "continue_after_bytes": size})
        handle: WorkflowHandle[Any, Any] = await activity.client().start_workflow(
            wire.AGENT_THREAD,
            id=ids.thread_workflow_id(call.thread_id),
            task_queue=self._task_queue or activity.info().task_queue,
            task_timeout=_WORKFLOW_TASK,
            static_summary=summary(f"thread {call.thread_id}"),
            start_signal=wire.ENTER,
            start_signal_args=[asking.wire()],
        )
        if call.again:
            return
        queue = (await handle.describe()).task_queue
        if queue != activity.info().task_queue and not await self._served(activity.client(), queue):
            told = (
                f"thread {call.thread_id!r} was begun on task queue {queue!r}, and no worker polls that: start one, "
                f"such as HOLDFAST_TASK_QUEUE={queue} holdfast worker"
            )
            raise failure("NoWorker", told, retryable=True, delay=_SERVED_REST)

    @activity.defn(name=wire.THREAD_READ)
    async def read(self, call: ReadMemory) -> dict[str, Any]:
        """Return the memory's messages from `start` on, at most 256 KB of them; returns Restored's wire form."""
        held = await self._memory(call)
        piece, following = piece_of(held.messages[: call.memory.length], call.start)
        self._feed(call.start, piece)
        return Restored(messages=tuple(piece), next=following).wire()

    @activity.defn(name=wire.THREAD_COLLECT)
    async def collect(self, call: Collect) -> dict[str, Any]:
        """Return what a run has added to its thread, if it has ended; returns Collected's wire form."""
        try:
            link = await self._end(call)
        except RunNotFound:
            return Collected(state="gone").wire()
        except HoldfastError as error:
            raise failure(type(error).__name__, cut(str(error)), retryable=True) from None
        if link is None:
            return Collected(state="open").wire()
        try:
            past = await self._past(After(run=link), call.visit.run_id)
        except ApplicationError as error:
            if error.type == RunNotFound.__name__:
                return Collected(state="gone").wire()
            raise
        messages, whole = said(past, call.memory)
        piece, following = piece_of(messages, call.start)
        agent = past.loaded.agent if past.loaded is not None else None
        model = None if agent is None else (agent.compaction and agent.compaction.model) or agent.model
        return Collected(
            state="closed",
            messages=tuple(piece),
            next=following,
            whole=whole,
            model=model,
            settings=agent.model_settings if agent is not None else None,
        ).wire()

    async def _end(self, call: Collect) -> str | None:
        until, rest = time.monotonic() + (_WAIT_SECONDS if call.wait else 0.0), _FIRST_LOOK_SECONDS
        while True:
            link = await self._ended(activity.client(), call.visit)
            if link is not None or time.monotonic() > until:
                return link
            await asyncio.sleep(rest)
            rest = min(_LAST_LOOK_SECONDS, rest * 2)

    async def _memory(self, call: ReadMemory) -> Held:
        """Return what the thread remembers, from this process or by its query; a retryable failure for another."""
        key = (call.workflow_id, call.memory.digest)
        held = self._cache.held(key)
        if not held.matches(call.memory):
            held.clear()
            await self._fetch(call, held)
            self._cache.count(key)
        if not held.matches(call.memory):
            held.clear()
            raise failure("TranscriptMismatch", "the thread's memory is not the one referred to", retryable=True)
        return held

    async def _fetch(self, call: ReadMemory, held: Held) -> None:
        thread = activity.client().get_workflow_handle(call.workflow_id, run_id=call.link)
        start: int | None = 0
        while start is not None and start < call.memory.length:
            span = {"start": start, "stop": call.memory.length, "digest": call.memory.digest}
            try:
                found = await thread.query(wire.TRANSCRIPT, span, result_type=dict, rpc_timeout=_QUERY)
            except RPCError as error:
                if error.status != RPCStatusCode.NOT_FOUND:
                    raise
                raise failure("ThreadNotFound", f"{call.workflow_id} is gone", retryable=False) from None
            except WorkflowQueryFailedError as error:  # it has just continued as new
                raise failure("ThreadNotReady", error.message, retryable=True, delay=_NOT_READY) from None
            page = Page.model_validate(found)
            for message in page.messages:
                held.append(message)
            start = page.next

    def _feed(self, start: int, piece: list[dict[str, Any]]) -> None:
        """Hold the beginning of what is read, so that the next model call need not ask for it."""
        key = run_key(activity.info())
        held = self._cache.held(key)
        if start == 0:
            held.clear()
        if len(held.messages) == start:
            for message in piece:
                held.append(message)
            self._cache.count(key)


def said(past: Past, memory: Reference) -> tuple[list[dict[str, Any]], bool]:
    """Return a run's whole turns, and whether they stand for the whole memory instead of adding to it.

    They do where the run has read the very memory that there is, and has compacted it. A run that ended before it had
    read anything adds nothing: it says it all once it is resumed.
    """
    read, handed_over = past.carried.memory, past.carried.handed_over
    if past.loaded is None or read is None:
        return [], False
    messages = past.messages[: len(past.messages) - past.carried.inbox]
    messages = messages[: whole_turns([Message.recorded(each) for each in messages])]
    if read == memory and _reference(messages[:handed_over]) != memory:
        return messages, True
    return messages[handed_over:], False


def _reference(messages: list[dict[str, Any]]) -> Reference:
    held = Held()
    for message in messages:
        held.append(message)
    return held.reference
