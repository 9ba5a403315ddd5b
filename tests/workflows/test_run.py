"""The step loop, on the real server, through real HTTP."""

from __future__ import annotations

from holdfast import Agent, ToolContext, tool
from holdfast.bounds import json_size
from holdfast.worker.scripted import ChatRequest, Reply, call, say
from tests.support.stage import MODEL, stage, timeline


@tool
def double(number: int, context: ToolContext) -> dict[str, object]:
    """Double a number."""
    return {"doubled": number * 2, "key": context.idempotency_key}


@tool
async def shout(text: str) -> str:
    """Say it louder."""
    return text.upper()


AGENT = Agent(name="demo", model=MODEL, instructions="Be brief.", tools=[double, shout])


def _two_then_answer(request: ChatRequest) -> Reply:
    if request.turn == 0:
        return call(("double", {"number": 21}), ("shout", {"text": "hi"}))
    return say("done")


async def test_an_answer_that_takes_six_times_its_size_in_json_fits_into_the_result(address: str) -> None:
    async with stage(address, lambda _: say("\x01" * 140_000), [Agent(name="loud", model=MODEL)]) as at:
        ended = await at.run("loud", message="Go")
        assert ended.status == "completed"
        assert json_size(ended.final_text) <= 256 * 1024
        assert json_size(ended.output) <= 256 * 1024


async def test_tools_run_and_their_results_reach_the_model_in_the_order_of_the_calls(address: str) -> None:
    async with stage(address, _two_then_answer, [AGENT]) as at:
        result = await at.run("demo", message="Go")
        assert result.status == "completed"
        assert result.final_text == "done"
        assert [each.tool_name for each in result.tool_executions] == ["double", "shout"]
        assert [each.output for each in result.tool_executions][1] == "HI"
        asked = at.model.requests[-1].messages
        assert [each["role"] for each in asked] == ["system", "user", "assistant", "tool", "tool"]
        folded, events = await timeline(at.client, result.run_id)
        assert [each.wire() for each in folded.messages][:4] == asked[1:]
        assert [event.type for event in events][-1] == "run_completed"
