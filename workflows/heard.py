"""What a run takes from outside: messages, pauses, decisions, answers, and times that have come."""

from __future__ import annotations

from abc import ABC, abstractmethod

from holdfast.bounds import cut
from holdfast.request import Answer, UserMessage
from holdfast.request import Decision as Verdict
from holdfast.workflows.seen import SeenIds
from holdfast.workflows.slot import Slot
from holdfast.workflows.turn import NotAwaited
from holdfast.workflows.turn import Turn as OpenCalls


class Heard(ABC):
    """The part of a run's state that is spoken to."""

    inbox: list[UserMessage]
    paused: str | None
    turn: OpenCalls | None
    seen_ids: SeenIds

    def receive(self, message: UserMessage) -> bool:
        """Take a message for the next step; False for an id that was seen before."""
        if message.id is not None and not self.seen_ids.take(message.id):
            return False
        self.inbox.append(message)
        self.wake()
        return True

    def pause(self, reason: str | None) -> bool:
        """Let no further activity begin; False where the run is paused already."""
        if self.paused is not None:
            return False
        self.paused = cut(reason or "")
        return True

    def unpause(self) -> bool:
        """Go on; False where the run is not paused."""
        was, self.paused = self.paused, None
        return was is not None

    def check_decision(self, verdict: Verdict) -> Slot:
        """Return the call that a decision is about; NotAwaited for an unknown, settled or changed one."""
        if self.turn is None:
            raise NotAwaited(f"no call {verdict.call_id[:40]!r} waits for a decision")
        return self.turn.check(verdict)

    def decide(self, verdict: Verdict) -> None:
        """Take a decision."""
        self.check_decision(verdict)
        assert self.turn is not None
        self.turn.decide(verdict)
        self.close_turn()

    def check_answer(self, answer: Answer) -> Slot:
        """Return the call that asked; NotAwaited for an unknown or answered question."""
        if self.turn is None:
            raise NotAwaited(f"no question {answer.question_id[:40]!r} waits for an answer")
        return self.turn.check_answer(answer)

    def answer(self, answer: Answer) -> None:
        """Take an answer."""
        self.check_answer(answer)
        assert self.turn is not None
        self.turn.answer(answer)
        self.close_turn()

    def expire(self, call_id: str) -> None:
        """End a wait whose time has come."""
        if self.turn is not None and call_id in self.turn.slots:
            self.turn.expire(call_id)
            self.close_turn()

    def wake(self) -> None:
        """End the rests if there is a message, and the turn if nothing else is open."""
        if self.turn is not None and self.inbox:
            self.turn.wake()
        self.close_turn()

    @abstractmethod
    def close_turn(self) -> None:
        """Go on from the turn, once all of its calls have ended."""
