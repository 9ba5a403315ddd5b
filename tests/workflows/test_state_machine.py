"""Any run at all: random turns, outcomes, messages, people, pauses and links, and what always holds."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Literal

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from holdfast import Interaction
from holdfast.bounds import json_size
from holdfast.carried import Outcome, Reference
from holdfast.message import Transcript, user_message
from holdfast.request import Answer, Decision, UserMessage
from holdfast.workflows.admission import Admitted
from holdfast.workflows.moves import CallModel, CallTools, Finish, Move
from holdfast.workflows.slot import Slot
from holdfast.workflows.state import RunState
from holdfast.workflows.turn import NotAwaited
from tests.workflows.states import WAITING_TOOLS, continued, fresh, handed_over, observable, turn

NAMES = st.lists(st.sampled_from(["add", "look", "nope", "pay", "ask_user", "sleep"]), max_size=6)
OUTPUTS = st.none() | st.integers() | st.text(max_size=20) | st.just("x" * 30_000) | st.lists(st.text(max_size=5))
OUTCOMES = st.builds(Outcome, output=OUTPUTS) | st.builds(
    Outcome, error_type=st.just("ValueError"), error=st.text(max_size=20)
)
MODES = st.builds(
    Interaction,
    mode=st.sampled_from(["external", "headless"]),
    fallback=st.sampled_from(["deny", "approve"]),
    timeout_seconds=st.none() | st.just(30.0),
)


class AnyRun(RuleBasedStateMachine):
    """Plays the workflow: asks for the next move, and answers it at random."""

    state: RunState
    move: Move | None = None
    closing_calls = 0
    now = 1_000.0

    @initialize(
        interaction=MODES,
        max_steps=st.integers(1, 6),
        max_model_calls=st.integers(1, 6),
        max_tool_calls=st.integers(0, 12),
        max_tool_calls_per_turn=st.integers(1, 4),
    )
    def begin(self, interaction: Interaction, **limits: Any) -> None:
        self.state = fresh(tools=WAITING_TOOLS, interaction=interaction, **limits)

    @property
    def waiting(self) -> list[Slot]:
        return self.state.waiting if hasattr(self, "state") else []

    def awaits(self, *kinds: str) -> bool:
        return any(slot.waits in kinds for slot in self.waiting)

    def a_slot(self, data: Any, *kinds: str) -> Slot:
        found: Slot = data.draw(st.sampled_from([slot for slot in self.waiting if slot.waits in kinds]))
        return found

    def after_a_call(self) -> None:
        if self.state.turn is None and isinstance(self.move, CallTools):
            self.move = None

    @precondition(lambda self: not isinstance(self.move, Finish))
    @rule(text=st.text(min_size=1, max_size=9), message_id=st.none() | st.sampled_from(["m1", "m2"]))
    def message(self, text: str, message_id: str | None) -> None:
        before, rests = len(self.state.transcript), self.awaits("timer")
        taken = self.state.receive(UserMessage(text=text, id=message_id))
        assert not (taken and self.awaits("timer"))
        assert len(self.state.transcript) == before or (taken and rests)
        assert (text in [each.text for each in self.state.inbox]) or not taken
        self.after_a_call()

    @precondition(lambda self: self.move is None)
    @rule()
    def step(self) -> None:
        self.move = self.state.next_move()
        if isinstance(self.move, CallModel):
            call = self.move.call
            self.closing_calls += call.closing is not None
            assert self.state.inbox == []
            assert call.transcript == Reference(length=len(self.state.transcript), digest=self.digest())
            assert sum(json_size(each.message) for each in call.pushed) <= 4096
            for each in call.pushed:
                assert each.message == self.state.transcript.messages[each.index].wire()

    @precondition(lambda self: isinstance(self.move, CallModel))
    @rule(named=NAMES, text=st.none() | st.text(max_size=9), dropped=st.integers(0, 3))
    def turn(self, named: list[str], text: str | None, dropped: int) -> None:
        assert isinstance(self.move, CallModel)
        if self.move.call.closing:
            named = []
        self.state.record(turn(self.move.call.step, *named, text=text, dropped=dropped), self.now)
        self.move = None

    @precondition(lambda self: isinstance(self.move, CallTools))
    @rule(data=st.data())
    def results(self, data: Any) -> None:
        """End some of the calls that wait for nothing."""
        assert isinstance(self.move, CallTools)
        turn, made = self.move.turn, self.state.counts.tool_calls
        open_calls = [slot for slot in turn.open if slot.waits is None]
        for slot in data.draw(st.permutations(open_calls))[: data.draw(st.integers(0, len(open_calls)))]:
            self.state.settle(slot.call.id, data.draw(OUTCOMES))
        if self.state.turn is None:
            assert self.state.counts.tool_calls == made + sum(slot.made for slot in turn.slots.values())
        else:
            assert self.state.counts.tool_calls == made
        self.after_a_call()

    @precondition(lambda self: self.awaits("approval"))
    @rule(data=st.data(), decision=st.sampled_from(["approve", "deny"]), edits=st.booleans(), bound=st.booleans())
    def decide(self, data: Any, decision: Literal["approve", "deny"], edits: bool, bound: bool) -> None:
        slot = self.a_slot(data, "approval")
        arguments: dict[str, Any] | None = {"amount": 7} if edits and decision == "approve" else None
        digest = slot.digest if bound else None
        verdict = Decision(call_id=slot.call.id, decision=decision, arguments=arguments, digest=digest)
        self.state.decide(verdict)
        assert slot.waits is None
        assert slot.arguments == ({"amount": 7} if arguments else {})
        self.is_heard_once(verdict)
        other = verdict.model_copy(update={"decision": "deny", "arguments": None, "reason": "another"})
        self.is_stale(other)
        self.after_a_call()

    @precondition(lambda self: self.awaits("answer"))
    @rule(data=st.data(), text=st.text(min_size=1, max_size=9))
    def answer(self, data: Any, text: str) -> None:
        slot = self.a_slot(data, "answer")
        self.state.answer(Answer(question_id=slot.call.id, text=text))
        assert slot.outcome == Outcome(output=text)
        self.after_a_call()

    @precondition(lambda self: hasattr(self, "state"))
    @rule(data=st.data())
    def nonsense(self, data: Any) -> None:
        """Decide what waits for no decision, or was changed: nothing comes of it."""
        others = [slot.call.id for slot in self.waiting if slot.waits != "approval"]
        self.is_stale(Decision(call_id=data.draw(st.sampled_from(["none", *others])), decision="approve"))
        for slot in self.waiting:
            self.is_stale(Decision(call_id=slot.call.id, decision="approve", digest="0" * 16))

    def is_heard_once(self, verdict: Decision) -> None:
        """Say again what was decided, as a caller does that has not learnt that it was taken."""
        before = observable(self.state)
        if self.state.turn is not None:  # else the turn has closed, and nobody knows of it any more
            self.state.decide(verdict)
        assert observable(self.state) == before

    def is_stale(self, verdict: Decision) -> None:
        before = observable(self.state)
        with suppress(NotAwaited):
            self.state.decide(verdict)
            raise AssertionError(f"{verdict} was taken")
        assert observable(self.state) == before

    @precondition(lambda self: any(slot.until is not None for slot in self.waiting))
    @rule()
    def time_passes(self) -> None:
        slot = min((slot for slot in self.waiting if slot.until is not None), key=lambda slot: slot.until or 0)
        self.now = max(self.now, slot.until or 0)
        self.state.expire(slot.call.id)
        assert slot.waits is None
        self.after_a_call()

    @precondition(lambda self: hasattr(self, "state"))
    @rule(reason=st.none() | st.text(max_size=9))
    def pause(self, reason: str | None) -> None:
        was = self.state.paused
        assert self.state.pause(reason) == (was is None)
        assert self.state.paused == ((reason or "") if was is None else was)

    @precondition(lambda self: hasattr(self, "state"))
    @rule()
    def unpause(self) -> None:
        was = self.state.paused
        assert self.state.unpause() == (was is not None)

    @precondition(lambda self: hasattr(self, "state") and not isinstance(self.move, CallModel))
    @rule(later=st.floats(0, 1000))
    def hand_over(self, later: float) -> None:
        """Continue as new: the next link is the same run in all that anybody can notice."""
        self.now += later
        before, then = observable(self.state), continued(self.state)
        following = handed_over(self.state, self.now)
        assert observable(following) == before
        assert continued(following) == then
        self.state = following
        if isinstance(self.move, CallTools):
            self.move = None

    @precondition(lambda self: isinstance(self.move, Finish))
    @rule()
    def finished(self) -> None:
        assert self.state.next_move() == self.move

    def digest(self) -> str:
        """The transcript's digest, computed anew from its messages."""
        again = Transcript()
        for message in self.state.transcript.messages:
            again.append(message)
        return again.digest()

    @invariant()
    def no_limit_is_passed(self) -> None:
        if hasattr(self, "state"):
            limits = self.state.limits
            assert self.state.steps <= limits.max_steps
            assert self.state.counts.model_calls <= limits.max_model_calls
            assert self.state.counts.tool_calls <= limits.max_tool_calls
            assert self.closing_calls <= 1

    @invariant()
    def every_call_is_answered_once_in_order_and_at_once(self) -> None:
        if not hasattr(self, "state"):
            return
        waiting: list[str] = []
        answered: list[str] = []
        for message in self.state.transcript.messages:
            if message.role == "tool":
                assert message.tool_call_id == waiting.pop(0)
                answered.append(message.tool_call_id)
            else:
                assert waiting == []
                waiting = [call.id for call in message.tool_calls]
        assert len(answered) == len(set(answered))
        assert waiting == [call.id for call in self.state.talk.unsettled()]
        assert (self.state.turn is not None) == bool(waiting)

    @invariant()
    def what_waits_is_told(self) -> None:
        if hasattr(self, "state"):
            told = [(each["id"], each["kind"]) for each in self.state.waiting_for()]
            assert told == [(slot.call.id, slot.waits) for slot in self.waiting]
            assert all(isinstance(slot.decision, Admitted) and slot.outcome is None for slot in self.waiting)

    @invariant()
    def a_finished_run_has_said_its_last_word(self) -> None:
        if isinstance(self.move, Finish):
            last = self.state.transcript.messages[-1]
            assert last.role == "assistant"
            assert not last.tool_calls
            assert self.move.status == ("degraded" if self.state.limit_reached else "completed")
            assert self.state.limit_reached or not self.state.inbox

    @invariant()
    def the_first_word_is_the_users(self) -> None:
        if hasattr(self, "state"):
            assert self.state.transcript.messages[0] == user_message("Hello")


AnyRun.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestAnyRun = AnyRun.TestCase
