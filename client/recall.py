"""Reading how a closed link ended, for the run that goes on after it."""

from __future__ import annotations

from dataclasses import replace

from temporalio.api.enums.v1 import EventType as Kind
from temporalio.client import Client, WorkflowExecutionStatus, WorkflowHistoryEventFilterType

from holdfast import wire
from holdfast.activities.past import Past, going_on, refuse_open
from holdfast.carried import Begun, Carried, OpenTurn, Settled
from holdfast.client.history import Line
from holdfast.client.rpc import describe, translated
from holdfast.client.timeline import Timeline, fitting
from holdfast.errors import InputInvalid, RunNotFound
from holdfast.message import user_message
from holdfast.request import UserMessage, sound_id
from holdfast.threads import Visit
from holdfast.workflows.handover import carry
from holdfast.workflows.outcomes import interrupted_once
from holdfast.workflows.seen import SeenIds
from holdfast.workflows.state import RunState

_LAST_EVENT = WorkflowHistoryEventFilterType.CLOSE_EVENT


async def recall(client: Client, run_id: str, link: str, step: int | None = None) -> Past:
    """Fold one closed link of a run, up to a step where one is given.

    RunNotFound for a link that is not there (any more) or no run's, InputInvalid for one that is open, that was started
    with a wrong request, or in which the step was not taken; HoldfastError for a history that this version can't read.
    """
    sound_id(run_id)
    folded, last = Timeline(client.data_converter), 0
    ended = False
    handle = client.get_workflow_handle(run_id, run_id=link)
    with translated(client, f"{run_id}/{link}"):
        async for event in handle.fetch_history_events():
            started = event.workflow_execution_started_event_attributes
            if event.event_id == 1 and started.workflow_type.name != wire.AGENT_RUN:
                raise RunNotFound(run_id)
            state, last = folded.state, event.event_id
            begun = [each for each in await folded.add(Line(link, event)) if each.type == "step_started"]
            if step is not None and state is not None and begun and begun[0].data["step"] == step:
                with fitting(run_id, event.event_id):
                    return _before_step(folded, state, link)
            continued = event.event_type == Kind.EVENT_TYPE_WORKFLOW_EXECUTION_CONTINUED_AS_NEW
            ended = ended or continued or folded.result is not None
    if not ended:
        raise refuse_open(run_id)
    if step is not None:
        raise InputInvalid({"after.step": f"step {step} was not taken in this link of run {run_id!r}"})
    if folded.state is None or folded.reading is None:
        return await _never_begun(client, run_id, link, folded)
    with fitting(run_id, last):
        folded.finish_task()
        past = _at_the_end(folded, folded.state, link)
    return await _with_last_links(client, past)


async def ended(client: Client, visit: Visit) -> str | None:
    """Return the last link of one start of a run once that has ended, None while it is under way.

    RunNotFound where its links are not there (any more).
    """
    run_id, link = visit.run_id, visit.link
    latest = await describe(client, run_id)
    if (latest.raw_description.workflow_execution_info.first_run_id or latest.run_id) == visit.first_link:
        ends = latest.close_time is not None and latest.status != WorkflowExecutionStatus.CONTINUED_AS_NEW
        return latest.run_id if ends else None
    while True:  # the run was started again meanwhile: its latest link is another start's
        handle = client.get_workflow_handle(run_id, run_id=link)
        with translated(client, run_id):
            following = (await handle.describe()).raw_description.workflow_extended_info.reset_run_id
            async for event in handle.fetch_history_events(event_filter_type=_LAST_EVENT):
                if event.HasField("workflow_execution_continued_as_new_event_attributes"):
                    following = event.workflow_execution_continued_as_new_event_attributes.new_execution_run_id
        if not following:
            return link
        link = following


async def _never_begun(client: Client, run_id: str, link: str, folded: Timeline) -> Past:
    """Return what the link would have begun with, and what it was told."""
    request = folded.link_request
    if request is None:
        raise InputInvalid(
            {"after": f"run {run_id!r} was started with a wrong request: there is nothing to go on from"}
        )
    told = list(folded.unread)
    if request.carried is not None:
        past = await recall(client, run_id, request.carried.link)
    elif request.after is not None:
        after = request.after
        past = going_on(await recall(client, after.workflow_id or run_id, after.run, after.step), after, run_id)
        if request.message:
            told.insert(0, UserMessage(text=request.message))
    else:
        past = Past(None, [], Carried(link=link), request)
    return _with_unread(past, told)


def _with_unread(past: Past, messages: list[UserMessage]) -> Past:
    """Add messages that no model has seen; a repeated id counts once."""
    seen = SeenIds(past.carried.seen)
    new = [each for each in messages if each.id is None or seen.take(each.id)]
    told = {"seen": seen.packed(), "inbox": past.carried.inbox + len(new)}
    wired = [user_message(each.text).wire() for each in new]
    return replace(past, messages=[*past.messages, *wired], carried=past.carried.model_copy(update=told))


async def _with_last_links(client: Client, past: Past) -> Past:
    """Look up where the subagents of open calls have come to, maybe without their caller: they go on from there."""
    found: list[Begun] = []
    for child in past.carried.children:
        try:
            found.append(child.model_copy(update={"link": (await describe(client, child.run_id)).run_id}))
        except RunNotFound:  # it never started, or is gone: it begins anew
            found.append(child.model_copy(update={"link": None}))
    return replace(past, carried=past.carried.model_copy(update={"children": tuple(found)}))


def _before_step(folded: Timeline, state: RunState, link: str) -> Past:
    assert folded.reading is not None
    messages = [message.wire() for message in state.transcript.messages]
    counts = state.counts.model_copy(update={"steps": state.steps - 1})
    carried = carry(state, link).model_copy(update={"counts": counts, "inbox": 0, "turn": OpenTurn(), "children": ()})
    return Past(folded.reading, messages, carried)


def _at_the_end(folded: Timeline, state: RunState, link: str) -> Past:
    assert folded.reading is not None
    messages = [message.wire() for message in state.transcript.messages]
    messages += [user_message(each.text).wire() for each in state.inbox]
    carried = carry(state, link)
    specs = {spec.name: spec for spec in folded.reading.agent.tool_specs}
    lost = [
        Settled(call_id=slot.call.id, outcome=interrupted_once(), made=True, arguments=slot.edited)
        for slot in (state.turn.open if state.turn else [])
        if slot.call.id in folded.unknown and specs[slot.call.name].effect == "once"
    ]
    turn = carried.turn.model_copy(update={"settled": (*carried.turn.settled, *lost)})
    return Past(folded.reading, messages, carried.model_copy(update={"turn": turn}))
