"""What a provider can do wrong, at a real loopback server: each failure has its type, its retries and its end."""

from __future__ import annotations

import asyncio
import email.utils
import os
import time
from collections import Counter
from typing import Any

import pytest

from holdfast import Agent, Limits, RunResult
from holdfast.worker.scripted import ChatRequest, Reply, Script, empty, fail, garbage, hang, reset, say, truncate
from tests.support.stage import KEY, MODEL, Stage, stage, timeline

streaming = pytest.mark.parametrize("stream", [True, False], ids=["streaming", "whole"])

TRANSIENT: dict[str, tuple[Reply, str]] = {
    "408": (fail(408), "ModelTimeout"),
    "429": (fail(429), "ModelRateLimited"),
    "500": (fail(500, message="a bad day"), "ModelUnavailable"),
    "502": (fail(502, body="<html>Bad Gateway</html>"), "ModelUnavailable"),
    "503": (fail(503), "ModelUnavailable"),
    "529": (fail(529), "ModelUnavailable"),
    "reset": (reset(), "ModelUnavailable"),
    "hang": (hang(), "ModelTimeout"),
    "empty text": (say(""), "ModelAnswerEmpty"),
    "blank text": (say(" \n"), "ModelAnswerEmpty"),
    "broken off": (truncate("half of an answer and the other"), ""),
    "broken off cleanly": (truncate("half of an answer and the other", clean=True), ""),
    "no choices": (empty(), ""),
    "no JSON": (garbage(), ""),
}
"""Reply and error type; the type of an unreadable answer depends on how it is read, and is any of `_UNREADABLE`."""

_UNREADABLE = {"ModelUnavailable", "ModelAnswerEmpty", "ModelAnswerTruncated"}

PERMANENT: dict[str, tuple[Reply, str]] = {
    "400": (fail(400, message="no such parameter"), "ModelRequestInvalid"),
    "401": (fail(401), "ModelUnauthorized"),
    "402": (fail(402, message="pay first"), "ModelPaymentRequired"),
    "403": (fail(403), "ModelUnauthorized"),
    "404": (fail(404, message="no such model"), "ModelNotFound"),
    "413": (fail(413), "ModelRequestInvalid"),
    "422": (fail(422), "ModelRequestInvalid"),
    "context": (
        fail(400, message="This model's maximum context length is 8192 tokens.", code="context_length_exceeded"),
        "ContextWindowExceeded",
    ),
    "context by its code alone": (
        fail(400, message="Your input exceeds what this model takes.", code="context_length_exceeded"),
        "ContextWindowExceeded",
    ),
    "context by its words alone": (
        fail(413, message="Your input exceeds the context window of this model."),
        "ContextWindowExceeded",
    ),
    "policy": (
        fail(400, message="Your request was rejected by our safety system.", code="content_policy_violation"),
        "ModelContentRefused",
    ),
}


def asker(stream: bool, **settings: Any) -> Agent:
    """An agent that only asks."""
    return Agent.model_validate({"name": "asks", "model": MODEL, "model_settings": {"stream": stream, **settings}})


async def ask_all(at: Stage, kinds: dict[str, Any], stream: bool, attempts: int) -> dict[str, RunResult]:
    """Run one run of every kind at once; its message is the name of the kind."""

    async def ask(kind: str) -> RunResult:
        seconds = 1 if kind == "hang" else 30
        return await at.run(asker(stream, max_attempts=attempts, timeout_seconds=seconds), message=kind)

    await ask("warm")
    return dict(zip(kinds, await asyncio.gather(*map(ask, kinds)), strict=True))


def answer_to(kinds: dict[str, tuple[Reply, str]], request: ChatRequest) -> Reply:
    """Answer as the message asks for."""
    return kinds.get(request.last_text, (say("ready"), ""))[0]


def by_kind(kinds: dict[str, tuple[Reply, str]]) -> Script:
    """Answer every request as its message asks for."""
    return lambda request: answer_to(kinds, request)


def hits(at: Stage) -> dict[str, int]:
    """Count what arrived, by message."""
    return dict(Counter(request.last_text for request in at.model.requests if request.last_text != "warm"))


@streaming
async def test_a_transient_failure_is_retried_within_bounds_and_then_fails_the_run_with_its_cause(
    address: str, stream: bool
) -> None:
    async with stage(address, by_kind(TRANSIENT)) as at:
        results = await ask_all(at, TRANSIENT, stream, attempts=2)
        assert hits(at) == dict.fromkeys(TRANSIENT, 2)
    for kind, result in results.items():
        assert result.status == "failed", kind
        assert result.error is not None, kind
        assert result.error.type == TRANSIENT[kind][1] or result.error.type in _UNREADABLE, (kind, result.error)
        assert result.error.message.startswith(MODEL), (kind, result.error)
        assert len(result.error.message) < 500, (kind, result.error)
        assert result.final_text == result.error.message
    assert "a bad day" in results["500"].final_text


@streaming
async def test_a_run_recovers_when_only_the_first_attempt_failed(address: str, stream: bool) -> None:
    seen: Counter[str] = Counter()

    def once(request: ChatRequest) -> Reply:
        seen[request.last_text] += 1
        return answer_to(TRANSIENT, request) if seen[request.last_text] == 1 else say(f"after {request.last_text}")

    async with stage(address, once) as at:
        results = await ask_all(at, TRANSIENT, stream, attempts=3)
        assert hits(at) == dict.fromkeys(TRANSIENT, 2)
    for kind, result in results.items():
        assert (result.status, result.final_text) == ("completed", f"after {kind}")
        assert (result.steps, result.usage_aggregate.model_calls) == (1, 1), kind


@streaming
async def test_what_would_fail_the_same_way_again_fails_at_once(address: str, stream: bool) -> None:
    async with stage(address, by_kind(PERMANENT)) as at:
        results = await ask_all(at, PERMANENT, stream, attempts=4)
        assert hits(at) == dict.fromkeys(PERMANENT, 1)
    told = {kind: (result.status, result.error and result.error.type) for kind, result in results.items()}
    assert told == {kind: ("failed", error) for kind, (_, error) in PERMANENT.items()}
    assert "no such parameter" in results["400"].final_text


@streaming
async def test_a_rate_limit_waits_as_long_as_the_provider_asked_with_one_hit_an_attempt(
    address: str, stream: bool
) -> None:
    seen: Counter[str] = Counter()

    def limited(request: ChatRequest) -> Reply:
        seen[request.last_text] += 1
        if seen[request.last_text] > 1 or request.last_text == "warm":
            return say("at last")
        date = email.utils.formatdate(time.time() + 4, usegmt=True)
        return fail(429, headers={"Retry-After": {"seconds": "2.5", "date": date}[request.last_text]})

    async with stage(address, limited) as at:
        results = await ask_all(at, {"seconds": 0, "date": 0}, stream, attempts=3)
        assert [each.final_text for each in results.values()] == ["at last", "at last"]
        arrived = {kind: [each.at for each in at.model.requests if each.last_text == kind] for kind in results}
    assert {kind: len(each) for kind, each in arrived.items()} == {"seconds": 2, "date": 2}
    waited = {kind: second - first for kind, (first, second) in arrived.items()}
    assert 2.4 < waited["seconds"] < 4
    assert 2.9 < waited["date"] < 5  # dates have whole seconds


@pytest.mark.parametrize(
    "body",
    ["null", [], {"choices": None}, {"choices": [{"message": None}]}, {"choices": [{"message": {"content": 5}}]}],
    ids=str,
)
async def test_an_answer_of_the_wrong_shape_is_retried_and_told_in_a_line(address: str, body: Any) -> None:
    async with stage(address, lambda _: fail(200, body=body)) as at:
        result = await at.run(asker(False, max_attempts=2), message="Go")
        assert (result.status, at.model.hits) == ("failed", 2)
        assert result.error is not None
        assert result.error.type in _UNREADABLE
        assert "Traceback" not in result.error.message
        assert len(result.error.message) < 300


async def test_tokens_below_none_count_as_none(address: str) -> None:
    usage = {"prompt_tokens": -500, "completion_tokens": -7}
    async with stage(address, lambda _: say("done", usage=usage)) as at:
        result = await at.run(asker(False), message="Go")
        assert (result.status, result.cost_usd, result.usage_aggregate.total_tokens) == ("completed", 0, 0)


async def test_missing_credentials_fail_at_once_and_name_the_variable(address: str) -> None:
    async with stage(address, lambda _: say("never")) as at:
        os.environ.pop("OPENAI_API_KEY", None)
        os.environ["OPENAI_BASE_URL"] = os.environ["OPENAI_API_BASE"] = at.model.url
        result = await at.run(Agent(name="asks", model="openai/gpt-5-mini"), message="Go")
        assert result.error is not None
        assert result.error.type == "ModelCredentialsMissing"
        assert "OPENAI_API_KEY" in result.error.message
        assert at.model.hits == 0


@pytest.mark.parametrize("model", ["nosuchprovider/thing", "a-model-without-a-provider", "/"])
async def test_a_model_that_no_provider_has_fails_at_once(address: str, model: str) -> None:
    async with stage(address, lambda _: say("never")) as at:
        os.environ["OPENAI_API_KEY"] = "sk-other-0123456789"
        os.environ["OPENAI_BASE_URL"] = os.environ["OPENAI_API_BASE"] = at.model.url
        began = time.monotonic()
        result = await at.run(Agent(name="asks", model=model), message="Go")
        assert result.error is not None
        assert model in result.error.message
        assert (at.model.hits, result.error.type) == (0, "ModelRequestInvalid")
        assert time.monotonic() - began < 10


@streaming
async def test_a_key_that_the_provider_echoes_is_not_recorded(address: str, stream: bool) -> None:
    def echo(request: ChatRequest) -> Reply:
        return fail(401, message=f"Incorrect API key provided: {request.headers['authorization']}")

    async with stage(address, echo) as at:
        result = await at.run(asker(stream), run_id=f"echo-{time.time_ns()}", message="Go")
        assert KEY in at.model.requests[0].headers["authorization"]
        assert result.error is not None
        assert "Incorrect API key provided" in result.error.message
        events = at.client.get_workflow_handle(result.run_id).fetch_history_events()
        history = b"".join([event.SerializeToString() async for event in events])
        assert b"Incorrect API key provided" in history
        assert KEY.encode() not in history


async def test_answers_that_were_of_no_use_are_paid_for_and_counted_once_each(address: str) -> None:
    """Two empty answers of 1,000 tokens, then a good one: the run's cost is that of all three."""
    tokens = {"prompt_tokens": 1_000, "completion_tokens": 0, "total_tokens": 1_000}

    def reply(request: ChatRequest) -> Reply:
        return say("" if request.number < 3 else "Here it is.", usage=tokens)

    async with stage(address, reply, [Agent(name="patient", model=MODEL)]) as at:
        ended = await at.run("patient", message="Go")
        assert (ended.status, len(at.model.requests)) == ("completed", 3)
        assert ended.cost_usd == pytest.approx(0.003)
        assert ended.usage_aggregate.input_tokens == 3_000
        _, events = await timeline(at.client, ended.run_id)
        [answered] = [event for event in events if event.type == "model_completed"]
        assert (answered.data["usage"]["input_tokens"], answered.data["lost"]["input_tokens"]) == (1_000, 2_000)


async def test_a_model_that_only_costs_stops_at_the_budget_before_its_fallback_is_asked(address: str) -> None:
    dear = {"prompt_tokens": 100_000, "completion_tokens": 0, "total_tokens": 100_000}  # 10 cents
    agent = Agent(name="poor", model="scripted/mute", fallback_models=[MODEL], limits=Limits(max_cost_usd=0.25))
    async with stage(address, lambda _: say("", usage=dear), [agent]) as at:
        ended = await at.run("poor", message="Go")
        assert ended.status == "degraded"
        assert ended.state_snapshot["limit_reached"] == "max_cost_usd"
        assert {request.model for request in at.model.requests} == {"mute"}
        assert ended.cost_usd == pytest.approx(0.1 * len(at.model.requests))
