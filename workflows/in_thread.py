"""A run in its thread: it waits for its turn, reads what the thread remembers, and says when it has ended."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from temporalio import workflow
from temporalio.exceptions import FailureError

from holdfast import ids, wire
from holdfast.bounds import summary
from holdfast.calls import Restored
from holdfast.carried import Reference
from holdfast.message import Message
from holdfast.run import Status
from holdfast.threads import Enter, Entering, ReadMemory, TurnGiven, Visit
from holdfast.workflows import options
from holdfast.workflows.hands import Stopped
from holdfast.workflows.live import Live
from holdfast.workflows.state import RunState

_FIRST_DOUBT = 60.0
_LAST_DOUBT = 3600.0
"""Seconds of waiting after which the run asks for its turn again: somebody may have deleted the thread."""


async def take_turn(live: Live, state: RunState) -> None:
    """Wait for the run's turn, where it has a thread, and bring over what the thread remembers."""
    thread_id = state.awaits_thread
    if thread_id is None:
        return
    live.entered = True
    doubt, turn = _FIRST_DOUBT, None
    await _enter(live, thread_id)
    while turn is None:
        live.refresh()
        try:
            await workflow.wait_condition(
                lambda: live.turn_given is not None or live.hands.stopped is not None,
                timeout=timedelta(seconds=doubt),
                timeout_summary="thread",
            )
        except TimeoutError:
            doubt = min(_LAST_DOUBT, doubt * 2)
            await _enter(live, thread_id)
        if live.hands.stopped:
            raise Stopped
        turn = live.turn_given
    state.awaits_thread = None
    live.refresh()
    await workflow.wait_condition(lambda: state.paused is None or live.hands.stopped is not None)
    if state.memory is None:
        await _read(live, state, ids.thread_workflow_id(thread_id), turn.memory)
    live.refresh()


async def may_finish(live: Live, state: RunState, status: Status) -> bool:
    """Leave the thread before the end is shown; False where a message came meanwhile that the run is to answer.

    What stays unread at another end is read once the run is started again.
    """
    known = live.entered
    await leave(live)
    if status != "completed" or not state.inbox or live.hands.stopped:
        return True
    live.entered = known
    return False


async def leave(live: Live) -> None:
    """Tell the thread that the run is about to end; a thread that is gone need not know."""
    request = live.request
    if request is None or request.thread_id is None or not live.entered:
        return
    thread = workflow.get_external_workflow_handle(ids.thread_workflow_id(request.thread_id))
    try:
        await thread.signal(wire.LEAVE, _visit().wire())
    except FailureError as error:
        workflow.logger.info("thread.not_left", extra={"error": str(error)[:500]})
    live.entered = False


async def _enter(live: Live, thread_id: str) -> None:
    request = live.request
    after = request.after if request else None
    own = after is not None and after.workflow_id in (None, workflow.info().workflow_id)
    asking = Entering(**_visit().model_dump(), after=after.run if after is not None and own else None)
    asked = Enter(thread_id=thread_id, visit=asking)
    await live.hands.call(wire.THREAD_ENTER, asked.wire(), summary=summary(thread_id), **options.thread_enter())


async def _read(live: Live, state: RunState, workflow_id: str, memory: Reference) -> None:
    messages: list[dict[str, Any]] = []
    start: int | None = 0 if memory.length else None
    while start is not None:
        asked = ReadMemory(workflow_id=workflow_id, start=start, memory=memory)
        label = f"from message {start}" if start else None
        found = await live.hands.call(wire.THREAD_READ, asked.wire(), summary=label, **options.thread_read())
        piece = Restored.recorded(found)
        messages += piece.messages
        start = piece.next
    state.remember([Message.recorded(each) for each in messages], memory)


def given(live: Live, turn: TurnGiven) -> None:
    """Take the word that it is the run's turn; one that was meant for an earlier start of this run is none."""
    if turn.first_link == workflow.info().first_execution_run_id:
        live.turn_given = turn


def _visit() -> Visit:
    info = workflow.info()
    return Visit(run_id=info.workflow_id, first_link=info.first_execution_run_id, link=info.run_id)
