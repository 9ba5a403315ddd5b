"""`Runner`: a run that is steered by its handle, taken up again, and what all runs of a runner have in common."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterator

import pytest
from pydantic import ValidationError

from holdfast import (
    Agent,
    Client,
    DecisionRefused,
    InputInvalid,
    RunClosed,
    Runner,
    RunnerConfig,
    RunNotFound,
    Settings,
    ask_user,
    tool,
)
from holdfast.envelope import without_envelope
from holdfast.worker.handles import RunHandle
from holdfast.worker.scripted import ChatRequest, Reply, ScriptedModel, call, hang, say
from tests.support.stage import endpoints

PAID: list[int] = []

THREAD = f"t-{uuid.uuid4().hex[:8]}"


@tool(requires_approval=True)
async def pay(amount: int) -> str:
    """Pay."""
    PAID.append(amount)
    return f"paid {amount}"


@tool
async def report() -> str:
    """Report at length."""
    return "long " * 1_000


AGENT = Agent(name="kept", model="scripted/kept", tools=[pay, report, ask_user])


def _script(request: ChatRequest) -> Reply:
    asked = request.first_text
    if request.turn == 0 and asked in ("pay", "report"):
        return call(("pay", {"amount": 5}) if asked == "pay" else ("report", {}))
    if request.turn == 0 and asked == "ask":
        return call(("ask_user", {"question": "Which?"}))
    return say(f"heard: {without_envelope(request.messages[-1]['content'])}")


@pytest.fixture
def model() -> Iterator[ScriptedModel]:
    PAID.clear()
    with ScriptedModel(_script) as serving:
        yield serving


def runner(address: str, model: ScriptedModel, config: RunnerConfig | None = None) -> Runner:
    """Make a runner with a task queue of its own."""
    return Runner(
        address=address,
        settings=Settings(endpoints=endpoints(model.url), grace_seconds=1),
        config=config,
        task_queue=f"runner-{uuid.uuid4().hex[:8]}",
    )


async def _id(handle: RunHandle) -> str:
    async with asyncio.timeout(30):
        while not (found := await handle.waiting_for()):
            await asyncio.sleep(0.05)
    return str(found[0]["id"])


async def test_a_handle_pauses_resumes_approves_denies_and_answers(address: str, model: ScriptedModel) -> None:
    with runner(address, model) as kept:
        paid = await kept.run_handle(AGENT, "pay")
        await paid.approve(await _id(paid), arguments={"amount": 6})
        assert (await paid.await_result()).final_text.startswith("heard: paid 6")
        denied = await kept.run_handle(AGENT, "pay")
        await denied.deny(await _id(denied), reason="no money")
        assert "no money" in (await denied.await_result()).final_text
        asked = await kept.run_handle(AGENT, "ask")
        question = await _id(asked)
        with pytest.raises(DecisionRefused):
            await asked.approve(question)
        await asked.pause()
        await asked.answer(question, "this one")
        await asyncio.sleep(0.5)
        assert (await asked.status()).status == "paused"
        await asked.resume()
        assert (await asked.await_result()).final_text == "heard: this one"
        with pytest.raises(RunClosed):
            await asked.pause()
        assert PAID == [6]


async def test_an_interrupted_run_is_taken_up_by_another_runner_and_nothing_is_done_again(
    address: str, model: ScriptedModel
) -> None:
    with runner(address, model) as first:
        handle = await first.run_handle(AGENT, "pay", thread_id=None)
        await handle.approve(await _id(handle))
        model.script = lambda _: hang()
        while model.hits < 2:
            await asyncio.sleep(0.02)
        await handle.interrupt()
        stopped = await handle.await_result()
        assert (stopped.state, stopped.steps) == ("interrupted", 2)
    model.script = _script
    with runner(address, model) as second:
        resumed = await second.resume(AGENT, run_id=stopped.run_id, thread_id=stopped.thread_id)
        assert (resumed.state, resumed.final_text, resumed.run_id) == ("completed", "heard: paid 5", stopped.run_id)
        assert (PAID, resumed.run_seq) == ([5], 2)
        hits = model.hits
        again = await second.resume(AGENT, run_id=stopped.run_id)
        assert (again, model.hits) == (resumed, hits)


async def test_a_live_run_is_waited_for(address: str, model: ScriptedModel) -> None:
    model.script = lambda _: say("slow", delay=1)
    with runner(address, model) as kept:
        handle = await kept.run_handle(AGENT, "x")
        result = await kept.resume(AGENT, run_id=handle.run_id)
        assert (result.final_text, result.run_seq, model.hits) == ("slow", 1, 1)


async def test_a_run_of_another_thread_is_not_taken_up_by_mistake(address: str, model: ScriptedModel) -> None:
    with runner(address, model) as kept:
        result = await kept.run(AGENT, "x", thread_id=THREAD)
        assert (await kept.resume(AGENT, run_id=result.run_id, thread_id=THREAD)).final_text == "heard: x"
        with pytest.raises(InputInvalid, match=f"belongs to thread '{THREAD}', not 't-2'"):
            await kept.resume(AGENT, run_id=result.run_id, thread_id="t-2")
        with pytest.raises(RunNotFound):
            await kept.resume(AGENT, run_id="nope")


def test_a_config_counts_for_all_runs(address: str, model: ScriptedModel) -> None:
    config = RunnerConfig(interaction_mode="headless", tool_output_max_chars=300)
    with runner(address, model, config) as kept:
        result = kept.run_sync(AGENT, "pay")
        assert (result.state, PAID) == ("completed", [])
        reported = kept.run_sync(AGENT, "report")
        assert len(reported.final_text) <= 300 + len("heard: ") + 500
        assert "cut" in reported.final_text
        with Client(address) as client:
            assert client.runs.get(result.run_id).logs[0].data["interaction_mode"] == "headless"


def test_a_config_is_data_and_refuses_what_it_does_not_know() -> None:
    assert RunnerConfig() == RunnerConfig(interaction_mode=None, tool_output_max_chars=None)
    with pytest.raises(ValidationError):
        RunnerConfig.model_validate({"interaction_mode": "silent"})
    with pytest.raises(ValidationError):
        RunnerConfig(tool_output_max_chars=10)
    with pytest.raises(ValidationError):
        RunnerConfig.model_validate({"sanitise": True})
