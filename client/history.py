"""Reading a run's history: page by page, live, from one link of its chain to the next."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

from temporalio.api.enums.v1 import EventType as Kind
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import Client

from holdfast.client.links import Link, describe_link, find_chain, reset_to
from holdfast.client.rpc import describe, translated
from holdfast.errors import HoldfastError, InputInvalid, RunNotFound

_CURSOR = re.compile(r"(([0-9a-f-]{36})/([0-9]{1,9})\.[0-9]{1,9})(?:~([0-9]{1,9})\.([0-9]{1,9}))?")
CLOSINGS = frozenset(
    {
        Kind.EVENT_TYPE_WORKFLOW_EXECUTION_COMPLETED,
        Kind.EVENT_TYPE_WORKFLOW_EXECUTION_FAILED,
        Kind.EVENT_TYPE_WORKFLOW_EXECUTION_CANCELED,
        Kind.EVENT_TYPE_WORKFLOW_EXECUTION_TERMINATED,
        Kind.EVENT_TYPE_WORKFLOW_EXECUTION_TIMED_OUT,
        Kind.EVENT_TYPE_WORKFLOW_EXECUTION_CONTINUED_AS_NEW,
    }
)
"""What ends a link."""


@dataclass(frozen=True)
class Line:
    """One event of one link; `link` is Temporal's own run id."""

    link: str
    event: HistoryEvent
    superseded: bool = False
    """Whether the run was started again after this link's end, which then is not the run's end."""


@dataclass(frozen=True)
class Cursor:
    """Where a reader stopped: an event's id, and the line of history that told of it."""

    run_id: str
    text: str
    event: str = ""
    """The event's id, without what had been shown of a live text."""
    link: str = ""
    event_id: int = 0
    shown: tuple[int, int] | None = None
    """The attempt of the pending model call, and how many characters of its text had been shown."""
    later: frozenset[str] = frozenset()
    """Links that come after the event's."""

    @classmethod
    def read(cls, run_id: str, text: str) -> Cursor:
        """Read what a caller hands back; InputInvalid for what no event's id can be."""
        parts = _CURSOR.fullmatch(text)
        if parts is None:
            raise cls(run_id, text).refused()
        shown = (int(parts[4]), int(parts[5])) if parts[4] else None
        return cls(run_id, text, parts[1], parts[2], int(parts[3]), shown)

    def refused(self) -> InputInvalid:
        """Make the error of a cursor that is none of the run's."""
        return InputInvalid({"after": f"{self.text[:100]!r} is not a cursor of run {self.run_id!r}"})

    def gone(self) -> InputInvalid:
        """Make the error of a cursor whose link is no longer there."""
        return InputInvalid(
            {
                "after": f"the history that {self.text[:100]!r} points to is gone: "
                f"the earliest of run {self.run_id!r} was deleted; read it without a cursor"
            }
        )

    def is_told_by(self, line: Line) -> bool:
        """Say whether the event must have been told of by this line, or before."""
        return line.link in self.later or (line.link == self.link and line.event.event_id >= self.event_id)


async def read(client: Client, run_id: str, *, live: bool = False) -> AsyncIterator[Line]:
    """Yield a run's whole history in order; with `live`, wait for more until the run has ended.

    The run id is Temporal's workflow id; Temporal's own run ids are the links of the chain behind it. A run that was
    started again begins with what came before, and one whose oldest links were deleted with the first that is left.
    """
    links, begun = list((await find_chain(client, run_id)).links), False
    while links:
        link = links.pop(0)
        handle = client.get_workflow_handle(run_id, run_id=link.id)
        try:
            with translated(client, run_id):
                async for event in handle.fetch_history_events(wait_new_event=live):
                    if not links:
                        links = await _following(client, run_id, link, event, live=live)
                    begun = True
                    yield Line(link.id, event, superseded=any(each.begins for each in links))
        except RunNotFound:
            if begun or not links:
                raise
            # deleted since the chain was walked: the history begins with the next link


async def find_cursor(client: Client, run_id: str, text: str) -> Cursor:
    """Read a cursor; InputInvalid for one that no event of the run can have."""
    chain = await find_chain(client, run_id)
    cursor = Cursor.read(run_id, text)
    if cursor.link not in chain.ids:
        raise cursor.gone() if chain.lost and not await _was_replaced(client, run_id, cursor.link) else cursor.refused()
    if cursor.event_id > (await describe_link(client, run_id, cursor.link)).history_length:
        raise cursor.refused()
    return replace(cursor, later=frozenset(each.id for each in chain.after(cursor.link)))


async def _was_replaced(client: Client, run_id: str, link: str) -> bool:
    """Say whether a reset has put another link in this one's place."""
    try:
        return await reset_to(client, run_id, link) is not None
    except RunNotFound:
        return False


async def _following(client: Client, run_id: str, link: Link, event: HistoryEvent, *, live: bool) -> list[Link]:
    """Return the links that follow the last one known, whose history has come to this event."""
    if event.HasField("workflow_execution_continued_as_new_event_attributes"):
        following = event.workflow_execution_continued_as_new_event_attributes.new_execution_run_id
        return [Link(following, begins=False)]
    terminated = event.event_type == Kind.EVENT_TYPE_WORKFLOW_EXECUTION_TERMINATED
    if not terminated and not (live and event.event_type in CLOSINGS):
        return []
    if (await describe(client, run_id)).run_id == link.id:
        return []
    chain = await find_chain(client, run_id)
    if link.id in chain.ids:
        return chain.after(link.id)
    if terminated or await reset_to(client, run_id, link.id):
        raise HoldfastError(f"run {run_id!r} was reset to an earlier event: read it again from its first")
    return []  # another run has taken the id since
