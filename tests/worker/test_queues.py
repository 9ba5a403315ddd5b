"""Task queues beside a worker's own: model calls at a rate and in fair turns, tools of which few run at once."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from typing import Any

import pytest
from temporalio.exceptions import TimeoutError as TemporalTimeout
from temporalio.exceptions import TimeoutType

from holdfast import Agent, InputInvalid, tool
from holdfast.activities.endpoints import Endpoint
from holdfast.activities.queues import Queues
from holdfast.client.connect import connect
from holdfast.client.runs import AsyncClient
from holdfast.mcp import McpServer
from holdfast.worker.build import make_worker
from holdfast.worker.plugin import HoldfastPlugin
from holdfast.worker.scripted import call, say
from holdfast.workflows.outcomes import from_failure, named
from tests.support.shapes import turns
from tests.support.stage import MODEL, Stage, result, stage

AGENT = Agent(name="asks", model=MODEL)


def _queues(rates: dict[str, float | None] | None = None, others: float | None = None) -> Queues:
    patterns = {pattern: Endpoint(calls_per_second=each) for pattern, each in (rates or {}).items()}
    return Queues(patterns, others, {}, {"crm": McpServer(name="crm", command="x", max_concurrent=2)})


def test_a_model_waits_where_the_first_pattern_that_matches_says() -> None:
    agent = Agent(name="a", model="local/one", fallback_models=("local/two", "far"))
    assert _queues({"local/*": 2.0}).of(agent, "q") == {
        "model:local/one": "q:model:local/*",
        "model:local/two": "q:model:local/*",
    }
    assert _queues({"local/one": 2.0, "local/*": None}, others=1.0).of(agent, "q") == {
        "model:local/one": "q:model:local/one",
        "model:local/two": "q:model",
        "model:far": "q:model",
    }


def test_without_a_bound_there_is_no_queue() -> None:
    assert _queues({"local/*": None}).of(AGENT, "q") == {}
    assert [each.suffix for each in _queues({"local/*": None}).all()] == ["mcp:crm"]


def test_a_call_that_no_worker_takes_is_told_so() -> None:
    never = TemporalTimeout("timed out", type=TimeoutType.SCHEDULE_TO_START, last_heartbeat_details=())
    assert named(never).type == "NoWorker"
    told = from_failure(never, narrow.spec, None)
    assert (told.error_type, told.error) == ("NoWorker", "no worker took it from a task queue of its own within 600 s")


async def _history(at: Stage, run_id: str) -> list[Any]:
    history = await at.client.get_workflow_handle(run_id).fetch_history()
    return [
        each.activity_task_scheduled_event_attributes
        for each in history.events
        if each.HasField("activity_task_scheduled_event_attributes")
    ]


async def test_a_run_without_bounds_stays_on_its_own_queue(address: str) -> None:
    async with stage(address, turns(say("ok")), [AGENT]) as at:
        await at.run("asks", "plain-" + at.task_queue, message="Go")
        assert {each.task_queue.name for each in await _history(at, "plain-" + at.task_queue)} == {at.task_queue}


@pytest.mark.parametrize("workers", [1, 2])
async def test_the_rate_holds_over_all_workers_and_everybody_gets_a_turn(address: str, workers: int) -> None:
    """30 calls of one tenant wait at 5 a second; another tenant's one call is not behind all of them."""
    async with stage(address, turns(say("ok")), [AGENT], model_calls_per_second=5.0) as at, AsyncExitStack() as stack:
        for _ in range(workers - 1):
            client = await connect(address)
            await stack.enter_async_context(make_worker(client, HoldfastPlugin([AGENT], settings=at.settings)))
        runs = AsyncClient(temporal=at.client, task_queue=at.task_queue).runs
        began = time.monotonic()
        many = [await runs.create("asks", message=str(each), fairness_key="many") for each in range(30)]
        await asyncio.sleep(1)
        one = await runs.create("asks", message="one", fairness_key="one")
        await runs.wait(one.id)
        first = time.monotonic() - began
        for each in many:
            await runs.wait(each.id)
        whole = time.monotonic() - began
        assert whole >= 2.5  # 31 calls at 5 a second, and what the server lets through at first
        assert first < whole * 0.75
        scheduled = await _history(at, one.id)
        assert [each.task_queue.name for each in scheduled] == [at.task_queue, f"{at.task_queue}:model"]


async def test_agents_take_turns_where_no_tenant_is_named(address: str) -> None:
    async with stage(address, turns(say("ok")), [AGENT], model_calls_per_second=50.0) as at:
        run = await at.start("asks", message="Go")
        await result(run)
        assert [each.priority.fairness_key for each in await _history(at, run.id)] == ["", "asks"]


async def test_a_share_lasts_over_a_restart(address: str) -> None:
    async with stage(address, turns(say("ok")), [AGENT], model_calls_per_second=50.0) as at:
        runs = AsyncClient(temporal=at.client, task_queue=at.task_queue).runs
        run = await runs.create("asks", message="Go", priority=2, fairness_key="tenant", fairness_weight=3)
        await runs.wait(run.id)
        await runs.append_message(run.id, "Go on")
        await runs.wait(run.id)
        assert (await _history(at, run.id))[-1].priority.fairness_key == ""  # the run's own, then
        described = (await at.client.get_workflow_handle(run.id).describe()).raw_description.workflow_execution_info
        found = described.priority
        assert (found.priority_key, found.fairness_key, found.fairness_weight) == (2, "tenant", 3)


async def test_a_share_that_does_not_fit_is_refused(address: str) -> None:
    runs = AsyncClient(address=address).runs
    with pytest.raises(InputInvalid) as caught:
        await runs.create("asks", message="Go", priority=6, fairness_key="k" * 65, fairness_weight=0)
    assert set(caught.value.errors) == {"priority", "fairness_key", "fairness_weight"}


_under_way = 0
_most = 0


@tool(max_concurrent=2)
async def narrow(number: int) -> str:
    """Let two in at once."""
    global _under_way, _most
    _under_way += 1
    _most = max(_most, _under_way)
    await asyncio.sleep(0.3)
    _under_way -= 1
    return f"done {number}"


@tool(max_concurrent=1)
def narrow_sync(number: int) -> str:
    """Let one in at once, in a thread."""
    return f"done {number}"


async def test_no_more_calls_of_a_tool_run_at_once_than_it_says(address: str) -> None:
    agent = Agent(name="narrow", model=MODEL, tools=[narrow, narrow_sync])
    six = [("narrow", {"number": each}) for each in range(6)]
    async with stage(address, turns(call(*six, ("narrow_sync", {"number": 7})), say("ok")), [agent]) as at:
        runs = await asyncio.gather(at.run("narrow", message="one"), at.run("narrow", message="two"))
        assert [each.success for run in runs for each in run.tool_executions] == [True] * 14
        assert _most == 2
