"""What a run shows of itself: what it has done so far, and what it waits for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from holdfast.workflows.sources import Sources
from holdfast.workflows.waiting import waiting_for, waits_for_model, waits_for_thread

if TYPE_CHECKING:
    from holdfast.workflows.state import RunState


def waits_of(state: RunState) -> list[dict[str, Any]]:
    """Describe what the run waits for."""
    thread = [] if state.awaits_thread is None else [waits_for_thread(state.awaits_thread)]
    model = [] if state.models.resting is None else [waits_for_model(*state.models.resting)]
    return [*thread, *model, *(waiting_for(slot) for slot in state.waiting)]


def summary_of(state: RunState) -> dict[str, Any]:
    """Return the fields of a RunResult that say what the run did."""
    return {
        "agent": state.loaded.agent.name,
        "revision": state.loaded.revision,
        "run_seq": state.run_seq,
        "steps": state.counts.steps,
        "model": state.models.answered_by,
        "cost_usd": state.usage.cost_usd,
        "usage_aggregate": state.usage,
        "tool_executions": state.executions.all() if state.family.lineage is None else state.executions.latest(),
        "subagent_executions": state.family.summary(),
        "sources": sources_so_far(state).all() if state.family.lineage is None else sources_so_far(state).latest(),
        "state_snapshot": {
            "model_calls": state.counts.model_calls,
            "tool_calls": state.counts.tool_calls,
            "messages": len(state.transcript),
            "unread_messages": len(state.inbox),
            "limit_reached": state.limit_reached,
            **state.family.tolerance.summary(),
        },
    }


def sources_so_far(state: RunState) -> Sources:
    """Return the sources, those of an open turn's settled calls included."""
    settled = [slot.outcome.output for slot in state.turn.slots.values() if slot.outcome] if state.turn else []
    if not settled:
        return state.sources
    found = Sources(state.sources.all())
    for output in settled:
        found.add(output)
    return found
