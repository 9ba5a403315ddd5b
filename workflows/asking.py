"""A run asks its models: what each call says, and what comes of one that failed for good. Plain decisions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.calls import Compact, ModelCall
from holdfast.failure import BUDGET_EXCEEDED, CONTEXT_WINDOW_EXCEEDED, NOT_MADE
from holdfast.run import RunError
from holdfast.workflows import plans
from holdfast.workflows.models import FALLBACK_PATIENCE_SECONDS, Verdict

if TYPE_CHECKING:
    from holdfast.workflows.state import RunState


def ask(state: RunState, model: str) -> ModelCall:
    """Take the next step, or go on with one that failed: what waits goes into the transcript, and a model is asked."""
    state.read_inbox()
    if state.models.ask(model):
        state.budget.take_step()
    state.budget.take_call()
    own = state.talk.messages[state.own_from :]
    state.planning = not state.limit_reached and (state.planning or plans.is_due(state.loaded.agent, own))
    another = state.models.may_fall_back and state.budget.model_calls_left > 0
    return ModelCall(
        step=state.steps,
        model=model,
        closing=state.limit_reached,
        planning=state.planning,
        budget_usd=state.budget.cost_left,
        patience_seconds=FALLBACK_PATIENCE_SECONDS if another else None,
        **state.reading(),
    )


def failed(state: RunState, error: RunError, now: float, retry_after: float | None = None) -> Verdict:
    """Take that the model asked last has failed for good, and say what comes next; a call not made counts nothing.

    A transcript that was too long is shortened first. `now` is in seconds since the epoch.
    """
    if error.type in NOT_MADE:
        state.budget.give_back()
    if error.type == BUDGET_EXCEEDED:
        state.reach("max_cost_usd")
        state.give_up()
        return Verdict(ends="degraded")
    too_long = error.type == CONTEXT_WINDOW_EXCEEDED
    if too_long and state.shorten():
        state.models.leave_step()
        return Verdict()
    verdict = state.models.failed(error.type, now, retry_after, calls_left=state.budget.model_calls_left > 0)
    if verdict.ends == "failed" and too_long and state.limit_reached:
        verdict = Verdict(ends="degraded")
    if verdict.ends == "degraded":
        state.give_up()
    return verdict


def to_compact(state: RunState, model: str) -> Compact | None:
    """Return what to have summarised before the next model call, if it has come to that."""
    settings = state.loaded.agent.compaction
    if settings is None or state.limit_reached or state.budget.model_calls_left < 2:
        return None
    span = state.talk.to_summarise(settings)
    if span is None:
        return None
    return Compact(
        model=settings.model or model,
        start=span.start,
        stop=span.stop,
        budget_usd=state.budget.cost_left,
        unknown_price=state.limits.unknown_price,
        **state.reading(),
    )
