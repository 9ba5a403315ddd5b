"""Reading a run's history: page by page, live, from one link of its chain to the next."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass

from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import Client, WorkflowExecutionDescription

from holdfast.client.rpc import describe, translated
from holdfast.errors import HoldfastError, InputInvalid, RunNotFound

_CURSOR = re.compile(r"([0-9a-f-]{36})/([0-9]{1,9})\.[0-9]{1,9}")


@dataclass(frozen=True)
class Line:
    """One event of one link; `link` is Temporal's own run id."""

    link: str
    event: HistoryEvent
    superseded: bool = False
    """True for the links of a run that was started again after it had ended."""


@dataclass(frozen=True)
class Cursor:
    """Where a reader stopped: an event's id, and the line of history that told of it."""

    run_id: str
    text: str
    link: str
    event_id: int

    def refused(self) -> InputInvalid:
        """Make the error of a cursor that is none of the run's."""
        return InputInvalid({"after": f"{self.text[:100]!r} is not a cursor of run {self.run_id!r}"})

    def is_told_by(self, line: Line) -> bool:
        """Say whether this line is the one that must have told of the event."""
        return line.link == self.link and line.event.event_id >= self.event_id


async def read(client: Client, run_id: str, *, live: bool = False) -> AsyncIterator[Line]:
    """Yield a run's history in order; with `live`, wait for more until the run has ended.

    The run id is Temporal's workflow id; Temporal's own run ids are the links of the chain behind it.
    """
    link: str | None = await _standing(client, run_id, _first_link(await describe(client, run_id)))
    while link:
        handle = client.get_workflow_handle(run_id, run_id=link)
        following = None
        with translated(client, run_id):
            async for event in handle.fetch_history_events(wait_new_event=live):
                if event.HasField("workflow_execution_terminated_event_attributes"):
                    await _refuse_if_reset(client, run_id, link)
                yield Line(link, event)
                if event.HasField("workflow_execution_continued_as_new_event_attributes"):
                    following = event.workflow_execution_continued_as_new_event_attributes.new_execution_run_id
        link = following


async def find_cursor(client: Client, run_id: str, text: str) -> Cursor:
    """Read a cursor; InputInvalid for one that no event of the run can have."""
    parts = _CURSOR.fullmatch(text)
    cursor = Cursor(run_id, text, parts[1] if parts else "", int(parts[2]) if parts else 0)
    description = await describe(client, run_id)
    if parts is None:
        raise cursor.refused()
    try:
        with translated(client, run_id):
            link = await client.get_workflow_handle(run_id, run_id=cursor.link).describe()
    except RunNotFound:
        raise cursor.refused() from None
    replaced = _reset_to(link) is not None
    if replaced or _first_link(link) != _first_link(description) or cursor.event_id > link.history_length:
        raise cursor.refused()
    return cursor


async def _standing(client: Client, run_id: str, link: str) -> str:
    """Follow resets (`temporal workflow reset`): a new link then stands for the old one, whose beginning it repeats."""
    while True:
        with translated(client, run_id):
            following = _reset_to(await client.get_workflow_handle(run_id, run_id=link).describe())
        if following is None:
            return link
        link = following


async def _refuse_if_reset(client: Client, run_id: str, link: str) -> None:
    if await _standing(client, run_id, link) != link:
        raise HoldfastError(f"run {run_id!r} was reset to an earlier event: read it again from its first")


def _reset_to(description: WorkflowExecutionDescription) -> str | None:
    return description.raw_description.workflow_extended_info.reset_run_id or None


def _first_link(description: WorkflowExecutionDescription) -> str:
    return description.raw_description.workflow_execution_info.first_run_id or description.run_id
