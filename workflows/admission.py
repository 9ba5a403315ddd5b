"""Which of a turn's tool calls are made, and what the model hears of the others: decided before anything runs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from holdfast.agent import Interaction, Limits
from holdfast.bounds import canonical_json, check_depth, cut, to_json
from holdfast.builtins import BUILTINS
from holdfast.errors import InputInvalid
from holdfast.message import ToolCall
from holdfast.subagents import check_words
from holdfast.tools import ToolSpec

Waits = Literal["approval", "answer", "timer"]


@dataclass(frozen=True)
class Admitted:
    """A call that is made: its tool, and the arguments that its activity gets."""

    call: ToolCall
    spec: ToolSpec
    arguments: dict[str, Any]
    waits: Waits | None = None
    """What must come first: somebody's approval or answer, or a point in time."""


@dataclass(frozen=True)
class Refused:
    """A call that is not made; the model is told why."""

    call: ToolCall
    type: str
    message: str


Decision = Admitted | Refused

NOBODY_APPROVES = "nobody is there to approve it, so it was not called"
NOBODY_ANSWERS = "nobody is there to answer: go on with what is known, and say what was assumed"


def admit(
    calls: tuple[ToolCall, ...],
    tools: Mapping[str, ToolSpec],
    limits: Limits,
    tool_calls_made: int,
    interaction: Interaction | None = None,
    granted: Collection[str] = (),
) -> list[Decision]:
    """Decide every call of a turn, in order; the timeline recomputes the same from what history holds.

    `granted` are the ids of calls that somebody has approved: those need nobody any more.
    """
    decisions: list[Decision] = []
    room = max(0, limits.max_tool_calls - tool_calls_made)
    for index, call in enumerate(calls):
        decision = _decide(call, tools, Interaction() if call.id in granted else interaction or Interaction())
        if isinstance(decision, Admitted) and index >= limits.max_tool_calls_per_turn:
            decision = Refused(
                call,
                "LimitReached",
                f"at most {limits.max_tool_calls_per_turn} tool calls are made in one turn",
            )
        if isinstance(decision, Admitted) and decision.spec.subagent is not None and limits.max_subagent_depth == 0:
            decision = Refused(call, "LimitReached", "subagents may be nested no deeper (max_subagent_depth)")
        if isinstance(decision, Admitted) and room == 0:
            decision = Refused(call, "LimitReached", f"this run may make {limits.max_tool_calls} tool calls, all used")
        room -= isinstance(decision, Admitted)
        decisions.append(decision)
    return decisions


def arguments_digest(name: str, arguments: Mapping[str, Any]) -> str:
    """Return the hash that binds an approval to a tool and its arguments: 16 hex digits of a SHA-256."""
    return hashlib.sha256(canonical_json([name, dict(arguments)]).encode()).hexdigest()[:16]


def _decide(call: ToolCall, tools: Mapping[str, ToolSpec], interaction: Interaction) -> Decision:
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
        if spec.builtin is not None:
            BUILTINS[spec.builtin].arguments.validate(arguments)
        if spec.subagent is not None:
            check_words(spec.parameters, arguments)
    except InputInvalid as error:
        return Refused(call, "ToolArgumentsInvalid", cut(str(error)))
    except (ValueError, TypeError, RecursionError) as error:
        text = str(error)[:200]
        return Refused(call, "ToolArgumentsInvalid", f"the arguments are not valid JSON for {call.name}: {text}")
    return _interacting(Admitted(call, spec, arguments, _waits(spec)), interaction)


def _waits(spec: ToolSpec) -> Waits | None:
    if spec.builtin is not None:
        return "answer" if spec.builtin == "ask_user" else "timer"
    return "approval" if spec.requires_approval else None


def _interacting(admitted: Admitted, interaction: Interaction) -> Decision:
    """Fall back at once where nobody is there."""
    if interaction.mode != "headless" or admitted.waits in (None, "timer"):
        return admitted
    if admitted.waits == "answer":
        return Refused(admitted.call, "NoAnswer", NOBODY_ANSWERS)
    if interaction.fallback == "approve":
        return Admitted(admitted.call, admitted.spec, admitted.arguments)
    return Refused(admitted.call, "ApprovalDenied", NOBODY_APPROVES)
