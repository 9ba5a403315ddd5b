"""A call of a subagent: a child run, started and awaited; `family.py` decides what its end means."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ValidationError
from temporalio import workflow
from temporalio.exceptions import (
    ApplicationError,
    CancelledError,
    ChildWorkflowError,
    TerminatedError,
    WorkflowAlreadyStartedError,
)
from temporalio.exceptions import TimeoutError as TemporalTimeout

from holdfast import ids, wire
from holdfast.bounds import cut, json_size, pairs, summary
from holdfast.content import text_of
from holdfast.request import After, RunRequest
from holdfast.run import RunError, RunResult
from holdfast.subagents import PATH_MAX_CHARS, Lineage
from holdfast.workflows import delegated, options, shown
from holdfast.workflows.hands import Child, Stopped
from holdfast.workflows.live import Live
from holdfast.workflows.outcomes import named
from holdfast.workflows.slot import Slot
from holdfast.workflows.state import RunState

_TAKEN_SECONDS = 1.0


async def call_subagent(live: Live, state: RunState, slot: Slot) -> None:
    """See a subagent's run to its end; one that was begun before goes on."""
    call_id, began = slot.call.id, workflow.time()
    while slot.outcome is None and not live.hands.stopped:
        try:
            handle = await _start(live, state, slot)
        except Stopped:
            return
        except WorkflowAlreadyStartedError:  # the run's own earlier start is still being stopped
            delegated.refused(state, call_id)
            live.refresh()
            if slot.outcome is None:
                await live.hands.rest(_TAKEN_SECONDS, summary=f"subagent {call_id}")
            continue
        live.refresh()  # it may have lost its join meanwhile
        if state.paused is not None:
            live.hands.tell_child(call_id, wire.PAUSE, state.paused)
        live.draw()
        try:
            result = ended_well(await live.hands.result_of(call_id, handle))
        except Stopped:
            return
        except ChildWorkflowError as error:
            result = ended_badly(error)
        took = round((workflow.time() - began) * 1000, 1)
        delegated.ended(state, call_id, result, took, stopped=live.hands.stopped is not None)
        return


async def _start(live: Live, state: RunState, slot: Slot) -> Child:
    """Start the run; Stopped where it is no longer wanted once it may."""
    family, call_id = state.family, slot.call.id
    name, caller = family.subagent(slot.call.name).agent_name, workflow.info().workflow_id
    async with live.hands.room_for(call_id, json_size(_asked(live, state, slot, None).wire())):
        if slot.outcome is not None or live.hands.stopped or state.turn is None:
            raise Stopped
        budget = family.share(state.turn, state.budget.cost_left)
        asked = _asked(live, state, slot, budget)
        said = text_of(asked.message)
        family.began(call_id, ids.child_run_id(caller, call_id), budget)
        return await live.hands.start_child(
            call_id,
            asked.wire(),
            id=family.children[call_id].run_id,
            static_summary=summary(f"{name}: {said or pairs(asked.input) or 'goes on'}"),
            static_details=f"**{name}**, a subagent of `{caller}`\n\n{cut(said, 4096)}",
            **options.child(shown.pending(name) if state.loaded.search_attributes else None),
        )


def _asked(live: Live, state: RunState, slot: Slot, budget_usd: float | None) -> RunRequest:
    assert live.request is not None
    family, call_id, caller = state.family, slot.call.id, workflow.info().workflow_id
    subagent, child = family.subagent(slot.call.name), family.children.get(call_id)
    lineage = Lineage(
        run_id=caller,
        call_id=call_id,
        root_run_id=family.lineage.root_run_id if family.lineage else caller,
        depth=family.depth + 1,
        path=f"{family.path}/{subagent.agent_name}"[:PATH_MAX_CHARS],
        levels_left=state.limits.max_subagent_depth - 1,
        budget_usd=budget_usd,
        deadline_seconds=subagent.timeout_seconds,
    )
    mode = live.request.interaction_mode
    if mode is None and state.interaction.mode == "headless":
        mode = "headless"
    link = None if child is None else child.link
    said = _words(slot.arguments) if link is None else {"after": After(run=link)}
    metadata = live.request.metadata or state.context  # a later link, or a restart, may not have been told of it
    return RunRequest(agent=subagent.agent, metadata=metadata, interaction_mode=mode, lineage=lineage, **said)


def _words(arguments: dict[str, Any]) -> dict[str, Any]:
    """Return what a call says; arguments that somebody approved it with may be of any shape."""
    message, given = arguments.get("message"), arguments.get("input")
    words: dict[str, Any] = {"message": message} if isinstance(message, str) else {}
    return {**words, "input": given} if isinstance(given, dict) else words


def ended_well(given: Any) -> RunResult:
    """Read the result that a subagent's run returned; one that somebody else wrote is a failure."""
    try:
        return RunResult.recorded(given)
    except ValidationError:
        error = RunError(type="SubagentResultInvalid", message="its run was completed with what is no run's result")
        return _failed(error)


def ended_badly(failed: BaseException | None) -> RunResult:
    """Read what a subagent's run left that did not complete."""
    cause = failed.cause if isinstance(failed, ChildWorkflowError) else failed
    if isinstance(cause, CancelledError):
        return RunResult(status="cancelled")
    if isinstance(cause, ApplicationError) and cause.details:
        left = cause.details[0]
        if isinstance(left, dict) and "status" in left:
            return ended_well(left)
    if isinstance(cause, TerminatedError):
        return ended_by_force("Terminated")
    return ended_by_force("Timeout") if isinstance(cause, TemporalTimeout) else _failed(named(cause))


def ended_by_force(how: Literal["Terminated", "Timeout"]) -> RunResult:
    """Return what is known of a subagent's run that the server has ended."""
    told = {"Terminated": "its run was terminated", "Timeout": "it took longer than it may"}
    return _failed(RunError(type=how, message=told[how]))


def _failed(error: RunError) -> RunResult:
    return RunResult(status="failed", error=error)
