"""A live run needs none of its closed links: retention, or somebody, may delete them as it goes."""

from __future__ import annotations

import asyncio
from typing import Any

from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.workflowservice.v1 import DeleteWorkflowExecutionRequest
from temporalio.client import Client

from holdfast import Agent, Limits, tool
from holdfast.client.runs import AsyncClient
from holdfast.worker.scripted import ChatRequest, Reply, call, say
from tests.support.stage import MODEL, result, stage

STEPS = 40


@tool
async def look(number: int) -> str:
    """Look at a page."""
    return f"page {number}"


AGENT = Agent(name="forgotten", model=MODEL, tools=[look], limits=Limits(max_steps=1000, max_model_calls=1000))


def script(request: ChatRequest) -> Reply:
    return call(("look", {"number": request.turn})) if request.turn < STEPS else say("All is seen.")


async def _delete_closed_links(client: Client, run_id: str, first: str) -> int:
    """Delete each link as soon as the next one has begun to work; return how many."""
    link, deleted = first, 0
    while True:
        following = None
        async for event in client.get_workflow_handle(run_id, run_id=link).fetch_history_events(wait_new_event=True):
            if event.HasField("workflow_execution_continued_as_new_event_attributes"):
                following = event.workflow_execution_continued_as_new_event_attributes.new_execution_run_id
        if following is None:
            return deleted
        restored = False
        async for event in client.get_workflow_handle(run_id, run_id=following).fetch_history_events(
            wait_new_event=True
        ):
            name = event.activity_task_scheduled_event_attributes.activity_type.name
            restored = (
                restored or name == "model.call" or event.HasField("workflow_execution_completed_event_attributes")
            )
            if restored:
                break
        execution = WorkflowExecution(workflow_id=run_id, run_id=link)
        gone = DeleteWorkflowExecutionRequest(namespace="default", workflow_execution=execution)
        await client.workflow_service.delete_workflow_execution(gone)
        link, deleted = following, deleted + 1


async def test_a_run_whose_closed_links_are_deleted_keeps_its_whole_conversation(address: str) -> None:
    settings: dict[str, Any] = {"continue_after_events": 60, "transcript_cache_bytes": 0, "max_cached_workflows": 1}
    async with stage(address, script, [AGENT], **settings) as at, asyncio.timeout(120):
        run = await at.start("forgotten", message="Go")
        first = run.result_run_id or run.first_execution_run_id
        assert first is not None
        deleted = await _delete_closed_links(at.client, run.id, first)
        ended = await result(at.client.get_workflow_handle(run.id))
        assert (ended.status, ended.steps, ended.final_text) == ("completed", STEPS + 1, "All is seen.")
        assert deleted >= 3
        asked = list(at.model.requests[-1].tool_results.values())
        assert asked == [f"page {number}" for number in range(STEPS)]
        run_read = await AsyncClient(temporal=at.client).runs.get(run.id)
        assert len(run_read.messages) == 2 * STEPS + 2
