"""Threads of a `Runner`: the lines of the README."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterator

import pytest

from holdfast import Agent, HoldfastError, Runner, Settings, ThreadNotFound, ToolContext, tool
from holdfast.worker.scripted import ChatRequest, Reply, ScriptedModel, call, say
from tests.support.stage import endpoints


@tool
async def note(text: str, context: ToolContext) -> str:
    """Note something."""
    return f"{context.run_id}: {text}"


AGENT = Agent(name="demo", model="scripted/demo", instructions="Be helpful.")
NOTING = Agent(name="noting", model="scripted/demo", tools=[note])


def _script(request: ChatRequest) -> Reply:
    if "summar" in str(request.messages[0].get("content")).lower():
        return say("They talked of languages.")
    if request.tool_names and request.messages[-1]["role"] == "user":
        return call(("note", {"text": "x"}))
    users = [str(each["content"]) for each in request.messages if each["role"] == "user"]
    return say(f"heard: {' | '.join(users)}")


@pytest.fixture
def model() -> Iterator[ScriptedModel]:
    with ScriptedModel(_script) as made:
        yield made


def _runner(address: str, model: ScriptedModel) -> Runner:
    settings = Settings(endpoints=endpoints(model.url), grace_seconds=1)
    return Runner(address=address, settings=settings, task_queue=f"runner-{uuid.uuid4().hex[:8]}")


@pytest.fixture
def runner(address: str, model: ScriptedModel) -> Iterator[Runner]:
    with _runner(address, model) as made:
        yield made


async def test_the_second_run_of_a_thread_remembers_the_first_and_the_thread_is_compacted(runner: Runner) -> None:
    thread = f"t-{uuid.uuid4().hex[:8]}"
    r1 = await runner.run(AGENT, user_message="What is Python?", thread_id=thread)
    r2 = await runner.run(AGENT, user_message="How does it compare to Go?", thread_id=thread)
    assert (r1.thread_id, r2.thread_id) == (thread, thread)
    assert r2.final_text == "heard: What is Python? | How does it compare to Go?"
    done = await runner.compact_thread(thread_id=thread)
    assert (done.messages, done.messages_after, done.summary) == (4, 3, "They talked of languages.")
    r3 = await runner.run(AGENT, user_message="And Rust?", thread_id=thread)
    assert "They talked of languages." in r3.final_text
    assert "What is Python?" not in r3.final_text.partition("They talked")[0]


async def test_agents_with_other_tools_share_a_thread_and_it_outlasts_the_runner(
    address: str, model: ScriptedModel
) -> None:
    thread = f"t-{uuid.uuid4().hex[:8]}"
    with _runner(address, model) as first:
        assert (await first.run(AGENT, "one", thread_id=thread)).state == "completed"
    with _runner(address, model) as second:
        assert (await second.run(NOTING, "two", thread_id=thread)).final_text == "heard: one | two"
        both = await asyncio.gather(*(second.run(AGENT, text, thread_id=thread) for text in ("three", "four")))
        longest = max(each.final_text for each in both)
        assert {"one", "two", "three", "four"} <= set(longest.removeprefix("heard: ").split(" | "))


async def test_a_thread_that_is_not_there_and_one_without_two_turns_are_refused(runner: Runner) -> None:
    with pytest.raises(ThreadNotFound):
        await runner.compact_thread(thread_id="never-used")
    thread = f"t-{uuid.uuid4().hex[:8]}"
    await runner.run(AGENT, "one", thread_id=thread)
    with pytest.raises(HoldfastError, match="not two turns"):
        await runner.compact_thread(thread_id=thread)
