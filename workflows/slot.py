"""One tool call of a turn, from its admission until it has ended: plain data, without Temporal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from holdfast.agent import Interaction
from holdfast.bounds import cut, cut_chars, to_json
from holdfast.builtins import rest_until
from holdfast.carried import Outcome
from holdfast.envelope import enveloped
from holdfast.message import Message, ToolCall, told_by_tool, tool_message, tool_text
from holdfast.request import Answer
from holdfast.request import Decision as Verdict
from holdfast.workflows.admission import Admitted, Decision, Refused, Waits, arguments_digest
from holdfast.workflows.policy import Judgement, typed, worded

_EDITED_MAX_CHARS = 2_000


@dataclass
class Slot:
    """One call of the turn."""

    decision: Decision
    waits: Waits | None = None
    """What it still waits for."""
    until: float | None = None
    """When it waits no longer, in seconds since the epoch."""
    granted: bool = False
    edited: dict[str, Any] | None = None
    """Arguments that somebody approved it with, where they are not the model's."""
    outcome: Outcome | None = None
    made: bool = False
    """Whether the tool was called, which limits count."""

    @property
    def call(self) -> ToolCall:
        """The model's call."""
        return self.decision.call

    @property
    def arguments(self) -> dict[str, Any]:
        """What the tool is called with."""
        assert isinstance(self.decision, Admitted)
        return self.decision.arguments if self.edited is None else self.edited

    @property
    def digest(self) -> str:
        """The hash that binds an approval to this tool and these arguments."""
        assert isinstance(self.decision, Admitted)
        return arguments_digest(self.call.name, self.decision.arguments, self.decision.spec.fingerprint)

    @property
    def fingerprint(self) -> str | None:
        """What the tool's description hashed to, where somebody else describes it."""
        return self.decision.spec.fingerprint if isinstance(self.decision, Admitted) else None

    @property
    def is_fed(self) -> bool:
        """Whether a worker knows the result's message from the tool's output alone."""
        assert self.outcome is not None
        spec = self.decision.spec if isinstance(self.decision, Admitted) else None
        unfed = spec is not None and (spec.builtin or spec.subagent or spec.is_elsewhere)
        as_made = self.edited is None and not self.given and self.asks is None
        return self.outcome.error is None and as_made and not unfed

    @property
    def asks(self) -> Judgement | None:
        """The policy that wants a person's input before the call is made, or in its place."""
        return self.decision.asks if isinstance(self.decision, Admitted) else None

    @property
    def question(self) -> str:
        """What a person is asked."""
        assert isinstance(self.decision, Admitted)
        asks, arguments = self.asks, self.decision.arguments
        return str(arguments.get("question", "")) if asks is None else worded(asks, self.call.name, arguments)

    @property
    def _is_said_by_tool(self) -> bool:
        """Whether the outcome is the tool's own, and not a person's or ours."""
        decision = self.decision
        return self.made and isinstance(decision, Admitted) and decision.spec.builtin is None and decision.asks is None

    def result(self, max_chars: int, boundary: str | None = None) -> Message:
        """Return what the model is told, once the call has ended; what the tool itself said is enveloped."""
        outcome = self.outcome
        assert outcome is not None
        call_id, mark = self.call.id, boundary if self._is_said_by_tool else None
        if outcome.error is not None:
            error = f"Error ({outcome.error_type}): {outcome.error}"
            return tool_message(call_id, error if mark is None else enveloped(error, call_id, mark, max_chars))
        content = told_by_tool(call_id, tool_text(outcome.output), max_chars, mark)
        if self.asks is not None:
            content = f"It was not called. In its place a person says: {content}"
        elif self.edited is not None:
            told = cut_chars(to_json(self.edited), _EDITED_MAX_CHARS)
            content = f"{content}\n\n(approved with other arguments: {told})"
        elif self.given:
            told = cut_chars(to_json(dict(self.given)), _EDITED_MAX_CHARS)
            content = f"{content}\n\n(called with what a person gave: {told})"
        return tool_message(call_id, content)

    def is_decided_as(self, verdict: Verdict) -> bool:
        """Say whether this is what somebody has decided already."""
        if verdict.decision == "approve":
            return self.granted and self.edited == verdict.arguments
        return self.outcome == denied_by(verdict)

    def is_answered_with(self, answer: Answer) -> bool:
        """Say whether this is what the call's question was answered with."""
        if not isinstance(self.decision, Admitted):
            return False
        last = list(self.given.items())[-1:]
        if any(value == typed(answer.text, self.decision.spec, name) for name, value in last):
            return True
        return self.decision.waits == "answer" and self.outcome == Outcome(output=answer.text)

    @property
    def given(self) -> Mapping[str, Any]:
        """The arguments that a person gave where a policy asked for them."""
        return self.decision.given if isinstance(self.decision, Admitted) else {}

    @property
    def is_refused_anew(self) -> bool:
        """Whether the next link refuses the call by itself; a policy, which may be another by then, is not asked."""
        return self.outcome == refusal(self.decision) and not self.decision.judged.said

    def settle(self, outcome: Outcome, *, made: bool) -> None:
        """Take the outcome; the first one counts."""
        if self.outcome is None:
            self.outcome, self.made, self.waits = outcome, made, None


def slot_of(decision: Decision, interaction: Interaction, now: float) -> Slot:
    """Open a call as it was decided; `now` is in seconds since the epoch."""
    if isinstance(decision, Refused):
        return Slot(decision, outcome=refusal(decision))
    until = None
    if decision.waits == "timer":
        until = rest_until(decision.call.name, decision.arguments, now)
    elif decision.waits is not None and interaction.timeout_seconds is not None:
        until = now + interaction.timeout_seconds
    return Slot(decision, decision.waits, until)


def denied_by(verdict: Verdict) -> Outcome:
    """Return the outcome of a call that somebody has denied."""
    told = cut("it was not approved" + (f": {verdict.reason}" if verdict.reason else ""))
    return Outcome(error_type="ApprovalDenied", error=told)


def refusal(decision: Decision) -> Outcome | None:
    """Return the outcome of a call that is not made; None for one that is."""
    if isinstance(decision, Refused):
        return Outcome(error_type=decision.type, error=decision.message, latency_ms=0.0)
    return None
