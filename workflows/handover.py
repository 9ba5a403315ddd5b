"""What a run hands from one link to the next, and how the next one begins with it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from holdfast.agent import Interaction
from holdfast.bounds import one_line
from holdfast.calls import LoadedAgent
from holdfast.carried import Carried, OpenTurn
from holdfast.content import text_of
from holdfast.message import Message
from holdfast.request import UserMessage
from holdfast.subagents import Lineage
from holdfast.workflows import review
from holdfast.workflows.answers import Answers
from holdfast.workflows.budget import Budget
from holdfast.workflows.conversation import Conversation
from holdfast.workflows.executions import Executions
from holdfast.workflows.family import limits_of
from holdfast.workflows.models import Models
from holdfast.workflows.seen import SeenIds
from holdfast.workflows.sources import Sources
from holdfast.workflows.state import RunState
from holdfast.workflows.summary import sources_so_far


def carry(state: RunState, link: str, **more: Any) -> Carried:
    """Return what the next link is handed."""
    turn = state.review.handed_on or OpenTurn()
    if state.turn is not None:
        turn = state.turn.handed_on(state.dropped, state.loaded.tool_output_max_chars)
    return Carried(
        link=link,
        run_seq=state.run_seq,
        transcript=state.talk.reference(),
        pushed=state.talk.push(),
        boundary=state.loaded.boundary,
        inbox=len(state.inbox),
        counts=state.counts,
        base=state.budget.base,
        usage=state.usage,
        limit_reached=state.limit_reached,
        context_tokens=state.talk.context_tokens,
        goal=state.goal,
        context=state.context,
        review=state.review.carried(planning=state.planning),
        seen=state.seen,
        executions=state.executions.latest(),
        models=state.models.handed_on(),
        given_up=state.given_up,
        sources=sources_so_far(state).latest(),
        turn=turn,
        children=state.family.handed_on(),
        subagents=state.family.executions.latest(),
        tolerated=state.family.tolerance.tolerated,
        paused=state.paused,
        memory=state.memory,
        own_from=state.own_from,
        handed_over=state.handed_over,
        answer_fits=state.answers.fits,
        answer_error=state.answers.error,
        repairs=state.answers.repairs,
        awaits_thread=state.awaits_thread,
        **more,
    )


def resume(
    loaded: LoadedAgent,
    carried: Carried,
    messages: Iterable[dict[str, Any]],
    now: float,
    interaction: Interaction | None = None,
    lineage: Lineage | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> RunState:
    """Go on from what a closed link has handed on; the messages are in wire form, those of its inbox last.

    `metadata` is the request's; where it says nothing, what the closed link knew of it counts on.
    """
    state = RunState(
        loaded,
        Models(loaded.agent, carried.models),
        interaction or loaded.agent.interaction,
        budget=Budget(
            limits_of(loaded.agent, lineage), carried.counts, carried.base, carried.usage, carried.limit_reached
        ),
        run_seq=carried.run_seq,
        paused=carried.paused,
        executions=Executions(carried.executions),
        sources=Sources(carried.sources),
        talk=Conversation(carried.context_tokens),
        goal=carried.goal or one_line(text_of(next(iter(loaded.prompts), "")), 300),
        context=loaded.context_of(dict(metadata)) if metadata else carried.context,
        memory=carried.memory,
        own_from=carried.own_from,
        handed_over=carried.handed_over,
        answers=Answers.of(loaded.agent, carried.answer_fits, carried.answer_error, carried.repairs),
        awaits_thread=carried.awaits_thread,
        seen_ids=SeenIds(carried.seen),
        dropped=carried.turn.dropped,
        given_up=carried.given_up,
        planning=carried.review.planning and loaded.agent.planning,
        lineage=lineage,
        carried=carried,
    )
    restored = [Message.recorded(each) for each in messages]
    read = len(restored) - carried.inbox
    for message in restored[:read]:
        state.talk.append(message)
    unread = [each.content or "" for each in restored[read:]]
    state.inbox = [UserMessage(text=text) for text in (*unread, *loaded.prompts)]
    review.resumed(state, now, carried.turn)
    state.wake()
    return state
