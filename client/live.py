"""A model's text while it grows, as `model.call` heartbeats it; nothing of it is in history."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from temporalio.api.enums.v1 import EventType as Kind
from temporalio.api.workflow.v1 import PendingActivityInfo
from temporalio.client import Client

from holdfast import wire
from holdfast.bounds import one_line
from holdfast.client.history import CLOSINGS, Line
from holdfast.client.links import describe_link
from holdfast.event import Event

_FAILURES = frozenset(
    {
        Kind.EVENT_TYPE_ACTIVITY_TASK_FAILED,
        Kind.EVENT_TYPE_ACTIVITY_TASK_TIMED_OUT,
        Kind.EVENT_TYPE_ACTIVITY_TASK_CANCELED,
    }
)


@dataclass
class _Call:
    """A pending model call, and how much of its text one reader was shown."""

    last: str
    """Id of the latest event that the reader was shown: the `model_called`, or one that came since."""
    step: int | None
    link: str
    scheduled_id: int
    activity_id: str
    attempt: int = 1
    offset: int = 0
    """Characters of this attempt's text that the reader has."""
    completed: bool = False
    """Whether the line that tells of its end was reached."""

    @property
    def cursor(self) -> str:
        """Where the reader is: handed back, it leads to the rest of the text only."""
        return f"{self.last}~{self.attempt}.{self.offset}"


class LiveText:
    """Makes `text_delta` events for one reader; those of one attempt, put together, are the model's text."""

    def __init__(self, client: Client, run_id: str) -> None:
        self._client = client
        self._run_id = run_id
        self._call: _Call | None = None

    @property
    def is_growing(self) -> bool:
        """Whether a model call is pending, as far as history was read."""
        return self._call is not None and not self._call.completed

    def enter(self, line: Line) -> None:
        """Take a line before its events: a call that it ends, or whose link it ends, has no more to say."""
        call, event = self._call, line.event
        if call is None:
            return
        if call.completed or line.link != call.link or event.event_type in CLOSINGS:
            self._call = None
        elif event.event_type == Kind.EVENT_TYPE_ACTIVITY_TASK_COMPLETED:
            call.completed = event.activity_task_completed_event_attributes.scheduled_event_id == call.scheduled_id
        elif event.event_type in _FAILURES:
            told = getattr(event, str(event.WhichOneof("attributes")))
            self._call = None if told.scheduled_event_id == call.scheduled_id else call

    def follow(self, line: Line, event: Event) -> list[Event]:
        """Take an event of the timeline; returns it, after what its text has that was not shown."""
        if event.type == "model_called":
            activity = line.event.activity_task_scheduled_event_attributes
            self._call = _Call(event.id, event.data.get("step"), line.link, line.event.event_id, activity.activity_id)
            return [event]
        call = self._call
        if call is None:
            return [event]
        if event.type == "model_completed":
            self._call = None
            text = event.data.get("text") or ""
            return [*_grown(call, event.data.get("attempt", 1), 0, text, event.finished_at or event.created_at), event]
        call.last = event.id
        return [event.model_copy(update={"id": call.cursor})] if call.offset else [event]

    def resume(self, attempt: int, offset: int) -> bool:
        """Know that the reader has so much of the pending call's text; False where no call is pending."""
        if self._call is None:
            return False
        self._call.attempt, self._call.offset = attempt, offset
        return True

    async def look(self) -> list[Event]:
        """Ask the server what the pending call has said since."""
        call = self._call
        if call is None:
            return []
        description = await describe_link(self._client, self._run_id, call.link)
        for pending in description.raw_description.pending_activities:
            if pending.activity_type.name == wire.MODEL_CALL and pending.activity_id == call.activity_id:
                told = await self._told(pending)
                at = pending.last_heartbeat_time.ToDatetime(tzinfo=UTC)
                # A retry has the details of the attempt before it, until it heartbeats itself.
                if told is not None and told[0] == pending.attempt:
                    return _grown(call, *told, at)
        return []

    async def _told(self, pending: PendingActivityInfo) -> tuple[int, int, str] | None:
        """Read attempt, offset and text from a heartbeat; None for one that says something else."""
        try:
            details: list[Any] = await self._client.data_converter.decode(list(pending.heartbeat_details.payloads))
            told = details[0]["attempt"], details[0]["offset"], details[0]["text"]
        except (RuntimeError, KeyError, ValueError, TypeError, IndexError):
            return None
        attempt, offset, text = told
        return told if isinstance(attempt, int) and isinstance(offset, int) and isinstance(text, str) else None


def _grown(call: _Call, attempt: int, offset: int, text: str, at: datetime) -> list[Event]:
    """Return what the text from `offset` on has beyond what was shown; nothing where there would be a gap."""
    known = call.offset if attempt == call.attempt else 0
    rest = text[known - offset :] if offset <= known else ""
    if not rest:
        return []
    call.attempt, call.offset = attempt, known + len(rest)
    data = {"offset": known, "text": rest, "attempt": attempt, "step": call.step, "call": call.activity_id}
    return [Event(id=call.cursor, type="text_delta", message=one_line(rest), created_at=at, data=data)]
