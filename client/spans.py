"""Activities of a run's history that are under way, while the timeline is folded."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from temporalio.api.history.v1 import HistoryEvent


@dataclass
class Span:
    """One activity: the event that scheduled it, and the one that says which attempt came to an end."""

    scheduled: HistoryEvent
    started: HistoryEvent | None = None

    @property
    def name(self) -> str:
        """The activity's type: a tool's name, or one of ours."""
        return self.scheduled.activity_task_scheduled_event_attributes.activity_type.name

    @property
    def id(self) -> str:
        """The activity's id: a tool call's id."""
        return self.scheduled.activity_task_scheduled_event_attributes.activity_id

    @property
    def attempts(self) -> dict[str, Any]:
        """How many attempts it took, and what the last failed one said."""
        if self.started is None:
            return {}
        started = self.started.activity_task_started_event_attributes
        told: dict[str, Any] = {"attempt": started.attempt}
        if started.attempt > 1:
            told["last_failure"] = started.last_failure.message
        return told

    def milliseconds(self, end: HistoryEvent) -> float:
        """How long it took, from scheduling it, all attempts included."""
        return round((time_of(end) - time_of(self.scheduled)).total_seconds() * 1000, 1)


def time_of(event: HistoryEvent) -> datetime:
    """Return when an event was written."""
    return event.event_time.ToDatetime(tzinfo=UTC)
