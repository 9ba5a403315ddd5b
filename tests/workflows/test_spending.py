"""What a run may cost, on the real server: reserved before each call, and counted also where nobody tells."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest

from holdfast import Agent, Compaction, Limits, tool
from holdfast.activities.answer import Answer, ModelRequest, WantedCall
from holdfast.activities.prices import Price, estimated, input_tokens, reserve
from holdfast.agent import ModelSettings
from holdfast.worker.scripted import ChatRequest, Reply, call, fail, say
from tests.support.stage import KEY, MODEL, Stage, result, stage, timeline

UNPRICED, PRICED = "openai/nobody-knows-its-price", "openai/gpt-4o-mini"
INPUT, OUTPUT = 1e-6, 4e-6
"""What the stage's model costs a token."""


@tool(effect="pure")
def read(chars: int) -> str:
    """Read a text."""
    return "t " * (chars // 2)


def agent(model: str = MODEL, *, most: float | None = 1.0, **fields: Any) -> Agent:
    """An agent with so many dollars."""
    limits = Limits(max_cost_usd=most, **fields.pop("limits", {}))
    told = {"name": "spends", "model": model, "limits": limits, "tools": [read]}
    return Agent.model_validate(told | {"model_settings": ModelSettings(max_attempts=2)} | fields)


def at_openai(at: Stage) -> None:
    """Have the models that no endpoint is set for served here as well."""
    os.environ["OPENAI_API_KEY"] = KEY
    os.environ["OPENAI_BASE_URL"] = os.environ["OPENAI_API_BASE"] = at.model.url


async def test_a_model_of_unknown_price_is_not_asked_where_the_cost_has_a_bound(address: str) -> None:
    async with stage(address, lambda _: say("never"), tools=[read]) as at:
        at_openai(at)
        ended = await at.run(agent(UNPRICED), message="Go")
        assert (ended.status, at.model.hits) == ("failed", 0)
        assert ended.error is not None
        assert ended.error.type == "ModelPriceUnknown"
        assert "input_cost_per_token" in ended.error.message
        assert ended.state_snapshot["model_calls"] == 0


async def test_a_model_of_unknown_price_is_left_for_one_whose_price_is_known(address: str) -> None:
    async with stage(address, lambda _: say("done"), tools=[read]) as at:
        at_openai(at)
        ended = await at.run(agent(UNPRICED, fallback_models=[PRICED]), message="Go")
        assert (ended.status, ended.model) == ("completed", PRICED)
        assert [request.model for request in at.model.requests] == ["gpt-4o-mini"]
        assert ended.cost_usd > 0


@pytest.mark.parametrize(("most", "unknown_price"), [(None, "refuse"), (1.0, "allow")], ids=["no bound", "allowed"])
async def test_a_model_of_unknown_price_is_asked_where_that_is_allowed(
    address: str, most: float | None, unknown_price: str
) -> None:
    async with stage(address, lambda _: say("done"), tools=[read]) as at:
        at_openai(at)
        ended = await at.run(agent(UNPRICED, most=most, limits={"unknown_price": unknown_price}), message="Go")
        assert (ended.status, ended.cost_usd, ended.usage_aggregate.unpriced_calls) == ("completed", 0, 1)


async def test_a_call_whose_input_alone_costs_more_than_is_left_is_not_made(address: str) -> None:
    def script(_: ChatRequest) -> Reply:
        return call(("read", {"chars": 8_000}), text="I am reading.", usage={"prompt_tokens": 100})

    async with stage(address, script, tools=[read]) as at:
        most = 1_500 * INPUT
        ended = await at.run(agent(most=most), message="Go")
        assert (ended.status, ended.final_text, at.model.hits) == ("degraded", "I am reading.", 1)
        assert ended.state_snapshot["limit_reached"] == "max_cost_usd"
        assert ended.state_snapshot["model_calls"] == 1
        assert 0 < ended.cost_usd < most
        _, events = await timeline(at.client, ended.run_id)
        (refused,) = [event for event in events if event.type == "model_call_exception"]
        assert refused.data["error_type"] == "BudgetExceeded"


async def test_a_first_message_that_costs_too_much_is_not_sent(address: str) -> None:
    async with stage(address, lambda _: say("never"), tools=[read]) as at:
        ended = await at.run(agent(most=500 * INPUT), message="word " * 1_000)
        assert (ended.status, ended.cost_usd, at.model.hits) == ("degraded", 0, 0)


async def test_a_summary_of_unknown_price_is_not_written_and_the_run_goes_on(address: str) -> None:
    def script(request: ChatRequest) -> Reply:
        return call(("read", {"chars": 4_000})) if request.turn < 2 else say("done")

    async with stage(address, script, tools=[read]) as at:
        at_openai(at)
        compaction = Compaction(at_tokens=500, keep_tokens=0, model=UNPRICED)
        ended = await at.run(agent(compaction=compaction), message="Go")
        assert (ended.status, ended.final_text) == ("completed", "done")
        assert {request.model for request in at.model.requests} == {"test"}


async def test_an_answer_that_was_aborted_costs_what_it_is_estimated_at(address: str) -> None:
    async with stage(address, lambda _: say("word " * 400, pace=0.02), tools=[read]) as at:
        handle = await at.start(agent(), message="Say it " * 100)
        async with asyncio.timeout(30):
            while not at.model.hits:
                await asyncio.sleep(0.05)
        await asyncio.sleep(1)
        await handle.signal("interrupt", {"reason": "enough"})
        ended = await result(handle)
        used = ended.usage_aggregate
        assert (ended.status, used.estimated_calls, used.unpriced_calls, used.model_calls) == ("interrupted", 1, 0, 1)
        assert used.input_tokens > 170
        assert 0 < len(ended.final_text) <= 4 * used.output_tokens
        assert ended.cost_usd == pytest.approx(used.input_tokens * INPUT + used.output_tokens * OUTPUT)


async def test_an_answer_whose_provider_tells_no_tokens_costs_what_it_is_estimated_at(address: str) -> None:
    body = {"model": "test", "choices": [{"message": {"role": "assistant", "content": "word " * 100}}]}
    async with stage(address, lambda _: fail(200, body=body), tools=[read]) as at:
        ended = await at.run(agent(model_settings=ModelSettings(stream=False)), message="Say it " * 100)
        used = ended.usage_aggregate
        assert (ended.status, used.estimated_calls, used.output_tokens) == ("completed", 1, 125)
        assert ended.cost_usd == pytest.approx(used.input_tokens * INPUT + used.output_tokens * OUTPUT)


def request(text: str = "", **fields: Any) -> ModelRequest:
    """A request of one message."""
    messages = [{"role": "user", "content": text}]
    return ModelRequest(**{"model": "m", "messages": messages, "tools": [], "settings": ModelSettings(), **fields})


RESERVES: dict[str, tuple[float | None, str, Price | None, str | None]] = {
    "no bound, no price": (None, "refuse", None, None),
    "no price": (1.0, "refuse", None, "ModelPriceUnknown"),
    "no price, allowed": (1.0, "allow", None, None),
    "exactly enough for the input": (1.0, "refuse", Price(0.01, 0.0), None),
    "a little too little": (0.99, "refuse", Price(0.01, 0.0), "BudgetExceeded"),
    "nothing left": (0.0, "refuse", Price(0.01, 0.0), "BudgetExceeded"),
    "nothing left, for nothing": (0.0, "refuse", Price(0.0, 0.0), None),
    "the output may cost anything": (1.0, "refuse", Price(0.01, 100.0), None),
}


@pytest.mark.parametrize(("left", "unknown", "price", "refused"), RESERVES.values(), ids=RESERVES)
def test_reserve(left: float | None, unknown: str, price: Price | None, refused: str | None) -> None:
    asked = request("x" * 400, budget_usd=left, unknown_price=unknown)
    try:
        reserve(asked, price)
    except Exception as error:  # noqa: BLE001 - whatever it is, its type is what is asked for
        assert (getattr(error, "type", error), getattr(error, "non_retryable", False)) == (refused, True)
    else:
        assert refused is None


def test_everything_of_a_request_counts_and_a_picture_counts_as_a_thousand_tokens() -> None:
    call = {"id": "1", "function": {"name": "read", "arguments": "{}" * 97}}
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 200_000}}
    said = [
        {"role": "user", "content": "x" * 40},
        {"role": "assistant", "content": None, "reasoning_content": "y" * 60, "tool_calls": [call]},
        {"role": "user", "content": [{"type": "text", "text": "z" * 100}, picture]},
    ]
    assert input_tokens(request(messages=said)) == (40 + 60 + 4 + 194 + 100) // 4 + 1_000
    with_tools = request(messages=said, tools=[{"type": "function", "function": {"name": "n" * 400}}])
    assert input_tokens(with_tools) > input_tokens(request(messages=said)) + 100


def test_what_no_provider_tells_is_estimated_and_unpriced_where_nobody_knows_the_price() -> None:
    answer = Answer(text_pieces=["a" * 10], reasoning_pieces=["b" * 10], calls={0: WantedCall(arguments="c" * 21)})
    used = estimated(request("x" * 400), answer)
    assert (used.input_tokens, used.output_tokens, used.estimated_calls, used.unpriced_calls) == (100, 11, 1, 1)
    answer.price = lambda tokens: Price(tokens / 100, 2.0)
    used = estimated(request("x" * 400), answer)
    assert (used.cost_usd, used.unpriced_calls) == (122.0, 0)
