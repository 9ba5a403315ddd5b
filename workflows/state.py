"""A run's state, and what to do next: plain data and plain decisions, without Temporal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import InitVar, dataclass, field
from typing import Any

from holdfast.agent import Interaction, Limits
from holdfast.bounds import one_line
from holdfast.calls import Compact, LoadedAgent
from holdfast.carried import Carried, Counts, Outcome, Reference
from holdfast.content import text_of
from holdfast.message import Message, Transcript, Turn, Usage, user_message
from holdfast.request import UserMessage
from holdfast.subagents import Lineage
from holdfast.tools import ToolSpec
from holdfast.workflows import next_move, review
from holdfast.workflows.answers import Answers
from holdfast.workflows.budget import Budget
from holdfast.workflows.compaction import Span
from holdfast.workflows.conversation import Conversation, dropped_note
from holdfast.workflows.executions import Executions
from holdfast.workflows.family import Family, limits_of
from holdfast.workflows.heard import Heard
from holdfast.workflows.models import Models
from holdfast.workflows.moves import Move
from holdfast.workflows.review import Reviews
from holdfast.workflows.seen import SeenIds
from holdfast.workflows.slot import Slot
from holdfast.workflows.sources import Sources
from holdfast.workflows.summary import summary_of, waits_of
from holdfast.workflows.turn import Turn as OpenCalls


@dataclass
class RunState(Heard):
    """Everything that a run knows between two steps."""

    loaded: LoadedAgent
    models: Models
    """Which of its models it asks."""
    interaction: Interaction = field(default_factory=Interaction)
    talk: Conversation = field(default_factory=Conversation)
    """What the model sees."""
    budget: Budget = field(default_factory=lambda: Budget(Limits()))
    """What it has used up of its limits."""
    answers: Answers = field(default_factory=Answers)
    """Whether the last answer is what the agent is to give."""
    planning: bool = False
    """Whether the model call that was last asked for is to bring a plan, until one is accepted."""
    run_seq: int = 1
    partial_text: str = ""
    """What a cancelled model call had said."""
    paused: str | None = None
    """The reason of a pause, which may be empty; None while the run is not paused."""
    inbox: list[UserMessage] = field(default_factory=list)
    turn: OpenCalls | None = None
    """The calls of the last turn, while not all of them have ended."""
    executions: Executions = field(default_factory=Executions)
    family: Family = field(init=False)
    lineage: InitVar[Lineage | None] = None
    carried: InitVar[Carried | None] = None
    sources: Sources = field(default_factory=Sources)
    """Those that the tools of earlier turns have named."""
    goal: str = ""
    context: dict[str, Any] = field(default_factory=dict)
    """What policies, hooks and guardrails may know of the run's metadata."""
    memory: Reference | None = None
    """What the run's thread remembered when the run read it; None where it has read nothing."""
    own_from: int = 0
    """Where that memory ends in the transcript, and the run's own part begins."""
    handed_over: int = 0
    """Messages of the transcript that the thread has: what follows is new to it."""
    awaits_thread: str | None = None
    """The thread whose turn the run waits for."""
    seen_ids: SeenIds = field(default_factory=SeenIds)
    """Of the messages that were taken."""
    tools: dict[str, ToolSpec] = field(default_factory=dict)
    review: Reviews = field(init=False)
    """What guardrails and hooks have still to see."""
    dropped: int = 0
    """Calls of the last turn that were beyond what one may hold; the model is told once the others have ended."""
    given_up: bool = False
    """Whether even the closing call can't be made."""

    @classmethod
    def begin(
        cls,
        loaded: LoadedAgent,
        interaction: Interaction | None = None,
        lineage: Lineage | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> RunState:
        """Begin a run that goes on from nothing."""
        state = cls(
            loaded,
            Models(loaded.agent),
            interaction or loaded.agent.interaction,
            budget=Budget(limits_of(loaded.agent, lineage)),
            answers=Answers.of(loaded.agent),
            goal=one_line(text_of(loaded.prompts[0]), 300),
            lineage=lineage,
            context=loaded.context_of(dict(metadata or {})),
        )
        for said in loaded.prompts:
            state.talk.say(user_message(said))
        state.review.hear(len(loaded.prompts))
        return state

    def __post_init__(self, lineage: Lineage | None, carried: Carried | None) -> None:
        self.family = Family(self.loaded.agent, lineage, carried)
        self.tools = {spec.name: spec for spec in self.loaded.agent.tool_specs}
        self.review = Reviews.of(self.loaded, carried)

    @property
    def transcript(self) -> Transcript:
        """What the model sees, in order."""
        return self.talk.transcript

    @property
    def limits(self) -> Limits:
        """The agent's limits; a subagent's are bounded by its caller."""
        return limits_of(self.loaded.agent, self.family.lineage)

    @property
    def counts(self) -> Counts:
        """What was done so far, before this run_seq included."""
        return self.budget.counts

    @property
    def usage(self) -> Usage:
        """Tokens and money so far."""
        return self.budget.usage

    @property
    def limit_reached(self) -> str | None:
        """The first limit whose count was used up."""
        return self.budget.reached

    @property
    def steps(self) -> int:
        """Steps so far, those before this run_seq included."""
        return self.counts.steps

    @property
    def seen(self) -> str:
        """The ids of the messages that were taken, as `SeenIds` packs them."""
        return self.seen_ids.packed()

    @property
    def waiting(self) -> list[Slot]:
        """The calls that wait for a person or for a time."""
        return self.turn.waiting if self.turn else []

    def remember(self, messages: Iterable[Message], memory: Reference) -> None:
        """Put before the transcript what the run's thread remembers, now that it is the run's turn."""
        self.memory = memory
        before = self.talk.put_before(messages)
        self.own_from += before
        self.handed_over += before

    # What to do next

    def next_move(self, now: float = 0.0) -> Move:
        """Say what to do next; `now` is in seconds since the epoch."""
        return next_move.next_move(self, now)

    def read_inbox_to_go_on(self) -> None:
        """Put the messages that wait into the transcript before a new link, unless the run is about to end."""
        last = self.talk.last
        if (
            self.turn is None
            and not self.review.holds
            and not (self.limit_reached and last is not None and last.role == "assistant")
        ):
            self.read_inbox()

    def read_inbox(self) -> None:
        """Put the messages that wait into the transcript, or what is wrong with the answer; only with no call open."""
        assert self.turn is None
        last = self.talk.last
        if self.inbox:
            self.answers.heard()
        elif last is not None and last.role == "assistant" and self.answers.repairable:
            self.talk.say(user_message(self.answers.repair()))
        for message in self.inbox:
            self.talk.say(user_message(message.text))
        self.review.hear(len(self.inbox))
        self.inbox = []

    # What was done

    def record(self, turn: Turn, now: float = 0.0) -> OpenCalls | None:
        """Take a model's turn into the transcript, and return its calls; a partial turn is only shown."""
        self.budget.spend(turn.usage + turn.lost)
        if turn.partial:
            self.partial_text = turn.message.text
            return None
        self.partial_text = ""
        self.models.answered()
        self.talk.context_tokens = turn.usage.input_tokens + turn.usage.output_tokens
        self.talk.append(turn.message)
        if self.planning:
            return review.answered(self, now)
        self.answers.record(turn)
        self.dropped = turn.dropped_tool_calls
        if not turn.message.tool_calls and not self.limit_reached:
            self._tell_dropped()  # with nothing left to settle, the turn would pass for an answer
        opened = review.answered(self, now)
        self.wake()
        return opened

    def settle(self, call_id: str, outcome: Outcome) -> None:
        """Take the outcome of a call that was made; the last one takes all results into the transcript, in order."""
        if self.turn is not None and call_id in self.turn.slots:
            self.turn.slots[call_id].settle(outcome, made=True)
            self.close_turn()

    def compacted(self, call: Compact, summary: str, usage: Usage) -> None:
        """Put a summary where the oldest turns were."""
        self.budget.spend(usage)
        self.budget.take_model_call()
        removed = self.talk.summarise(Span(call.start, call.stop), summary)
        self.own_from = _moved(self.own_from, call, removed)
        self.handed_over = _moved(self.handed_over, call, removed)

    def shorten(self) -> bool:
        """Have the transcript summarised before the next model call, which refused it; False where that can't help."""
        settings = self.loaded.agent.compaction
        if settings is None or self.limit_reached:
            return False
        return self.talk.shorten(settings)

    def give_up(self) -> None:
        """Make no further call: the run ends with what is known."""
        self.given_up = True

    def reach(self, limit: str) -> None:
        """Note that a limit's count is used up: the next model call is the closing one."""
        self.budget.reach(limit)

    # What is shown and handed on

    def reading(self) -> dict[str, Any]:
        """Return the fields of a `Reading`, by which an activity has the transcript; what is pushed, is so once."""
        return {
            "transcript": self.talk.reference(),
            "pushed": self.talk.push(),
            "boundary": self.loaded.boundary,
            "tool_output_max_chars": self.loaded.tool_output_max_chars,
        }

    def summary(self) -> dict[str, Any]:
        """Return the fields of a RunResult that say what the run did."""
        return summary_of(self)

    def waiting_for(self) -> list[dict[str, Any]]:
        """Describe what the run waits for."""
        return waits_of(self)

    def last_text(self) -> str:
        """Return the last text that the model said in this run."""
        return self.talk.last_text(self.own_from)

    def close_turn(self) -> None:
        """Take the results of a turn's calls into the transcript, in the order of the calls, once all have ended."""
        turn = self.turn
        if turn is not None:
            self.family.notice(turn)
        if turn is None or not turn.done:
            return
        self.turn = None
        self.family.closed()
        for slot in turn.slots.values():
            outcome = slot.outcome
            assert outcome is not None
            self.executions.add(slot.call, outcome, self.loaded.agent.name, self.family.depth, self.family.path)
            self.sources.add(outcome.output)
            message = slot.result(self.loaded.tool_output_max_chars, self.loaded.boundary)
            if slot.is_fed:
                self.talk.append(message)
            else:
                self.talk.say(message)
        self._tell_dropped()
        self.budget.take_tool_calls(sum(slot.made for slot in turn.slots.values()))

    def _tell_dropped(self) -> None:
        if self.dropped:
            self.talk.say(user_message(dropped_note(self.dropped)))
            self.dropped = 0


def _moved(mark: int, call: Compact, removed: int) -> int:
    """Return where a place in the transcript is after compaction; what was summarised counts as what comes after it."""
    return mark - removed if mark >= call.stop else min(mark, call.start)
