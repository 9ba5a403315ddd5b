"""The tool calls of one turn, from their admission until all of them have ended: plain data, without Temporal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from holdfast.agent import Interaction
from holdfast.bounds import CARRIED_OUTCOMES_BYTES, EDITED_MAX_BYTES, cut, cut_chars, cut_json, json_size, to_json
from holdfast.builtins import rest_until
from holdfast.carried import Awaited, Granted, OpenTurn, Outcome, Settled
from holdfast.envelope import enveloped
from holdfast.message import Message, ToolCall, told_by_tool, tool_content, tool_message, tool_text
from holdfast.request import Answer
from holdfast.request import Decision as Verdict
from holdfast.tools import ToolSpec
from holdfast.workflows.admission import (
    NOBODY_ANSWERS,
    NOBODY_APPROVES,
    NOBODY_GIVES,
    Admitted,
    Decision,
    Refused,
    Waits,
    approves_itself,
    arguments_digest,
    judged,
)
from holdfast.workflows.policy import Judge, Judgement, denied, typed, worded

_OUTCOME_FRAME_BYTES = 512
"""Of a carried outcome, around its output or error: a type and a time."""
RESTED = "The time has come."
_EDITED_MAX_CHARS = 2_000
WOKEN = "Woken before the time by a new message."


_OF_A_CALL = ("tool_name", "arguments", "question", "options")


class NotAwaited(ValueError):
    """Nobody waits for this decision or answer: it is unknown, settled or changed."""


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
        return self.outcome == _denied(verdict)

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
        return self.outcome == _refusal(self.decision) and not self.decision.judged.said

    def settle(self, outcome: Outcome, *, made: bool) -> None:
        """Take the outcome; the first one counts."""
        if self.outcome is None:
            self.outcome, self.made, self.waits = outcome, made, None


class Turn:
    """The calls of the last assistant message, in their order."""

    def __init__(
        self, decisions: Iterable[Decision], interaction: Interaction, now: float, judge: Judge | None = None
    ) -> None:
        self.interaction = interaction
        self.judge = judge or Judge()
        self.slots = {each.call.id: _slot(each, interaction, now) for each in decisions}

    @property
    def done(self) -> bool:
        """True once every call has ended."""
        return all(slot.outcome is not None for slot in self.slots.values())

    @property
    def open(self) -> list[Slot]:
        """The calls that have not ended."""
        return [slot for slot in self.slots.values() if slot.outcome is None]

    @property
    def waiting(self) -> list[Slot]:
        """The calls that wait for a person or for a time."""
        return [slot for slot in self.open if slot.waits is not None]

    def check(self, verdict: Verdict) -> Slot:
        """Return the call that a decision is about; NotAwaited for an unknown, settled or changed one.

        The very decision that was taken may come again: the caller may not have learnt that it was.
        """
        slot = self.slots.get(verdict.call_id)
        if slot is None or isinstance(slot.decision, Refused):
            raise NotAwaited(f"no call {verdict.call_id[:40]!r} waits for a decision")
        if slot.waits != "approval" and not slot.is_decided_as(verdict):
            raise NotAwaited(f"the call {verdict.call_id!r} waits for no decision any more")
        if verdict.digest is not None and verdict.digest != slot.digest:
            raise NotAwaited(f"the call {verdict.call_id!r} has other arguments than those that were decided on")
        if slot.waits != "approval":
            return slot
        if verdict.arguments:
            self._check_arguments(slot, verdict.arguments, verdict.arguments)
        return slot

    def _check_arguments(self, slot: Slot, arguments: dict[str, Any], new: dict[str, Any]) -> None:
        """Raise NotAwaited for arguments of a person's that a policy forbids, or that no turn has room for."""
        held = [part for one in self.slots.values() for part in (one.edited, one.given) if part]
        if sum(map(json_size, [new, *held])) > EDITED_MAX_BYTES:
            raise NotAwaited(f"people give the calls of one turn at most {EDITED_MAX_BYTES:,} bytes of arguments")
        denial = self.judge.judge(slot.call.id, slot.call.name, arguments).denial
        if denial is not None:
            raise NotAwaited(f"with these arguments the call is not allowed: {denied(denial)[1]}")

    def decide(self, verdict: Verdict) -> None:
        """Let a call be made, or refuse it."""
        slot = self.check(verdict)
        if slot.waits != "approval":
            return
        if verdict.decision == "approve":
            slot.waits, slot.granted, slot.edited = None, True, verdict.arguments
        else:
            slot.settle(_denied(verdict), made=False)

    def check_answer(self, answer: Answer) -> Slot:
        """Return the call that asked; NotAwaited for an unknown question, or one that was answered otherwise."""
        slot = self.slots.get(answer.question_id)
        if slot is None or (slot.waits != "answer" and not slot.is_answered_with(answer)):
            raise NotAwaited(f"no question {answer.question_id[:40]!r} waits for an answer")
        if slot.waits == "answer" and slot.asks is not None and slot.asks.into is not None:
            given = _given(slot, answer)
            self._check_arguments(slot, {**slot.arguments, **given}, given)
        return slot

    def answer(self, answer: Answer) -> None:
        """Give the answer to the model, or into the call that waits for it; the first one counts."""
        slot = self.check_answer(answer)
        decision = slot.decision
        if slot.waits != "answer" or not isinstance(decision, Admitted):
            return
        if slot.asks is None or slot.asks.into is None:
            slot.settle(Outcome(output=answer.text), made=slot.asks is None)
            return
        given = {**decision.given, **_given(slot, answer)}
        slot.decision = judged(decision.call, decision.spec, {**decision.arguments, **given}, self.judge, given)
        slot.waits = slot.decision.waits if isinstance(slot.decision, Admitted) else None
        slot.outcome = _refusal(slot.decision)

    def expire(self, call_id: str) -> None:
        """End a wait whose time has come."""
        slot = self.slots[call_id]
        match slot.waits:
            case "timer":
                slot.settle(Outcome(output=RESTED), made=True)
            case "answer" if slot.asks is not None:
                slot.settle(Outcome(error_type="NoAnswer", error=NOBODY_GIVES), made=False)
            case "answer":
                slot.settle(Outcome(error_type="NoAnswer", error=NOBODY_ANSWERS), made=True)
            case "approval" if isinstance(slot.decision, Admitted) and approves_itself(slot.decision, self.interaction):
                slot.waits, slot.granted = None, True
            case "approval":
                slot.settle(Outcome(error_type="ApprovalDenied", error=NOBODY_APPROVES), made=False)

    def wake(self) -> None:
        """End the rests: somebody has something to say."""
        for slot in self.waiting:
            if slot.waits == "timer":
                slot.settle(Outcome(output=WOKEN), made=True)

    def handed_on(self, dropped: int, output_max_chars: int) -> OpenTurn:
        """Return what the next link must know of the calls; of outputs what the model will see, 512 KB in all."""
        slots = self.slots.items()
        room = CARRIED_OUTCOMES_BYTES // max(1, len(slots))
        return OpenTurn(
            dropped=dropped,
            settled=tuple(
                Settled(
                    call_id=call_id,
                    outcome=_carried(slot.outcome, output_max_chars, room),
                    made=slot.made,
                    arguments=slot.edited,
                )
                for call_id, slot in slots
                if slot.outcome is not None and not slot.is_refused_anew
            ),
            given=tuple(Granted(call_id=call_id, arguments=dict(slot.given)) for call_id, slot in slots if slot.given),
            awaited=tuple(
                Awaited(call_id=call_id, waits=slot.waits, until=slot.until) for call_id, slot in slots if slot.waits
            ),
            granted=tuple(
                Granted(
                    call_id=call_id,
                    arguments=slot.edited if slot.outcome is None else None,
                    fingerprint=slot.fingerprint,
                )
                for call_id, slot in slots
                if slot.granted
            ),
        )

    def take_over(self, handed_on: OpenTurn) -> None:
        """Take what the link before knew of the calls."""
        for settled in handed_on.settled:
            if settled.call_id in self.slots:
                slot = self.slots[settled.call_id]  # one that would be refused by now has been made all the same
                slot.outcome, slot.made, slot.waits = settled.outcome, settled.made, None
                slot.edited = settled.arguments
        ended, undone = {each.call_id for each in handed_on.settled}, {slot.call.id: slot for slot in self.open}
        for granted in handed_on.granted:  # also where the tool needs no approval by now: the arguments stay
            if granted.call_id in ended and granted.call_id in self.slots:
                self.slots[granted.call_id].granted = True
            elif granted.call_id in undone and undone[granted.call_id].waits in ("approval", None):
                slot = undone[granted.call_id]
                slot.waits, slot.granted, slot.edited = None, True, granted.arguments
        waiting = {slot.call.id: slot for slot in self.waiting}
        for awaited in handed_on.awaited:
            if awaited.call_id in waiting:
                waiting[awaited.call_id].until = awaited.until


def without_void(before: OpenTurn, calls: Iterable[ToolCall], tools: Mapping[str, ToolSpec]) -> OpenTurn:
    """Leave out the approvals of calls to come whose tools are described otherwise by now: they are asked again."""
    prints = {call.id: tools[call.name].fingerprint for call in calls if call.name in tools}
    ended = {each.call_id for each in before.settled}
    kept = (each for each in before.granted if each.call_id in ended or each.fingerprint == prints.get(each.call_id))
    return before.model_copy(update={"granted": tuple(kept)})


def waiting_for(slot: Slot) -> dict[str, Any]:
    """Describe what a call waits for, as the query `status` tells it."""
    assert isinstance(slot.decision, Admitted)
    arguments = slot.decision.arguments
    asks = slot.waits == "answer"
    described = {
        "kind": slot.waits,
        "id": slot.call.id,
        "tool_name": slot.call.name,
        "arguments": arguments,
        "question": slot.question if asks else None,
        "options": arguments.get("options") if asks and slot.asks is None else None,
        "until": slot.until,
        "digest": slot.digest,
    }
    wanted = slot.asks or slot.decision.judged.approval
    return described if wanted is None else {**described, "rule": wanted.rule, "reason": wanted.reason}


def waits_for_thread(thread_id: str) -> dict[str, Any]:
    """Describe that a run waits for its turn in a thread."""
    return {"kind": "thread", "id": thread_id, **dict.fromkeys(_OF_A_CALL), "until": None, "digest": None}


def waits_for_model(model: str, until: float) -> dict[str, Any]:
    """Describe that a run rests until it asks a model again."""
    return {"kind": "model", "id": model, **dict.fromkeys(_OF_A_CALL), "until": until, "digest": None}


def _denied(verdict: Verdict) -> Outcome:
    told = cut("it was not approved" + (f": {verdict.reason}" if verdict.reason else ""))
    return Outcome(error_type="ApprovalDenied", error=told)


def _given(slot: Slot, answer: Answer) -> dict[str, Any]:
    """Return the argument that an answer is."""
    assert isinstance(slot.decision, Admitted)
    assert slot.asks is not None
    assert slot.asks.into is not None
    return {slot.asks.into: typed(answer.text, slot.decision.spec, slot.asks.into)}


def _refusal(decision: Decision) -> Outcome | None:
    """Return the outcome of a call that is not made; None for one that is."""
    if isinstance(decision, Refused):
        return Outcome(error_type=decision.type, error=decision.message, latency_ms=0.0)
    return None


def _carried(outcome: Outcome, output_max_chars: int, max_bytes: int) -> Outcome:
    """Return an outcome that takes no more room than it may: the beginning of what the model would see of it."""
    if json_size(outcome.wire()) <= max_bytes:
        return outcome
    room = max_bytes - _OUTCOME_FRAME_BYTES
    if outcome.error is not None:
        return outcome.model_copy(update={"error": cut_json(outcome.error, room)})
    return outcome.model_copy(update={"output": cut_json(tool_content(outcome.output, output_max_chars), room)})


def _slot(decision: Decision, interaction: Interaction, now: float) -> Slot:
    if isinstance(decision, Refused):
        return Slot(decision, outcome=_refusal(decision))
    until = None
    if decision.waits == "timer":
        until = rest_until(decision.call.name, decision.arguments, now)
    elif decision.waits is not None and interaction.timeout_seconds is not None:
        until = now + interaction.timeout_seconds
    return Slot(decision, decision.waits, until)
