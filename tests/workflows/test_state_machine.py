"""Any run at all: random turns, outcomes and messages, and what always holds."""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from holdfast.bounds import json_size
from holdfast.carried import Outcome, Reference
from holdfast.message import Transcript, user_message
from holdfast.request import UserMessage
from holdfast.workflows.admission import Admitted
from holdfast.workflows.state import CallModel, CallTools, Finish, Move, RunState
from tests.workflows.states import fresh, turn

NAMES = st.lists(st.sampled_from(["add", "look", "nope"]), max_size=6)
OUTPUTS = st.none() | st.integers() | st.text(max_size=20) | st.just("x" * 30_000) | st.lists(st.text(max_size=5))
OUTCOMES = st.builds(Outcome, output=OUTPUTS) | st.builds(
    Outcome, error_type=st.just("ValueError"), error=st.text(max_size=20)
)


class AnyRun(RuleBasedStateMachine):
    """Plays the workflow: asks for the next move, and answers it at random."""

    state: RunState
    move: Move | None = None
    closing_calls = 0

    @initialize(
        max_steps=st.integers(1, 6),
        max_model_calls=st.integers(1, 6),
        max_tool_calls=st.integers(0, 12),
        max_tool_calls_per_turn=st.integers(1, 4),
    )
    def begin(self, **limits: Any) -> None:
        self.state = fresh(**limits)

    @precondition(lambda self: not isinstance(self.move, Finish))
    @rule(text=st.text(min_size=1, max_size=9), message_id=st.none() | st.sampled_from(["m1", "m2"]))
    def message(self, text: str, message_id: str | None) -> None:
        before = len(self.state.transcript)
        self.state.receive(UserMessage(text=text, id=message_id))
        assert len(self.state.transcript) == before

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
    def answer(self, named: list[str], text: str | None, dropped: int) -> None:
        assert isinstance(self.move, CallModel)
        if self.move.call.closing:
            named = []
        self.state.record(turn(self.move.call.step, *named, text=text, dropped=dropped))
        self.move = None

    @precondition(lambda self: isinstance(self.move, CallTools))
    @rule(data=st.data())
    def results(self, data: Any) -> None:
        assert isinstance(self.move, CallTools)
        slots, made = self.move.turn.slots.values(), self.state.counts.tool_calls
        for slot in data.draw(st.permutations(self.move.turn.open)):
            self.state.settle(slot.call.id, data.draw(OUTCOMES))
        assert self.state.turn is None
        assert self.state.counts.tool_calls == made + sum(isinstance(slot.decision, Admitted) for slot in slots)
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
        assert waiting == [call.id for call in self.state.unsettled()]

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
