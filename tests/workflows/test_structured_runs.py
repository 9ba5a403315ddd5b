"""Runs whose answer is JSON, on a real server: valid, repaired, failed, degraded, gone on with."""

from __future__ import annotations

import json
from typing import Any

import pytest

from holdfast import Agent, Limits, RunResult, tool
from holdfast.agent import ModelSettings
from holdfast.client.runs import AsyncClient
from holdfast.failure import Failure
from holdfast.worker.scripted import ChatRequest, Reply, ScriptedModel, call, say
from tests.support.stage import MODEL, endpoints, stage, timeline

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"score": {"type": "integer"}},
    "required": ["score"],
    "additionalProperties": False,
}
BAD, GOOD = '{"score": "seven"}', '```json\n{"score": 7}\n```'


@tool
def look_up(item: str) -> str:
    """Look something up."""
    return f"{item} is worth 7"


def judge(**fields: Any) -> Agent:
    """An agent whose answer is a score."""
    given: dict[str, Any] = {"name": "judge", "model": MODEL, "output_schema": SCHEMA, **fields}
    return Agent.model_validate(given)


async def run(address: str, agent: Agent, *answers: Reply) -> tuple[RunResult, list[ChatRequest]]:
    """Run an agent whose model answers so, request by request."""
    async with stage(address, lambda request: answers[min(request.number, len(answers)) - 1], [agent]) as at:
        return await at.run(agent.name, message="Judge."), at.model.requests


@pytest.mark.parametrize("stream", [True, False], ids=["streaming", "whole"])
async def test_an_answer_that_fits_is_the_output_and_the_model_was_told_the_schema(address: str, stream: bool) -> None:
    agent = judge(
        instructions="Be strict.",
        output_description="A score from 0 to 10.",
        model_settings=ModelSettings(stream=stream),
    )
    result, (request,) = await run(address, agent, say(GOOD))
    assert (result.status, result.output, result.final_text) == ("completed", {"score": 7}, GOOD)
    told = request.messages[0]
    assert told["role"] == "system"
    assert told["content"].startswith("Be strict.\n\n")
    assert "A score from 0 to 10." in told["content"]
    assert told["content"].endswith(json.dumps(SCHEMA, separators=(",", ":")))


async def test_an_answer_is_repaired_by_telling_the_model_what_is_wrong(address: str) -> None:
    agent = judge()
    async with stage(address, lambda request: say(BAD if request.turn == 0 else GOOD), [agent]) as at:
        result = await at.run("judge", message="Judge.")
        first, second = at.model.requests
        folded, events = await timeline(at.client, result.run_id)
    assert (result.status, result.output, result.steps) == ("completed", {"score": 7}, 2)
    assert second.messages[:2] == first.messages
    assert second.messages[2] == {"role": "assistant", "content": BAD}
    assert "output.score: 'seven' is not of type 'integer'" in second.last_text
    told = [each.data.get("output_error") for each in events if each.type == "model_completed"]
    assert told == ["output.score: 'seven' is not of type 'integer'", None]
    assert [each.role for each in folded.messages] == ["user", "assistant", "user", "assistant"]


async def test_an_answer_that_never_fits_fails_the_run_with_what_is_wrong(address: str) -> None:
    result, requests = await run(address, judge(output_retries=1), say(BAD))
    assert (result.status, result.output, len(requests)) == ("failed", None, 2)
    assert result.error is not None
    assert result.error.type == "OutputInvalid"
    assert "'seven' is not of type 'integer'" in result.final_text


async def test_or_ends_it_degraded_with_the_text_where_the_agent_says_so(address: str) -> None:
    agent = judge(output_retries=0, failure=Failure(output="degrade"))
    result, requests = await run(address, agent, say("seven"))
    assert (result.status, result.output, result.final_text, len(requests)) == ("degraded", None, "seven", 1)


async def test_tools_are_called_before_the_answer_is_given(address: str) -> None:
    agent = judge(tools=[look_up])
    result, requests = await run(address, agent, call(("look_up", {"item": "it"}), text="Let me see."), say(GOOD))
    assert (result.status, result.output) == ("completed", {"score": 7})
    assert [request.body.get("response_format") for request in requests] == [None, None]
    assert all(request.tool_names == ["look_up"] for request in requests)


async def test_the_closing_call_of_a_limit_asks_for_the_json_as_well(address: str) -> None:
    agent = judge(tools=[look_up], limits=Limits(max_steps=1))
    for answer, output in ((GOOD, {"score": 7}), ("I don't know.", None)):
        result, requests = await run(address, agent, say(answer))
        assert (result.status, result.output, result.final_text, len(requests)) == ("degraded", output, answer, 1)
        assert "JSON schema" in requests[0].messages[0]["content"]


async def test_a_message_to_a_structured_run_that_has_ended_brings_a_new_structured_answer(address: str) -> None:
    answers = {0: GOOD, 1: BAD, 2: '{"score": 9}'}
    async with stage(address, lambda request: say(answers[request.turn]), [judge()]) as at:
        runs = AsyncClient(temporal=at.client, task_queue=at.task_queue).runs
        started = await runs.create("judge", message="Judge.")
        assert (await runs.wait(started.id)).output == {"score": 7}
        await runs.append_message(started.id, "Think again.")
        again = await runs.wait(started.id)
        assert (again.output, again.steps) == ({"score": 9}, 3)


async def test_a_run_that_failed_for_its_answer_may_be_resumed_and_is_repaired_anew(address: str) -> None:
    def script(request: ChatRequest) -> Reply:
        return say(BAD if request.turn < 2 else GOOD)

    async with stage(address, script, [judge(output_retries=1)]) as at:
        runs = AsyncClient(temporal=at.client, task_queue=at.task_queue).runs
        started = await runs.create("judge", message="Judge.")
        assert (await runs.wait(started.id)).status == "failed"
        await runs.resume_run(started.id)
        again = await runs.wait(started.id)
        assert (again.status, again.output, again.steps) == ("completed", {"score": 7}, 3)
        assert "'seven' is not of type" in at.model.requests[-1].last_text


async def test_a_run_is_forked_in_the_middle_of_its_repairs(address: str) -> None:
    def script(request: ChatRequest) -> Reply:
        return say(BAD if request.turn < 2 else GOOD)

    async with stage(address, script, [judge()]) as at:
        runs = AsyncClient(temporal=at.client, task_queue=at.task_queue).runs
        started = await runs.create("judge", message="Judge.")
        await runs.wait(started.id)
        for forked in (await runs.fork(started.id, at_step=3), await runs.fork(started.id, at_step=2)):
            ended = await runs.wait(forked.id)
            assert (ended.status, ended.output, ended.steps) == ("completed", {"score": 7}, 3)


async def test_a_schema_that_is_none_fails_the_run_before_any_model_is_asked(address: str) -> None:
    agent = judge(output_schema={"type": "number of points"})
    result, requests = await run(address, agent, say(GOOD))
    assert (result.status, requests) == ("failed", [])
    assert result.error is not None
    assert result.error.type == "DefinitionError"
    assert "agent 'judge': output_schema is no JSON schema" in result.error.message


@pytest.mark.parametrize("tools", [(), (look_up,)], ids=["alone", "beside tools"])
@pytest.mark.parametrize(("mode", "kind"), [("schema", "json_schema"), ("object", "json_object"), (None, None)])
async def test_an_endpoint_that_is_set_to_a_json_mode_is_asked_for_it(
    address: str, mode: str | None, kind: str | None, tools: Any
) -> None:
    async with ScriptedModel(lambda _: say(GOOD)) as model:
        told = {"scripted/*": endpoints(model.url)["scripted/*"].model_copy(update={"json_mode": mode})}
        asked: dict[str, Any] = {"endpoints": told}
        async with stage(address, lambda _: say("never"), [judge(tools=tools)], **asked) as at:
            assert (await at.run("judge", message="Judge.")).output == {"score": 7}
        (request,) = model.requests
        assert (request.body.get("response_format") or {}).get("type") == kind


@pytest.mark.parametrize(
    ("model", "tools", "kind"),
    [
        ("openai/gpt-4o", (), "json_schema"),
        ("openai/gpt-4o", (look_up,), "json_schema"),
        ("openai/gpt-3.5-turbo", (), "json_object"),
        ("openai/gpt-3.5-turbo", (look_up,), None),
        ("mistral/mistral-large-latest", (), "json_schema"),
        ("mistral/mistral-large-latest", (look_up,), None),
        ("openai/nobodys", (), None),
    ],
)
async def test_a_model_that_litellm_knows_is_held_to_json_as_far_as_it_can_be(
    address: str, model: str, tools: Any, kind: str | None
) -> None:
    async with ScriptedModel(lambda _: say(GOOD)) as server:
        told = endpoints(server.url)["scripted/*"].model_copy(update={"model": model})
        asked: dict[str, Any] = {"endpoints": {"*": told}}
        async with stage(address, lambda _: say("never"), [judge(tools=tools)], **asked) as at:
            assert (await at.run("judge", message="Judge.")).output == {"score": 7}
        (request,) = server.requests
        assert (request.body.get("response_format") or {}).get("type") == kind
