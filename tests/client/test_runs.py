"""The client's calls on runs, on the real server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from holdfast import (
    Agent,
    AsyncClient,
    IdempotencyConflict,
    InputInvalid,
    NoWorker,
    RunExists,
    RunNotFound,
    ServerUnavailable,
    tool,
)
from holdfast.worker.scripted import ChatRequest, Reply, call, say
from holdfast.worker.server import free_port
from tests.support.stage import MODEL, Stage, stage


@tool
async def rest(seconds: float) -> str:
    """Rest."""
    await asyncio.sleep(seconds)
    return "rested"


AGENT = Agent(name="resting", model=MODEL, goal="Rest for {{ seconds }} seconds.", tools=[rest])


def _rest_once(request: ChatRequest) -> Reply:
    if request.turn == 0:
        seconds = request.first_text.split()[2]
        return call(("rest", {"seconds": float(seconds)}))
    return say(f"heard: {request.last_text}")


@pytest.fixture
async def at(address: str) -> AsyncIterator[Stage]:
    async with stage(address, _rest_once, [AGENT]) as staged:
        yield staged


@pytest.fixture
def client(at: Stage) -> AsyncClient:
    return AsyncClient(temporal=at.client, task_queue=at.task_queue)


async def test_a_run_is_created_waited_for_and_read_back(client: AsyncClient) -> None:
    started = await client.runs.create(
        "resting", input={"seconds": 0.1}, metadata={"tenant": "a"}, thread_id="of-its-own"
    )
    assert (started.agent_id, started.status, started.thread_id) == ("resting", "pending", "of-its-own")
    assert abs((started.created_at - (await client.runs.status(started.id)).created_at).total_seconds()) < 2
    assert started.task_queue == (await client.runs.status(started.id)).task_queue
    run = await client.runs.wait(started.id, timeout=30, poll_interval=2.0)
    assert (run.status, run.error, run.steps) == ("completed", None, 2)
    assert run.output == run.final_text == "heard: Rest for 0.1 seconds."
    assert run.original_prompt == "Rest for 0.1 seconds."
    assert [each.role for each in run.messages] == ["user", "assistant", "tool", "assistant"]
    assert (run.input, run.metadata, run.thread_id) == ({"seconds": 0.1}, {"tenant": "a"}, "of-its-own")
    assert run.logs[0].type == "run_started"
    assert run.logs[-1].type == "run_completed"
    assert (await client.runs.get(started.id)).logs == run.logs


async def test_a_message_is_seen_at_the_next_step_and_the_same_id_counts_once(client: AsyncClient) -> None:
    started = await client.runs.create("resting", input={"seconds": 1})
    sent = await client.runs.append_message(started.id, "Check the totals", id="m-1")
    assert sent == "m-1"
    await client.runs.append_message(started.id, "Check the totals", id="m-1")
    run = await client.runs.wait(started.id, timeout=30)
    assert [each.content for each in run.messages if each.role == "user"] == [
        "Rest for 1 seconds.",
        "Check the totals",
    ]
    assert [event.type for event in run.logs].count("user_added_message") == 1


async def test_a_run_about_to_answer_goes_on_when_a_message_came(address: str) -> None:
    def slow_answer(request: ChatRequest) -> Reply:
        return say(f"answer {request.turn}: {request.last_text}", delay=0.5 if request.turn == 0 else 0)

    async with stage(address, slow_answer, [Agent(name="slow", model=MODEL)]) as at:
        client = AsyncClient(temporal=at.client, task_queue=at.task_queue)
        started = await client.runs.create("slow", message="First")
        while at.model.hits == 0:
            await asyncio.sleep(0.02)
        await client.runs.append_message(started.id, "Second")
        run = await client.runs.wait(started.id, timeout=30)
        assert run.final_text == "answer 1: Second"
        assert [each.content for each in run.messages] == ["First", "answer 0: First", "Second", "answer 1: Second"]


async def test_the_same_idempotency_key_is_the_same_run_also_after_it_closed(client: AsyncClient) -> None:
    first = await client.runs.create("resting", input={"seconds": 0}, idempotency_key="invoice/42")
    assert (await client.runs.create("resting", input={"seconds": 0}, idempotency_key="invoice/42")).id == first.id
    await client.runs.wait(first.id, timeout=30)
    again = await client.runs.create("resting", input={"seconds": 0}, idempotency_key="invoice/42")
    assert (again.id, again.status) == (first.id, "completed")
    with pytest.raises(IdempotencyConflict, match="another request"):
        await client.runs.create("resting", input={"seconds": 1}, idempotency_key="invoice/42")


async def test_a_run_id_is_never_used_twice(client: AsyncClient) -> None:
    first = await client.runs.create("resting", input={"seconds": 0}, run_id=f"mine-{time.time_ns()}")
    await client.runs.wait(first.id, timeout=30)
    with pytest.raises(RunExists):
        await client.runs.create("resting", input={"seconds": 0}, run_id=first.id)


@pytest.mark.parametrize("run_id", ["../x", "a/../../b", "", " x", "x\n", "x\x00y", "x" * 1001, ".."])
async def test_a_hostile_run_id_is_refused_before_anything_starts(client: AsyncClient, run_id: str) -> None:
    with pytest.raises(InputInvalid, match="run_id"):
        await client.runs.create("resting", input={"seconds": 0}, run_id=run_id)


@pytest.mark.parametrize("run_id", ["nope", "../x", "x\x00y", "x" * 1001, "\u202e", "𝔘"])
async def test_an_unknown_id_is_not_found_whatever_it_holds(client: AsyncClient, run_id: str) -> None:
    with pytest.raises(RunNotFound):
        await client.runs.get(run_id)
    with pytest.raises(RunNotFound):
        await client.runs.append_message(run_id, "Hello")
    with pytest.raises(RunNotFound):
        await client.runs.cancel(run_id)
    with pytest.raises(RunNotFound):
        await client.runs.wait(run_id, timeout=5)
    with pytest.raises(RunNotFound):
        _ = [event async for event in client.runs.stream_events(run_id)]


async def test_bad_requests_name_the_field(client: AsyncClient) -> None:
    with pytest.raises(InputInvalid, match="agent"):
        await client.runs.create()
    with pytest.raises(InputInvalid, match="3,000,000 bytes"):
        await client.runs.create("resting", message="x" * 3_000_000)
    with pytest.raises(InputInvalid, match="NaN|JSON"):
        await client.runs.create("resting", input={"seconds": float("nan")})
    with pytest.raises(InputInvalid, match="thread_id"):
        await client.runs.create("resting", input={"seconds": 0}, thread_id="a\nb")


async def test_a_message_of_3_mb_is_refused_and_the_run_still_answers(client: AsyncClient) -> None:
    started = await client.runs.create("resting", input={"seconds": 0.5})
    with pytest.raises(InputInvalid, match="262,144"):
        await client.runs.append_message(started.id, "x" * 3_000_000)
    assert (await client.runs.wait(started.id, timeout=30)).status == "completed"


async def test_cancel_stops_the_tool_and_closes_the_run_as_cancelled(client: AsyncClient) -> None:
    started = await client.runs.create("resting", input={"seconds": 50})
    async for event in client.runs.stream_events(started.id):
        if event.type == "tool_called":
            await client.runs.cancel(started.id)
    run = await client.runs.wait(started.id, timeout=10)
    assert run.status == "cancelled"
    assert run.logs[-1].type == "task_cancelled"
    assert run.result is not None
    assert run.result.steps == 1
    await client.runs.cancel(started.id)
    assert (await client.runs.status(started.id)).status == "cancelled"


async def test_wait_raises_timeout_error_and_the_run_goes_on(client: AsyncClient) -> None:
    started = await client.runs.create("resting", input={"seconds": 2})
    with pytest.raises(TimeoutError, match="running"):
        await client.runs.wait(started.id, timeout=0.5)
    assert (await client.runs.wait(started.id, timeout=30)).status == "completed"


async def test_a_run_without_a_worker_is_pending_and_waiting_for_it_says_what_to_do(at: Stage) -> None:
    client = AsyncClient(temporal=at.client, task_queue=f"nobody-{time.time_ns()}")
    started = await client.runs.create("resting", input={"seconds": 0})
    assert (await client.runs.status(started.id)).status == "pending"
    began = time.monotonic()
    with pytest.raises(NoWorker, match="holdfast worker"):
        await client.runs.wait(started.id)
    with pytest.raises(NoWorker, match="holdfast worker"):
        _ = [event async for event in client.runs.stream_events(started.id)]
    with pytest.raises(NoWorker):
        await client.agents.list()
    assert time.monotonic() - began < 9
    await client.runs.append_message(started.id, "A message may come before any worker")
    await client.runs.cancel(started.id)


async def test_no_server_is_told_within_three_seconds_with_the_mend() -> None:
    client = AsyncClient(f"127.0.0.1:{free_port()}")
    began = time.monotonic()
    with pytest.raises(ServerUnavailable, match="holdfast dev"):
        await client.runs.create("resting", message="Hello")
    assert time.monotonic() - began < 3


async def test_runs_are_listed_by_agent_latest_first(client: AsyncClient) -> None:
    started = [(await client.runs.create("resting", input={"seconds": 0})).id for _ in range(3)]
    for run_id in started:
        await client.runs.wait(run_id, timeout=30)
    for _ in range(50):
        listed = [run for run in await client.runs.list(agent_id="resting") if run.id in started]
        if len(listed) == 3 and all(run.status == "completed" for run in listed):
            break
        await asyncio.sleep(0.1)
    assert [run.id for run in listed] == started[::-1]
    assert {run.steps for run in listed} == {2}
    assert await client.runs.list(agent_id="it's nobody") == []
    assert len(await client.runs.list(agent_id="resting", limit=1)) == 1


async def test_runs_are_listed_by_how_they_ended_whatever_they_wrote_themselves(client: AsyncClient, at: Stage) -> None:
    started = {"failed": await client.runs.create("nobody", message="Hello")}
    for status in ("terminated", "cancelled", "running"):
        started[status] = await client.runs.create("resting", input={"seconds": 60})
        async for event in client.runs.stream_events(started[status].id):
            if event.type == "tool_called":
                break
    started["completed"] = await client.runs.create("resting", input={"seconds": 0})
    unserved = AsyncClient(temporal=at.client, task_queue=f"nobody-{time.time_ns()}")
    started["pending"] = await unserved.runs.create("resting", message="Hello")
    await at.client.get_workflow_handle(started["terminated"].id).terminate()
    await client.runs.cancel(started["cancelled"].id)
    for ended in ("failed", "cancelled", "completed"):
        assert (await client.runs.wait(started[ended].id, timeout=30)).status == ended
    ids = {run.id: name for name, run in started.items()}

    async def listed(status: str) -> set[str]:
        found = await client.runs.list(status=status, limit=1000)
        assert {run.status for run in found} <= {status}
        return {ids[run.id] for run in found if run.id in ids}

    wanted = {"failed": {"failed", "terminated"}} | {each: {each} for each in ("completed", "cancelled", "running")}
    wanted |= {"pending": {"pending"}, "paused": set(), "waiting": set(), "degraded": set(), "interrupted": set()}
    for status, names in wanted.items():
        async with asyncio.timeout(20):
            while await listed(status) != names:
                await asyncio.sleep(0.1)
    for each in ("running", "pending"):
        await client.runs.cancel(started[each].id)


async def test_a_status_that_no_run_can_have_is_refused_with_the_words(client: AsyncClient) -> None:
    with pytest.raises(InputInvalid, match="'done' is none of pending, running, paused, waiting, completed"):
        await client.runs.list(status="done")


async def test_a_failed_run_says_why_in_one_text(address: str) -> None:
    async with stage(address, _rest_once, [AGENT]) as at:
        client = AsyncClient(temporal=at.client, task_queue=at.task_queue)
        started = await client.runs.create("nobody", message="Hello")
        run = await client.runs.wait(started.id, timeout=30)
        assert run.status == "failed"
        assert run.error == "no agent is named 'nobody' on this worker; it knows: resting"
        assert run.final_text == run.error
        assert run.result is not None
        assert run.result.error is not None
        assert run.result.error.type == "AgentNotFound"
        assert [event.type for event in run.logs] == ["run_started", "run_failed"]


async def test_a_terminated_run_is_failed_and_keeps_its_messages(client: AsyncClient, at: Stage) -> None:
    started = await client.runs.create("resting", input={"seconds": 30})
    async for event in client.runs.stream_events(started.id):
        if event.type == "tool_called":
            await at.client.get_workflow_handle(started.id).terminate(reason="an operator said so")
    run = await client.runs.wait(started.id, timeout=10)
    assert (run.status, run.error) == ("failed", "the run was terminated: an operator said so")
    assert [each.role for each in run.messages] == ["user", "assistant"]
