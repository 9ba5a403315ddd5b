"""The timeline: live, closed, with cursors, and with no worker up."""

from __future__ import annotations

import asyncio
import uuid

import pytest

from holdfast import Agent, AsyncClient, Event, InputInvalid, RunNotFound, tool
from holdfast.event import TERMINAL_EVENTS
from holdfast.worker.scripted import ChatRequest, Reply, call, say
from tests.support.stage import MODEL, stage


@tool
async def look(place: str) -> str:
    """Look somewhere."""
    await asyncio.sleep(0.1)
    if place == "cellar":
        raise LookupError("it is dark")
    return f"nothing in the {place}"


AGENT = Agent(name="looking", model=MODEL, tools=[look])


def _look_around(request: ChatRequest) -> Reply:
    if request.turn == 0:
        return call(("look", {"place": "attic"}), ("look", {"plaice": "garden"}), ("fetch", {}), reasoning="Where?")
    if request.turn == 1:
        return call(("look", {"place": "garden"}), text="Not in the attic.")
    return say("It is gone.")


async def test_every_line_of_a_run_is_an_event_in_order(address: str) -> None:
    async with stage(address, _look_around, [AGENT]) as at:
        result = await at.run("looking", message="Where is it?")
        client = AsyncClient(temporal=at.client, task_queue=at.task_queue)
        events = (await client.runs.get(result.run_id)).logs
    types = [event.type for event in events]
    assert types[:5] == ["run_started", "declared_functions", "step_started", "model_called", "reasoning"]
    assert types.count("tool_called") == 3
    assert types.count("tool_completed") == 2
    assert types.count("tool_call_exception") == 2
    assert types[-1] == "run_completed"
    failures = {event.data["error_type"] for event in events if event.type == "tool_call_exception"}
    assert failures == {"ToolUnknown", "ToolArgumentsInvalid"}
    called = next(event for event in events if event.type == "tool_called")
    assert (called.data["tool_name"], called.data["arguments"]) == ("look", {"place": "attic"})
    done = next(event for event in events if event.type == "tool_completed")
    assert done.finished_at is not None
    assert done.finished_at >= done.created_at
    assert len({event.id for event in events}) == len(events)


async def test_events_come_live_while_the_run_is_under_way(address: str) -> None:
    async with stage(address, _look_around, [AGENT]) as at:
        client = AsyncClient(temporal=at.client, task_queue=at.task_queue)
        started = await client.runs.create("looking", message="Where is it?")
        statuses = {}
        async for event in client.runs.stream_events(started.id):
            if event.type in ("tool_called", "run_completed"):
                statuses[event.type] = (await client.runs.status(started.id)).status
        assert statuses == {"tool_called": "running", "run_completed": "completed"}


async def test_a_reader_that_reconnects_anywhere_misses_nothing_and_sees_nothing_twice(address: str) -> None:
    async with stage(address, _look_around, [AGENT]) as at:
        client = AsyncClient(temporal=at.client, task_queue=at.task_queue)
        started = await client.runs.create("looking", message="Where is it?")
        other = asyncio.create_task(_all(client, started.id))
        seen: list[Event] = []
        while not seen or seen[-1].type not in TERMINAL_EVENTS:
            async for event in client.runs.stream_events(started.id, after=seen[-1].id if seen else None):
                seen.append(event)
                break
        assert seen == await other
        assert [event.type in TERMINAL_EVENTS for event in seen].count(True) == 1
        assert await _all(client, started.id, after=seen[-1].id) == []


async def test_a_closed_run_is_read_with_no_worker_up(address: str) -> None:
    async with stage(address, _look_around, [AGENT]) as at:
        live = await at.run("looking", message="Where is it?")
    client = AsyncClient(address)
    events = await _all(client, live.run_id)
    assert events[-1].type == "run_completed"
    run = await client.runs.wait(live.run_id, timeout=5)
    assert run.result == live


@pytest.mark.parametrize("cursor", ["", "nonsense", "0/1.0", "x" * 5000, f"{uuid.UUID(int=7)}/1.0"])
async def test_a_cursor_of_another_run_is_refused(address: str, cursor: str) -> None:
    async with stage(address, _look_around, [AGENT]) as at:
        result = await at.run("looking", message="Where is it?")
        client = AsyncClient(temporal=at.client)
        with pytest.raises(InputInvalid, match="cursor"):
            await _all(client, result.run_id, after=cursor)


async def test_a_wrong_cursor_is_refused_at_once_while_the_run_is_under_way(address: str) -> None:
    async with stage(address, lambda request: say("Later.", delay=20), [AGENT]) as at:
        client = AsyncClient(temporal=at.client, task_queue=at.task_queue)
        run, other = [(await client.runs.create("looking", message="Where is it?")).id for _ in range(2)]
        link, foreign = [(await anext(client.runs.stream_events(each))).id.split("/")[0] for each in (run, other)]
        wrong = ["nonsense", "a/b.c", f"{foreign}/1.0", f"{link}/1.7", f"{link}/2.0", f"{link}/99999.0", f"{link}/1"]
        for cursor in wrong:
            with pytest.raises(InputInvalid, match="cursor"):
                await asyncio.wait_for(_all(client, run, after=cursor), 5)
        assert (await anext(client.runs.stream_events(run, after=f"{link}/1.0"))).type == "declared_functions"
        await client.runs.cancel(run)
        await client.runs.cancel(other)


async def test_another_workflow_is_no_run_and_is_left_alone_open_or_closed(address: str) -> None:
    async with stage(address, _look_around, [AGENT]) as at:
        client = AsyncClient(temporal=at.client, task_queue=at.task_queue)
        name = uuid.uuid4().hex
        opened = await at.client.start_workflow("SomethingElse", [1, 2], id=f"open-{name}", task_queue=f"none-{name}")
        closed = await at.client.start_workflow("AgentList", id=f"closed-{name}", task_queue=at.task_queue)
        await closed.result()
        for handle in (opened, closed):
            before = (await handle.describe()).history_length
            for call in (client.runs.status, client.runs.get, client.runs.cancel, client.runs.wait):
                with pytest.raises(RunNotFound):
                    await call(handle.id)
            with pytest.raises(RunNotFound):
                await client.runs.append_message(handle.id, "Hello")
            with pytest.raises(RunNotFound):
                await _all(client, handle.id)
            assert (await handle.describe()).history_length == before
        await opened.terminate()


async def _all(client: AsyncClient, run_id: str, after: str | None = None) -> list[Event]:
    return [event async for event in client.runs.stream_events(run_id, after=after)]
