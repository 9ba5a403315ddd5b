"""Runs: what one may be doing, and what it leaves behind."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, JsonValue

from holdfast.data import Data
from holdfast.message import Usage

Status = Literal[
    "pending", "running", "paused", "waiting", "completed", "degraded", "failed", "cancelled", "interrupted"
]
TERMINAL: frozenset[str] = frozenset({"completed", "degraded", "failed", "cancelled", "interrupted"})


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


class SubagentExecution(Data):
    """One subagent's run, as its caller saw it end."""

    agent_name: str
    run_id: str
    tool_call_id: str
    status: Status
    success: bool
    output: JsonValue = None
    """A preview."""
    error: str | None = None
    latency_ms: float | None = None
    cost_usd: float = 0.0
    steps: int = 0
    agent_depth: int = 0
    agent_path: str | None = None


class Source(Data):
    """Where something in an answer is from, as a tool named it."""

    url: str
    title: str = ""


class RunError(Data):
    """Why a run failed."""

    type: str
    message: str


class RunResult(Data):
    """What a closed run leaves: the workflow's result, and the details of its failure when it failed."""

    status: Status
    final_text: str = ""
    output: JsonValue = None
    """The answer: JSON that fits the agent's `output_schema`, None where none did; without a schema, the final text."""
    error: RunError | None = None
    run_id: str = ""
    run_seq: int = 1
    agent: str = ""
    revision: str = ""
    steps: int = 0
    cost_usd: float = 0.0
    usage_aggregate: Usage = Field(default_factory=Usage)
    tool_executions: tuple[ToolExecution, ...] = ()
    model: str = ""
    """The model that gave the last answer."""
    subagent_executions: tuple[SubagentExecution, ...] = ()
    sources: tuple[Source, ...] = ()
    thread_id: str | None = None
    state_snapshot: dict[str, JsonValue] = Field(default_factory=dict)
    """Counters at the end: model and tool calls, messages, the limit that was reached."""

    @property
    def state(self) -> str:
        """Reads the same as `status`."""
        return self.status
