"""`AgentThread`: a conversation that several runs share. Its decisions are in `thread_state.py`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from pydantic import ValidationError
from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError, FailureError

from holdfast import ids, wire
from holdfast.bounds import cut, summary
from holdfast.calls import Compacted, Restored
from holdfast.errors import InputInvalid
from holdfast.threads import Collected, CompactThread, Entering, ReadMemory, ThreadCarried, Visit
from holdfast.workflows import options, pages
from holdfast.workflows.outcomes import named
from holdfast.workflows.thread_state import Gather, Give, Rest, ThreadState

_FIRST_RESTORE_REST = 10.0
_LAST_RESTORE_REST = 3600.0
"""Seconds between two attempts to bring the memory over; longer each time, for the link before may be gone for good."""


# Not sandboxed for the reasons of `AgentRun`. Unlike a run, a thread never fails of a bug of ours: its memory is in its
# history, so it waits for a worker that is mended.
@workflow.defn(name=wire.AGENT_THREAD, sandboxed=False)
class AgentThread:
    """Remembers what a thread's runs have said, and gives one run after the other its turn; idle, it costs nothing."""

    @workflow.init
    def __init__(self, carried: Any = None, *more: Any) -> None:
        self._carried = _read(carried)
        self._state = ThreadState() if self._carried is None else ThreadState.going_on(self._carried)
        self._restored = self._carried is None or not self._carried.memory.length
        self._memory_lock = asyncio.Lock()
        """Held by whoever is about to change the memory."""
        self._began = (0, 0)
        self._crowded = False
        """Looked at when something has come, never in a condition: see `Live.crowded`."""
        self._full = False
        self._signals = 0
        self._updates = 0
        if self._carried is None:
            self._state.created_at = workflow.info().start_time.timestamp()

    @workflow.run
    async def run(self, carried: Any = None, *more: Any) -> None:
        """Give turns and collect what was said, for ever."""
        if carried is not None and self._carried is None:
            raise ApplicationError("a thread is started by its runs", type="InputInvalid", non_retryable=True)
        if self._carried is not None:
            await self._restore(self._carried)
        info = workflow.info()
        self._began = (info.get_current_history_length(), info.get_current_history_size())
        while True:
            self._look()
            if self._may_continue():
                self._continue_as_new()
            self._draw()
            match self._state.next_move(workflow.time()):
                case Give() as give:
                    await self._give(give)
                case Gather() as gather:
                    async with self._memory_lock:
                        await self._gather(gather)
                case Rest(seconds):
                    await self._rest(seconds)

    @workflow.signal(name=wire.ENTER, description="A run asks for its turn")
    def enter(self, given: Any = None, *more: Any) -> None:
        """From the run, by its activity `thread.enter`."""
        with self._signalled(wire.ENTER):
            asking = Entering.read(given)
            if not self._state.enter(asking):
                workflow.logger.warning("thread.crowded", extra={"run": asking.run_id})

    @workflow.signal(name=wire.LEAVE, description="A run has ended")
    def leave(self, given: Any = None, *more: Any) -> None:
        """From the run itself, just before it closes."""
        with self._signalled(wire.LEAVE):
            self._state.left(Visit.read(given))

    # An update: the caller must learn why nothing was done
    @workflow.update(name=wire.COMPACT, description='Summarise what is old: {"model": "…", "keep_tokens": 0}')
    async def compact(self, given: Any = None, *more: Any) -> dict[str, Any]:
        """Summarise all but the latest; a run that has its turn goes on with what it was given."""
        self._updates += 1
        self._look()
        asked = _asked(given)
        # A caller whose run has just ended means what that has said, too.
        await workflow.wait_condition(lambda: self._restored and not self._state.leaving)
        async with self._memory_lock:
            return await self._compact(asked)

    @compact.validator
    def _check_compact(self, given: Any = None, *more: Any) -> None:
        _asked(given)

    @workflow.query(name=wire.STATUS, description="Messages, whose turn it is, and who waits")
    def status(self, *ignored: Any) -> dict[str, Any]:
        """Return how the thread stands."""
        self._check_restored()
        return self._state.status()

    @workflow.query(name=wire.TRANSCRIPT, description='Messages from {"start": 0} to {"stop": n}, 1 MB at most')
    def transcript(self, span: Any = None, *more: Any) -> dict[str, Any]:
        """Return what the thread remembers; with a digest, that memory and no other."""
        start, stop = pages.span(span)
        self._check_restored()
        digest = span.get("digest") if isinstance(span, dict) else None
        messages = self._state.shown_to(digest if isinstance(digest, str) else None)
        return pages.page(messages, start, stop).model_dump(mode="json", exclude_none=True)

    def _check_restored(self) -> None:
        if not self._restored:
            raise ValueError("the thread's memory is being brought over from its link before")

    async def _restore(self, carried: ThreadCarried) -> None:
        """Bring the memory over, piece by piece, however long it takes: there is no other copy."""
        messages: list[dict[str, Any]] = []
        start: int | None = 0 if carried.memory.length else None
        rest = _FIRST_RESTORE_REST
        while start is not None:
            own = workflow.info().workflow_id
            asked = ReadMemory(workflow_id=own, link=carried.link, start=start, memory=carried.memory)
            label = f"from message {start}" if start else None
            try:
                found = await workflow.execute_activity(
                    wire.THREAD_READ, asked.wire(), summary=label, **options.thread_read()
                )
            except ActivityError as error:
                workflow.logger.warning("thread.not_restored", extra={"error": named(error).message[:500]})
                await workflow.sleep(rest)
                rest = min(_LAST_RESTORE_REST, rest * 2)
                continue
            piece = Restored.recorded(found)
            messages += piece.messages
            start = piece.next
        self._state.restored(messages)
        self._restored = True

    async def _give(self, give: Give) -> None:
        run = workflow.get_external_workflow_handle(give.run_id)
        try:
            await run.signal(wire.THREAD_TURN, give.turn.wire())
        except FailureError:
            self._state.unreachable(give.turn)
        else:
            self._state.told(give.turn)

    async def _gather(self, gather: Gather) -> None:
        state = self._state
        asked = state.to_collect(gather.visit, wait=gather.wait)
        first: Collected | None = None
        messages: list[dict[str, Any]] = []
        start: int | None = 0
        while start is not None:
            asked = asked.model_copy(update={"start": start})
            try:
                found = Collected.recorded(
                    await workflow.execute_activity(
                        wire.THREAD_COLLECT,
                        asked.wire(),
                        summary=summary(gather.visit.run_id),
                        **options.thread_collect(),
                    )
                )
            except ActivityError as error:
                again = state.not_collected(workflow.time())
                told = {"run": gather.visit.run_id, "error": named(error).message[:500], "again": again}
                workflow.logger.warning("thread.not_collected", extra=told)
                return
            if found.state == "open":
                state.not_ended(workflow.time())
                return
            if found.state == "gone":
                workflow.logger.warning("thread.run_is_gone", extra={"run": gather.visit.run_id})
            first = first or found
            messages += found.messages
            start = found.next
        assert first is not None
        state.collected(first, messages)

    async def _rest(self, seconds: float | None) -> None:
        seen = self._state.version
        changed: Callable[[], bool] = lambda: self._state.version != seen or self._may_continue()  # noqa: E731
        try:
            await workflow.wait_condition(changed, timeout=seconds)
        except TimeoutError:
            return

    async def _compact(self, asked: CompactThread) -> dict[str, Any]:
        state = self._state
        call = state.to_compact(asked)
        if call is None:
            known = asked.model or state.model
            why = (
                "there are not two turns to make one of, or keep_tokens keeps them"
                if known
                else "no model is known: name one"
            )
            raise ApplicationError(why, type="NothingToCompact", non_retryable=True)
        before = len(state.memory)
        label = summary(f"messages {call.start} to {call.stop} · {call.model}")
        assert call.settings is not None
        try:
            found = await workflow.execute_activity(
                wire.CONTEXT_COMPACT, call.wire(), summary=label, **options.compact(call.settings)
            )
        except ActivityError as error:
            cause = named(error)
            raise ApplicationError(cause.message, type=cause.type, non_retryable=True) from None
        compacted = Compacted.recorded(found)
        state.compacted(call, compacted.summary, compacted.usage)
        return {"messages": before, "messages_after": len(state.memory), **compacted.model_dump(mode="json")}

    def _may_continue(self) -> bool:
        """Say whether this link holds so much that the thread should continue as new, and nothing hinders it."""
        full = self._state.may_be_handed_on or self._full
        return self._crowded and workflow.all_handlers_finished() and full

    def _look(self) -> None:
        info = workflow.info()
        self._crowded = options.is_crowded(info, self._state, self._began, self._signals, self._updates)
        self._full = options.history_is_full(info)

    def _continue_as_new(self) -> None:
        info = workflow.info()
        memo = dict(workflow.memo())
        memo.setdefault(wire.STARTED_AT_MEMO, self._state.created_at)
        workflow.continue_as_new(self._state.carried(info.run_id).wire(), memo=memo)

    def _draw(self) -> None:
        state, holder = self._state, self._state.holder
        lines = [f"### {workflow.info().workflow_id.removeprefix(ids.THREAD_PREFIX)}"]
        lines.append(f"- {len(state.memory)} messages of {state.runs} runs")
        if holder is not None:
            lines.append(f"- it is the turn of `{holder.visit.run_id}`")
        if state.queue:
            lines.append(f"- {len(state.queue)} wait, `{state.queue[0].run_id}` first")
        workflow.set_current_details("\n".join(lines))

    @contextmanager
    def _signalled(self, what: str) -> Iterator[None]:
        self._signals += 1
        self._look()
        try:
            yield
        except InputInvalid as error:
            workflow.logger.warning(f"{what}.refused", extra={"error": cut(str(error), 500)})


def _read(carried: Any) -> ThreadCarried | None:
    try:
        return None if carried is None else ThreadCarried.recorded(carried)
    except ValidationError:
        return None


def _asked(given: Any) -> CompactThread:
    try:
        return CompactThread.read({} if given is None else given)
    except InputInvalid as error:
        raise ApplicationError(cut(str(error)), type="InputInvalid", non_retryable=True) from None
