"""A run that an operator resets to an earlier event, or whose call is completed by hand, is read rightly."""

from __future__ import annotations

import asyncio

import pytest

from holdfast import Agent, AsyncClient, HoldfastError, tool
from holdfast.worker.scripted import ChatRequest, Reply, call, hang, say
from tests.support.processes import temporal
from tests.support.stage import MODEL, Stage, stage


@tool
async def look(number: int) -> int:
    """Look."""
    await asyncio.sleep(1.5 if number == 2 else 0)
    return number


AGENT = Agent(name="looking", model=MODEL, tools=[look])


def _script(request: ChatRequest) -> Reply:
    return call(("look", {"number": request.turn + 1})) if request.turn < 3 else say("seen")


async def _reset(at: Stage, run_id: str, event: int) -> None:
    words = ("workflow", "reset", "-w", run_id, "--event-id", str(event), "--reason", "test")
    done = await asyncio.to_thread(temporal, at.client.service_client.config.target_host, *words)
    assert done.returncode == 0, done.stderr


async def _task_after_load(at: Stage, run_id: str) -> int:
    history = await at.client.get_workflow_handle(run_id).fetch_history()
    done = [each.event_id for each in history.events if each.HasField("workflow_task_completed_event_attributes")]
    return done[1]


async def _read_and_reset(at: Stage, client: AsyncClient, run_id: str) -> None:
    async for event in client.runs.stream_events(run_id):
        if event.type == "tool_called" and event.data["arguments"] == {"number": 2}:
            await _reset(at, run_id, await _task_after_load(at, run_id))


async def test_an_open_run_that_is_reset_goes_on_and_is_read_as_it_stands(address: str) -> None:
    async with stage(address, _script, [AGENT]) as at:
        client = AsyncClient(temporal=at.client, task_queue=at.task_queue)
        started = await client.runs.create("looking", message="Go")
        waiting = asyncio.create_task(client.runs.wait(started.id, timeout=30))
        with pytest.raises(HoldfastError, match="was reset"):
            await _read_and_reset(at, client, started.id)
        run = await waiting
        assert (run.status, run.final_text, run.steps) == ("completed", "seen", 4)
        assert run == await client.runs.get(started.id)
        assert [event.type for event in run.logs].count("run_completed") == 1
        cursor = run.logs[3].id
        rest = [event async for event in client.runs.stream_events(started.id, after=cursor)]
        assert rest == run.logs[4:]


async def test_a_closed_run_that_is_reset_has_its_new_answer(address: str) -> None:
    async with stage(address, _script, [AGENT]) as at:
        client = AsyncClient(temporal=at.client, task_queue=at.task_queue)
        started = await client.runs.create("looking", message="Go")
        await client.runs.wait(started.id, timeout=30)
        at.model.script = lambda _: say("seen otherwise")
        await _reset(at, started.id, await _task_after_load(at, started.id))
        run = await client.runs.wait(started.id, timeout=30)
        assert (run.status, run.final_text) == ("completed", "seen otherwise")


async def test_a_model_call_completed_by_hand_with_something_else_fails_the_run_readably(
    address: str,
) -> None:
    async with stage(address, lambda _: hang(), [AGENT]) as at:
        client = AsyncClient(temporal=at.client, task_queue=at.task_queue)
        started = await client.runs.create("looking", message="Go")
        async for event in client.runs.stream_events(started.id):
            if event.type == "model_called":
                break
        history = await at.client.get_workflow_handle(started.id).fetch_history()
        pending = [each.activity_task_scheduled_event_attributes for each in history.events]
        activity_id = next(each.activity_id for each in pending if each.activity_type.name == "model.call")
        words = ("activity", "complete", "-w", started.id, "--activity-id", activity_id, "--result", '"by hand"')
        done = await asyncio.to_thread(temporal, at.client.service_client.config.target_host, *words)
        assert done.returncode == 0, done.stderr
        run = await client.runs.wait(started.id, timeout=30)
        assert run.status == "failed"
        assert run.logs[-1].type == "run_failed"
