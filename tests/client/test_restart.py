"""A closed run is started again under its id: by a message, or by `resume_run`."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import AsyncIterator, Sequence

import pytest
import temporalio.client
from temporalio.api.common.v1 import Payload
from temporalio.client import WorkflowExecution
from temporalio.common import SearchAttributeKey
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.converter import PayloadCodec

from holdfast import Agent, AsyncClient, InputInvalid, RunNotFound, tool
from holdfast.client.restart import ClosedLink
from holdfast.envelope import without_envelope
from holdfast.request import RunRequest
from holdfast.wire import REQUEST_DIGEST_MEMO, STARTED_AT_MEMO
from holdfast.worker.build import make_worker
from holdfast.worker.plugin import HoldfastPlugin
from holdfast.worker.scripted import ChatRequest, Reply, call, fail, hang, say
from tests.support.stage import MODEL, Stage, stage

LOOKED: list[str] = []


@tool
async def look(what: str) -> str:
    """Look."""
    LOOKED.append(what)
    return f"saw {what}"


AGENT = Agent(name="going-on", model=MODEL, tools=[look])


def _script(request: ChatRequest) -> Reply:
    if request.turn == 0:
        return call(("look", {"what": str(request.last_text)}))
    return say(f"answer {request.turn}: {without_envelope(str(request.messages[-1]['content']))}")


@pytest.fixture
async def at(address: str) -> AsyncIterator[Stage]:
    LOOKED.clear()
    async with stage(address, _script, [AGENT]) as staged:
        yield staged


@pytest.fixture
def client(at: Stage) -> AsyncClient:
    return AsyncClient(temporal=at.client, task_queue=at.task_queue)


async def links(at: Stage, run_id: str, number: int) -> list[WorkflowExecution]:
    """Return all links of a run, oldest first, once there are so many."""
    found: list[WorkflowExecution] = []
    async with asyncio.timeout(10):
        while len(found) < number:
            found = [each async for each in at.client.list_workflows(f"WorkflowId = '{run_id}'")]
            await asyncio.sleep(0.1)
    return sorted(found, key=lambda each: each.start_time)


async def test_a_message_to_a_run_that_has_ended_goes_on_with_its_conversation(client: AsyncClient, at: Stage) -> None:
    run = await client.runs.create("going-on", message="the tide", thread_id="t-7", metadata={"tenant": "a"})
    first = await client.runs.wait(run.id, timeout=30)
    assert (first.final_text, at.model.hits) == ("answer 1: saw the tide", 2)
    assert await client.runs.append_message(run.id, "And the moon?", id="m-1") == "m-1"
    await client.runs.append_message(run.id, "And the moon?", id="m-1")
    second = await client.runs.wait(run.id, timeout=30)
    assert second.final_text == "answer 2: And the moon?"
    assert second.messages[: len(first.messages)] == first.messages
    assert second.original_prompt == "the tide"
    assert (second.thread_id, second.metadata, LOOKED) == ("t-7", {"tenant": "a"}, ["the tide"])
    assert at.model.hits == 3
    assert second.result is not None
    assert second.result.run_seq == 2
    await client.runs.append_message(run.id, "And the moon?", id="m-1")
    await asyncio.sleep(0.5)
    assert len(await links(at, run.id, 2)) == 2, "the same id counts once, also after the end"


async def test_what_a_run_is_listed_by_goes_on_with_it(client: AsyncClient, at: Stage) -> None:
    run = await client.runs.create("going-on", message="x", thread_id="t-8", idempotency_key=f"k-{time.time_ns()}")
    first = await client.runs.wait(run.id, timeout=30)
    await client.runs.append_message(run.id, "more")
    await client.runs.wait(run.id, timeout=30)
    await client.runs.append_message(run.id, "still more")
    again = await client.runs.wait(run.id, timeout=30)
    handle = at.client.get_workflow_handle(run.id)
    description = await handle.describe()
    memo = await description.memo()
    start = (await links(at, run.id, 3))[0]
    assert memo[STARTED_AT_MEMO] == pytest.approx(start.start_time.timestamp())
    assert memo[REQUEST_DIGEST_MEMO] == (await start.memo())[REQUEST_DIGEST_MEMO]
    assert (again.agent_id, again.thread_id, again.task_queue) == ("going-on", "t-8", at.task_queue)
    assert abs((again.created_at - first.created_at).total_seconds()) < 1
    assert (await client.runs.status(run.id)).created_at == again.created_at
    assert (await client.runs.resume_run(run.id)).created_at == again.created_at


async def test_messages_of_many_callers_to_a_run_that_has_ended_are_all_seen_by_one_execution(
    client: AsyncClient, at: Stage
) -> None:
    run = await client.runs.create("going-on", message="x")
    await client.runs.wait(run.id, timeout=30)
    at.model.script = lambda request: say(request.last_text, delay=0.5)
    await asyncio.gather(*(client.runs.append_message(run.id, f"message {number}") for number in range(8)))
    ended = await client.runs.wait(run.id, timeout=30)
    said = {each.content for each in ended.messages if each.role == "user"}
    assert {f"message {number}" for number in range(8)} <= said
    await asyncio.sleep(1)
    assert len(await links(at, run.id, 2)) == 2


@pytest.mark.parametrize("end", ["cancelled", "failed", "interrupted", "terminated"])
async def test_a_run_is_taken_up_where_it_was_stopped_however_it_was(client: AsyncClient, at: Stage, end: str) -> None:
    at.model.script = lambda request: (
        _script(request) if request.turn == 0 else hang() if end != "failed" else fail(401)
    )
    run = await client.runs.create("going-on", message="the tide")
    while at.model.hits < 2:
        await asyncio.sleep(0.02)
    if end == "cancelled":
        await client.runs.cancel(run.id)
    elif end == "interrupted":
        await client.runs.interrupt(run.id)
    elif end == "terminated":
        await at.client.get_workflow_handle(run.id).terminate()
    stopped = await client.runs.wait(run.id, timeout=30)
    assert stopped.status == ("failed" if end == "terminated" else end)
    at.model.script = _script
    taken = await asyncio.gather(*(client.runs.resume_run(run.id) for _ in range(12)))
    assert {each.id for each in taken} == {run.id}
    ended = await client.runs.wait(run.id, timeout=30)
    assert (ended.status, ended.final_text, LOOKED) == ("completed", "answer 1: saw the tide", ["the tide"])
    assert [each.role for each in ended.messages] == ["user", "assistant", "tool", "assistant"]
    assert (await client.runs.resume_run(run.id)).status == "completed"
    await asyncio.sleep(1)
    assert len(await links(at, run.id, 2)) == 2, "many callers start it once"


async def test_what_is_started_by_one_request_shows_as_any_other_start_does(client: AsyncClient, at: Stage) -> None:
    at.model.script = lambda request: _script(request) if request.turn == 0 else hang()
    run = await client.runs.create("going-on", message="the tide", thread_id="t-9", metadata={"tenant": "a"})
    while at.model.hits < 2:
        await asyncio.sleep(0.02)
    await client.runs.interrupt(run.id)
    await client.runs.wait(run.id, timeout=30)
    handle = at.client.get_workflow_handle(run.id)
    before = await handle.describe()
    await client.runs.resume_run(run.id, message="Be brief")
    after = await handle.describe()
    assert before.run_id != after.run_id
    assert (await after.static_summary(), await after.static_details()) == (
        "going-on: Be brief",
        f"**going-on** Be brief\n\nGoes on from `{before.run_id}`",
    )
    assert (await after.memo())[REQUEST_DIGEST_MEMO] == (await before.memo())[REQUEST_DIGEST_MEMO]
    assert (after.task_queue, after.workflow_type) == (before.task_queue, before.workflow_type)
    for key in (SearchAttributeKey.for_keyword("AgentName"), SearchAttributeKey.for_keyword("ThreadId")):
        assert after.typed_search_attributes.get(key) == before.typed_search_attributes.get(key)
    configured = [each.raw_description.execution_config.default_workflow_task_timeout for each in (before, after)]
    assert configured[0] == configured[1]
    await client.runs.cancel(run.id)


async def test_a_run_that_nobody_took_before_it_was_terminated_begins_with_all_that_it_was_told(
    client: AsyncClient, at: Stage
) -> None:
    unserved = AsyncClient(temporal=at.client, task_queue=f"later-{time.time_ns()}")
    run = await unserved.runs.create("going-on", message="the tide")
    await unserved.runs.append_message(run.id, "And the moon")
    await at.client.get_workflow_handle(run.id).terminate()
    await unserved.runs.resume_run(run.id, message="Now")
    async with make_worker(at.client, HoldfastPlugin([AGENT], settings=at.settings), task_queue=unserved.task_queue):
        ended = await unserved.runs.wait(run.id, timeout=30)
    assert [each.content for each in ended.messages if each.role == "user"] == ["the tide", "And the moon", "Now"]


async def test_what_a_closed_run_was_told_while_no_worker_was_up_is_not_lost_with_it(
    client: AsyncClient, at: Stage
) -> None:
    queue = f"later-{time.time_ns()}"
    unserved = AsyncClient(temporal=at.client, task_queue=queue)
    run = await unserved.runs.create("going-on", message="the tide")
    async with make_worker(at.client, HoldfastPlugin([AGENT], settings=at.settings), task_queue=queue):
        await unserved.runs.wait(run.id, timeout=30)
    handle = at.client.get_workflow_handle(run.id)
    for message in ("And the moon", "And the sun"):
        await unserved.runs.append_message(run.id, message)
        await handle.terminate()
    await unserved.runs.resume_run(run.id, message="Now")
    await handle.terminate()
    await unserved.runs.resume_run(run.id)
    async with make_worker(at.client, HoldfastPlugin([AGENT], settings=at.settings), task_queue=queue):
        ended = await unserved.runs.wait(run.id, timeout=30)
    said = [each.content for each in ended.messages if each.role == "user"]
    assert said == ["the tide", "And the moon", "And the sun", "Now"]
    assert LOOKED == ["the tide"]


async def test_a_run_of_many_links_goes_on_with_the_agent_that_it_was_given(address: str) -> None:
    def script(request: ChatRequest) -> Reply:
        return call(("look", {"what": f"{request.turn}"})) if request.turn < 6 else say(f"as {request.model}")

    async with stage(address, script, [AGENT], continue_after_events=30) as at:
        client = AsyncClient(temporal=at.client, task_queue=at.task_queue)
        given = Agent(name="going-on", model="scripted/given", tools=[look])  # a worker knows another of this name
        run = await client.runs.create(agent=given, message="x", metadata={"tenant": "a"})
        ended = await client.runs.wait(run.id, timeout=60)
        assert "run_continued" in {event.type for event in ended.logs}
        await client.runs.append_message(run.id, "And now?")
        again = await client.runs.wait(run.id, timeout=60)
        assert (again.final_text, again.metadata) == ("as given", {"tenant": "a"})
        assert again.messages[:-2] == ended.messages


class _Reversed(PayloadCodec):
    """Stands for any encryption: nobody reads a payload that has not been decoded."""

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return [Payload(metadata={"encoding": b"reversed"}, data=each.SerializeToString()[::-1]) for each in payloads]

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return [
            Payload.FromString(each.data[::-1]) if each.metadata["encoding"] == b"reversed" else each
            for each in payloads
        ]


async def test_encrypted_runs_are_started_again_as_well(address: str, at: Stage) -> None:
    converter = dataclasses.replace(pydantic_data_converter, payload_codec=_Reversed())
    temporal = await temporalio.client.Client.connect(address, data_converter=converter)
    queue = f"encrypted-{time.time_ns()}"
    client = AsyncClient(temporal=temporal, task_queue=queue)
    async with make_worker(temporal, HoldfastPlugin([AGENT], settings=at.settings), task_queue=queue):
        at.model.script = lambda _: hang()
        run = await client.runs.create("going-on", message="the tide")
        await client.runs.interrupt(run.id)
        await client.runs.wait(run.id, timeout=30)
        at.model.script = _script
        await client.runs.resume_run(run.id)
        assert (await client.runs.wait(run.id, timeout=30)).final_text == "answer 1: saw the tide"
        await client.runs.append_message(run.id, "And the moon?")
        assert (await client.runs.wait(run.id, timeout=30)).final_text == "answer 2: And the moon?"
    description = await temporal.get_workflow_handle(run.id).describe()
    assert {*await description.memo()} == {REQUEST_DIGEST_MEMO, STARTED_AT_MEMO}
    raw = description.raw_description.workflow_execution_info.memo.fields
    assert {each.metadata["encoding"] for each in raw.values()} == {b"reversed"}


async def test_a_message_may_come_with_it(client: AsyncClient, at: Stage) -> None:
    at.model.script = lambda request: _script(request) if request.turn == 0 else hang()
    run = await client.runs.create("going-on", message="the tide")
    while at.model.hits < 2:
        await asyncio.sleep(0.02)
    await client.runs.interrupt(run.id)
    await client.runs.wait(run.id, timeout=30)
    at.model.script = _script
    await client.runs.resume_run(run.id, message="Be brief")
    ended = await client.runs.wait(run.id, timeout=30)
    assert ended.final_text == "answer 1: Be brief"
    assert [each.role for each in ended.messages] == ["user", "assistant", "tool", "user", "assistant"]


async def test_a_live_run_is_left_alone(client: AsyncClient, at: Stage) -> None:
    at.model.script = lambda _: say("slow", delay=1)
    run = await client.runs.create("going-on", message="x")
    assert (await client.runs.resume_run(run.id)).status in ("pending", "running")
    assert (await client.runs.wait(run.id, timeout=30)).final_text == "slow"
    assert at.model.hits == 1


async def test_a_completed_run_has_its_answer_and_nobody_is_asked(client: AsyncClient, at: Stage) -> None:
    run = await client.runs.create("going-on", message="x")
    await client.runs.wait(run.id, timeout=30)
    taken = await client.runs.resume_run(run.id, message="not told")
    assert (taken.status, at.model.hits) == ("completed", 2)


async def test_a_run_whose_request_was_none_can_not_go_on_and_an_unknown_one_is_not_found(
    client: AsyncClient, at: Stage
) -> None:
    handle = await at.client.start_workflow(
        "AgentRun", "no object", id=f"bad-{time.time_ns()}", task_queue=at.task_queue
    )
    await client.runs.wait(handle.id, timeout=30)
    with pytest.raises(InputInvalid, match="agent"):
        await client.runs.append_message(handle.id, "Hello")
    with pytest.raises(InputInvalid, match="agent"):
        await client.runs.resume_run(handle.id)
    with pytest.raises(RunNotFound):
        await client.runs.resume_run("nope")
    with pytest.raises(InputInvalid, match="262,144"):
        await client.runs.append_message(handle.id, "x" * 300_000)


def test_a_request_to_go_on_keeps_who_and_where_and_not_what_was_asked_first() -> None:
    given = RunRequest(
        agent="demo",
        input={"a": 1},
        message="Hello",
        thread_id="t",
        revision="r",
        metadata={"tenant": "a"},
        interaction_mode="headless",
    ).wire()
    link = ClosedLink("run-1", "01a1", {name: each for name, each in given.items() if name != "message"})
    kept = {"agent": "demo", "metadata": {"tenant": "a"}, "interaction_mode": "headless"}
    assert link.following().wire() == {**kept, "thread_id": "t", "after": {"run": "01a1"}}
    after = {"run": "01a1", "workflow_id": "run-1", "step": 3}
    assert link.forked(step=3, message="Go on").wire() == {**kept, "message": "Go on", "after": after}
    other = Agent(name="other", model="m")
    assert link.following(agent=other, message="Go").wire()["agent"] == other.wire()
