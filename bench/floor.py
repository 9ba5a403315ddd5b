"""The floor: the least that a Temporal workflow of one model activity and one tool activity a step can cost.

It keeps no conversation, checks nothing, and sends a model, if any, the same short prompt at every step.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

from temporalio import activity, workflow

WORKFLOW = "Floor"
MODEL = "model.call"
TOOL = "look_up"
_TIMEOUT = timedelta(seconds=60)
LITELLM_ENVIRONMENT = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_MODE": "PRODUCTION",
    "MAX_BASE64_LENGTH_FOR_LOGGING": "0",
    "EXPERIMENTAL_OPENAI_BASE_LLM_HTTP_HANDLER": "True",
}
"""What makes litellm quick, for anyone who knows of it: it must be set before the import."""
_TOOLS = [
    {
        "type": "function",
        "function": {
            "name": TOOL,
            "description": "Look an item up.",
            "parameters": {
                "type": "object",
                "properties": {"item": {"type": "integer"}, "size": {"type": "integer"}},
                "required": ["item", "size"],
            },
        },
    }
]


@workflow.defn(name=WORKFLOW)
class Floor:
    """Calls the model `steps` times, and the tool `wide` times at once after each call but the last.

    With `helpers` it calls the model, starts so many of itself at once to do that, and calls the model again.
    """

    @workflow.run
    async def run(self, request: dict[str, Any]) -> dict[str, Any]:
        """Take {"steps": int, "size": int, "wide": int, "helpers": int}, and return {"steps": int}."""
        if request.get("helpers"):
            return await self._delegate(request)
        steps, size, wide = request["steps"], request["size"], request["wide"]
        for step in range(steps):
            await workflow.execute_activity(MODEL, {"step": step, "size": size}, start_to_close_timeout=_TIMEOUT)
            if step + 1 < steps:
                asked = [{"item": step * wide + each, "size": size} for each in range(wide)]
                await asyncio.gather(
                    *(workflow.execute_activity(TOOL, each, start_to_close_timeout=_TIMEOUT) for each in asked)
                )
        return {"steps": steps}

    async def _delegate(self, request: dict[str, Any]) -> dict[str, Any]:
        asked = {"step": 0, "size": request["size"]}
        await workflow.execute_activity(MODEL, asked, start_to_close_timeout=_TIMEOUT)
        inner = {**request, "helpers": 0}
        await asyncio.gather(*(workflow.execute_child_workflow(WORKFLOW, inner) for _ in range(request["helpers"])))
        await workflow.execute_activity(MODEL, asked, start_to_close_timeout=_TIMEOUT)
        return {"steps": 2}


@activity.defn(name=TOOL)
def tool(asked: dict[str, Any]) -> str:
    """Return a text of the size asked for."""
    return look_up(**asked)


def look_up(item: int, size: int) -> str:
    """Look an item up."""
    return f"{item}:".ljust(size, "x")


@activity.defn(name=MODEL)
async def constant(call: dict[str, Any]) -> dict[str, Any]:
    """Answer without asking anyone."""
    return {"content": None, "tool_calls": [{"id": f"call_{call['step']}", "name": TOOL, "arguments": "{}"}]}


def with_litellm(url: str, stream: bool) -> Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]:
    """Make the model activity that asks a served model through litellm, as lean as litellm allows."""
    import litellm

    from bench.script import prompt

    options: dict[str, Any] = {"api_base": url, "api_key": "none", "timeout": 60, "num_retries": 0, "max_retries": 0}
    if stream:
        options |= {"stream": True, "stream_options": {"include_usage": True}}

    @activity.defn(name=MODEL)
    async def ask(call: dict[str, Any]) -> dict[str, Any]:
        messages = [{"role": "user", "content": prompt(2, call["size"])}]
        response: Any = await litellm.acompletion(
            model="openai/bench", messages=messages, tools=_TOOLS, _skip_mcp_handler=True, **options
        )
        if stream:
            calls = [one async for chunk in response for each in chunk.choices for one in each.delta.tool_calls or ()]
            return {"content": None, "tool_calls": [each.function.arguments for each in calls]}
        message = response.choices[0].message
        calls = [(each.id, each.function.name, each.function.arguments) for each in message.tool_calls or ()]
        return {"content": message.content, "tool_calls": calls}

    return ask
