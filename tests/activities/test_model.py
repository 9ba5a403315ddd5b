"""What a model answers, through real runs: what is recorded, what is bounded, and what the next call sends."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from temporalio.client import WorkflowExecutionStatus, WorkflowFailureError, WorkflowHandle
from temporalio.exceptions import CancelledError

from holdfast import Agent, tool
from holdfast.bounds import TURN_MAX_BYTES, json_size
from holdfast.envelope import ENVELOPE_NOTE
from holdfast.worker.scripted import ChatRequest, Reply, call, hang, say
from tests.support.stage import MODEL, Stage, stage, timeline

streaming = pytest.mark.parametrize("stream", [True, False], ids=["streaming", "whole"])


@tool
def note(text: str) -> str:
    """Note a text."""
    return f"noted {text[:20]}"


def agent(stream: bool, **fields: Any) -> Agent:
    """An agent with one tool."""
    settings = {"stream": stream, "max_attempts": 2, **fields.pop("model_settings", {})}
    return Agent.model_validate(
        {"name": "asks", "model": MODEL, "instructions": "Be brief.", "tools": [note], "model_settings": settings}
        | fields
    )


def told(at: Stage, number: int = -1) -> list[str]:
    """Return what a request said of the tools' results, in order."""
    return list(at.model.requests[number].tool_results.values())


@streaming
async def test_each_request_is_the_transcript_so_far_with_the_system_message_first(address: str, stream: bool) -> None:
    def script(request: ChatRequest) -> Reply:
        return call(("note", {"text": f"t{request.turn}"}), text="a word") if request.turn < 3 else say("done")

    asks = agent(stream)
    async with stage(address, script, [asks]) as at:
        result = await at.run("asks", message="Go")
        folded, _ = await timeline(at.client, result.run_id)
        transcript = [each.wire() for each in folded.messages]
        assert result.final_text == "done"
        assert at.model.hits == result.steps == 4
        for request in at.model.requests:
            assert request.messages[0] == {"role": "system", "content": f"Be brief.\n\n{ENVELOPE_NOTE}"}
            assert request.messages[1:] == transcript[: 2 * request.turn + 1]


@streaming
async def test_tools_are_offered_as_declared_with_one_hit_a_call(address: str, stream: bool) -> None:
    """Without `_skip_mcp_handler` and the mcp package, litellm fails every call that has tools."""
    asks = agent(stream)
    async with stage(address, lambda _: say("done"), [asks]) as at:
        assert (await at.run("asks", message="Go")).status == "completed"
        (request,) = at.model.requests
        declared = {"name": "note", "description": "Note a text.", "parameters": note.spec.parameters}
        assert request.tools == [{"type": "function", "function": declared}]
        assert request.stream is stream


@streaming
async def test_call_ids_are_unique_in_the_run_whatever_the_provider_sent(address: str, stream: bool) -> None:
    def script(request: ChatRequest) -> Reply:
        if request.turn == 2:
            return say("done")
        return call(("note", {"text": "same"}), ("note", {"text": "same"}), ids=["call_0", "call_0"])

    asks = agent(stream)
    async with stage(address, script, [asks]) as at:
        result = await at.run("asks", message="Go")
        ids = [each.tool_call_id for each in result.tool_executions]
        assert len(set(ids)) == 4
        assert "call_0" not in ids
        assert told(at) == ["noted same"] * 4


@streaming
async def test_of_a_thousand_calls_32_are_made_and_the_model_is_told_of_the_rest(address: str, stream: bool) -> None:
    def script(request: ChatRequest) -> Reply:
        if request.turn:
            return say("done")
        return call(*(("note", {"text": f"number {index}"}) for index in range(1000)))

    asks = agent(stream, model_settings={"max_attempts": 5})
    async with stage(address, script, [asks]) as at:
        result = await at.run("asks", message="Go")
        assert (result.status, result.steps) == ("completed", 2)
        assert told(at) == [f"noted number {index}" for index in range(32)]
        assert "968 further tool calls" in at.model.requests[-1].last_text


@streaming
async def test_arguments_of_5_mb_are_not_recorded_and_the_model_is_told(address: str, stream: bool) -> None:
    def script(request: ChatRequest) -> Reply:
        if request.turn:
            return say("done")
        return call(("note", {"text": "x" * 5_000_000}), ("note", {"text": "small"}))

    asks = agent(stream)
    async with stage(address, script, [asks]) as at:
        result = await at.run("asks", message="Go")
        assert (result.status, result.final_text, at.model.hits) == ("completed", "done", 2)
        refused, made = told(at)
        assert "ToolArgumentsInvalid" in refused
        assert made == "noted small"
        sent = at.model.requests[-1].messages
        assert any("5,000,0" in str(each) for each in sent)  # the model hears how large they were
        assert json_size(sent) < TURN_MAX_BYTES


@streaming
async def test_an_answer_of_5_mb_is_cut_and_the_conversation_goes_on(address: str, stream: bool) -> None:
    def script(request: ChatRequest) -> Reply:
        if request.turn:
            return say("word " * 1_000_000)
        return call(("note", {"text": "small"}), text="word " * 1_000_000)

    asks = agent(stream)
    async with stage(address, script, [asks]) as at:
        result = await at.run("asks", message="Go")
        assert (result.status, at.model.hits) == ("completed", 2)
        assert result.final_text.startswith("word word")
        assert result.final_text.endswith("… [cut: 5,000,000 bytes in all]")
        assert 100_000 < len(result.final_text) < TURN_MAX_BYTES
        assert told(at) == ["noted small"]


async def test_an_answer_that_repeats_itself_is_an_answer(address: str) -> None:
    async with stage(address, lambda _: say("0, 0, " * 450, pace=0.0005)) as at:
        result = await at.run(agent(True, tools=[]), message="Go")
        assert (result.status, result.final_text, at.model.hits) == ("completed", "0, 0, " * 450, 1)


async def test_a_stream_that_does_not_end_is_stopped(address: str) -> None:
    endless = say(("x" * 50_000 + " ") * 400, pace=0.001)
    async with stage(address, lambda _: endless) as at:
        result = await at.run(agent(True, tools=[]), message="Go")
        assert result.status == "failed"
        assert result.error is not None
        assert result.error.type == "ModelAnswerTooLong"
        assert at.model.hits == 1
        await _until(lambda: at.model.aborted == 1)


@streaming
async def test_half_a_surrogate_pair_in_an_answer_is_recorded_as_text(address: str, stream: bool) -> None:
    def script(request: ChatRequest) -> Reply:
        if request.turn:
            return say("the \ud800 end " * 10, pace=0.1, reasoning="hm \udfff")
        return call(("note", '{"text": "a \ud83d b"}'), ("note", {"text": "fine"}), ("no\ud800te", {}), text="\udcff")

    asks = agent(stream)
    async with stage(address, script, [asks]) as at:
        result = await at.run("asks", message="Go")
        assert (result.status, result.error, at.model.hits) == ("completed", None, 2)
        assert result.final_text == "the ? end " * 10
        assert [each.success for each in result.tool_executions] == [True, True, False]


@streaming
async def test_usage_and_cost_are_recorded_exactly(address: str, stream: bool) -> None:
    def script(request: ChatRequest) -> Reply:
        usage = {
            "prompt_tokens": 1000 * (request.turn + 1),
            "completion_tokens": 50,
            "prompt_tokens_details": {"cached_tokens": 400},
            "completion_tokens_details": {"reasoning_tokens": 20},
        }
        return say("done", usage=usage) if request.turn else call(("note", {"text": "x"}), usage=usage)

    asks = agent(stream)
    async with stage(address, script, [asks]) as at:
        result = await at.run("asks", message="Go")
        used = result.usage_aggregate
        assert used.model_dump(exclude={"cost_usd"}) == {
            "model_calls": 2,
            "input_tokens": 3000,
            "output_tokens": 100,
            "cached_input_tokens": 800,
            "reasoning_tokens": 40,
            "unpriced_calls": 0,
            "cached_calls": 0,
            "estimated_calls": 0,
        }
        assert result.cost_usd == used.cost_usd == pytest.approx(3000 * 1e-6 + 100 * 4e-6, rel=1e-12)


@streaming
async def test_reasoning_is_an_event_and_is_not_sent_back_to_openai(address: str, stream: bool) -> None:
    def script(request: ChatRequest) -> Reply:
        return say("done") if request.turn else call(("note", {"text": "x"}), reasoning="I had better note it.")

    asks = agent(stream)
    async with stage(address, script, [asks]) as at:
        result = await at.run("asks", message="Go")
        assert result.status == "completed"
        _, events = await timeline(at.client, result.run_id)
        (reasoned,) = [event for event in events if event.type == "reasoning"]
        assert "I had better note it." in str(reasoned.wire())
        assert "better note it" not in str(at.model.requests[-1].body)


@streaming
@pytest.mark.parametrize("reply", [hang(), say("a word " * 3000, pace=0.05)], ids=["silent", "in mid-answer"])
async def test_cancelling_a_run_ends_its_request_within_a_second_and_closes_the_run_after(
    address: str, stream: bool, reply: Reply
) -> None:
    answers = reply if stream or reply.kind == "hang" else say("late", delay=30)
    async with stage(address, lambda _: answers) as at:
        handle = await at.start(agent(stream, tools=[]), message="Go")
        await _until(lambda: at.model.hits == 1)
        await asyncio.sleep(0.5)
        asked = time.monotonic()
        await handle.cancel()
        assert await _cancelled(handle)
        assert (at.model.hits, at.model.aborted) == (1, 1)
        assert at.model.aborted_at[0] - asked < 1.0
        closed = (await handle.describe()).close_time
        assert closed is not None
        aborted_at = time.time() - (time.monotonic() - at.model.aborted_at[0])
        assert closed.timestamp() > aborted_at - 0.05


async def _cancelled(handle: WorkflowHandle[Any, Any]) -> bool:
    with pytest.raises(WorkflowFailureError) as failed:
        await asyncio.wait_for(handle.result(), 10)
    status = (await handle.describe()).status
    return isinstance(failed.value.cause, CancelledError) and status == WorkflowExecutionStatus.CANCELED


async def _until(true: Any, seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)
