"""What a thread knows and what it does next: plain data and plain decisions, without Temporal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from holdfast.agent import Compaction, ModelSettings
from holdfast.bounds import THREAD_QUEUE_MAX
from holdfast.calls import Compact
from holdfast.carried import Reference
from holdfast.message import Message, Transcript, Usage, is_summary, whole_turns
from holdfast.request import RunRequest
from holdfast.threads import Collect, Collected, CompactThread, Entering, Holding, ThreadCarried, TurnGiven, Visit
from holdfast.workflows import compaction
from holdfast.workflows.state import RunState

_FIRST_LOOK_SECONDS = 2.0
_LONGEST_REST_SECONDS = 60.0
_ATTEMPTS = 20
"""Times that a run's end is looked for and the answer fails, before the thread goes on without what it has said."""


def join(state: RunState, request: RunRequest, run_id: str) -> None:
    """Make a run that begins one of its thread's: what it takes over from a closed link counts as handed over.

    A fork's beginning does too, in a thread that has other memories; in an empty one it becomes the memory.
    """
    if request.thread_id is None or request.carried is not None:
        return
    state.awaits_thread = request.thread_id
    if request.after is not None and request.after.workflow_id not in (None, run_id):
        state.memory = Reference(length=0, digest="")
    if state.memory is not None:
        state.handed_over = whole_turns(state.transcript.messages)


@dataclass(frozen=True)
class Give:
    """Next: tell a run that it is its turn."""

    run_id: str
    turn: TurnGiven


@dataclass(frozen=True)
class Gather:
    """Next: see whether the run has ended whose turn it was, and take over what it said."""

    visit: Visit
    wait: bool


@dataclass(frozen=True)
class Rest:
    """Next: nothing, for so many seconds, or until somebody says something."""

    seconds: float | None = None


Move = Give | Gather | Rest


@dataclass
class Holder:
    """The run whose turn it is."""

    visit: Visit
    given: Reference
    messages: Sequence[Message]
    """The memory as it was when the turn was given."""
    told: bool = False
    left: bool = False
    """Whether it has said that it is about to end; a message that came meanwhile may keep it."""
    left_again: bool = False
    """Whether it has said so while its end was waited for."""
    look_at: float | None = None
    """When to see whether it has ended, in seconds since the epoch."""
    rest: float = _FIRST_LOOK_SECONDS
    failures: int = 0


@dataclass
class ThreadState:
    """The memory of a conversation, and who may add to it."""

    memory: Transcript = field(default_factory=Transcript)
    queue: list[Visit] = field(default_factory=list)
    holder: Holder | None = None
    model: str | None = None
    """What the last run's agent summarises with."""
    settings: ModelSettings | None = None
    usage: Usage = field(default_factory=Usage)
    """Of the thread's own compactions."""
    runs: int = 0
    """Those that have had their turn and ended."""
    created_at: float = 0.0
    continue_after_events: int = ThreadCarried.model_fields["continue_after_events"].default
    continue_after_bytes: int = ThreadCarried.model_fields["continue_after_bytes"].default
    version: int = 0
    """Grows with everything that is said to the thread."""

    @property
    def reference(self) -> Reference:
        """The memory as length and digest."""
        return Reference(length=len(self.memory), digest=self.memory.digest())

    @property
    def leaving(self) -> bool:
        """True while what a run has said is still to be collected."""
        return self.holder is not None and self.holder.left

    # What comes from outside

    def enter(self, asking: Entering) -> bool:
        """Put a run at the end of the queue; False where that is too long. The holder is told of its turn again."""
        self.version += 1
        self.continue_after_events = asking.continue_after_events
        self.continue_after_bytes = asking.continue_after_bytes
        visit = Visit(run_id=asking.run_id, first_link=asking.first_link, link=asking.link)
        self.queue = [each for each in self.queue if each.run_id != visit.run_id or each.key == visit.key]
        if self.holder is not None and self.holder.visit.key == visit.key:
            self.holder.told = False
            return True
        if self.holder is not None and self.holder.visit.run_id == visit.run_id:
            # A run id is never two runs at once: the start before this one has ended.
            self.left(self.holder.visit.model_copy(update={"link": asking.after or self.holder.visit.link}))
        if any(each.key == visit.key for each in self.queue):
            return True
        if len(self.queue) >= THREAD_QUEUE_MAX:
            return False
        self.queue.append(visit)
        return True

    def left(self, visit: Visit) -> None:
        """Note that a run has ended, or is about to; it may say so again, if it went on meanwhile."""
        self.version += 1
        self.queue = [each for each in self.queue if each.key != visit.key]
        holder = self.holder
        if holder is not None and holder.visit.key == visit.key:
            holder.visit, holder.left, holder.left_again = visit, True, holder.left
            holder.look_at, holder.rest = None, _FIRST_LOOK_SECONDS

    # What to do next

    def next_move(self, now: float) -> Move:
        """Give the next run its turn, see whether the present one has ended, or rest.

        Nobody looks after a run that has not left, while no other waits: so an idle thread has no timer.
        """
        if self.holder is None:
            if not self.queue:
                return Rest()
            self.holder = Holder(self.queue.pop(0), self.reference, list(self.memory.messages))
        holder = self.holder
        if not holder.left and not holder.told:
            return Give(holder.visit.run_id, TurnGiven(first_link=holder.visit.first_link, memory=holder.given))
        if not holder.left and not self.queue:
            holder.look_at, holder.rest = None, _FIRST_LOOK_SECONDS
            return Rest()
        if holder.look_at is None:
            holder.look_at = now if holder.left else now + holder.rest
        return Gather(holder.visit, holder.left) if now >= holder.look_at else Rest(holder.look_at - now)

    def to_collect(self, visit: Visit, *, wait: bool) -> Collect:
        """Return what to ask for; only while the memory is not being compacted."""
        if self.holder is not None:
            self.holder.left_again = False
        return Collect(visit=visit, memory=self.reference, wait=wait)

    # What was done

    def told(self, turn: TurnGiven) -> None:
        """Note that the run knows of its turn."""
        if self.holder is not None and self.holder.visit.first_link == turn.first_link:
            self.holder.told = True

    def unreachable(self, turn: TurnGiven) -> None:
        """Note that nobody was there to be told."""
        if self.holder is not None and self.holder.visit.first_link == turn.first_link:
            self.left(self.holder.visit)

    def not_ended(self, now: float) -> None:
        """Look again after a while: 2 seconds at first, at last every minute. A run that had left has gone on."""
        if self.holder is not None:
            self.holder.left = self.holder.left_again
            self._look_later(self.holder, now)

    def not_collected(self, now: float) -> bool:
        """Try again after a while; False once that was done often enough, and the thread goes on without."""
        if self.holder is None:
            return True
        self.holder.failures += 1
        if self.holder.failures >= _ATTEMPTS:
            self.holder = None
            return False
        self._look_later(self.holder, now)
        return True

    def collected(self, found: Collected, messages: Iterable[dict[str, Any]]) -> None:
        """Take over what the run has said; its turn is over."""
        taken = [Message.recorded(each) for each in messages]
        self._remember([*([] if found.whole else self.memory.messages), *taken])
        self.model, self.settings = found.model or self.model, found.settings or self.settings
        self.holder, self.runs = None, self.runs + 1

    def to_compact(self, asked: CompactThread) -> Compact | None:
        """Say what to summarise: all but the last exchange and what may stay; None where there are not two turns."""
        messages = self.memory.messages
        model = asked.model or self.model
        if model is None or sum(each.role == "assistant" for each in messages) < 2:
            return None
        # Less than an agent may ask for: whoever asks for a compaction now is to get one.
        wanted = Compaction.model_construct(at_tokens=2 * asked.keep_tokens + 1, keep_tokens=asked.keep_tokens)
        span = compaction.plan(messages, wanted)
        if span is None:
            return None
        stop = span.stop
        while stop and messages[stop - 1].role == "user" and not is_summary(messages[stop - 1]):
            stop -= 1
        if not any(each.role == "assistant" for each in messages[:stop]):
            return None
        settings = self.settings or ModelSettings()
        return Compact(model=model, start=0, stop=stop, settings=settings, transcript=self.reference)

    def compacted(self, call: Compact, summary: str, usage: Usage) -> None:
        """Put a summary where the oldest turns were."""
        self.usage = self.usage + usage
        self._remember(compaction.compacted(self.memory.messages, compaction.Span(call.start, call.stop), summary))

    # What is shown and handed on

    def shown_to(self, digest: str | None) -> Sequence[Message]:
        """Return the memory, or the one that the holder was given; ValueError where neither has this digest."""
        if digest is None or digest == self.memory.digest():
            return self.memory.messages
        if self.holder is not None and digest == self.holder.given.digest:
            return self.holder.messages
        raise ValueError("the thread remembers something else")

    @property
    def may_be_handed_on(self) -> bool:
        """Say whether the memory alone tells all: not where it was compacted since the holder was told to read it."""
        return self.holder is None or self.holder.left or self.holder.given == self.reference

    def carried(self, link: str) -> ThreadCarried:
        """Return what the next link is handed."""
        holder = self.holder
        return ThreadCarried(
            link=link,
            memory=self.reference,
            queue=tuple(self.queue),
            holder=None if holder is None else Holding(visit=holder.visit, told=holder.told, left=holder.left),
            model=self.model,
            settings=self.settings,
            usage=self.usage,
            runs=self.runs,
            created_at=self.created_at,
            continue_after_events=self.continue_after_events,
            continue_after_bytes=self.continue_after_bytes,
        )

    @classmethod
    def going_on(cls, carried: ThreadCarried) -> ThreadState:
        """Go on from what the link before has handed on; its messages come later."""
        state = cls(
            queue=list(carried.queue),
            model=carried.model,
            settings=carried.settings,
            usage=carried.usage,
            runs=carried.runs,
            created_at=carried.created_at,
            continue_after_events=carried.continue_after_events,
            continue_after_bytes=carried.continue_after_bytes,
        )
        if carried.holder is not None:
            held = carried.holder
            state.holder = Holder(held.visit, carried.memory, (), told=held.told, left=held.left)
        return state

    def restored(self, messages: Iterable[dict[str, Any]]) -> None:
        """Take the messages over from the link before."""
        self._remember([Message.recorded(each) for each in messages])
        if self.holder is not None:
            self.holder.messages = list(self.memory.messages)

    def status(self) -> dict[str, Any]:
        """Describe the thread, as the query `status` tells it."""
        return {
            "messages": len(self.memory),
            "digest": self.memory.digest(),
            "holder": None if self.holder is None else self.holder.visit.run_id,
            "leaving": self.leaving,
            "queue": [each.run_id for each in self.queue],
            "runs": self.runs,
            "model": self.model,
            "usage": self.usage.model_dump(),
            "created_at": self.created_at,
        }

    def _look_later(self, holder: Holder, now: float) -> None:
        holder.look_at = now + holder.rest
        holder.rest = min(_LONGEST_REST_SECONDS, holder.rest * 2)

    def _remember(self, messages: Iterable[Message]) -> None:
        self.memory = Transcript()
        for message in messages:
            self.memory.append(message)
