"""How the calls of an answer are decided when they are opened: plain decisions, without Temporal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.carried import OpenTurn
from holdfast.workflows.admission import Admitted, Decision, Refused, admit
from holdfast.workflows.policy import Judge
from holdfast.workflows.turn import Turn, without_void

if TYPE_CHECKING:
    from holdfast.workflows.state import RunState


def admitted(state: RunState, handed_on: OpenTurn | None) -> tuple[str, ...]:
    """Return the ids of the last answer's calls that would be made, or asked about, and have not ended."""
    ended = {each.call_id for each in handed_on.settled} if handed_on is not None else set()
    found = [each.call.id for each in _decisions(state, handed_on, _judge(state)) if isinstance(each, Admitted)]
    return tuple(call_id for call_id in found if call_id not in ended)


def open_turn(state: RunState, now: float, handed_on: OpenTurn | None) -> Turn | None:
    """Open the last answer's calls, each as it is decided; `handed_on` is what a link before knew of them."""
    judge = _judge(state)
    if handed_on is not None:
        handed_on = without_void(handed_on, state.talk.unsettled(), state.tools)
    return _open(state, now, handed_on, _decisions(state, handed_on, judge), judge)


def refuse(state: RunState, now: float, handed_on: OpenTurn | None, told: tuple[str, str]) -> Turn | None:
    """Open the last answer's calls only to refuse them: `told` is the error's type and text."""
    decisions: list[Decision] = [Refused(call, *told) for call in state.talk.unsettled()]
    return _open(state, now, handed_on, decisions, _judge(state))


def _open(
    state: RunState, now: float, handed_on: OpenTurn | None, decisions: list[Decision], judge: Judge
) -> Turn | None:
    if not decisions:
        return None
    state.turn = Turn(decisions, state.interaction, now, judge)
    if handed_on is not None:
        state.turn.take_over(handed_on)
        state.family.take_over(state.turn)
    state.family.notice(state.turn)
    return state.turn


def _judge(state: RunState) -> Judge:
    return Judge.of(state.loaded, state.context, state.review.judgements())


def _decisions(state: RunState, handed_on: OpenTurn | None, judge: Judge) -> list[Decision]:
    calls, made = state.talk.unsettled(), state.budget.tool_calls
    before = handed_on or OpenTurn()
    granted = [each.call_id for each in before.granted]
    given = {each.call_id: each.arguments or {} for each in before.given}
    return admit(calls, state.tools, state.limits, made, state.interaction, granted, judge, given)
