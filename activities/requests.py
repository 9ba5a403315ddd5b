"""What a model is asked for one step: the system message, the conversation, a last note, the tools."""

from __future__ import annotations

from typing import Any

from holdfast.activities.answer import ModelRequest
from holdfast.activities.turns import sayable
from holdfast.agent import Agent
from holdfast.bounds import to_json
from holdfast.calls import ModelCall

CLOSING_NOTE = (
    "The limit {limit} of this run is reached. Answer now, from what is known so far; no more tools can be called. "
    "Say plainly what is still open."
)
_OUTPUT_NOTE = (
    "Your final answer is JSON only: one JSON value that fits the JSON schema below, with no other text around it."
)


def request_of(call: ModelCall, agent: Agent, messages: list[dict[str, Any]]) -> ModelRequest:
    """Build the request of one step; what stays the same in a run comes first, so that providers can cache it."""
    asked = [sayable(message) for message in messages]
    if system := system_message(agent):
        asked.insert(0, {"role": "system", "content": system})
    tools: list[dict[str, Any]] = []
    if call.closing is not None:
        asked.append({"role": "user", "content": CLOSING_NOTE.format(limit=call.closing)})
    else:
        tools = [
            {"type": "function", "function": spec.model_dump(include={"name", "description", "parameters"})}
            for spec in agent.tool_specs
        ]
    return ModelRequest(
        model=call.model,
        messages=asked,
        tools=tools,
        settings=agent.model_settings,
        output_schema=agent.output_schema,
    )


def system_message(agent: Agent) -> str:
    """Return the agent's instructions, and what its answer is to be."""
    parts = [agent.instructions]
    if agent.output_schema is not None:
        parts += [_OUTPUT_NOTE, agent.output_description, f"JSON schema: {to_json(agent.output_schema)}"]
    elif agent.output_description:
        parts.append(f"Your final answer: {agent.output_description}")
    return "\n\n".join(part for part in parts if part)
