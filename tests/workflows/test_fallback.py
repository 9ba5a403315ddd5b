"""Models that fail, on the real server: what is asked instead, what is skipped, and what the run and its events say."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress
from typing import Any

import pytest
from temporalio.client import WorkflowFailureError

from holdfast import Agent, Limits, tool
from holdfast.agent import ModelSettings
from holdfast.client.runs import AsyncClient
from holdfast.event import Event
from holdfast.failure import Failure, OnFailure
from holdfast.worker.scripted import ChatRequest, Reply, Script, call, fail, hang, say
from tests.support.stage import Stage, result, stage, timeline

ONCE = ModelSettings(max_attempts=1)
BUSY = fail(503, headers={"Retry-After": "0.05"})


@tool(effect="pure")
def look(at: str) -> str:
    """Look at something."""
    return f"seen {at}"


def agent(*models: str, failure: OnFailure = "fail", **fields: Any) -> Agent:
    """An agent that asks these models, each once."""
    first, *others = [f"scripted/{each}" for each in models]
    told = {"name": "asks", "model": first, "fallback_models": others, "model_settings": ONCE, "tools": [look]}
    return Agent.model_validate(told | {"failure": Failure(model=failure)} | fields)


def by_model(**replies: Reply | Script) -> Script:
    """Answer as the model that is asked does."""

    def script(request: ChatRequest) -> Any:
        reply = replies[request.model]
        return reply if isinstance(reply, Reply) else reply(request)

    return script


def asked(at: Stage) -> list[str]:
    """The models that were asked, in order."""
    return [request.model for request in at.model.requests]


async def told(at: Stage, run_id: str, *kinds: str) -> list[Event]:
    """The events of these types."""
    return [event for event in (await timeline(at.client, run_id))[1] if event.type in kinds]


async def test_a_model_that_fails_is_left_for_the_next_and_the_result_says_which_answered(address: str) -> None:
    script = by_model(first=fail(503, message="closed for lunch"), second=fail(404), third=say("from the third"))
    async with stage(address, script, tools=[look]) as at:
        ended = await at.run(agent("first", "second", "third"), message="Go")
        assert (ended.status, ended.final_text) == ("completed", "from the third")
        assert (ended.model, ended.steps, ended.state_snapshot["model_calls"]) == ("scripted/third", 1, 3)
        assert asked(at) == ["first", "second", "third"]
        events = await told(at, ended.run_id, "step_started", "model_called", "model_call_exception", "model_completed")
        assert [event.type for event in events] == [
            "step_started",
            *["model_called", "model_call_exception"] * 2,
            "model_called",
            "model_completed",
        ]
        down, unknown = (event for event in events if event.type == "model_call_exception")
        assert down.data["model"] == "scripted/first"
        assert (down.data["error_type"], down.data["falls_back_to"]) == ("ModelUnavailable", "scripted/second")
        assert "closed for lunch" in down.data["error"]
        assert (down.data["step"], down.data["attempt"]) == (1, 1)
        assert (unknown.data["error_type"], unknown.data["falls_back_to"]) == ("ModelNotFound", "scripted/third")


async def test_the_next_step_does_not_ask_what_has_just_failed(address: str) -> None:
    def second(request: ChatRequest) -> Reply:
        return say("done") if request.turn else call(("look", {"at": "it"}))

    async with stage(address, by_model(first=fail(503), second=second), tools=[look]) as at:
        ended = await at.run(agent("first", "second"), message="Go")
        assert (ended.status, ended.steps) == ("completed", 2)
        assert asked(at) == ["first", "second", "second"]


async def test_a_model_with_a_fallback_is_asked_three_times_at_most_and_the_last_as_often_as_set(address: str) -> None:
    script = by_model(first=BUSY, last=BUSY)
    async with stage(address, script, tools=[look]) as at:
        ended = await at.run(agent("first", "last", model_settings=ModelSettings(max_attempts=5)), message="Go")
        assert ended.status == "failed"
        assert Counter(asked(at)) == {"first": 3, "last": 5}
        (first, last) = await told(at, ended.run_id, "model_call_exception")
        assert (first.data["attempt"], last.data["attempt"]) == (3, 5)
        assert "503" in last.data["last_failure"] or last.data["last_failure"]


async def test_a_provider_that_asks_for_patience_is_left_for_the_next_at_once(address: str) -> None:
    script = by_model(first=fail(429, headers={"Retry-After": "1800"}), second=say("here"))
    async with stage(address, script, tools=[look]) as at:
        ended = await at.run(agent("first", "second", model_settings=ModelSettings()), message="Go")
        assert (ended.status, ended.model, asked(at)) == ("completed", "scripted/second", ["first", "second"])


@pytest.mark.parametrize("most", [1, 2])
async def test_a_limit_of_calls_holds_for_fallbacks_too(address: str, most: int) -> None:
    script = by_model(first=fail(503), second=call(("look", {"at": "it"}), text="not yet"), third=say("never"))
    async with stage(address, script, tools=[look]) as at:
        ended = await at.run(agent("first", "second", "third", limits=Limits(max_model_calls=most)), message="Go")
        assert at.model.hits == most
        assert ended.status == ("failed" if most == 1 else "degraded")
        if most == 2:
            assert not at.model.requests[1].tools
            assert (ended.final_text, ended.model) == ("not yet", "scripted/second")


async def test_a_prompt_too_long_for_one_model_may_fit_the_next(address: str) -> None:
    long = fail(400, message="This model's maximum context length is 10 tokens.", code="context_length_exceeded")
    async with stage(address, by_model(small=long, large=say("it fits")), tools=[look]) as at:
        ended = await at.run(agent("small", "large"), message="Go")
        assert (ended.status, ended.model) == ("completed", "scripted/large")


async def test_a_run_that_may_degrade_ends_with_what_the_model_said_last(address: str) -> None:
    def first(request: ChatRequest) -> Reply:
        return fail(401) if request.turn else call(("look", {"at": "it"}), text="I am looking.")

    async with stage(address, by_model(first=first), tools=[look]) as at:
        ended = await at.run(agent("first", failure="degrade"), message="Go")
        assert (ended.status, ended.final_text, ended.error) == ("degraded", "I am looking.", None)
        assert ended.model == "scripted/first"


async def test_a_breaker_that_one_run_has_opened_leads_another_to_the_next_model_without_a_request(
    address: str,
) -> None:
    script = by_model(first=fail(503), second=say("from the second"))
    async with stage(address, script, tools=[look], breaker_failures=1, breaker_seconds=60) as at:
        assert (await at.run(agent("first"), message="Go")).status == "failed"
        assert asked(at) == ["first"]
        ended = await at.run(agent("first", "second"), message="Go")
        assert (ended.status, ended.model, asked(at)) == ("completed", "scripted/second", ["first", "second"])
        assert ended.state_snapshot["model_calls"] == 1, "a call that was not made counts nothing"
        (refused,) = await told(at, ended.run_id, "model_call_exception")
        assert (refused.data["error_type"], refused.data["falls_back_to"]) == ("ModelOut", "scripted/second")


async def test_a_run_rests_while_its_model_is_out_and_answers_once_it_is_back(address: str) -> None:
    replies = [BUSY, BUSY, say("back again")]

    def first(_: ChatRequest) -> Reply:
        return replies.pop(0) if len(replies) > 1 else replies[0]

    async with stage(address, by_model(first=first), tools=[look], breaker_failures=1, breaker_seconds=0.8) as at:
        parked = agent("first", model_settings=ModelSettings(max_attempts=2), limits=Limits(max_active_seconds=60))
        handle = await at.start(parked, message="Go")
        waits = await _waiting(handle)
        assert (waits["kind"], waits["id"], waits["tool_name"]) == ("model", "scripted/first", None)
        assert waits["until"] > 0
        ended = await result(handle)
        assert (ended.status, ended.final_text, ended.steps) == ("completed", "back again", 1)
        assert at.model.hits == 3, "the failure that opened it, a probe in vain, and one that was answered"
        rests = await told(at, ended.run_id, "model_call_exception")
        assert [event.data["error_type"] for event in rests] == ["ModelOut", "ModelOut"]
        assert all(event.data["until"] > event.created_at.timestamp() for event in rests)
        assert rests[0].message.startswith("scripted/first: ModelOut: scripted/first is held to be out")


async def test_a_run_that_rests_too_long_fails_with_the_cause(address: str) -> None:
    settings = ModelSettings(max_attempts=2, max_outage_seconds=0.4)
    async with stage(address, by_model(first=BUSY), tools=[look], breaker_failures=1, breaker_seconds=0.3) as at:
        ended = await at.run(agent("first", model_settings=settings), message="Go")
        assert (ended.status, ended.error and ended.error.type) == ("failed", "ModelOut")
        assert "the last one: ModelUnavailable" in ended.final_text
        at.model.script = lambda _: say("back at last")
        runs = AsyncClient(temporal=at.client, task_queue=at.task_queue).runs
        await asyncio.sleep(1.5)
        await runs.resume_run(ended.run_id)
        again = await runs.wait(ended.run_id, timeout=20)
        assert (again.status, again.final_text) == ("completed", "back at last")


async def test_a_deadline_ends_a_rest(address: str) -> None:
    limits = Limits(deadline_seconds=1.5, max_active_seconds=60)
    async with stage(address, by_model(first=BUSY), tools=[look], breaker_failures=1, breaker_seconds=300) as at:
        ended = await at.run(agent("first", model_settings=ModelSettings(), limits=limits), message="Go")
        assert (ended.status, ended.state_snapshot["interrupted_by"]) == ("interrupted", "deadline_seconds")


@pytest.mark.parametrize("how", ["interrupt", "cancel", "pause"])
async def test_a_run_that_rests_is_steered(address: str, how: str) -> None:
    async with stage(address, by_model(first=fail(503)), tools=[look], breaker_failures=1, breaker_seconds=300) as at:
        handle = await at.start(agent("first", model_settings=ModelSettings(max_attempts=2)), message="Go")
        await _waiting(handle)
        if how == "pause":
            await handle.signal("pause", {"reason": "lunch"})
            async with asyncio.timeout(20):
                while (await handle.query("status"))["status"] != "paused":
                    await asyncio.sleep(0.05)
        await (handle.cancel() if how == "cancel" else handle.signal("interrupt", {"reason": "enough"}))
        with suppress(*([WorkflowFailureError] if how == "cancel" else [])):
            assert (await result(handle)).status == "interrupted"
        assert at.model.hits == 1
        folded, _ = await timeline(at.client, handle.id)
        assert folded.result is not None
        assert folded.result.status == ("cancelled" if how == "cancel" else "interrupted")


async def _waiting(handle: Any) -> dict[str, Any]:
    async with asyncio.timeout(20):
        while True:
            status = await handle.query("status")
            if status["status"] == "waiting":
                (waits,) = status["waiting_for"]
                return dict(waits)
            await asyncio.sleep(0.05)


async def test_a_call_that_is_tried_again_shows_its_attempt_and_the_failure_before_it(address: str) -> None:
    replies = iter([fail(503, message="a bad day", headers={"Retry-After": "0.05"}), hang()])
    async with stage(address, lambda _: next(replies), tools=[look]) as at:
        handle = await at.start(agent("first", model_settings=ModelSettings()), message="Go")
        runs = AsyncClient(temporal=at.client, task_queue=at.task_queue).runs
        async with asyncio.timeout(20):
            while not (shown := (await runs.get(handle.id)).retries):
                await asyncio.sleep(0.05)
        (retry,) = shown
        assert (retry.name, retry.attempt) == ("model.call", 2)
        assert "a bad day" in retry.last_failure
        await handle.terminate()
        assert (await runs.get(handle.id)).retries == []
