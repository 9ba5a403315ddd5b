"""Which of a turn's tool calls are made, and what the model hears of the others: decided before anything runs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from holdfast.agent import Interaction, Limits
from holdfast.bounds import canonical_json, check_depth, cut, to_json
from holdfast.builtins import BUILTINS
from holdfast.errors import InputInvalid
from holdfast.message import ToolCall
from holdfast.subagents import check_words
from holdfast.tools import ToolSpec
from holdfast.workflows.policy import NOTHING_SAID, Judge, Judged, Judgement, denied

Waits = Literal["approval", "answer", "timer"]


@dataclass(frozen=True)
class Admitted:
    """A call that is made: its tool, and the arguments that its activity gets."""

    call: ToolCall
    spec: ToolSpec
    arguments: dict[str, Any]
    waits: Waits | None = None
    """What must come first: somebody's approval or answer, or a point in time."""
    judged: Judged = NOTHING_SAID
    """What the policies say of it."""
    given: Mapping[str, Any] = field(default_factory=dict)
    """Those of the arguments that a person gave, where a policy asked for them."""

    @property
    def asks(self) -> Judgement | None:
        """The policy that wants a person's input before the call is made, or in its place."""
        return self.judged.question(self.given) if self.waits == "answer" and self.spec.builtin is None else None


@dataclass(frozen=True)
class Refused:
    """A call that is not made; the model is told why."""

    call: ToolCall
    type: str
    message: str
    judged: Judged = NOTHING_SAID
    """What the policies say of it."""


Decision = Admitted | Refused

NOBODY_APPROVES = "nobody is there to approve it, so it was not called"
NOBODY_GIVES = "nobody is there to give what it needs, so it was not called"
NOBODY_ANSWERS = "nobody is there to answer: go on with what is known, and say what was assumed"


def admit(
    calls: tuple[ToolCall, ...],
    tools: Mapping[str, ToolSpec],
    limits: Limits,
    tool_calls_made: int,
    interaction: Interaction | None = None,
    granted: Collection[str] = (),
    judge: Judge | None = None,
    given: Mapping[str, Mapping[str, Any]] | None = None,
) -> list[Decision]:
    """Decide every call of a turn, in order; the timeline recomputes the same from what history holds.

    `granted` are the ids of calls that somebody has approved: those need nobody any more. `given` has, by call id, the
    arguments that people have given where a policy asked for them.
    """
    decisions: list[Decision] = []
    room = max(0, limits.max_tool_calls - tool_calls_made)
    for index, call in enumerate(calls):
        own = Interaction() if call.id in granted else interaction or Interaction()
        decision = _decide(call, tools, own, judge or Judge(), (given or {}).get(call.id, {}))
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


def arguments_digest(name: str, arguments: Mapping[str, Any], fingerprint: str | None = None) -> str:
    """Return the hash that binds an approval to a tool and its arguments: 16 hex digits of a SHA-256.

    A tool that somebody else describes has a `fingerprint` of that as well.
    """
    bound = [name, dict(arguments), *([fingerprint] if fingerprint else [])]
    return hashlib.sha256(canonical_json(bound).encode()).hexdigest()[:16]


def _decide(
    call: ToolCall,
    tools: Mapping[str, ToolSpec],
    interaction: Interaction,
    judge: Judge,
    given: Mapping[str, Any],
) -> Decision:
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
    return _interacting(judged(call, spec, {**arguments, **given}, judge, given), interaction)


def judged(
    call: ToolCall, spec: ToolSpec, arguments: dict[str, Any], judge: Judge, given: Mapping[str, Any]
) -> Decision:
    """Hold a call against the policies: first a person's input is asked for, then somebody's approval."""
    said = judge.judge(call.id, spec, arguments)
    if said.denial is not None:
        return Refused(call, *denied(said.denial), said)
    waits: Waits | None = None
    if spec.builtin is not None:
        waits = "answer" if spec.builtin == "ask_user" else "timer"
    elif said.question(given) is not None:
        waits = "answer"
    elif said.approval is not None or (spec.requires_approval and not said.needs_nobody):
        waits = "approval"
    return Admitted(call, spec, arguments, waits, said, given)


def approves_itself(admitted: Admitted, interaction: Interaction) -> bool:
    """Say whether an approval that nobody gives counts as given: an agent may say so only of what it asks for."""
    return interaction.fallback == "approve" and not admitted.judged.is_firm


def _interacting(decision: Decision, interaction: Interaction) -> Decision:
    """Fall back at once where nobody is there."""
    if isinstance(decision, Refused) or interaction.mode != "headless" or decision.waits in (None, "timer"):
        return decision
    if decision.waits == "answer":
        told = NOBODY_ANSWERS if decision.asks is None else NOBODY_GIVES
        return Refused(decision.call, "NoAnswer", told, decision.judged)
    if approves_itself(decision, interaction):
        return replace(decision, waits=None)
    return Refused(decision.call, "ApprovalDenied", NOBODY_APPROVES, decision.judged)
