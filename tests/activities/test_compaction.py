"""Summaries of long transcripts, asked for by a small workflow of our own on the real server."""

from __future__ import annotations

import asyncio
import itertools
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from temporalio import workflow
from temporalio.client import WorkflowFailureError, WorkflowHandle
from temporalio.exceptions import ActivityError, ApplicationError, CancelledError
from temporalio.worker import Worker

from holdfast import Agent, Message, ModelSettings, ToolCall, tool, wire
from holdfast.bounds import COMPACTION_MAX_CHARS, SUMMARY_MAX_BYTES
from holdfast.calls import Compact, Compacted
from holdfast.carried import Pushed, Reference
from holdfast.message import Transcript, summary_message, tool_message, user_message
from holdfast.worker.scripted import ChatRequest, Reply, Script, call, fail, hang, say
from holdfast.workflows import options
from tests.support.stage import KEY, MODEL, Stage, stage

SETTINGS = ModelSettings(max_attempts=2)
USAGE = {"prompt_tokens": 700, "completion_tokens": 30}


@tool
def look(at: str) -> str:
    """Look at something."""
    return f"seen {at}"


AGENT = Agent(
    name="looks",
    model=MODEL,
    instructions="Look around.",
    tools=[look],
    model_settings=ModelSettings(max_attempts=2, temperature=0.5, stop=("END",), tool_choice="required"),
)


@workflow.defn(name="Talk", sandboxed=False)
class Talk:
    """Holds a conversation, and has parts of it compacted."""

    def __init__(self) -> None:
        self.told: dict[str, Any] = {}
        self.answers = True

    @workflow.run
    async def run(self, told: dict[str, Any]) -> list[Any]:
        self.told = told
        first = await self.compact(told["calls"][0])
        self.answers = False
        return [first, *[await self.compact(each) for each in told["calls"][1:]]]

    async def compact(self, one: dict[str, Any]) -> Any:
        bounds = options.model_call(SETTINGS)
        return await workflow.execute_activity(wire.CONTEXT_COMPACT, one, task_queue=self.told["task_queue"], **bounds)

    @workflow.query(name=wire.TRANSCRIPT)
    def transcript(self, asked: dict[str, Any]) -> dict[str, Any]:
        if not self.answers:
            raise ApplicationError("this was told before")
        return {"messages": self.told["messages"][asked["start"] : asked["stop"]]}

    @workflow.query(name=wire.AGENT)
    def agent(self) -> dict[str, Any]:
        if not self.answers:
            raise ApplicationError("this was told before")
        return dict(self.told["agent"])


@workflow.defn(name="Mute", sandboxed=False)
class Mute:
    """Has a conversation compacted, and answers nothing."""

    @workflow.run
    async def run(self, told: dict[str, Any]) -> list[Any]:
        bounds = options.model_call(SETTINGS)
        queue = told["task_queue"]
        return [
            await workflow.execute_activity(wire.CONTEXT_COMPACT, each, task_queue=queue, **bounds)
            for each in told["calls"]
        ]


def conversation(*results: str) -> list[Message]:
    """A goal, and a turn for each result."""
    messages = [user_message("Count the boats in harbour 4711")]
    for step, result in enumerate(results):
        made = ToolCall.of(f"00{step}0aaaaa", "look", f'{{"at": "pier {step}"}}')
        said = Message(role="assistant", content=f"I look at pier {step}.", tool_calls=(made,))
        messages += [said, tool_message(made.id, result)]
    return messages


def reference(messages: list[Message]) -> Reference:
    transcript = Transcript()
    for message in messages:
        transcript.append(message)
    return Reference(length=len(transcript), digest=transcript.digest())


def compact(messages: list[Message], start: int = 1, stop: int | None = None, **fields: Any) -> Compact:
    """Ask for a summary of a part."""
    stop = len(messages) if stop is None else stop
    return Compact(model=MODEL, start=start, stop=stop, transcript=reference(messages), **fields)


def pushed(messages: list[Message]) -> tuple[Pushed, ...]:
    return tuple(Pushed(index=index, message=message.wire()) for index, message in enumerate(messages))


@asynccontextmanager
async def harbour(address: str, script: Script, **settings: Any) -> AsyncIterator[Stage]:
    """A stage, and a worker for the workflows of this file."""
    async with stage(address, script, [AGENT], **settings) as at:
        queue = f"{at.task_queue}-talk"
        async with Worker(at.client, task_queue=queue, workflows=[Talk, Mute]):
            yield at


async def start(
    at: Stage, messages: list[Message], *calls: Compact, agent: Agent = AGENT, name: str = "Talk"
) -> WorkflowHandle[Any, Any]:
    told = {
        "task_queue": at.task_queue,
        "agent": agent.resolved({"look": look.spec}).wire(),
        "messages": [message.wire() for message in messages],
        "calls": [each.wire() for each in calls],
    }
    queue = f"{at.task_queue}-talk"
    return await at.client.start_workflow(name, told, id=f"talk-{uuid.uuid4().hex[:12]}", task_queue=queue)


async def ask(at: Stage, messages: list[Message], *calls: Compact, **how: Any) -> list[Compacted]:
    """Return what was recorded of each call."""
    handle = await start(at, messages, *calls, **how)
    return [Compacted.model_validate(each) for each in await asyncio.wait_for(handle.result(), 30)]


async def refused(at: Stage, messages: list[Message], *calls: Compact, **how: Any) -> ApplicationError:
    """Return why a call failed for good."""
    with pytest.raises(WorkflowFailureError) as failed:
        await ask(at, messages, *calls, **how)
    assert isinstance(failed.value.cause, ActivityError)
    assert isinstance(failed.value.cause.cause, ApplicationError)
    return failed.value.cause.cause


async def test_the_summary_and_what_it_took_come_back(address: str) -> None:
    async with harbour(address, lambda _: say("  Pier 0 has 3 boats.\n", usage=USAGE)) as at:
        messages = conversation("3 boats", "5 boats")
        (got,) = await ask(at, messages, compact(messages, 1, 3))
        assert got.summary == "Pier 0 has 3 boats."
        assert got.model
        assert (got.usage.model_calls, got.usage.input_tokens, got.usage.output_tokens) == (1, 700, 30)
        assert got.usage.cost_usd == pytest.approx(700 * 1e-6 + 30 * 4e-6)


async def test_the_model_reads_one_text_without_tools_under_the_agents_settings(address: str) -> None:
    async with harbour(address, lambda _: say("Boats.")) as at:
        messages = conversation("3 boats", "5 boats")
        await ask(at, messages, compact(messages, 1, 3))
        (request,) = at.model.requests
        system, user = request.messages
        mark = reference(messages).digest[:12]
        assert (system["role"], user["role"]) == ("system", "user")
        assert mark in system["content"]
        assert user["content"].startswith(
            f"=== {mark} assistant ===\nI look at pier 0.\n\n"
            f'=== {mark} assistant calls look ===\n{{"at": "pier 0"}}\n\n'
            f"=== {mark} result of look ===\n3 boats\n\n"
            f"=== {mark} end ===\n"
        )
        assert request.body["temperature"] == 0.5
        assert not request.body.keys() & {"tools", "tool_choice", "stop"}


async def test_what_was_held_once_is_not_asked_for_again_nor_is_what_the_transcript_became(address: str) -> None:
    async with harbour(address, lambda _: say("Boats.")) as at:
        messages = conversation("3 boats", "5 boats")
        after = [messages[0], summary_message("Boats."), *messages[3:]]
        first, again, then = await ask(
            at,
            messages,
            compact(messages, 1, 3),
            compact(after, 1, 2),
            compact([after[0], summary_message("Boats."), *after[2:]], 0, 3),
        )
        assert first.summary == again.summary == then.summary == "Boats."
        assert "Boats." in at.model.requests[1].last_text
        assert "Count the boats" in at.model.requests[2].last_text


async def test_with_settings_and_messages_at_hand_the_workflow_need_answer_nothing(address: str) -> None:
    async with harbour(address, lambda _: say("Boats.")) as at:
        messages = conversation("3 boats")
        for settings in (ModelSettings(), ModelSettings(temperature=0.25)):
            asked = compact(messages, settings=settings, pushed=pushed(messages))
            (got,) = await ask(at, messages, asked, name="Mute")
            assert got.summary == "Boats."
        assert [each.body.get("temperature") for each in at.model.requests] == [None, 0.25]


async def test_a_transcript_that_is_not_the_one_referred_to_is_not_summarised(address: str) -> None:
    async with harbour(address, lambda _: say("never")) as at:
        messages = conversation("3 boats")
        error = await refused(at, messages, compact(conversation("4 boats")))
        assert (error.type, at.model.hits) == ("TranscriptMismatch", 0)


@pytest.mark.parametrize(("first", "last"), [(3, 3), (9, 12), (2, 1)])
async def test_a_part_without_messages_is_refused_at_once(address: str, first: int, last: int) -> None:
    async with harbour(address, lambda _: say("never")) as at:
        messages = conversation("3 boats")
        error = await refused(at, messages, compact(messages, first, last))
        assert (error.type, error.non_retryable, at.model.hits) == ("SpanEmpty", True, 0)


async def test_secrets_are_not_recorded(address: str) -> None:
    async with harbour(address, lambda _: say(f"The key is {KEY}, and half a pair \ud83d.")) as at:
        messages = conversation("3 boats")
        (got,) = await ask(at, messages, compact(messages, settings=SETTINGS))
        assert got.summary == "The key is [secret endpoint scripted/*], and half a pair ?."


async def test_a_summary_is_cut_to_half_of_what_it_stands_for_and_to_16_kb(address: str) -> None:
    async with harbour(address, lambda _: say("word " * 20_000)) as at:
        long = conversation("é" * 50_000)
        short = conversation("é" * 500)
        (of_long,) = await ask(at, long, compact(long))
        (of_short,) = await ask(at, short, compact(short))
        assert SUMMARY_MAX_BYTES - 40 < len(of_long.summary.encode()) <= SUMMARY_MAX_BYTES
        assert len(of_short.summary.encode()) == pytest.approx(520, abs=30)
        assert of_long.summary.endswith("… [cut: 99,999 bytes in all]")


async def test_of_a_part_too_long_for_one_text_the_longest_messages_are_cut(address: str) -> None:
    async with harbour(address, lambda _: say("Boats.")) as at:
        messages = conversation(*["short and sweet", *["x" * 11_000] * 50, "y" * 1_000])
        await ask(at, messages, compact(messages, settings=SETTINGS))
        (request,) = at.model.requests
        assert COMPACTION_MAX_CHARS * 0.99 < len(request.last_text) <= COMPACTION_MAX_CHARS
        assert "short and sweet" in request.last_text
        assert "y" * 1_000 in request.last_text
        assert request.last_text.count("of 11,000 characters]") == 50


async def test_a_text_beyond_the_models_window_is_halved_until_it_fits(address: str) -> None:
    def narrow(request: ChatRequest) -> Reply:
        if len(request.last_text) > 30_000:
            return fail(400, message="maximum context length", code="context_length_exceeded")
        return say("Boats.", usage=USAGE)

    async with harbour(address, narrow) as at:
        messages = conversation(*["x" * 10_000] * 10)
        (got,) = await ask(at, messages, compact(messages))
        assert (got.summary, got.usage.model_calls, got.usage.input_tokens) == ("Boats.", 1, 700)
        sizes = [len(each.last_text) for each in at.model.requests]
        assert len(sizes) == 3
        assert all(later <= earlier // 2 for earlier, later in itertools.pairwise(sizes))
        assert "pier 9" in at.model.requests[-1].last_text


async def test_a_window_that_nothing_fits_into_ends_it_after_a_few_requests(address: str) -> None:
    refusal = fail(400, code="context_length_exceeded")
    async with harbour(address, lambda _: refusal) as at:
        messages = conversation(*["x" * 10_000] * 60)
        error = await refused(at, messages, compact(messages))
        assert (error.type, error.non_retryable) == ("ContextWindowExceeded", True)
        assert at.model.hits == 7


async def test_an_empty_summary_and_a_slow_one_are_asked_for_again(address: str) -> None:
    async with harbour(address, lambda request: say("") if request.number == 1 else say("Boats.")) as at:
        messages = conversation("3 boats")
        (got,) = await ask(at, messages, compact(messages))
        assert (got.summary, at.model.hits) == ("Boats.", 2)
    async with harbour(address, lambda request: hang() if request.number == 1 else say("Boats.")) as at:
        (got,) = await ask(at, messages, compact(messages, settings=ModelSettings(timeout_seconds=1)))
        assert (got.summary, at.model.hits, at.model.aborted) == ("Boats.", 2, 1)


async def test_tool_calls_instead_of_a_summary_are_no_summary(address: str) -> None:
    async with harbour(address, lambda _: call(("look", {"at": "pier 9"}))) as at:
        messages = conversation("3 boats")
        error = await refused(at, messages, compact(messages))
        assert (error.type, at.model.hits) == ("ModelAnswerEmpty", 2)


async def test_a_cancel_ends_the_request_and_leaves_nothing(address: str) -> None:
    async with harbour(address, lambda _: say("a word " * 3000, pace=0.05)) as at:
        messages = conversation("3 boats")
        handle = await start(at, messages, compact(messages))
        while not at.model.hits:
            await asyncio.sleep(0.02)
        await asyncio.sleep(0.5)
        asked = time.monotonic()
        await handle.cancel()
        with pytest.raises(WorkflowFailureError) as failed:
            await asyncio.wait_for(handle.result(), 10)
        assert isinstance(failed.value.cause, CancelledError)
        assert (at.model.hits, at.model.aborted) == (1, 1)
        assert at.model.aborted_at[0] - asked < 1.0
