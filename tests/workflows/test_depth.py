"""JSON that is nested too deep for Temporal's converter is refused where it appears, and the run goes on."""

from __future__ import annotations

import json
from typing import Any

import pytest

from holdfast import Agent, AsyncClient, InputInvalid, tool
from holdfast.worker.scripted import ChatRequest, Reply, call, say
from tests.support.stage import MODEL, stage


def _nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


@tool
def nest(levels: int) -> Any:
    """Return something deep."""
    return _nested(levels)


@tool
def take(thing: Any) -> str:
    """Take anything."""
    return "taken"


AGENT = Agent(name="deep", model=MODEL, tools=[nest, take])


@pytest.mark.parametrize("levels", [120, 126, 150, 199, 200, 253, 254, 255, 500, 5_000])
async def test_a_deep_result_and_deep_arguments_are_kept_or_refused_and_the_run_completes(
    address: str, levels: int
) -> None:
    def script(request: ChatRequest) -> Reply:
        if request.turn == 0:
            deep = '{"thing": ' + "[" * levels + "1" + "]" * levels + "}"
            return call(("nest", {"levels": min(levels, 900)}), ("take", deep))
        return say("done")

    async with stage(address, script, [AGENT]) as at:
        result = await at.run("deep", message="Go")
        assert (result.status, result.final_text) == ("completed", "done")
        assert [each.success for each in result.tool_executions] == [levels <= 126, levels <= 126]
        again = await AsyncClient(temporal=at.client).runs.get(result.run_id)
        assert again.result == result


async def test_a_deep_input_is_refused_by_the_client(address: str) -> None:
    client = AsyncClient(address)
    with pytest.raises(InputInvalid, match="nested"):
        await client.runs.create("deep", input={"deep": _nested(180)})


async def test_a_deep_request_fails_the_run_in_so_many_words(address: str) -> None:
    async with stage(address, lambda _: say("never"), [AGENT]) as at:
        deep = json.loads('{"deep": ' + "[" * 180 + "]" * 180 + "}")
        result = await at.run("deep", message="Go", input=deep)
        assert (result.status, "nested" in result.final_text) == ("failed", True)
