"""Steering a run: pause, interrupt, approvals and answers, on the real server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from holdfast import (
    Agent,
    AsyncClient,
    Client,
    DecisionRefused,
    InputInvalid,
    NoWorker,
    RunClosed,
    RunNotFound,
    ask_user,
    tool,
)
from holdfast.worker.build import make_worker
from holdfast.worker.plugin import HoldfastPlugin
from holdfast.worker.scripted import ChatRequest, Reply, call, say
from tests.support.stage import MODEL, Stage, stage

PAID: list[tuple[int, str]] = []


@tool(requires_approval=True)
async def pay(amount: int, to: str) -> str:
    """Pay."""
    PAID.append((amount, to))
    return f"paid {amount} to {to}"


@tool
async def rest(seconds: float) -> str:
    """Rest."""
    await asyncio.sleep(seconds)
    return "rested"


AGENT = Agent(name="steered", model=MODEL, tools=[pay, rest, ask_user])


def _script(request: ChatRequest) -> Reply:
    asked = request.first_text
    if request.turn == 0 and asked.startswith("pay"):
        return call(*(("pay", {"amount": int(each), "to": "Bob"}) for each in asked.split()[1:]))
    if request.turn == 0 and asked == "ask":
        return call(("ask_user", {"question": "Which colour?", "options": ["red", "blue"]}))
    if request.turn < 2 and asked == "rest":
        return call(("rest", {"seconds": 0.5}))
    if asked == "talk":
        return say("a long story " * 50, pace=0.1)
    return say(f"heard: {' | '.join(request.tool_results.values())}")


@pytest.fixture
async def at(address: str) -> AsyncIterator[Stage]:
    async with stage(address, _script, [AGENT]) as staged:
        yield staged


@pytest.fixture
def client(at: Stage) -> AsyncClient:
    return AsyncClient(temporal=at.client, task_queue=at.task_queue)


async def waiting(client: AsyncClient, run_id: str, number: int = 1) -> list[dict[str, Any]]:
    """Return what a run waits for, once it is so many things."""
    async with asyncio.timeout(30):
        while len(found := await client.runs.waiting_for(run_id)) != number:
            await asyncio.sleep(0.05)
    return found


async def until(client: AsyncClient, run_id: str, status: str) -> None:
    async with asyncio.timeout(30):
        while (await client.runs.status(run_id)).status != status:
            await asyncio.sleep(0.05)


async def test_a_paused_run_starts_nothing_until_it_is_resumed(client: AsyncClient, at: Stage) -> None:
    run = await client.runs.create("steered", message="rest")
    async for event in client.runs.stream_events(run.id):
        if event.type == "tool_called":
            await client.runs.pause(run.id, "lunch")
            break
    await until(client, run.id, "paused")
    await asyncio.sleep(1)
    assert at.model.hits == 1
    await client.runs.append_message(run.id, "Messages are taken meanwhile")
    assert await client.runs.waiting_for(run.id) == []
    await client.runs.resume(run.id)
    ended = await client.runs.wait(run.id, timeout=30)
    assert (ended.status, at.model.hits) == ("completed", 3)
    types = [event.type for event in ended.logs]
    assert (types.count("paused"), types.count("resumed")) == (1, 1)


async def test_an_interrupt_ends_the_run_in_the_middle_of_a_model_call(client: AsyncClient, at: Stage) -> None:
    run = await client.runs.create("steered", message="talk")
    while at.model.hits == 0:
        await asyncio.sleep(0.02)
    await asyncio.sleep(1)
    await client.runs.interrupt(run.id, "enough")
    ended = await client.runs.wait(run.id, timeout=10)
    assert ended.status == "interrupted"
    assert ended.final_text.startswith("a long story")
    assert at.model.aborted == 1
    await client.runs.interrupt(run.id)
    assert (await client.runs.status(run.id)).status == "interrupted"


async def test_what_needs_a_live_run_says_that_it_has_ended(client: AsyncClient) -> None:
    run = await client.runs.create("steered", message="Hello")
    await client.runs.wait(run.id, timeout=30)
    calls: list[Callable[[], Awaitable[Any]]] = [
        lambda: client.runs.pause(run.id),
        lambda: client.runs.resume(run.id),
        lambda: client.runs.approve(run.id, "x"),
        lambda: client.runs.deny(run.id, "x"),
        lambda: client.runs.answer(run.id, "x", "y"),
    ]
    for each in calls:
        with pytest.raises(RunClosed, match=r"^run '.*' has ended \(completed\)$"):
            await each()
    assert await client.runs.waiting_for(run.id) == []


@pytest.mark.parametrize("run_id", ["nope", "../x", "x\x00y"])
async def test_an_unknown_run_can_be_steered_nowhere(client: AsyncClient, run_id: str) -> None:
    calls: list[Callable[[], Awaitable[Any]]] = [
        lambda: client.runs.pause(run_id),
        lambda: client.runs.resume(run_id),
        lambda: client.runs.interrupt(run_id),
        lambda: client.runs.approve(run_id, "x"),
        lambda: client.runs.deny(run_id, "x"),
        lambda: client.runs.answer(run_id, "x", "y"),
        lambda: client.runs.waiting_for(run_id),
    ]
    for each in calls:
        with pytest.raises(RunNotFound):
            await each()


async def test_a_call_waits_and_is_made_once_it_is_approved_however_often(client: AsyncClient) -> None:
    PAID.clear()
    run = await client.runs.create("steered", message="pay 5")
    [wanted] = await waiting(client, run.id)
    assert (wanted["kind"], wanted["tool_name"], wanted["arguments"]) == ("approval", "pay", {"amount": 5, "to": "Bob"})
    assert ((await client.runs.status(run.id)).status, PAID) == ("waiting", [])
    await asyncio.gather(*(client.runs.approve(run.id, wanted["id"], digest=wanted["digest"]) for _ in range(5)))
    ended = await client.runs.wait(run.id, timeout=30)
    assert (ended.final_text, PAID) == ("heard: paid 5 to Bob", [(5, "Bob")])
    await client.runs.approve(run.id, wanted["id"], digest=wanted["digest"])
    assert PAID == [(5, "Bob")], "a repeated approval of a run that has ended is the one that it took"


async def test_a_decision_may_be_repeated_when_the_run_has_continued_in_a_new_link(address: str) -> None:
    PAID.clear()
    async with stage(address, _script, [AGENT], continue_after_events=12) as at:
        client = AsyncClient(temporal=at.client, task_queue=at.task_queue)
        run = await client.runs.create("steered", message="pay 5 6 7")
        first, second, third = await waiting(client, run.id, 3)
        began = (await at.client.get_workflow_handle(run.id).describe()).run_id
        await client.runs.approve(run.id, first["id"])
        await client.runs.deny(run.id, second["id"], reason="no")
        async with asyncio.timeout(30):
            while (await at.client.get_workflow_handle(run.id).describe()).run_id == began or PAID != [(5, "Bob")]:
                await asyncio.sleep(0.05)
        await waiting(client, run.id, 1)
        await client.runs.approve(run.id, first["id"])
        await client.runs.deny(run.id, second["id"], reason="no")
        with pytest.raises(DecisionRefused):
            await client.runs.deny(run.id, first["id"])
        await client.runs.approve(run.id, third["id"])
        ended = await client.runs.wait(run.id, timeout=30)
    assert PAID == [(5, "Bob"), (7, "Bob")]
    resolved = [event.data["call_id"] for event in ended.logs if event.type == "approval_resolved"]
    assert resolved == [first["id"], second["id"], third["id"]]


async def test_all_calls_of_a_turn_may_be_decided_at_once(client: AsyncClient) -> None:
    PAID.clear()
    run = await client.runs.create("steered", message=f"pay {' '.join(map(str, range(32)))}")
    wanted = await waiting(client, run.id, 32)
    await asyncio.gather(*(client.runs.approve(run.id, each["id"], digest=each["digest"]) for each in wanted))
    assert (await client.runs.wait(run.id, timeout=30)).status == "completed"
    assert sorted(PAID) == [(number, "Bob") for number in range(32)]


async def test_an_approval_may_change_the_arguments_and_a_denial_gives_the_model_its_reason(
    client: AsyncClient,
) -> None:
    PAID.clear()
    run = await client.runs.create("steered", message="pay 5 6")
    first, second = await waiting(client, run.id, 2)
    await client.runs.approve(run.id, first["id"], arguments={"amount": 1, "to": "Eve"})
    [left] = await waiting(client, run.id)
    assert left == second
    await client.runs.deny(run.id, second["id"], reason="that is too much")
    ended = await client.runs.wait(run.id, timeout=30)
    assert PAID == [(1, "Eve")]
    assert "paid 1 to Eve" in ended.final_text
    assert "that is too much" in ended.final_text


async def test_a_decision_that_does_not_fit_is_refused_and_the_run_waits_on(client: AsyncClient) -> None:
    run = await client.runs.create("steered", message="pay 5 6")
    first, second = await waiting(client, run.id, 2)
    with pytest.raises(DecisionRefused):
        await client.runs.approve(run.id, "nothing")
    with pytest.raises(DecisionRefused):
        await client.runs.approve(run.id, first["id"], digest=second["digest"])
    with pytest.raises(DecisionRefused):
        await client.runs.answer(run.id, first["id"], "an answer to no question")
    await client.runs.deny(run.id, first["id"])
    with pytest.raises(DecisionRefused):
        await client.runs.approve(run.id, first["id"])
    assert await waiting(client, run.id) == [second]
    await client.runs.cancel(run.id)


async def test_too_large_a_decision_is_refused_before_it_is_sent_and_the_run_still_answers(client: AsyncClient) -> None:
    run = await client.runs.create("steered", message="pay 5")
    [wanted] = await waiting(client, run.id)
    with pytest.raises(InputInvalid, match="262,144"):
        await client.runs.approve(run.id, wanted["id"], arguments={"amount": 1, "to": "x" * 3_000_000})
    with pytest.raises(InputInvalid, match="262,144"):
        await client.runs.deny(run.id, wanted["id"], reason="x" * 3_000_000)
    with pytest.raises(InputInvalid, match="262,144"):
        await client.runs.answer(run.id, wanted["id"], "x" * 3_000_000)
    with pytest.raises(InputInvalid, match="262,144"):
        await client.runs.pause(run.id, "x" * 3_000_000)
    assert await waiting(client, run.id) == [wanted]
    await client.runs.deny(run.id, wanted["id"])
    assert (await client.runs.wait(run.id, timeout=30)).status == "completed"


async def test_a_question_is_answered(client: AsyncClient) -> None:
    run = await client.runs.create("steered", message="ask")
    [wanted] = await waiting(client, run.id)
    assert (wanted["kind"], wanted["question"], wanted["options"]) == ("answer", "Which colour?", ["red", "blue"])
    await client.runs.answer(run.id, wanted["id"], "blue")
    assert (await client.runs.wait(run.id, timeout=30)).final_text == "heard: blue"


async def test_a_headless_run_waits_for_nobody(client: AsyncClient) -> None:
    PAID.clear()
    run = await client.runs.create("steered", message="pay 5", interaction_mode="headless")
    assert ((await client.runs.wait(run.id, timeout=30)).status, PAID) == ("completed", [])


async def test_without_a_worker_nothing_is_sent_and_that_is_told_soon(client: AsyncClient, at: Stage) -> None:
    unserved = AsyncClient(temporal=at.client, task_queue=f"nobody-{time.time_ns()}")
    run = await unserved.runs.create("steered", message="pay 5")
    for each in (unserved.runs.approve(run.id, "0010xxxxx"), unserved.runs.waiting_for(run.id)):
        began = time.monotonic()
        with pytest.raises(NoWorker, match="holdfast worker"):
            await each
        assert time.monotonic() - began < 4
    await unserved.runs.pause(run.id)
    async with make_worker(at.client, HoldfastPlugin([AGENT], settings=at.settings), task_queue=unserved.task_queue):
        await until(unserved, run.id, "paused")
        names = [
            event.workflow_execution_update_accepted_event_attributes.accepted_request.input.name
            for event in (await at.client.get_workflow_handle(run.id).fetch_history()).events
        ]
        assert "decide" not in names
        await unserved.runs.cancel(run.id)
        await until(unserved, run.id, "cancelled")


def test_the_sync_client_steers_as_well(address: str, at: Stage) -> None:
    with Client(address, task_queue=at.task_queue) as client:
        for name in ("pause", "resume", "interrupt", "waiting_for", "resume_run"):
            with pytest.raises(RunNotFound):
                getattr(client.runs, name)("nope")
        with pytest.raises(RunNotFound):
            client.runs.approve("nope", "x", arguments={"a": 1}, reason="r", digest="d")
        with pytest.raises(RunNotFound):
            client.runs.deny("nope", "x", reason="r")
        with pytest.raises(RunNotFound):
            client.runs.answer("nope", "x", "y")
        with pytest.raises(RunNotFound):
            client.runs.fork("nope", 1)
        with pytest.raises(RunNotFound):
            client.runs.diff("nope", "nope")
