"""What a run hands on, from one link of its chain to the next: small state; the messages are restored beside it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from holdfast.data import Data
from holdfast.message import Usage
from holdfast.run import Source, SubagentExecution, ToolExecution


class Reference(Data):
    """A transcript by its length and digest instead of its messages."""

    length: int
    digest: str


class Pushed(Data):
    """One message that no activity can have fed to a worker's cache, with its place in the transcript."""

    index: int
    message: dict[str, Any]


class Counts(Data):
    """How often a run has done what limits count."""

    steps: int = 0
    model_calls: int = 0
    tool_calls: int = 0
    cost_usd: float = 0.0


class Outcome(Data):
    """How one tool call ended: with an output, or with an error that the model is told."""

    output: Any = None
    error_type: str | None = None
    error: str | None = None
    latency_ms: float | None = None


class Settled(Data):
    """A call of an open turn that needs nothing more but the others."""

    call_id: str
    outcome: Outcome
    made: bool = False
    """Whether the tool was called, which limits count."""
    arguments: dict[str, Any] | None = None
    """Those that somebody approved it with, where they are not the model's."""


class Awaited(Data):
    """A call of an open turn that waits for a person or for a time."""

    call_id: str
    waits: Literal["approval", "answer", "timer"] | None = None
    """None where a version that did not say so has handed it on."""
    until: float | None = None
    """Seconds since the epoch."""


class Granted(Data):
    """A call of an open turn that somebody approved."""

    call_id: str
    arguments: dict[str, Any] | None = None
    """What it is to be made with, if not the model's; of one that has ended, `Settled` says it."""
    fingerprint: str | None = None
    """What the tool's description hashed to, of a tool that somebody else describes: of another it is not granted."""


class OpenTurn(Data):
    """Where the calls of the last turn stand, when not all of them have ended."""

    settled: tuple[Settled, ...] = ()
    awaited: tuple[Awaited, ...] = ()
    granted: tuple[Granted, ...] = ()
    given: tuple[Granted, ...] = ()
    """Calls with arguments that people gave where a policy asked for them: these alone."""
    dropped: int = 0
    """Calls beyond what one turn may hold, of which the model is told once the others have ended."""


class Asking(Data):
    """Where a run stands with its models."""

    answered: str = ""
    """The model that gave the last answer."""
    in_step: bool = False
    """Whether a step was begun that no model has answered."""
    tried: dict[str, str] = Field(default_factory=dict)
    """The models that failed in this step, and the types of their failures."""
    out: dict[str, float] = Field(default_factory=dict)
    """Until when a model that failed is taken to be out, in seconds since the epoch."""
    resting: str | None = None
    """The model that the run rests for."""
    until: float = 0.0
    rests: int = 0
    """Rests in a row that no breaker asked for."""
    out_since: float | None = None
    """When the first of the rests began that breakers asked for."""


class Begun(Data):
    """A subagent's run that was begun for a call of an open turn."""

    call_id: str
    run_id: str
    link: str | None = None
    """Its last link, by Temporal's own run id: what the call goes on with when it is made again."""
    usage: Usage = Usage()
    """What of its usage is counted already."""


class Reviewed(Data):
    """Where the checks of guardrails and hooks stand."""

    unheard: int = 0
    """Messages of people at the transcript's end that no guardrail has seen."""
    answer: bool = False
    """Whether the last answer is still to be checked."""
    planning: bool = False
    """Whether a plan was asked for, and none was accepted yet."""
    rewrites: int = 0
    """Times in a row that an answer was asked for again."""
    final_rewrites: int = 0
    """The same of what the run would end with."""
    passed: str = ""
    """The hash of what the run may end with, and of the guardrails that let it pass."""
    seen: tuple[str, ...] = ()
    """The open calls that hooks were asked about."""
    verdicts: tuple[dict[str, Any], ...] = ()
    """What hooks have said of the open calls: HookVerdicts in wire form."""


class Carried(Data):
    """All that a new link needs beside the agent and the messages."""

    link: str
    """Temporal's own run id of the link that hands this on."""
    run_seq: int = 1
    transcript: Reference | None = None
    """Of the messages to restore; None where only the closed link's history can tell."""
    pushed: tuple[Pushed, ...] = ()
    """Those of the messages that no activity can have fed to a worker's cache."""
    metadata_left: bool = False
    """Whether the run's metadata was too large to be handed on."""
    boundary: str | None = None
    """The mark that this link put around what tools returned; the next one has its own."""
    inbox: int = 0
    """Messages beyond the transcript, which the model has not seen."""
    counts: Counts = Counts()
    base: Counts = Counts()
    """What had been done when this run_seq began: limits count from there."""
    usage: Usage = Usage()
    limit_reached: str | None = None
    context_tokens: int = 0
    """Tokens of the last model call, by which compaction is decided."""
    review: Reviewed = Reviewed()
    context: dict[str, Any] = Field(default_factory=dict)
    """What policies may know of the run's metadata."""
    goal: str = ""
    """One line of the first user message, for the run's page."""
    seen: str = ""
    """Hashes of the latest message ids, eight characters each."""
    executions: tuple[ToolExecution, ...] = ()
    """The latest, as previews."""
    models: Asking = Asking()
    given_up: bool = False
    """Whether even the closing call can't be made."""
    sources: tuple[Source, ...] = ()
    """The latest that tools have named."""
    turn: OpenTurn = OpenTurn()
    children: tuple[Begun, ...] = ()
    """Subagents of that turn."""
    subagents: tuple[SubagentExecution, ...] = ()
    """Subagents' runs that have ended: the latest, as previews."""
    tolerated: dict[str, int] = Field(default_factory=dict)
    """Kind of failure → how many of it make the run's end a degraded one."""
    paused: str | None = None
    """The reason of a pause, which may be empty."""
    started_at: float = 0.0
    """When this run_seq began, in seconds since the epoch."""
    active_seconds: float = 0.0
    memory: Reference | None = None
    """What the run's thread remembered when the run read it; None where it has read nothing."""
    own_from: int = 0
    """Where a thread's memory ends in the transcript, and the run's own part begins."""
    awaits_thread: str | None = None
    """The thread whose turn the run waits for."""
    answer_fits: bool = False
    answer_error: str | None = None
    """Whether the last turn was an answer that fits the `output_schema`, and what is wrong with it."""
    repairs: int = 0
    """Times that the model was told so since the last message of a person."""
    handed_over: int = 0
    """Messages of the transcript that the thread has, of this run's earlier starts too: what follows is new to it."""

    def summary(self) -> dict[str, Any]:
        """Return the fields of a RunResult that say what was done before this link, where it comes no further."""
        return {
            "run_seq": self.run_seq,
            "steps": self.counts.steps,
            "model": self.models.answered,
            "cost_usd": self.usage.cost_usd,
            "usage_aggregate": self.usage,
            "tool_executions": self.executions,
            "subagent_executions": self.subagents,
            "sources": self.sources,
            "state_snapshot": {
                "model_calls": self.counts.model_calls,
                "tool_calls": self.counts.tool_calls,
                "messages": self.transcript.length if self.transcript else 0,
                "unread_messages": self.inbox,
                "limit_reached": self.limit_reached,
            },
        }
