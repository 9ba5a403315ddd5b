"""What a model is asked for one step: the system message, the conversation, a last note, the tools."""

from __future__ import annotations

from typing import Any

from holdfast.activities import mcp_tools
from holdfast.activities.answer import ModelRequest
from holdfast.activities.turns import sayable
from holdfast.agent import Agent
from holdfast.bounds import one_line, to_json
from holdfast.calls import ModelCall
from holdfast.envelope import ENVELOPE_NOTE

CLOSING_NOTE = (
    "The limit {limit} of this run is reached. Answer now, from what is known so far; no more tools can be called. "
    "Say plainly what is still open."
)
_PLANNING_NOTE = (
    "Before you begin: write a short numbered plan of how you will go about this, one line a step, as plain text. "
    "Answer with the plan only; you will be asked to carry it out next."
)
_TOOLS_NOTE = "No tool can be called in this answer. These will be there:"
_OUTPUT_NOTE = (
    "Your final answer is JSON only: one JSON value that fits the JSON schema below, with no other text around it."
)


def request_of(call: ModelCall, agent: Agent, messages: list[dict[str, Any]]) -> ModelRequest:
    """Build the request of one step; what stays the same in a run comes first, so that providers can cache it."""
    asked = [sayable(message) for message in messages]
    if system := system_message(agent, enveloped=call.boundary is not None):
        asked.insert(0, {"role": "system", "content": system})
    tools = [
        {"type": "function", "function": spec.model_dump(include={"name", "description", "parameters"})}
        for spec in agent.tool_specs
    ]
    if call.closing is not None:
        asked.append({"role": "user", "content": CLOSING_NOTE.format(limit=call.closing)})
    elif call.planning:
        asked.append({"role": "user", "content": _planning_note(tools)})
    without_tools = call.closing is not None or call.planning
    return ModelRequest(
        model=call.model,
        messages=asked,
        tools=[] if without_tools else tools,
        settings=agent.model_settings,
        output_schema=None if call.planning else agent.output_schema,
        budget_usd=call.budget_usd,
        unknown_price=agent.limits.unknown_price,
    )


def _planning_note(tools: list[dict[str, Any]]) -> str:
    """Ask for a plan; the tools are told, and can't be called yet."""
    named = [f"- {each['function']['name']}: {one_line(each['function']['description'], 300)}" for each in tools]
    return "\n".join([_PLANNING_NOTE, *([_TOOLS_NOTE, *named] if named else [])])


def system_message(agent: Agent, *, enveloped: bool = False) -> str:
    """Return the agent's instructions, which tools it lacks, what their envelopes mean, what its answer is to be."""
    parts = [agent.instructions, mcp_tools.note(agent)]
    if enveloped and agent.tool_specs:
        parts.append(ENVELOPE_NOTE)
    if agent.output_schema is not None:
        parts += [_OUTPUT_NOTE, agent.output_description, f"JSON schema: {to_json(agent.output_schema)}"]
    elif agent.output_description:
        parts.append(f"Your final answer: {agent.output_description}")
    return "\n\n".join(part for part in parts if part)
