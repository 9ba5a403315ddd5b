"""Which of a turn's tool calls are made, and what the model hears of the others: decided before anything runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from holdfast.agent import Limits
from holdfast.bounds import check_depth, cut, to_json
from holdfast.message import ToolCall
from holdfast.tools import ToolSpec


@dataclass(frozen=True)
class Admitted:
    """A call that is made: its tool, and the arguments that its activity gets."""

    call: ToolCall
    spec: ToolSpec
    arguments: dict[str, Any]


@dataclass(frozen=True)
class Refused:
    """A call that is not made; the model is told why."""

    call: ToolCall
    type: str
    message: str


Decision = Admitted | Refused


def admit(
    calls: tuple[ToolCall, ...], tools: Mapping[str, ToolSpec], limits: Limits, tool_calls_made: int
) -> list[Decision]:
    """Decide every call of a turn, in order; the timeline recomputes the same from what history holds."""
    decisions: list[Decision] = []
    room = max(0, limits.max_tool_calls - tool_calls_made)
    for index, call in enumerate(calls):
        decision = _decide(call, tools)
        if isinstance(decision, Admitted) and index >= limits.max_tool_calls_per_turn:
            decision = Refused(
                call,
                "LimitReached",
                f"at most {limits.max_tool_calls_per_turn} tool calls are made in one turn",
            )
        if isinstance(decision, Admitted) and room == 0:
            decision = Refused(call, "LimitReached", f"this run may make {limits.max_tool_calls} tool calls, all used")
        room -= isinstance(decision, Admitted)
        decisions.append(decision)
    return decisions


def _decide(call: ToolCall, tools: Mapping[str, ToolSpec]) -> Decision:
    spec = tools.get(call.name)
    if spec is None:
        known = ", ".join(sorted(tools)) or "none"
        return Refused(call, "ToolUnknown", cut(f"there is no tool named {call.name[:100]!r}; there are: {known}"))
    try:
        arguments = json.loads(call.function.arguments or "{}")
        if not isinstance(arguments, dict):
            raise TypeError("it must be an object")
        check_depth(arguments)
        to_json(arguments)
    except (ValueError, TypeError, RecursionError) as error:
        text = str(error)[:200]
        return Refused(call, "ToolArgumentsInvalid", f"the arguments are not valid JSON for {call.name}: {text}")
    return Admitted(call, spec, arguments)
