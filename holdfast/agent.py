"""Agents: what to run, as frozen data."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, JsonValue, field_validator, model_validator

from holdfast.bounds import REQUEST_MAX_BYTES, TURN_MAX_TOOL_CALLS, canonical_json, json_size
from holdfast.data import Data
from holdfast.errors import DefinitionError
from holdfast.failure import Failure
from holdfast.guardrails import Guardrail, GuardrailSpec, declared_guardrails, guardrail_spec, resolved_guardrails
from holdfast.mcp import HeldServer, McpServer, McpTools, as_mcp_tools
from holdfast.policy import Policy
from holdfast.subagents import NESTED_MAX, Join, Subagent
from holdfast.tools import Tool, ToolSpec

_OURS = {"stream", "timeout_seconds", "max_attempts", "max_outage_seconds", "cache_seconds"}
"""Settings of a model that no provider is told."""


class ModelSettings(Data):
    """How the model is asked; endpoints and keys are the worker's, never an agent's."""

    stream: bool = True
    """Stream the answer: live text, and a partial answer when cancelled, for about a quarter more CPU a step."""
    timeout_seconds: float = Field(default=600, gt=0, le=86_400)
    """Seconds that one attempt may take."""
    max_attempts: int = Field(default=6, ge=1, le=100)
    """Attempts before the call has failed for good; at most 3 of a model for which there is a fallback."""
    max_outage_seconds: float | None = Field(default=3600, ge=0, allow_inf_nan=False)
    """Seconds that a run rests and asks again while a worker's circuit breaker holds its models to be out; then
    `failure.model` decides. None: for as long as the run's clocks allow."""
    cache_seconds: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """A worker may answer with what it was answered at most so many seconds ago, to the very same request, at no cost.
    None: it asks."""
    temperature: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    top_p: float | None = Field(default=None, gt=0, le=1)
    max_tokens: int | None = Field(default=None, ge=1)
    stop: tuple[str, ...] | None = None
    seed: int | None = None
    presence_penalty: float | None = Field(default=None, allow_inf_nan=False)
    frequency_penalty: float | None = Field(default=None, allow_inf_nan=False)
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh"] | None = None
    tool_choice: Literal["auto", "required", "none"] | None = None
    parallel_tool_calls: bool | None = None

    def request_options(self) -> dict[str, Any]:
        """Return what goes to the provider as it stands."""
        return self.model_dump(exclude=_OURS, exclude_none=True)


InteractionMode = Literal["headless", "external", "interactive"]


class Interaction(Data):
    """What a run does when it needs a person: to approve a tool call, or to answer a question."""

    mode: InteractionMode = "external"
    """external: wait for `decide` and `answer`. interactive: the same, and the command line asks whoever watches.
    headless: nobody is there, so fall back at once."""
    timeout_seconds: float | None = Field(default=None, gt=0, le=10 * 365 * 86_400)
    """Seconds to wait for a person; None waits for as long as it takes."""
    fallback: Literal["deny", "approve"] = "deny"
    """What becomes of an approval that nobody gave in time. A question is told to the model as unanswered."""


class Compaction(Data):
    """When a transcript has grown long, its oldest whole turns are summarised by the model."""

    at_tokens: int = Field(default=100_000, ge=500)
    """Tokens of a model call's input, as the provider counts them, past which the next one is preceded by it."""
    keep_tokens: int = Field(default=20_000, ge=0)
    """Tokens of the latest turns that stay as they are, by estimate (4 characters each)."""
    model: str | None = Field(default=None, min_length=1, max_length=200)
    """The model that writes the summary; the agent's own by default."""


class Limits(Data):
    """Bounds of one run, all exact: a limit of 2 makes 2 calls, never 3.

    A limit is reached when its count is used up. The last model call that a limit allows is made without tools and asks
    for an answer from what is known, and the run ends `degraded`. Counts begin anew when a closed run is resumed.
    """

    max_steps: int = Field(default=50, ge=1)
    """Turns of the loop: one model call each, and the tool calls that it asked for."""
    max_model_calls: int = Field(default=100, ge=1)
    """Model calls of the whole run, each fallback that is asked included; retries of one model count once."""
    max_tool_calls: int = Field(default=500, ge=0)
    """Tool calls of the whole run; those beyond it are refused, and the model is told."""
    max_parallel_tools: int = Field(default=16, ge=1, le=TURN_MAX_TOOL_CALLS)
    """Tool calls under way at once."""
    max_tool_calls_per_turn: int = Field(default=TURN_MAX_TOOL_CALLS, ge=1, le=TURN_MAX_TOOL_CALLS)
    """Tool calls of one answer; those beyond it are refused, and the model is told."""
    max_subagent_depth: int = Field(default=3, ge=0, le=20)
    """Levels of subagents beneath a run that nobody called; a deeper one is refused, and the model is told."""
    max_cost_usd: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Dollars, of this run and its subagents: once so much is spent, no further model call is made."""
    unknown_price: Literal["refuse", "allow"] = "refuse"
    """What becomes of a model call whose price nobody knows, where `max_cost_usd` is set."""
    max_active_seconds: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Seconds of work; the clock stands still while the run is paused, rests or waits for a person. Then the run is
    `interrupted`."""
    deadline_seconds: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Seconds from the run's start, whatever it does meanwhile. Then the run is `interrupted`."""


_ModelName = Annotated[str, Field(min_length=1, max_length=200)]


class Agent(Data):
    """What to run. Everything but `name` and `model` has a default; `revision` is the hash of its canonical JSON."""

    name: str = Field(pattern=r"^[A-Za-z0-9](?:[A-Za-z0-9 ._-]{0,118}[A-Za-z0-9])?$")
    """At most 120 letters, digits, spaces, dots, dashes and underscores."""
    model: _ModelName
    """Any model name that litellm takes, such as openai/gpt-5-mini."""
    description: str = ""
    instructions: str = ""
    """The system message."""
    goal: str = ""
    """Jinja template of the first user message, rendered with the run's input."""
    input_schema: dict[str, JsonValue] | None = None
    """JSON schema of a run's input, which is refused where it does not fit."""
    input_description: str = ""
    """Told to a model that calls it as a subagent: what the input is."""
    output_schema: dict[str, JsonValue] | None = None
    """JSON schema of the answer, which is then JSON, and repaired by the model where it does not fit."""
    output_description: str = ""
    """Told to the model: what the answer is to be."""
    output_retries: int = Field(default=2, ge=0, le=10)
    """Times that the model is told what is wrong with an answer that does not fit the `output_schema`."""
    fallback_models: Annotated[Sequence[_ModelName], Field(max_length=8), AfterValidator(tuple)] = ()
    """Asked in this order where `model` fails for good, or is out."""
    tools: Annotated[Sequence[ToolSpec | Tool[..., Any] | str], AfterValidator(tuple)] = ()
    """Functions made tools by `@tool`; in JSON, the name of a tool that the worker has, or a whole ToolSpec."""
    mcp_servers: Annotated[Sequence[McpTools | HeldServer | str], AfterValidator(as_mcp_tools)] = ()
    """MCP servers whose tools it has; in JSON, the name of a server that the worker has, or an McpTools."""
    model_settings: ModelSettings = ModelSettings()
    subagents: Annotated[Sequence[Subagent | Agent | str], AfterValidator(tuple)] = ()
    """Agents that this one may call as tools: whole ones, names of those that the worker has, or either with more words
    in a Subagent."""
    join: Join = Join()
    """How many of the subagents that one turn starts must succeed."""
    policy: Policy | None = None
    """Rules about its tool calls; the worker's own rules count beside them."""
    guardrails: Annotated[
        Sequence[GuardrailSpec | Guardrail | str], BeforeValidator(declared_guardrails), AfterValidator(tuple)
    ] = ()
    """Functions made guardrails by `@guardrail`; in JSON, the name of one that the worker has, or a whole spec."""
    guardrail_retries: int = Field(default=2, ge=0, le=10)
    """Times in a row that the model is asked to answer again because a guardrail says so; then the run is blocked."""
    failure: Failure = Failure()
    planning: bool = False
    """Ask for a plan before the first step."""
    limits: Limits = Limits()
    interaction: Interaction = Interaction()
    compaction: Compaction | None = Compaction()
    """None never shortens the transcript."""
    metadata: dict[str, JsonValue] = Field(default_factory=dict)

    @field_validator("tools", mode="before")
    @classmethod
    def _tools_are_tools(cls, tools: Any) -> Any:
        if isinstance(tools, Iterable) and not isinstance(tools, str | dict):
            tools = list(tools)
            for each in tools:
                if callable(each) and not isinstance(each, Tool):
                    raise ValueError(f"{getattr(each, '__name__', each)!r} is a bare function: put @tool on it")
        return tools

    @field_validator("subagents", mode="before")
    @classmethod
    def _subagents_are_subagents(cls, given: Any) -> Any:
        if not isinstance(given, Iterable) or isinstance(given, str | dict):
            return given
        return [_as_subagent(each) for each in given]

    @model_validator(mode="after")
    def _is_whole(self) -> Agent:
        names = self.function_names
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two tools are named {name!r}")
        if len(set(self.guardrail_names)) < len(self.guardrail_names):
            raise ValueError("two guardrails have one name")
        if self.levels > NESTED_MAX:
            raise ValueError(f"has agents nested more than {NESTED_MAX} levels deep: give them by name")
        if json_size(self.wire()) > REQUEST_MAX_BYTES:
            raise ValueError(f"is larger than {REQUEST_MAX_BYTES:,} bytes")
        return self

    @property
    def tool_names(self) -> list[str]:
        """The names of its tools, in order."""
        return [each if isinstance(each, str) else spec_of(each).name for each in self.tools]

    @property
    def called(self) -> tuple[Subagent, ...]:
        """Its subagents."""
        return tuple(each for each in self.subagents if isinstance(each, Subagent))

    @property
    def whole_subagents(self) -> list[Agent]:
        """Those of its subagents that are given whole."""
        return [each.agent for each in self.called if isinstance(each.agent, Agent)]

    @property
    def levels(self) -> int:
        """How deep agents are nested in it, as far as they are given whole."""
        return max((1 + each.levels for each in self.whole_subagents), default=0)

    @property
    def function_names(self) -> list[str]:
        """The names of all that its model may call: tools, then subagents."""
        return [*self.tool_names, *(each.tool_name for each in self.called)]

    @property
    def functions(self) -> list[Tool[..., Any]]:
        """Those of its tools, and of its subagents', that are Python functions of this process."""
        own = [each for each in self.tools if isinstance(each, Tool)]
        return list(dict.fromkeys([*own, *(each for inner in self.whole_subagents for each in inner.functions)]))

    @property
    def guardrail_names(self) -> list[str]:
        """The names of its guardrails, in order."""
        return [each if isinstance(each, str) else guardrail_spec(each).name for each in self.guardrails]

    @property
    def guardrail_specs(self) -> list[GuardrailSpec]:
        """The specifications of its guardrails; only for an agent that is `resolved`."""
        return [guardrail_spec(each) for each in self.guardrails if not isinstance(each, str)]

    @property
    def guards(self) -> list[Guardrail]:
        """Those of its guardrails, and of its subagents', that are Python functions of this process."""
        own = [each for each in self.guardrails if isinstance(each, Guardrail)]
        return list(dict.fromkeys([*own, *(each for inner in self.whole_subagents for each in inner.guards)]))

    @property
    def revision(self) -> str:
        """The hash of its canonical JSON: 12 hex digits that change when anything of the agent does."""
        return hashlib.sha256(canonical_json(self.unlisted().wire()).encode()).hexdigest()[:12]

    @property
    def mcp_tools(self) -> tuple[McpTools, ...]:
        """What it takes from MCP servers."""
        return as_mcp_tools(self.mcp_servers)

    @property
    def held_servers(self) -> list[McpServer]:
        """Those of its MCP servers, and of its subagents', that it brings itself."""
        own = [each.server for each in self.mcp_tools if isinstance(each.server, McpServer)]
        return [*own, *(each for inner in self.whole_subagents for each in inner.held_servers)]

    def unlisted(self) -> Agent:
        """Return the same agent without what a run found at its MCP servers."""
        if not self.mcp_servers:
            return self
        own = tuple(each for each in self.tools if not isinstance(each, ToolSpec) or each.mcp_server is None)
        asked = tuple(each.model_copy(update={"missing": ""}) for each in self.mcp_tools)
        return self.model_copy(update={"tools": own, "mcp_servers": asked})

    def resolved(
        self,
        known: dict[str, ToolSpec],
        agents: Mapping[str, Agent] | None = None,
        guardrails: Mapping[str, GuardrailSpec] | None = None,
    ) -> Agent:
        """Return the same agent as pure data, every tool the ToolSpec that `known` has for its name; guardrails too.

        The worker's word counts, not the caller's: a tool that must run once can't be declared repeatable from afar.
        Of those that `known` lacks, the ones stay that say what carries them out. Subagents are resolved too; one that
        is named stays a name, and says what the agent in `agents` says of itself. DefinitionError for a name that
        `known`, `agents` or `guardrails` lacks.
        """
        elsewhere = {spec.name: spec for spec in self.tools_elsewhere if spec.name not in known}
        missing = [name for name in self.tool_names if name not in known and name not in elsewhere]
        if missing:
            raise DefinitionError(f"agent {self.name!r}: no tool named {', '.join(map(repr, missing))}")
        types = {spec.activity_type: name for name, spec in known.items()}
        for name, spec in elsewhere.items():
            if spec.activity_type in types:
                own = types[spec.activity_type]
                raise DefinitionError(f"agent {self.name!r}: {name!r} is another name for this worker's tool {own!r}")
        found, specs = agents or {}, elsewhere | known
        told: dict[str, Any] = {"tools": tuple(specs[name] for name in self.tool_names)}
        if self.guardrails:
            told["guardrails"] = resolved_guardrails(self.name, self.guardrail_names, guardrails or {})
        if self.subagents:
            told["subagents"] = tuple(_resolved(self.name, each, known, found, guardrails) for each in self.called)
        return self.model_copy(update=told)

    @property
    def tools_elsewhere(self) -> list[ToolSpec]:
        """Those of its tools that say themselves which activity, or which task queue, carries them out."""
        return [each for each in self.tools if isinstance(each, ToolSpec) and each.is_elsewhere]

    @property
    def every_tool_elsewhere(self) -> list[ToolSpec]:
        """Those of its own, and of its subagents'."""
        return [*self.tools_elsewhere, *(each for inner in self.whole_subagents for each in inner.every_tool_elsewhere)]

    @property
    def tool_specs(self) -> list[ToolSpec]:
        """The specifications of its tools and subagents; only for an agent that is `resolved`."""
        own = [spec_of(each) for each in self.tools if not isinstance(each, str)]
        return [*own, *(each.spec for each in self.called)]


Subagent.model_rebuild(_types_namespace={"Agent": Agent})
Agent.model_rebuild(force=True)


def _as_subagent(given: Any) -> Any:
    """Read a subagent in any of its forms: an agent's JSON is told from a subagent's by its `model`."""
    bare = isinstance(given, Agent | str) or (isinstance(given, dict) and "model" in given and "agent" not in given)
    return {"agent": given} if bare else given


def _resolved(
    caller: str,
    each: Subagent,
    known: dict[str, ToolSpec],
    agents: Mapping[str, Agent],
    guardrails: Mapping[str, GuardrailSpec] | None,
) -> Subagent:
    if isinstance(each.agent, Agent):
        return each.model_copy(update={"agent": each.agent.resolved(known, agents, guardrails)})
    if each.agent not in agents:
        raise DefinitionError(f"agent {caller!r}: no subagent named {each.agent!r}")
    return each.described(agents[each.agent])


def spec_of(declared: ToolSpec | Tool[..., Any]) -> ToolSpec:
    """Return a tool's specification, whichever form it stands in."""
    return declared.spec if isinstance(declared, Tool) else declared
