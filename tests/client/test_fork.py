"""Forks: a new run from the first steps of another, which stays as it is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from holdfast import Agent, AsyncClient, IdempotencyConflict, InputInvalid, RunExists, RunNotFound, tool
from holdfast.envelope import without_envelope
from holdfast.worker.scripted import ChatRequest, Reply, call, hang, say
from tests.support.stage import MODEL, Stage, stage

LOOKED: list[int] = []


@tool
async def look(number: int) -> str:
    """Look."""
    LOOKED.append(number)
    return f"saw {number}"


AGENT = Agent(name="forked", model=MODEL, tools=[look])


def _script(request: ChatRequest) -> Reply:
    if request.turn < 3:
        return call(("look", {"number": request.turn + 1}))
    return say(f"{request.model}: {without_envelope(str(request.messages[-1]['content']))}")


@pytest.fixture
async def at(address: str) -> AsyncIterator[Stage]:
    LOOKED.clear()
    async with stage(address, _script, [AGENT]) as staged:
        yield staged


@pytest.fixture
def client(at: Stage) -> AsyncClient:
    return AsyncClient(temporal=at.client, task_queue=at.task_queue)


async def ended(client: AsyncClient) -> str:
    """Run one to its end, and return its id."""
    run = await client.runs.create("forked", message="Look about", metadata={"tenant": "a"})
    await client.runs.wait(run.id, timeout=30)
    return run.id


async def test_a_fork_calls_nothing_before_it_again_and_leaves_the_run_alone(client: AsyncClient, at: Stage) -> None:
    origin = await ended(client)
    before = await client.runs.get(origin)
    hits, looked = at.model.hits, len(LOOKED)
    fork = await client.runs.fork(origin, at_step=3)
    assert fork.id != origin
    run = await client.runs.wait(fork.id, timeout=30)
    assert (run.status, run.final_text) == ("completed", before.final_text)
    assert (at.model.hits - hits, LOOKED[looked:]) == (2, [3])
    assert [without_envelope(each.text) for each in run.messages] == [
        without_envelope(each.text) for each in before.messages
    ]
    assert run.metadata == {"tenant": "a", "forked_from": origin}
    assert run.task_queue == before.task_queue
    assert await client.runs.get(origin) == before


async def test_a_fork_may_be_told_something_and_be_another_agent(client: AsyncClient, at: Stage) -> None:
    origin = await ended(client)
    told = await client.runs.fork(origin, message="And now?", metadata={"why": "more"})
    assert (await client.runs.wait(told.id, timeout=30)).final_text.endswith(": And now?")
    other = Agent(name="forked", model="scripted/other", tools=[look])
    fork = await client.runs.fork(origin, 2, "Be another", other)
    run = await client.runs.wait(fork.id, timeout=30)
    assert run.final_text == "other: saw 3"
    assert [each.content for each in run.messages if each.role == "user"] == ["Look about", "Be another"]
    assert {request.model for request in at.model.requests} == {"test", "other"}


async def test_step_1_keeps_the_first_message_only(client: AsyncClient) -> None:
    origin = await ended(client)
    fork = await client.runs.fork(origin, at_step=1)
    run = await client.runs.wait(fork.id, timeout=30)
    assert run.messages[0].content == "Look about"
    assert LOOKED == [1, 2, 3, 1, 2, 3]


async def test_a_step_of_a_run_that_was_started_again_is_found_in_its_link(client: AsyncClient) -> None:
    origin = await ended(client)
    await client.runs.append_message(origin, "Go on")
    run = await client.runs.wait(origin, timeout=30)
    steps = [event.data["step"] for event in run.logs if event.type == "step_started"]
    assert steps == [1, 2, 3, 4, 5]
    early, late = await client.runs.fork(origin, 2), await client.runs.fork(origin, 5)
    first = await client.runs.wait(early.id, timeout=30)
    assert [each.content for each in first.messages if each.role == "user"] == ["Look about"]
    last = await client.runs.wait(late.id, timeout=30)
    assert [each.content for each in last.messages if each.role == "user"] == ["Look about", "Go on"]


async def test_a_live_run_is_forked_from_the_part_that_it_has_continued_from(address: str) -> None:
    def script(request: ChatRequest) -> Reply:
        return call(("look", {"number": request.turn + 1})) if request.turn < 8 else hang()

    async with stage(address, script, [AGENT], continue_after_events=30) as at:
        client = AsyncClient(temporal=at.client, task_queue=at.task_queue)
        live = await client.runs.create("forked", message="Look about")
        while at.model.hits < 9:
            await asyncio.sleep(0.02)
        at.model.script = lambda request: say(f"after {request.turn} turns")
        fork = await client.runs.fork(live.id, 2)
        assert (await client.runs.wait(fork.id, timeout=30)).final_text == "after 1 turns"
        with pytest.raises(InputInvalid, match="interrupt it first"):
            await client.runs.fork(live.id, 9)
        await client.runs.cancel(live.id)


async def test_what_can_not_be_forked_says_why(client: AsyncClient, at: Stage) -> None:
    origin = await ended(client)
    with pytest.raises(InputInvalid, match="has the steps 1 to 4, not 9"):
        await client.runs.fork(origin, 9)
    with pytest.raises(InputInvalid, match="has the steps 1 to 4, not 0"):
        await client.runs.fork(origin, 0)
    with pytest.raises(InputInvalid, match="message"):
        await client.runs.fork(origin)
    with pytest.raises(InputInvalid, match="262,144"):
        await client.runs.fork(origin, message="x" * 300_000)
    with pytest.raises(RunNotFound):
        await client.runs.fork("nope", 1)
    with pytest.raises(RunExists):
        await client.runs.fork(origin, 1, new_run_id=origin)
    at.model.script = lambda _: hang()
    live = await client.runs.create("forked", message="x")
    while at.model.hits < 5:
        await asyncio.sleep(0.02)
    with pytest.raises(InputInvalid, match="interrupt it first"):
        await client.runs.fork(live.id, 1)
    with pytest.raises(InputInvalid, match="interrupt it first"):
        await client.runs.fork(live.id, message="x")
    await client.runs.cancel(live.id)


async def test_the_same_key_is_the_same_fork(client: AsyncClient) -> None:
    origin, key = await ended(client), f"fork-{time.time_ns()}"
    first = await client.runs.fork(origin, 4, idempotency_key=key)
    assert (await client.runs.fork(origin, 4, idempotency_key=key)).id == first.id
    with pytest.raises(IdempotencyConflict):
        await client.runs.fork(origin, 3, idempotency_key=key)
