"""The tool calls of one turn, from their admission until all of them have ended: plain data, without Temporal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from holdfast.agent import Interaction
from holdfast.bounds import CARRIED_OUTCOMES_BYTES, EDITED_MAX_BYTES, cut_json, json_size
from holdfast.carried import Awaited, Granted, OpenTurn, Outcome, Settled
from holdfast.message import ToolCall, tool_content
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
    approves_itself,
    judged,
)
from holdfast.workflows.policy import Judge, denied, typed
from holdfast.workflows.slot import Slot, denied_by, refusal, slot_of

_OUTCOME_FRAME_BYTES = 512
"""Of a carried outcome, around its output or error: a type and a time."""
RESTED = "The time has come."
WOKEN = "Woken before the time by a new message."


class NotAwaited(ValueError):
    """Nobody waits for this decision or answer: it is unknown, settled or changed."""


class Turn:
    """The calls of the last assistant message, in their order."""

    def __init__(
        self, decisions: Iterable[Decision], interaction: Interaction, now: float, judge: Judge | None = None
    ) -> None:
        self.interaction = interaction
        self.judge = judge or Judge()
        self.slots = {each.call.id: slot_of(each, interaction, now) for each in decisions}

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
        assert isinstance(slot.decision, Admitted)
        denial = self.judge.judge(slot.call.id, slot.decision.spec, arguments).denial
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
            slot.settle(denied_by(verdict), made=False)

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
        slot.outcome = refusal(slot.decision)

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


def _given(slot: Slot, answer: Answer) -> dict[str, Any]:
    """Return the argument that an answer is."""
    assert isinstance(slot.decision, Admitted)
    assert slot.asks is not None
    assert slot.asks.into is not None
    return {slot.asks.into: typed(answer.text, slot.decision.spec, slot.asks.into)}


def _carried(outcome: Outcome, output_max_chars: int, max_bytes: int) -> Outcome:
    """Return an outcome that takes no more room than it may: the beginning of what the model would see of it."""
    if json_size(outcome.wire()) <= max_bytes:
        return outcome
    room = max_bytes - _OUTCOME_FRAME_BYTES
    if outcome.error is not None:
        return outcome.model_copy(update={"error": cut_json(outcome.error, room)})
    return outcome.model_copy(update={"output": cut_json(tool_content(outcome.output, output_max_chars), room)})
