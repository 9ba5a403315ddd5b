"""A run's activities and subagents: started, awaited, and stopped all at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Literal

from temporalio import workflow
from temporalio.exceptions import FailureError

from holdfast import wire
from holdfast.bounds import CHILD_STARTS_MAX_BYTES
from holdfast.run import RunError

How = Literal["cancelled", "interrupted", "failed"]
Child = workflow.ChildWorkflowHandle[Any, Any]


class Stopped(Exception):
    """The run was told to stop, before this began or while it was awaited."""


class Failed(Exception):
    """The run is to end as failed, by its own decision."""

    def __init__(self, error: RunError) -> None:
        super().__init__(error.message)
        self.error = error


class Hands:
    """What a run has under way."""

    def __init__(self) -> None:
        self.stopped: How | None = None
        """How the run was told to stop; what is said last counts."""
        self._in_flight: dict[str, workflow.ActivityHandle[Any]] = {}
        self._leavable: dict[str, asyncio.Task[Any]] = {}
        """Who awaits what need not be waited for once the run was interrupted."""
        self._starting: dict[str, int] = {}
        """Subagents whose start the server has not confirmed, and the bytes of their requests."""
        self._children: dict[str, Child] = {}
        self._told = set[tuple[str, str]]()
        """Subagents that were told to end, and how."""
        self._telling = set[asyncio.Task[None]]()
        self._awaiting: dict[str, asyncio.Task[Any]] = {}

    @property
    def busy(self) -> bool:
        """True while an activity or a subagent is under way."""
        return bool(self._in_flight or self._starting or self._children)

    @property
    def acts(self) -> bool:
        """True while an activity is under way."""
        return bool(self._in_flight)

    @property
    def may_leave(self) -> bool:
        """True while something is under way that need not be waited for."""
        return bool(self._leavable)

    @property
    def has_children(self) -> bool:
        """True while a subagent is under way."""
        return bool(self._starting or self._children)

    def stop(self, how: How) -> None:
        """Cancel what is under way, and let nothing begin any more."""
        self.stopped = how
        for handle in list(self._in_flight.values()):
            handle.cancel()
        self._end_where_stopped()

    def leave(self) -> None:
        """Wait no longer for what was told to stop and does not: a thread can't be stopped inside a blocking call."""
        for waiting in list(self._leavable.values()):
            waiting.cancel()

    def leave_children(self) -> None:
        """Wait no longer for subagents that were told to stop: they are cancelled when the run closes."""
        for waiting in list(self._awaiting.values()):
            waiting.cancel()

    async def call(self, activity: str, argument: Any, *, leavable: bool = False, **settings: Any) -> Any:
        """Run an activity to its end; ActivityError where it failed, Stopped where the run was told to stop."""
        if self.stopped:
            raise Stopped
        handle = workflow.start_activity(activity, argument, **settings)
        name, waiting = handle.get_name(), asyncio.current_task()
        self._in_flight[name] = handle
        if leavable and waiting is not None:
            self._leavable[name] = waiting
        try:
            return await (asyncio.shield(handle) if leavable else handle)
        except asyncio.CancelledError:
            raise Stopped from None  # it was left, or had completed when it was cancelled: the SDK drops such a result
        finally:
            self._in_flight.pop(name, None)
            self._leavable.pop(name, None)

    async def start_child(self, call_id: str, request: Any, **settings: Any) -> Child:
        """Start a subagent's run; WorkflowAlreadyStartedError where its id is taken."""
        if self.stopped:
            raise Stopped
        handle = await workflow.start_child_workflow(wire.AGENT_RUN, request, **settings)
        self._children[call_id] = handle
        self._end_where_stopped()
        return handle

    async def result_of(self, call_id: str, handle: Child) -> Any:
        """Wait for the end of a subagent's run; ChildWorkflowError where it failed, Stopped where it was left."""
        waiting = asyncio.current_task()
        assert waiting is not None
        self._awaiting[call_id] = waiting
        try:
            return await asyncio.shield(handle)
        except asyncio.CancelledError:
            raise Stopped from None
        finally:
            self._children.pop(call_id, None)
            self._awaiting.pop(call_id, None)

    def interrupt_child(self, call_id: str, reason: str) -> None:
        """Have a subagent end at once, and say what it has done and cost."""
        if call_id in self._children and (call_id, "interrupted") not in self._told:
            self._told.add((call_id, "interrupted"))
            self.tell_child(call_id, wire.INTERRUPT, reason)

    def tell_children(self, signal: str, reason: str | None) -> None:
        """Hand a signal on to all subagents that are under way."""
        for call_id in self._children:
            self.tell_child(call_id, signal, reason)

    def tell_child(self, call_id: str, signal: str, reason: str | None) -> None:
        """Send a subagent's run a signal; one that has ended need not hear it."""
        telling = asyncio.create_task(_tell(self._children[call_id], signal, reason))
        self._telling.add(telling)
        telling.add_done_callback(self._telling.discard)

    async def rest(self, seconds: float, *, summary: str) -> None:
        """Wait for a while, or until the run is told to stop."""
        try:
            await workflow.wait_condition(lambda: self.stopped is not None, timeout=seconds, timeout_summary=summary)
        except TimeoutError:
            return

    def _end_where_stopped(self) -> None:
        for call_id, child in self._children.items():
            if self.stopped == "cancelled" and (call_id, "cancelled") not in self._told:
                self._told.add((call_id, "cancelled"))
                child.cancel()
            elif self.stopped in ("interrupted", "failed"):
                self.interrupt_child(call_id, "the run that called it was stopped")

    @asynccontextmanager
    async def room_for(self, call_id: str, size: int) -> AsyncIterator[None]:
        """Wait until a request of so many bytes can be one of a workflow task's commands, which the server bounds."""

        def is_full() -> bool:
            return bool(self._starting) and sum(self._starting.values()) + size > CHILD_STARTS_MAX_BYTES

        while is_full() and not self.stopped:
            await workflow.wait_condition(lambda: not is_full() or self.stopped is not None)
        self._starting[call_id] = size
        try:
            yield
        finally:
            del self._starting[call_id]


async def _tell(child: Child, signal: str, reason: str | None) -> None:
    try:
        await child.signal(signal, {} if reason is None else {"reason": reason})
    except FailureError as error:  # it has ended meanwhile
        workflow.logger.info("subagent.not_told", extra={"signal": signal, "error": str(error)[:500]})
