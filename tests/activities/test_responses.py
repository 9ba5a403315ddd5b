"""The response cache: what is the same request, what is kept, and for how long."""

from __future__ import annotations

from typing import Any

import pytest

from holdfast import Agent, tool
from holdfast.activities.answer import Answer, WantedCall
from holdfast.activities.responses import Responses, key_of
from holdfast.agent import ModelSettings
from holdfast.envelope import enveloped
from holdfast.message import Usage
from holdfast.worker.scripted import ChatRequest, Reply, call, empty, fail, say
from tests.support.stage import MODEL, Stage, stage, timeline

MESSAGES = [{"role": "user", "content": "Hello"}]
OPTIONS: dict[str, Any] = {"temperature": 0, "api_base": "http://a", "api_key": "one", "stream": True, "timeout": 60}


@tool
def add(left: int, right: int) -> int:
    """Add two numbers."""
    return left + right


def answer(text: str = "Hi", **fields: Any) -> Answer:
    return Answer(model="m", text_pieces=[text], finish_reason="stop", **fields)


def recalled(responses: Responses, key: str, seconds: float = 60) -> Answer | None:
    found = Answer()
    return found if responses.recall(key, seconds, found) else None


@pytest.mark.parametrize(
    "changed",
    [
        {"temperature": 0.1},
        {"api_base": "http://b"},
        {"api_key": "two"},
        {"api_key": None},
        {"tools": [{"type": "function"}]},
        {"response_format": {"type": "json_object"}},
        {"seed": 1},
    ],
)
def test_whatever_shapes_an_answer_is_part_of_its_key(changed: dict[str, Any]) -> None:
    assert key_of("m", MESSAGES, OPTIONS | changed) != key_of("m", MESSAGES, OPTIONS)


def test_so_are_the_model_and_the_messages() -> None:
    keys = [
        key_of("m", MESSAGES, OPTIONS),
        key_of("n", MESSAGES, OPTIONS),
        key_of("m", [{"role": "user", "content": "Hello!"}], OPTIONS),
        key_of("m", [{"role": "system", "content": "Hello"}], OPTIONS),
        key_of("m", MESSAGES * 2, OPTIONS),
    ]
    assert len(set(keys)) == len(keys)


def test_how_it_is_fetched_is_not() -> None:
    other = {**OPTIONS, "stream": False, "timeout": 5, "stream_options": {"include_usage": True}}
    assert key_of("m", MESSAGES, other) == key_of("m", MESSAGES, OPTIONS)


def _conversation(boundary: str, ids: str, result: str = "7") -> list[dict[str, Any]]:
    calls = [{"id": f"{ids}{place}", "type": "function", "function": {"name": "f"}} for place in range(2)]
    results = [
        {"role": "tool", "tool_call_id": each["id"], "content": enveloped(result, str(each["id"]), boundary, 1_000)}
        for each in calls
    ]
    return [*MESSAGES, {"role": "assistant", "tool_calls": calls}, *results]


def test_nor_are_call_ids_and_marks_which_every_run_has_its_own_of() -> None:
    asked = _conversation("a" * 16, "x")
    assert key_of("m", asked, OPTIONS) == key_of("m", _conversation("b" * 16, "y"), OPTIONS)
    swapped = [*asked[:2], {**asked[2], "tool_call_id": "x1"}, {**asked[3], "tool_call_id": "x0"}]
    behind = [*asked[:3], {**asked[3], "content": asked[3]["content"] + " and more"}]
    others = [_conversation("a" * 16, "x", "8"), swapped, behind, _conversation("a" * 16, "x", "7 and more")]
    keys = {key_of("m", each, OPTIONS) for each in (asked, *others)}
    assert len(keys) == 1 + len(others)


def test_a_key_tells_no_secret() -> None:
    assert "one" not in key_of("m", MESSAGES, OPTIONS)


def test_an_answer_comes_back_whole_at_no_cost() -> None:
    responses = Responses(10_000)
    kept = answer(
        reasoning_pieces=["So", "."],
        thinking_blocks=[{"type": "thinking", "signature": "s"}],
        provider_specific_fields={"a": 1},
        calls={0: WantedCall("x", "add", "{}", {"sig": "1"}), 1: WantedCall("x", "add", "{}")},
        usage=Usage(model_calls=1, input_tokens=5, cost_usd=1),
    )
    responses.keep("k", kept)
    found = recalled(responses, "k")
    assert found is not None
    assert (found.model, found.text, found.reasoning, found.finish_reason) == ("m", "Hi", "So.", "stop")
    assert (found.calls, found.thinking_blocks) == (kept.calls, kept.thinking_blocks)
    assert found.provider_specific_fields == {"a": 1}
    assert found.usage == Usage(model_calls=1, cached_calls=1)
    found.calls[0].name = "changed"
    assert recalled(responses, "k") != found


@pytest.mark.parametrize("finish", ["length", "content_filter"])
def test_an_answer_that_was_cut_off_is_not_kept(finish: str) -> None:
    responses = Responses(10_000)
    responses.keep("k", Answer(model="m", text_pieces=["Hi"], finish_reason=finish))
    responses.keep("e", answer("  "))
    assert recalled(responses, "k") is None
    assert recalled(responses, "e") is None


def test_an_answer_is_as_old_as_the_reader_allows() -> None:
    now = [0.0]
    responses = Responses(10_000, clock=lambda: now[0])
    responses.keep("k", answer())
    now[0] = 30
    assert recalled(responses, "k", 29) is None
    assert recalled(responses, "k", 31) is not None


def test_the_least_recently_used_go_first_and_nothing_grows_beyond_the_bound() -> None:
    responses = Responses(2_000)
    for name in "abc":
        responses.keep(name, answer("x" * 400))
    assert recalled(responses, "a") is not None
    responses.keep("d", answer("x" * 400))
    assert [recalled(responses, name) is not None for name in "abcd"] == [True, False, True, True]
    responses.keep("large", answer("x" * 4_000))
    assert recalled(responses, "large") is None
    responses.keep("a", answer("anew"))
    found = recalled(responses, "a")
    assert found is not None
    assert found.text == "anew"


def _adds(request: ChatRequest) -> Reply:
    return say("3") if request.turn > 1 else call(("add", {"left": 1, "right": 2}))


def caching(**settings: Any) -> Agent:
    told = {"cache_seconds": 60, **settings}
    return Agent(name="adds", model=MODEL, tools=[add], model_settings=ModelSettings.model_validate(told))


async def _run(at: Stage, agent: Agent) -> tuple[int, Any]:
    before = at.model.hits
    result = await at.run(agent, message="Add.")
    assert (result.status, result.final_text, result.steps) == ("completed", "3", 3)
    assert len(result.tool_executions) == 2
    return at.model.hits - before, result


@pytest.mark.parametrize("stream", [True, False], ids=["streaming", "whole"])
async def test_the_same_run_asks_nobody_the_second_time_and_costs_nothing(address: str, stream: bool) -> None:
    agent = caching(stream=stream)
    async with stage(address, _adds, [agent]) as at:
        hits, first = await _run(at, agent)
        assert (hits, first.usage_aggregate.cached_calls) == (3, 0)
        assert first.cost_usd > 0
        hits, second = await _run(at, agent)
        assert (hits, second.cost_usd) == (0, 0.0)
        assert second.usage_aggregate == Usage(model_calls=3, cached_calls=3)
        _, events = await timeline(at.client, second.run_id)
        assert [each.data.get("cached") for each in events if each.type == "model_completed"] == [True] * 3
        hits, _ = await _run(at, caching(stream=not stream))
        assert hits == 0


async def test_other_settings_ask_again_and_without_the_setting_nothing_is_kept(address: str) -> None:
    async with stage(address, _adds, [caching()]) as at:
        for agent, hits in ((caching(), 3), (caching(temperature=0.5), 3), (caching(cache_seconds=None), 3)):
            assert (await _run(at, agent))[0] == hits
        assert (await _run(at, caching(cache_seconds=None)))[0] == 3
        assert (await _run(at, caching()))[0] == 0


async def test_a_failure_is_never_kept(address: str) -> None:
    replies = iter([fail(503, headers={"retry-after": "0.1"}), empty(), say("Done.")])
    agent = Agent(name="asks", model=MODEL, model_settings=ModelSettings(cache_seconds=60))
    async with stage(address, lambda _: next(replies), [agent]) as at:
        for hits in (3, 3):
            result = await at.run("asks", message="Go")
            assert (result.final_text, at.model.hits) == ("Done.", hits)
