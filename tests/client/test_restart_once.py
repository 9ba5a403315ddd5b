"""One start goes on after each closed link, however many callers have seen it closed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from holdfast import Agent, AsyncClient
from holdfast.client.links import find_chain
from holdfast.client.restart import ClosedLink
from holdfast.client.start import Start
from holdfast.request import UserMessage
from holdfast.worker.scripted import hang, say
from tests.support.stage import MODEL, Stage, stage

AGENT = Agent(name="going-on", model=MODEL)


@pytest.fixture
async def at(address: str) -> AsyncIterator[Stage]:
    async with stage(address, lambda request: say(f"heard {request.last_text}"), [AGENT]) as staged:
        yield staged


@pytest.fixture
def client(at: Stage) -> AsyncClient:
    return AsyncClient(temporal=at.client, task_queue=at.task_queue)


async def looked(at: Stage, run_id: str, said: str) -> Callable[[], Awaitable[str]]:
    """Look at a closed run as a caller does, and return what the caller would then do."""
    ended = await at.client.get_workflow_handle(run_id).describe()
    told = UserMessage(text=said, id=said).wire()
    request = (await ClosedLink.of(at.client, ended)).following(append_message=told)
    return lambda: Start(run_id, request, at.task_queue).send_once(at.client, searchable=False)


async def said_to(client: AsyncClient, run_id: str) -> list[str | None]:
    return [each.text for each in (await client.runs.wait(run_id, timeout=60)).messages if each.role == "user"]


async def test_a_caller_that_comes_late_gets_what_has_gone_on_before_it_also_once_that_has_ended(
    client: AsyncClient, at: Stage
) -> None:
    run = await client.runs.create("going-on", message="first")
    await client.runs.wait(run.id, timeout=30)
    late = [await looked(at, run.id, "late") for _ in range(2)]
    await client.runs.append_message(run.id, "second")
    assert await said_to(client, run.id) == ["first", "second"]
    ended = (await at.client.get_workflow_handle(run.id).describe()).run_id
    assert [await each() for each in late] == [ended, ended]
    assert await said_to(client, run.id) == ["first", "second"]
    await client.runs.append_message(run.id, "late", id="late")
    assert await said_to(client, run.id) == ["first", "second", "late"]


async def test_a_message_that_was_part_of_a_start_is_told_once_and_its_id_counts(
    client: AsyncClient, at: Stage
) -> None:
    run = await client.runs.create("going-on", message="first")
    await client.runs.wait(run.id, timeout=30)
    for _ in range(2):
        await client.runs.append_message(run.id, "second", id="m-2")
        await client.runs.wait(run.id, timeout=30)
    await client.runs.append_message(run.id, "third", id="m-3")
    handle = at.client.get_workflow_handle(run.id)
    await handle.signal("append_message", {"text": "second", "id": "m-2"})
    ended = await client.runs.wait(run.id, timeout=30)
    assert [each.content for each in ended.messages if each.role == "user"] == ["first", "second", "third"]
    assert [event.data["id"] for event in ended.logs if event.type == "user_added_message"] == ["m-2", "m-3"]
    assert (await handle.query("transcript", {}))["messages"] == [each.wire() for each in ended.messages]


@pytest.mark.parametrize("attempt", range(3))
async def test_every_message_of_many_callers_is_told_once_whoever_starts_the_run_again(
    client: AsyncClient, at: Stage, attempt: int
) -> None:
    run = await client.runs.create("going-on", message="first")
    await client.runs.wait(run.id, timeout=30)

    async def send(number: int) -> None:
        await asyncio.sleep(number * 0.02 * attempt)
        await client.runs.append_message(run.id, f"message {number}", id=f"m-{number}")

    await asyncio.gather(*(send(number % 30) for number in range(40)))
    ended = await client.runs.wait(run.id, timeout=60)
    said = [each.content for each in ended.messages if each.role == "user"]
    assert sorted(map(str, said)) == sorted(["first", *(f"message {number}" for number in range(30))])
    chain = await find_chain(at.client, run.id)
    async with asyncio.timeout(10):
        while len(links := [each async for each in at.client.list_workflows(f"WorkflowId = '{run.id}'")]) < len(
            chain.links
        ):
            await asyncio.sleep(0.1)
    assert {each.run_id for each in links} == set(chain.ids), "one chain"
    seqs = [event.data["run_seq"] for event in ended.logs if event.type in ("run_continued", "run_completed")]
    assert seqs == list(range(1, len(chain.links) + 1))


async def test_resume_run_and_a_message_at_once_start_it_once(client: AsyncClient, at: Stage) -> None:
    at.model.script = lambda _: hang()
    run = await client.runs.create("going-on", message="first")
    while at.model.hits < 1:
        await asyncio.sleep(0.02)
    await client.runs.interrupt(run.id)
    await client.runs.wait(run.id, timeout=30)
    late = await looked(at, run.id, "late")
    at.model.script = lambda request: say(f"heard {request.last_text}")
    await client.runs.resume_run(run.id)
    ended = await client.runs.wait(run.id, timeout=30)
    assert await late() == (await at.client.get_workflow_handle(run.id).describe()).run_id
    assert (await client.runs.wait(run.id, timeout=30)).messages == ended.messages
    many = [client.runs.append_message(run.id, f"message {number}") for number in range(5)]
    await asyncio.gather(client.runs.resume_run(run.id), *many, client.runs.resume_run(run.id))
    assert sorted(map(str, await said_to(client, run.id)))[1:] == [f"message {number}" for number in range(5)]
