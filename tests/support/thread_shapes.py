"""The shapes of a thread's own history: what its runs do to it. It goes on for ever, so at last it is terminated."""

from __future__ import annotations

import asyncio
from typing import Any

from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.workflowservice.v1 import DeleteWorkflowExecutionRequest
from temporalio.client import WorkflowHandle, WorkflowUpdateFailedError

from holdfast.worker.scripted import ChatRequest, Reply, call, say
from tests.support.life_shapes import PERSONS
from tests.support.shapes import HELD_SECONDS, Act, Play, Shape
from tests.support.threads import idle, is_waiting, question, status


def _script(request: ChatRequest) -> Reply:
    """Do as the last message says."""
    if not request.body.get("tools"):
        return say("They talked.")
    last = request.messages[-1]
    match last["content"] if last["role"] == "user" else None:
        case "Ask.":
            return call(("ask_user", {"question": "Which one?"}))
        case "Work.":
            return call(("wait", {"seconds": HELD_SECONDS}))
        case _:
            return say("Well.")


async def _nothing(play: Play) -> None:
    """There is no run of the shape's own name."""


def _thread(play: Play) -> WorkflowHandle[Any, Any]:
    return play.client.get_workflow_handle(f"thread:{play.name}")


async def _visit(play: Play, name: str, message: str = "Go.") -> WorkflowHandle[Any, Any]:
    request = {"agent": play.agent.name, "message": message, "thread_id": play.name}
    return await play.client.start_workflow(
        "AgentRun", request, id=f"{play.name}-{name}", task_queue=play.name, result_type=dict
    )


async def _visited(play: Play, *names: str) -> None:
    for name in names:
        await (await _visit(play, name)).result()


async def _answer(run: WorkflowHandle[Any, Any]) -> None:
    await run.execute_update("answer", {"question_id": await question(run), "text": "the second"})


async def _visits(play: Play) -> None:
    await _visited(play, "a", "b")
    holder = await _visit(play, "c", "Ask.")
    await question(holder)
    waiting, impatient = await _visit(play, "d"), await _visit(play, "e")
    await is_waiting(waiting)
    await is_waiting(impatient)
    await impatient.signal("interrupt")
    await impatient.result()
    await _answer(holder)
    await waiting.result()


async def _compact(play: Play) -> None:
    await _visited(play, "a", "b", "c")
    holder = await _visit(play, "d", "Ask.")
    await question(holder)
    await _thread(play).execute_update("compact", {"model": play.agent.model})
    try:
        await _thread(play).execute_update("compact")
    except WorkflowUpdateFailedError:  # there is nothing to compact
        await _answer(holder)
    await holder.result()


async def _terminate_holder(play: Play) -> None:
    await _vanish(play, deleted=False)


async def _delete_holder(play: Play) -> None:
    await _vanish(play, deleted=True)


async def _vanish(play: Play, *, deleted: bool) -> None:
    await _visited(play, "a")
    holder = await _visit(play, "b", "Work.")
    await status(holder, lambda told: told["step"] == 1)
    waiting = await _visit(play, "c")
    await is_waiting(waiting)
    if deleted:
        execution = WorkflowExecution(workflow_id=holder.id)
        request = DeleteWorkflowExecutionRequest(namespace=play.client.namespace, workflow_execution=execution)
        await play.client.workflow_service.delete_workflow_execution(request)
    else:
        await holder.terminate()
    await waiting.result()


async def _go_on(play: Play) -> None:
    """Say for the holder that it is about to end, and have it go on for longer than that is waited for."""
    holder = await _visit(play, "a", "Ask.")
    await question(holder)
    link = (await holder.describe()).run_id
    await _thread(play).signal("leave", {"run_id": holder.id, "first_link": link, "link": link})
    while (await _thread(play).query("status"))["leaving"]:
        await asyncio.sleep(0.2)
    await _answer(holder)
    await holder.result()


async def _continue(play: Play) -> None:
    await _visits(play)
    await _visited(play, "f", "g")


def _then_terminated(act: Act) -> Act:
    async def acted(play: Play) -> None:
        await act(play)
        await idle(play, play.name)
        thread = _thread(play)
        await thread.terminate()
        play.name = thread.id

    return acted


def _shape(act: Act, **fields: Any) -> Shape:
    return Shape(_script, PERSONS, before=_nothing, during=_then_terminated(act), **fields)


THREAD_SHAPES: dict[str, Shape] = {
    "visits": _shape(_visits),
    "visits-continued": _shape(_continue, continue_after_events=25),
    "memory-compacted": _shape(_compact),
    "holder-terminated": _shape(_terminate_holder),
    "holder-deleted": _shape(_delete_holder),
    "holder-went-on": _shape(_go_on),
}
