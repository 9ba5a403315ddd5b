"""Arguments and results of our own activities: what passes between a run and the world."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, JsonValue

from holdfast.agent import Agent, ModelSettings
from holdfast.bounds import CONTINUE_AFTER_BYTES, CONTINUE_AFTER_EVENTS, TOOL_OUTPUT_MAX_CHARS
from holdfast.carried import Carried, Pushed, Reference
from holdfast.content import Content
from holdfast.data import Data
from holdfast.guardrails import Stage, Verdict
from holdfast.message import Usage
from holdfast.policy import Action, Policy
from holdfast.request import After, RunRequest


class LoadedAgent(Data):
    """What `agent.load` records once: all that a run is pinned to."""

    agent: Agent
    """Resolved: every tool is a whole ToolSpec."""
    revision: str
    prompts: tuple[Content, ...]
    """The first user messages: the rendered goal or input, then the request's own message."""
    search_attributes: bool = False
    """Whether the worker found the search attributes registered, so that the run may write them."""
    tool_output_max_chars: int = TOOL_OUTPUT_MAX_CHARS
    """The worker's setting when the run began."""
    boundary: str | None = None
    """The run's own mark around what tools return, which no tool can know; None leaves their output as it is."""
    queues: dict[str, str] = Field(default_factory=dict)
    """Activity type, or `model:` and a model's name → its task queue, where that is not the run's."""
    policy: Policy | None = None
    """The worker's own rules, beside the agent's."""
    policy_hooks: bool = False
    """Whether the worker has hooks, which are asked before a turn's calls are made."""
    policy_seconds: float = 30
    policy_attempts: int = 3
    """Of asking the hooks about one turn: seconds of an attempt, and attempts."""
    continue_after_events: int = CONTINUE_AFTER_EVENTS
    continue_after_bytes: int = CONTINUE_AFTER_BYTES
    """Events and bytes of one link, after which the run continues as new; the worker's setting when it began."""

    def context_of(self, metadata: dict[str, Any]) -> dict[str, Any]:
        """Return what each link must know of the metadata: what rules name; all for hooks, guardrails and secrets."""
        if self.policy_hooks or self.agent.guardrails or any(spec.secrets for spec in self.agent.tool_specs):
            return metadata
        policies = [policy for policy in (self.policy, self.agent.policy) if policy is not None]
        return {name: value for policy in policies for name, value in policy.context_of(metadata).items()}


class RunContext(Data):
    """The answer to the query `context`: what a tool's call may know of its run."""

    agent: str = ""
    agent_depth: int = 0
    """0 for a run that nobody called."""
    agent_path: str = ""
    metadata: dict[str, JsonValue] | None = Field(default_factory=dict)
    """None where it was too large to stand in every link, and this is not the run's first."""


class LoadAgent(Data):
    """The one argument of `agent.load`."""

    request: RunRequest
    pinned: bool = False
    """Take the agent that the link before had, as it was: the run continues as new."""


class Restore(Data):
    """The one argument of `transcript.restore`: which messages to bring over from a closed link, from `start` on."""

    after: After
    start: int = 0
    transcript: Reference | None = None
    """What the messages must come to, where the closed link has said so."""
    inbox: int = 0
    """Messages beyond the transcript that are wanted as well."""
    pushed: tuple[Pushed, ...] = ()
    """Messages that no activity can have fed to a worker's cache."""
    tool_output_max_chars: int = TOOL_OUTPUT_MAX_CHARS
    boundary: str | None = None
    """The closed link's, for outputs that have no place in the transcript yet."""


class Restored(Data):
    """What `transcript.restore` records: at most 256 KB of messages, and how the run stood."""

    messages: tuple[dict[str, Any], ...] = ()
    next: int | None = None
    """Where to go on; None at the end."""
    carried: Carried | None = None
    """With the first piece, where the closed link could hand nothing on itself."""


class Reading(Data):
    """What an activity must know to have the run's transcript at hand, which is in history already."""

    transcript: Reference
    pushed: tuple[Pushed, ...] = ()
    """Messages that no activity can have fed to a worker's cache."""
    boundary: str | None = None
    """The mark around what tools return, as `LoadedAgent` has it."""
    tool_output_max_chars: int = TOOL_OUTPUT_MAX_CHARS


class Compact(Reading):
    """The one argument of `context.compact`: summarise messages `start` to `stop` of a transcript."""

    model: str
    start: int
    stop: int
    settings: ModelSettings | None = None
    """How the model is asked; None as the run's agent says, which is then asked for by its query."""
    budget_usd: float | None = None
    """As a ModelCall has it."""
    unknown_price: Literal["refuse", "allow"] = "refuse"
    """As the agent's limits have it."""


class Compacted(Data):
    """What `context.compact` records."""

    summary: str
    model: str = ""
    usage: Usage = Field(default_factory=Usage)


class ModelCall(Reading):
    """The one argument of `model.call`."""

    step: int
    model: str
    closing: str | None = None
    """The limit whose last allowed call this is: made without tools, asking for an answer from what is known."""
    planning: bool = False
    """Asks for a plan, without tools."""
    budget_usd: float | None = None
    """What may still be spent: a call whose price is unknown, or whose input alone costs more, is not made."""
    patience_seconds: float | None = None
    """A provider that asks for a longer rest fails the call: another model is asked meanwhile."""


class PolicyCheck(Reading):
    """The one argument of `policy.check`: what do the worker's hooks say of these calls of the last answer?"""

    calls: tuple[str, ...]
    """Their ids; the calls themselves stand in the transcript."""
    context: dict[str, Any] = Field(default_factory=dict)


class HookVerdict(Data):
    """What the hooks say of one call: the one among them that restrains it most."""

    call_id: str
    hook: str
    action: Action
    reason: str = ""
    question: str = ""
    into: str | None = None
    failed: bool = False
    """Whether it is a denial only because the hooks could not be asked."""


class PolicyChecked(Data):
    """What `policy.check` records."""

    verdicts: tuple[HookVerdict, ...] = ()
    """Of the calls that hooks spoke of."""


class GuardrailCheck(Reading):
    """The one argument of `guardrail.check`: what do these guardrails say?"""

    stage: Stage
    guardrails: tuple[str, ...]
    """Asked in this order, until one does not let it pass."""
    count: int = 0
    """Of the stage input: how many messages at the transcript's end are meant."""
    text: str | None = None
    """Of the stage output: the text, where it is not that of the last answer."""
    context: dict[str, Any] = Field(default_factory=dict)


class GuardrailSaid(Data):
    """What one guardrail has said."""

    guardrail: str
    action: Verdict
    reason: str = ""


class GuardrailChecked(Data):
    """What `guardrail.check` records: what each has said that was asked."""

    said: tuple[GuardrailSaid, ...] = ()


class Page(Data):
    """The answer to the query `transcript`: messages from `start` on, at most 1 MB of them."""

    messages: tuple[dict[str, Any], ...] = ()
    next: int | None = None
    """Where to go on reading; None at the end."""
