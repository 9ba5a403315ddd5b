"""What a run does next: plain decisions, without Temporal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from holdfast.bounds import cut
from holdfast.run import RunError
from holdfast.workflows import asking, review
from holdfast.workflows.moves import CallModel, CallTools, CompactContext, Fail, Finish, Move, Rest

if TYPE_CHECKING:
    from holdfast.workflows.state import RunState


def next_move(state: RunState, now: float) -> Move:
    """Say what to do: have an answer checked, settle its calls, shorten the transcript, ask a model, or finish."""
    due = review.due(state)
    move = _next_move(state, now) if due is None else due
    return review.final(state, move) if isinstance(move, Finish) else move


def _next_move(state: RunState, now: float) -> Move:
    if state.limit_reached == "max_cost_usd" or state.given_up:
        return Finish("degraded", state.last_text() or state.talk.last_result(state.limit_reached))
    if state.turn is not None:
        return CallTools(state.turn)
    if state.models.resting is not None:
        return Rest(*state.models.resting)
    last = state.talk.last
    answered = last is not None and last.role == "assistant"
    if answered and state.limit_reached:
        return Finish("degraded", state.last_text())
    if last is not None and answered and not state.inbox and not state.answers.repairable:
        done: Literal["completed", "degraded"] = "degraded" if state.family.tolerance.tolerated else "completed"
        return Finish(done, last.text) if state.answers.taken else _unfit(state, last.text)
    state.read_inbox()
    unheard = review.unheard(state)
    if unheard is not None:
        return unheard
    model = state.models.next(now)
    span = asking.to_compact(state, model)
    if span is not None:
        return CompactContext(span)
    return CallModel(asking.ask(state, model))


def _unfit(state: RunState, text: str) -> Move:
    """End a run whose answer does not fit, and was repaired often enough."""
    if state.loaded.agent.failure.output == "degrade":
        return Finish("degraded", text)
    return Fail(RunError(type="OutputInvalid", message=cut(state.answers.refusal())))
