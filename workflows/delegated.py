"""What the end of a subagent's run changes in the run that called it: plain decisions, without Temporal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.run import RunResult

if TYPE_CHECKING:
    from holdfast.workflows.state import RunState


def ended(state: RunState, call_id: str, result: RunResult, latency_ms: float | None, *, stopped: bool = False) -> None:
    """Count what a subagent's run has done, and take its end for the call's unless this run stopped it."""
    slot = state.turn.slots[call_id] if state.turn is not None and call_id in state.turn.slots else None
    if slot is None or call_id not in state.family.children:
        return
    state.budget.spend(state.family.ended(call_id, slot.call.name, result, latency_ms))
    outcome = state.family.outcome(call_id, result, latency_ms, stopped=stopped)
    if outcome is not None:
        state.executions.extend(result.tool_executions)
        state.sources.take(result.sources)
        state.settle(call_id, outcome)


def refused(state: RunState, call_id: str) -> None:
    """Note that a subagent's run could not be started, since its id is taken."""
    outcome = state.family.refused(call_id) if call_id in state.family.children else None
    if state.turn is not None and outcome is not None:
        state.turn.slots[call_id].settle(outcome, made=False)
    state.close_turn()
