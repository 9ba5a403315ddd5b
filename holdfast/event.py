"""Events: the lines of a run's timeline."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from holdfast.data import Data

EventType = Literal[
    "run_started",
    "declared_functions",
    "step_started",
    "planning",
    "reasoning",
    "model_called",
    "model_completed",
    "model_call_exception",
    "tool_called",
    "tool_completed",
    "tool_call_exception",
    "policy_decision",
    "guardrail_checked",
    "subagent_started",
    "subagent_completed",
    "approval_requested",
    "approval_resolved",
    "question_asked",
    "question_answered",
    "user_added_message",
    "paused",
    "resumed",
    "context_compressed",
    "text_delta",
    "run_continued",
    "task_cancelled",
    "run_interrupted",
    "run_degraded",
    "run_failed",
    "run_completed",
]

TERMINAL_EVENTS: frozenset[str] = frozenset(
    {"task_cancelled", "run_interrupted", "run_degraded", "run_failed", "run_completed"}
)
"""A run's timeline ends with exactly one of these."""


class Event(Data):
    """One line of a run's timeline."""

    id: str
    """A cursor: a reader that hands it back goes on with the next event."""
    type: EventType
    message: str
    """One line for a person."""
    created_at: datetime
    """When it happened; for what took a while, when it began."""
    finished_at: datetime | None = None
    """When it ended, for what took a while."""
    data: dict[str, Any] = Field(default_factory=dict)
