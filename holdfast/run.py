"""Runs: what starts one, what it may be doing, and what it leaves behind."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, JsonValue, ValidationError, field_validator

from holdfast.agent import Agent
from holdfast.bounds import REQUEST_MAX_BYTES, check_depth, json_size
from holdfast.data import Data
from holdfast.errors import InputInvalid, field_errors
from holdfast.ids import check_id
from holdfast.message import Usage

Status = Literal[
    "pending", "running", "paused", "waiting", "completed", "degraded", "failed", "cancelled", "interrupted"
]
TERMINAL: frozenset[str] = frozenset({"completed", "degraded", "failed", "cancelled", "interrupted"})


class RunRequest(Data):
    """The one argument of the workflow `AgentRun`."""

    agent: str | Agent
    """The name of an agent that the worker knows, or a whole one."""
    input: dict[str, JsonValue] = Field(default_factory=dict)
    message: str | None = None
    """The first user message; with a goal, or an input alone, it follows them."""
    thread_id: str | None = None
    revision: str | None = None
    """The agent's revision that the caller means: the run is refused where the worker has another."""
    metadata: dict[str, JsonValue] = Field(default_factory=dict)

    @field_validator("agent", mode="before")
    @classmethod
    def _agent_is_named(cls, agent: Any) -> Any:
        if isinstance(agent, dict):
            try:
                return Agent.model_validate(agent)
            except ValidationError as error:
                raise InputInvalid(field_errors(error)) from None
        if not isinstance(agent, str | Agent) or not agent:
            raise ValueError("must be an agent's name, or an agent")
        return agent

    @field_validator("input", "message", "metadata")
    @classmethod
    def _is_bounded(cls, value: Any) -> Any:
        return bounded(value)

    @field_validator("agent", "thread_id", "revision")
    @classmethod
    def _is_an_id(cls, value: Any) -> Any:
        return sound_id(value) if isinstance(value, str) else value

    @classmethod
    def read(cls, given: Any) -> RunRequest:
        """Read a request as it came over the wire; InputInvalid says all that is wrong with it."""
        if not isinstance(given, dict):
            raise InputInvalid({"request": 'must be one JSON object, such as {"agent": "demo", "message": "Hello"}'})
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            raise InputInvalid(field_errors(error)) from None


class UserMessage(Data):
    """The one argument of the signal `append_message`."""

    text: str = Field(min_length=1)
    id: str | None = None
    """The same id twice counts once."""

    @field_validator("text")
    @classmethod
    def _is_bounded(cls, value: str) -> str:
        return str(bounded(value))

    @field_validator("id")
    @classmethod
    def _is_an_id(cls, value: str | None) -> str | None:
        return None if value is None else sound_id(value)

    @classmethod
    def read(cls, given: Any) -> UserMessage:
        """Read a message as it came over the wire; InputInvalid says what is wrong with it."""
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            raise InputInvalid(field_errors(error)) from None


class ToolExecution(Data):
    """One tool call of a run; the output is a preview, the whole is in history."""

    tool_name: str
    tool_call_id: str
    success: bool
    output: JsonValue = None
    error: str | None = None
    latency_ms: float | None = None
    """Milliseconds from scheduling the call to its result, all attempts included."""
    agent_name: str | None = None
    agent_depth: int = 0
    agent_path: str | None = None


class RunError(Data):
    """Why a run failed."""

    type: str
    message: str


class RunResult(Data):
    """What a closed run leaves: the workflow's result, and the details of its failure when it failed."""

    status: Status
    final_text: str = ""
    output: JsonValue = None
    """The answer: a text (structured, once an output schema says so)."""
    error: RunError | None = None
    run_id: str = ""
    run_seq: int = 1
    agent: str = ""
    revision: str = ""
    steps: int = 0
    cost_usd: float = 0.0
    usage_aggregate: Usage = Field(default_factory=Usage)
    tool_executions: tuple[ToolExecution, ...] = ()
    subagent_executions: tuple[dict[str, JsonValue], ...] = ()
    sources: tuple[dict[str, JsonValue], ...] = ()
    thread_id: str | None = None
    state_snapshot: dict[str, JsonValue] = Field(default_factory=dict)
    """Counters at the end: model and tool calls, messages, the limit that was reached."""

    @property
    def state(self) -> str:
        """Reads the same as `status`."""
        return self.status


def bounded(value: Any) -> Any:
    """Return a field's value; ValueError for one that is over 256 KB, or no JSON (NaN, a lone surrogate)."""
    try:
        check_depth(value)
        size = len(value.encode()) if isinstance(value, str) else json_size(value)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"can't be written as JSON: {error}") from None
    if size > REQUEST_MAX_BYTES:
        raise ValueError(f"has {size:,} bytes; at most {REQUEST_MAX_BYTES:,} are taken")
    return value


def sound_id(value: str) -> str:
    """Return a field's value; ValueError for one that is no sound id."""
    try:
        return check_id("id", value)
    except InputInvalid as error:
        raise ValueError(error.errors["id"]) from None
