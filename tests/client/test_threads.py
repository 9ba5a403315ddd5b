"""The client's calls on threads, and the command line's, on the real server."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from holdfast import Agent, AsyncClient, Client, HoldfastError, InputInvalid, NoWorker, ThreadNotFound
from holdfast.client.cli.show import wanted
from holdfast.client.threads import AsyncThreads
from holdfast.worker.scripted import ChatRequest, Reply, say
from tests.support.processes import Done, holdfast
from tests.support.stage import DEADLINE, MODEL, Stage, stage

AGENT = Agent(name="talking", model=MODEL)


def _answer(request: ChatRequest) -> Reply:
    if "summar" in str(request.messages[0].get("content")).lower():
        return say("They talked.")
    return say(f"answer {request.turn}", delay=1.0 if "slowly" in request.last_text else 0)


@pytest.fixture
async def at(address: str) -> AsyncIterator[Stage]:
    async with stage(address, _answer, [AGENT]) as staged:
        yield staged


@pytest.fixture
def client(at: Stage) -> AsyncClient:
    return AsyncClient(temporal=at.client, task_queue=at.task_queue)


@pytest.fixture
def thread() -> str:
    return f"t-{uuid.uuid4().hex[:10]}"


async def _talk(client: AsyncClient, thread: str, *texts: str) -> None:
    for text in texts:
        run = await client.runs.create("talking", message=text, thread_id=thread)
        await client.runs.wait(run.id, timeout=30)


async def test_a_thread_is_read_listed_compacted_and_deleted(client: AsyncClient, thread: str) -> None:
    await _talk(client, thread, "one", "two")
    found = await client.threads.get(thread)
    assert (found.id, found.holder, found.queue, found.runs) == (thread, None, [], 2)
    assert [each.content for each in found.messages] == ["one", "answer 0", "two", "answer 1"]
    assert datetime.now(UTC) - found.created_at < timedelta(minutes=1)
    async with asyncio.timeout(DEADLINE):
        while thread not in [each.id for each in await client.threads.list()]:
            await asyncio.sleep(0.1)
    done = await client.threads.compact(thread)
    assert (done.messages, done.messages_after, done.summary) == (4, 3, "They talked.")
    assert [each.role for each in (await client.threads.get(thread)).messages] == ["user", "user", "assistant"]
    await client.threads.delete(thread)
    for call in (client.threads.get, client.threads.compact, client.threads.delete):
        with pytest.raises(ThreadNotFound):
            await call(thread)
    await _talk(client, thread, "anew")
    assert len((await client.threads.get(thread)).messages) == 2


async def test_a_thread_tells_whose_turn_it_is_and_who_waits(client: AsyncClient, thread: str) -> None:
    first = await client.runs.create("talking", message="slowly", thread_id=thread)
    async with asyncio.timeout(DEADLINE):
        while True:
            try:
                if (await client.threads.get(thread)).holder == first.id:
                    break
            except ThreadNotFound:
                await asyncio.sleep(0.02)
    second = await client.runs.create("talking", message="two", thread_id=thread)
    async with asyncio.timeout(DEADLINE):
        while (await client.runs.status(second.id)).status != "waiting":
            await asyncio.sleep(0.02)
    (waits,) = await client.runs.waiting_for(second.id)
    assert (waits["id"], wanted(waits)) == (thread, "its turn in the thread")
    found = await client.threads.get(thread)
    assert (found.holder, found.queue) == (first.id, [second.id])
    assert (await client.runs.wait(second.id, timeout=30)).status == "completed"


async def test_a_thread_with_nothing_to_compact_says_so(client: AsyncClient, thread: str) -> None:
    await _talk(client, thread, "one")
    with pytest.raises(HoldfastError, match="there are not two turns"):
        await client.threads.compact(thread)
    with pytest.raises(InputInvalid):
        await client.threads.compact(thread, "x" * 300)


@pytest.mark.parametrize("thread_id", ["", "x" * 249, "a\nb", "../x", " x"])
async def test_an_unsound_thread_id_is_refused(client: AsyncClient, thread_id: str) -> None:
    with pytest.raises(InputInvalid):
        await client.runs.create("talking", message="x", thread_id=thread_id)
    with pytest.raises(InputInvalid):
        await client.threads.get(thread_id)


async def test_the_longest_thread_id_works_and_a_run_may_not_be_named_like_a_thread(client: AsyncClient) -> None:
    thread = f"{uuid.uuid4().hex}-".ljust(248, "x")
    await _talk(client, thread, "one")
    assert len((await client.threads.get(thread)).messages) == 2
    with pytest.raises(InputInvalid, match="as threads do"):
        await client.runs.create("talking", message="x", run_id="thread:t-1")


async def test_a_thread_that_nobody_serves_is_told_so(address: str, thread: str) -> None:
    async with stage(address, _answer, [AGENT]) as at:
        client = AsyncClient(temporal=at.client, task_queue=at.task_queue)
        await _talk(client, thread, "one")
    # The server remembers the worker that has just left as one that polls, so another queue stands for a lost one.
    lost = f"lost-{uuid.uuid4().hex[:8]}"
    await at.client.start_workflow("AgentThread", id=f"thread:{lost}", task_queue=lost)
    with pytest.raises(NoWorker):
        await client.threads.get(lost)
    with pytest.raises(NoWorker):
        await client.threads.compact(lost)
    await client.threads.delete(lost)


async def test_a_compaction_that_nobody_answers_is_given_up(address: str, thread: str) -> None:
    async with stage(address, _answer, [AGENT]) as at:
        client = AsyncClient(temporal=at.client, task_queue=at.task_queue)
        await _talk(client, thread, "one", "two")
    # The worker has just left, and still counts as one that polls.
    async with asyncio.timeout(DEADLINE):
        with pytest.raises(HoldfastError, match="within 3 s, and may be compacted yet"):
            await AsyncThreads(client, patience=3).compact(thread)


def test_the_sync_client_has_the_same_calls(address: str) -> None:
    with Client(address) as client, pytest.raises(ThreadNotFound):
        client.threads.get("never-used")
    with Client(address) as client, pytest.raises(ThreadNotFound):
        client.threads.delete("never-used")


async def test_the_command_line_shows_compacts_and_deletes_threads(at: Stage, client: AsyncClient, thread: str) -> None:
    await _talk(client, thread, "one", "two")

    async def told(*words: str) -> Done:
        address = at.client.service_client.config.target_host
        return await asyncio.to_thread(holdfast, "--address", address, "threads", *words)

    shown = await told("show", thread)
    assert (shown.returncode, "answer 1" in shown.stdout) == (0, True), shown.stderr
    assert json.loads((await told("show", thread, "--json")).stdout)["runs"] == 2
    assert thread in (await told("list", "--limit", "1000")).stdout
    assert json.loads((await told("compact", thread, "--json")).stdout)["messages_after"] == 3
    refused = await told("compact", thread)
    assert (refused.returncode, "not two turns" in refused.stderr) == (2, True)
    assert (await told("delete", thread)).returncode == 0
    assert "no thread has the id" in (await told("show", thread)).stderr
