"""What becomes of subagents when their caller is stopped, and goes on."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from temporalio.client import WorkflowFailureError, WorkflowHandle
from temporalio.service import RPCError

from holdfast import RunResult
from holdfast.client.runs import AsyncClient
from tests.support.casts import AGENTS, Cast, asks, says, script, stays_silent, uses
from tests.support.stage import DEADLINE, Stage, result, stage, timeline

PRICE = 1e-6, 4e-6


@pytest.fixture(scope="module")
async def at(address: str) -> AsyncIterator[Stage]:
    async with stage(address, script, AGENTS) as made:
        yield made


async def start(at: Stage, lead: str, cast: Cast) -> WorkflowHandle[Any, Any]:
    return await at.start(lead, run_id=cast.key, message=cast.key)


async def ended(run: WorkflowHandle[Any, Any]) -> None:
    """Wait until the run has closed, in whatever way."""
    try:
        await asyncio.wait_for(run.result(), DEADLINE)
    except WorkflowFailureError:
        return


async def again(at: Stage, lead: str, cast: Cast) -> RunResult:
    """Start the run again after its last link, and wait for its end."""
    link = (await at.client.get_workflow_handle(cast.key).describe()).run_id
    return await result(await at.start(lead, run_id=cast.key, after={"run": link}))


async def children(at: Stage, run_id: str) -> dict[str, str]:
    """Return the run ids of a run's subagents, by agent."""
    _, events = await timeline(at.client, run_id)
    return {each.data["agent_name"]: each.data["run_id"] for each in events if each.type == "subagent_started"}


def runs(at: Stage) -> Any:
    return AsyncClient(temporal=at.client, task_queue=at.task_queue).runs


async def test_a_cancel_reaches_a_grandchilds_model_call_and_the_run_closes_after_it(at: Stage) -> None:
    cast = Cast({"boss": (asks("lead"),), "lead": (asks("writer"),), "writer": (stays_silent,)})
    run = await start(at, "boss", cast)
    await cast.asked_for("writer")
    aborted = at.model.aborted
    await run.cancel()
    await ended(run)
    assert at.model.aborted == aborted + 1
    lead = (await children(at, cast.key))["lead"]
    writer = (await children(at, lead))["writer"]
    for each in (cast.key, lead, writer):
        assert (await runs(at).status(each)).status == "cancelled"
    _, events = await timeline(at.client, cast.key)
    assert [each.data["status"] for each in events if each.type == "subagent_completed"] == ["cancelled"]
    assert events[-1].type == "task_cancelled"


@pytest.mark.parametrize("how", ["interrupt", "cancel", "terminate"])
async def test_a_run_that_goes_on_goes_on_in_its_subagent_and_nothing_is_asked_or_paid_for_twice(
    at: Stage, how: str
) -> None:
    cast = Cast(
        {
            "boss": (asks("lead", "checker"), says("All is done.")),
            "lead": (asks("writer"), says("Led.")),
            "writer": (uses("note"), uses("hold"), says("Written.")),
            "checker": (says("Checked."),),
        }
    )
    run = await start(at, "boss", cast)
    await cast.has_run("hold")
    await _told(at, cast.key, "subagent_completed")
    await _stop(run, how)
    await ended(run)
    if how == "interrupt":
        left = await result(run)
        assert left.status == "interrupted"
        assert {each.agent_name: each.status for each in left.subagent_executions} == {
            "checker": "completed",
            "writer": "interrupted",
            "lead": "interrupted",
        }
        assert left.usage_aggregate.model_calls == 5
    cast.gate.set()
    done = await again(at, "boss", cast)
    assert (done.status, done.final_text, done.run_seq) == ("completed", "All is done.", 2)
    assert cast.asked == {"boss": 2, "lead": 2, "writer": 3, "checker": 1}
    assert [name for name, _ in cast.ran].count("note") == 1
    assert len({key for name, key in cast.ran if name == "hold"}) == 1
    assert {each.agent_name: each.status for each in done.subagent_executions} == {
        "checker": "completed",
        "writer": "completed",
        "lead": "completed",
    }
    assert sorted(each.tool_name for each in done.tool_executions) == ["checker", "hold", "lead", "note", "writer"]
    assert done.usage_aggregate.model_calls == sum(cast.asked.values()) == 8
    usage = done.usage_aggregate
    assert done.cost_usd == pytest.approx(usage.input_tokens * PRICE[0] + usage.output_tokens * PRICE[1], abs=1e-12)
    folded, _ = await timeline(at.client, cast.key)
    assert folded.result == done


async def _stop(run: WorkflowHandle[Any, Any], how: str) -> None:
    stop = {"cancel": run.cancel, "terminate": run.terminate}
    await stop.get(how, lambda: run.signal("interrupt", {"reason": "lunch"}))()


async def _told(at: Stage, run_id: str, kind: str) -> None:
    """Wait until a run's timeline has an event of this type."""
    async with asyncio.timeout(DEADLINE):
        while not any(each.type == kind for each in (await timeline(at.client, run_id))[1]):
            await asyncio.sleep(0.05)


async def test_a_subagent_that_went_on_by_itself_meanwhile_gives_its_answer_and_is_asked_nothing(at: Stage) -> None:
    cast = Cast({"lead": (asks("writer"), says("Led.")), "writer": (uses("hold"), says("Written."))})
    run = await start(at, "lead", cast)
    await cast.has_run("hold")
    await run.signal("interrupt")
    await ended(run)
    cast.gate.set()
    writer = (await children(at, cast.key))["writer"]
    await runs(at).resume_run(writer)
    assert (await runs(at).wait(writer)).status == "completed"
    asked = cast.asked["writer"]
    done = await again(at, "lead", cast)
    assert (done.status, cast.asked["writer"]) == ("completed", asked)
    assert done.tool_executions[-1].output == "Written."
    assert done.usage_aggregate.model_calls == sum(cast.asked.values())


async def test_a_subagent_of_many_links_goes_on_from_its_last_one(address: str) -> None:
    cast = Cast(
        {
            "lead": (asks("writer"), says("Led.")),
            "writer": (*[uses("note")] * 6, uses("hold"), says("Written.")),
        }
    )
    async with stage(address, script, AGENTS, continue_after_events=15) as at:
        run = await start(at, "lead", cast)
        await cast.has_run("hold")
        writer = (await children(at, cast.key))["writer"]
        _, events = await timeline(at.client, writer)
        assert [each.type for each in events].count("run_continued") > 1
        await run.signal("interrupt")
        await ended(run)
        cast.gate.set()
        done = await again(at, "lead", cast)
        assert (done.status, cast.asked) == ("completed", {"lead": 2, "writer": 8})
        assert [name for name, _ in cast.ran].count("note") == 6
        assert done.usage_aggregate.model_calls == 10
        assert done.subagent_executions[0].steps == 8
        assert (await _lineage(at, writer))["run_id"] == cast.key


@pytest.mark.parametrize("lead", ["lead", "first"])
async def test_a_tree_that_is_stopped_at_any_moment_goes_on_to_its_end_and_calls_no_tool_twice(
    at: Stage, lead: str
) -> None:
    async def one(number: int) -> None:
        cast = Cast(
            {
                lead: (asks("writer", "checker"), says("All.")),
                "writer": (uses("note"), says("Written.")),
                "checker": (uses("note"), uses("note", "note"), says("Checked.")),
            }
        )
        run = await start(at, lead, cast)
        await asyncio.sleep(number * 0.08)
        with contextlib.suppress(RPCError):  # it may have ended by itself
            await _stop(run, ("interrupt", "cancel", "terminate")[number % 3])
        await ended(run)
        done = await again(at, lead, cast)
        folded, _ = await timeline(at.client, cast.key)
        assert (done.status, folded.result) == ("completed", done)
        assert folded.state is not None
        assert folded.state.usage == done.usage_aggregate
        made = [(each.agent_path, each.tool_call_id) for each in done.tool_executions]
        assert len(made) == len(set(made))
        if lead == "lead":
            assert len({key for _, key in cast.ran}) == 4

    await asyncio.gather(*(one(number) for number in range(12)))


async def test_a_pause_reaches_a_grandchild_and_so_does_its_end(at: Stage) -> None:
    cast = Cast(
        {
            "boss": (asks("lead"), says("All is done.")),
            "lead": (asks("writer"), says("Led.")),
            "writer": (uses("hold"), says("Written.")),
        }
    )
    run = await start(at, "boss", cast)
    await cast.has_run("hold")
    await run.signal("pause", {"reason": "lunch"})
    lead = (await children(at, cast.key))["lead"]
    writer = (await children(at, lead))["writer"]
    await _told(at, writer, "paused")
    cast.gate.set()
    for each in (writer, lead, cast.key):
        await _stands(at, each, "paused")
    assert cast.asked["writer"] == 1
    await run.signal("resume")
    assert (await result(run)).status == "completed"


async def _stands(at: Stage, run_id: str, status: str) -> None:
    async with asyncio.timeout(DEADLINE):
        while (await runs(at).status(run_id)).status != status:
            await asyncio.sleep(0.05)


async def test_a_deadline_of_a_subagent_is_an_error_for_its_caller_with_what_it_had_said(at: Stage) -> None:
    cast = Cast({"hasty": (asks("writer"), says("Too late.")), "writer": (stays_silent,)})
    done = await result(await start(at, "hasty", cast))
    assert done.status == "completed"
    assert done.tool_executions[-1].error == "Interrupted: it was interrupted (deadline_seconds)"
    assert done.subagent_executions[0].status == "interrupted"


async def test_subagents_that_ask_on_and_on_spend_no_more_than_their_caller_may(at: Stage) -> None:
    cast = Cast({"poor": (asks("writer", "checker"), says("No more.")), "writer": (uses("note"),)})
    cast.lines["checker"] = cast.lines["writer"]
    done = await result(await start(at, "poor", cast))
    dearest = 0.0
    for run_id in (await children(at, cast.key)).values():
        _, events = await timeline(at.client, run_id)
        dearest = max(dearest, *(each.data["cost_usd"] for each in events if each.type == "model_completed"))
    assert 0.5e-3 < done.cost_usd <= 1e-3 + 2 * dearest
    assert {each.status for each in done.subagent_executions} == {"degraded"}
    given = [(await _lineage(at, run_id))["budget_usd"] for run_id in (await children(at, cast.key)).values()]
    assert given[0] == pytest.approx(given[1])
    assert sum(given) < 1e-3


async def _lineage(at: Stage, run_id: str) -> dict[str, Any]:
    _, events = await timeline(at.client, run_id)
    found: dict[str, Any] = events[0].data["lineage"]
    return found
