"""The shapes of runs with subagents: in parallel, joined, stopped, gone on, and one subagent's own."""

from __future__ import annotations

import asyncio
from typing import Any

from temporalio.api.enums.v1 import EventType as Kind

from holdfast import Agent, Failure, Join, Subagent
from holdfast.worker.scripted import ChatRequest, Reply, Script, call, fail, hang, say
from tests.support.shapes import AGENT, TOOLS, Play, Shape, turns

_ADD = ("add", {"left": 1, "right": 2})
_SUM = ("adder", {"message": "Add 1 and 2."})
_POEM = ("poet", {"message": "A line, please."})
_ADDER = Agent(name="adder", model="scripted/adder", description="Adds.", tools=TOOLS)
_POET = Agent(name="poet", model="scripted/poet")
_ASKED = Subagent(agent=_POET, name="asked", requires_approval=True)
_CALLER = AGENT.model_copy(update={"subagents": (Subagent(agent=_ADDER), Subagent(agent=_POET), _ASKED)})


def _caller(**fields: Any) -> Agent:
    return _CALLER.model_copy(update=fields)


def _roles(caller: Script, adder: Script, poet: Script) -> Script:
    """Answer as the one who is asked."""
    scripts = {"test": caller, "adder": adder, "poet": poet}
    return lambda request: scripts[request.model](request)


def _once_silent(reply: Reply) -> Script:
    """Do not answer at first, and then with this."""
    asked: list[int] = []

    def script(request: ChatRequest) -> Reply:
        asked.append(request.number)
        return hang() if len(asked) == 1 else reply

    return script


async def _asked_twice(play: Play) -> None:
    """Wait until the caller's model has been asked, and its subagent's."""
    await play.asked(2)
    await asyncio.sleep(0.7)


async def _cancel(play: Play) -> None:
    await _asked_twice(play)
    await play.run.cancel()


async def _interrupt(play: Play) -> None:
    await _asked_twice(play)
    await play.run.signal("interrupt", {"reason": "enough"})


async def _interrupt_and_again(play: Play) -> None:
    await _interrupt(play)
    await play.run.result()
    link = (await play.run.describe()).run_id
    await play.start({"agent": play.agent.name, "after": {"run": link}})


async def _terminate_child(play: Play) -> None:
    await _asked_twice(play)
    await play.client.get_workflow_handle(await _child(play)).terminate(reason="no longer wanted")


async def _turn_to_child(play: Play) -> None:
    """Record the subagent's run instead of its caller's."""
    await play.run.result()
    async for event in play.run.fetch_history_events():
        if event.HasField("start_child_workflow_execution_initiated_event_attributes"):
            play.name = event.start_child_workflow_execution_initiated_event_attributes.workflow_id
            return


async def _child(play: Play) -> str:
    return str((await play.run.describe()).raw_description.pending_children[0].workflow_id)


async def _crowd_then_approve(play: Play) -> None:
    while not (waits := (await play.run.query("status"))["waiting_for"]):
        await asyncio.sleep(0.05)
    for number in range(12):
        await play.say({"text": f"message {number}", "id": str(number)})
        await asyncio.sleep(0.05)
    await play.run.execute_update("decide", {"call_id": waits[0]["id"], "decision": "approve"})


_BOTH = turns(call(_SUM, _POEM, _ADD), say("3, in verse."))
_ONE = turns(call(_SUM), say("3."))
_ADDS = turns(call(_ADD), say("It is 3."))
_SINGS = turns(say("One and two is three, you see."))
_SILENT = turns(hang())

KIN_SHAPES: dict[str, Shape] = {
    "subagents-in-parallel": Shape(_roles(_BOTH, _ADDS, _SINGS), _CALLER),
    "subagent": Shape(_roles(_ONE, _ADDS, _SINGS), _CALLER, during=_turn_to_child),
    "subagent-failed": Shape(
        _roles(_ONE, turns(call(_ADD), fail(400, message="not today")), _SINGS),
        _caller(failure=Failure(subagent="degrade")),
    ),
    "subagent-terminated": Shape(_roles(_ONE, _SILENT, _SINGS), _CALLER, during=_terminate_child),
    "subagents-joined": Shape(_roles(_BOTH, _SILENT, _SINGS), _caller(join=Join(mode="any"))),
    "subagents-cancelled": Shape(_roles(_ONE, _SILENT, _SINGS), _CALLER, during=_cancel),
    "subagents-interrupted": Shape(_roles(_ONE, _SILENT, _SINGS), _CALLER, during=_interrupt),
    "subagents-again": Shape(_roles(_ONE, _once_silent(say("It is 3.")), _SINGS), _CALLER, during=_interrupt_and_again),
    "subagents-continued": Shape(
        _roles(
            turns(call(_SUM, ("asked", {"message": "A line, please."}), ("broken", {})), say("3, in verse.")),
            _ADDS,
            _SINGS,
        ),
        _caller(failure=Failure(tool="degrade")),
        during=_crowd_then_approve,
        continue_after_events=15,
    ),
    "failed-by-a-tool": Shape(
        turns(call(("broken", {}), ("hold", {}))), AGENT.model_copy(update={"failure": Failure(tool="fail")})
    ),
}
KIN_STATUSES = {
    "subagent-failed": "degraded",
    "subagents-cancelled": "cancelled",
    "subagents-interrupted": "interrupted",
    "subagents-continued": "degraded",
    "failed-by-a-tool": "failed",
}
KIN_MARKS = {
    "subagents-in-parallel": [Kind.EVENT_TYPE_CHILD_WORKFLOW_EXECUTION_COMPLETED],
    "subagent-failed": [Kind.EVENT_TYPE_CHILD_WORKFLOW_EXECUTION_FAILED],
    "subagent-terminated": [Kind.EVENT_TYPE_CHILD_WORKFLOW_EXECUTION_TERMINATED],
    "subagents-joined": [Kind.EVENT_TYPE_EXTERNAL_WORKFLOW_EXECUTION_SIGNALED],
    "subagents-cancelled": [Kind.EVENT_TYPE_CHILD_WORKFLOW_EXECUTION_CANCELED],
    "subagents-interrupted": [Kind.EVENT_TYPE_EXTERNAL_WORKFLOW_EXECUTION_SIGNALED],
    "failed-by-a-tool": [Kind.EVENT_TYPE_ACTIVITY_TASK_CANCEL_REQUESTED],
}
