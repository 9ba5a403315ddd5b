"""How a run begins: from nothing, after a closed link, or as the next link of itself."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError
from temporalio import workflow

from holdfast import wire
from holdfast.bounds import cut
from holdfast.calls import LoadAgent, LoadedAgent, Restore, Restored
from holdfast.carried import Carried
from holdfast.errors import InputInvalid
from holdfast.request import After, RunRequest
from holdfast.workflows import options
from holdfast.workflows.handover import resume
from holdfast.workflows.hands import Hands
from holdfast.workflows.in_thread import join
from holdfast.workflows.state import RunState


async def begin(hands: Hands, request: RunRequest) -> RunState:
    """Load the agent, and bring over what a closed link has left."""
    carried = request.carried
    if carried is not None and workflow.info().continued_run_id is None:
        raise InputInvalid({"carried": "is what a run hands to its own next link; nobody else may give it"})
    lineage = request.lineage
    if lineage is not None and workflow.info().parent is None:
        raise InputInvalid({"lineage": "is what a run tells its subagents; nobody else may give it"})
    after = request.after if carried is None else After(run=carried.link)
    name = request.agent if isinstance(request.agent, str) else request.agent.name
    changed: dict[str, Any] = {"carried": None, "after": after, "append_message": None}
    if carried is not None:
        changed |= {"input": {}, "metadata": {}}
    asked = LoadAgent(request=request.model_copy(update=changed), pinned=carried is not None)
    found = await hands.call(wire.AGENT_LOAD, asked.wire(), summary=name, **options.agent_load())
    try:
        loaded = LoadedAgent.model_validate(found)
    except ValidationError as error:  # never with half of an agent: wait for a worker that knows all of it
        told = cut(str(error), 1000)
        raise workflow.NondeterminismError(f"another version of Holdfast loaded this agent: {told}") from None
    interaction = loaded.agent.interaction
    if request.interaction_mode is not None:
        interaction = interaction.model_copy(update={"mode": request.interaction_mode})
    if after is None:
        state = RunState.begin(loaded, interaction, lineage, request.metadata)
    else:
        carried, messages = await _restore(hands, after, carried, loaded.tool_output_max_chars)
        state = resume(loaded, carried, messages, workflow.time(), interaction, lineage, request.metadata)
        if not len(state.transcript) and not state.inbox:
            raise InputInvalid({"after": "there is nothing to go on from: give a message"})
    join(state, request, workflow.info().workflow_id)
    return state


async def _restore(
    hands: Hands, after: After, carried: Carried | None, max_chars: int
) -> tuple[Carried, list[dict[str, Any]]]:
    """Bring the messages over, piece by piece; each enters this link's history once."""
    messages: list[dict[str, Any]] = []
    start: int | None = 0
    while start is not None:
        asked = Restore(after=after, start=start, tool_output_max_chars=max_chars)
        if carried is not None and carried.transcript is not None:
            pushed = carried.pushed if start == 0 else ()
            told = {"transcript": carried.transcript, "inbox": carried.inbox, "pushed": pushed}
            told |= {"boundary": carried.boundary}
            asked = asked.model_copy(update=told)
        label = f"from message {start}" if start else None
        found = await hands.call(wire.TRANSCRIPT_RESTORE, asked.wire(), summary=label, **options.restore())
        piece = Restored.recorded(found)
        messages += piece.messages
        carried, start = carried or piece.carried, piece.next
    assert carried is not None
    return carried, messages
