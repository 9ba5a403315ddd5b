"""Two runs side by side."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from holdfast import Agent, AsyncClient, RunNotFound, tool
from holdfast.worker.scripted import ChatRequest, Reply, call, say
from tests.support.stage import MODEL, Stage, stage


@tool
async def look(number: int) -> str:
    """Look."""
    if number < 0:
        raise ValueError("there is nothing below")
    return f"saw {number}"


AGENT = Agent(name="compared", model=MODEL, tools=[look])


def _script(request: ChatRequest) -> Reply:
    asked = request.first_text
    if request.turn == 0:
        return call(("look", {"number": 1}))
    if request.turn == 1:
        return call(("look", {"number": int(asked)}))
    return say(f"the end of {asked}" if asked != "3" else "the end of 2")


@pytest.fixture
async def at(address: str) -> AsyncIterator[Stage]:
    async with stage(address, _script, [AGENT]) as staged:
        yield staged


@pytest.fixture
def client(at: Stage) -> AsyncClient:
    return AsyncClient(temporal=at.client, task_queue=at.task_queue)


async def ended(client: AsyncClient, message: str) -> str:
    """Run one to its end, and return its id."""
    run = await client.runs.create("compared", message=message)
    await client.runs.wait(run.id, timeout=30)
    return run.id


async def test_two_runs_are_set_side_by_side_and_the_first_difference_is_named(client: AsyncClient) -> None:
    a, b = await ended(client, "2"), await ended(client, "3")
    found = await client.runs.diff(a, b)
    assert [(pair.step, pair.same) for pair in found.steps] == [(1, True), (2, False), (3, True)]
    assert (found.first_difference, found.same_answer) == (2, True)
    second = found.steps[1]
    assert second.a is not None
    assert second.b is not None
    [ours], [theirs] = second.a.tool_calls, second.b.tool_calls
    assert (ours.tool_name, ours.arguments, ours.output, ours.success) == ("look", {"number": 2}, "saw 2", True)
    assert (theirs.arguments, theirs.output) == ({"number": 3}, "saw 3")
    assert (found.a.id, found.a.status, found.a.steps, found.a.answer) == (a, "completed", 3, "the end of 2")
    assert found.a.total_tokens is not None
    assert found.a.total_tokens > 0
    assert found.a.cost_usd is not None
    assert found.a.cost_usd > 0


async def test_a_run_is_the_same_as_itself(client: AsyncClient) -> None:
    a = await ended(client, "2")
    found = await client.runs.diff(a, a)
    assert (found.first_difference, found.same_answer, found.a) == (None, True, found.b)


async def test_a_failed_call_shows_its_error_and_a_step_that_one_has_not_taken_is_none(client: AsyncClient) -> None:
    a, b = await ended(client, "-1"), await client.runs.create("nobody", message="x")
    await client.runs.wait(b.id, timeout=30)
    found = await client.runs.diff(a, b.id)
    assert [pair.b for pair in found.steps] == [None, None, None]
    second = found.steps[1].a
    assert second is not None
    assert second.tool_calls[0].success is False
    assert "nothing below" in str(second.tool_calls[0].output)
    assert "no agent is named 'nobody'" in found.b.answer
    with pytest.raises(RunNotFound):
        await client.runs.diff(a, "nope")


async def test_a_fork_has_the_steps_before_it_from_the_run_that_it_began_as(client: AsyncClient) -> None:
    a = await ended(client, "2")
    fork = await client.runs.fork(a, 3, "Go on")
    await client.runs.wait(fork.id, timeout=30)
    found = await client.runs.diff(a, fork.id)
    assert [(pair.step, pair.same) for pair in found.steps] == [(1, True), (2, True), (3, True)]
    assert found.first_difference is None
