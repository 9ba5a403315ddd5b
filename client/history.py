"""Reading a run's history: page by page, live, from one link of its chain to the next."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from holdfast.errors import RunNotFound


@dataclass(frozen=True)
class Line:
    """One event of one link; `link` is Temporal's own run id."""

    link: str
    event: HistoryEvent


async def read(client: Client, run_id: str, *, live: bool = False) -> AsyncIterator[Line]:
    """Yield a run's history in order; with `live`, wait for more until the run has ended.

    The run id is Temporal's workflow id; Temporal's own run ids are the links of the chain behind it.
    """
    try:
        description = await client.get_workflow_handle(run_id).describe()
    except RPCError as error:
        raise not_found(error, run_id) from None
    link: str | None = description.raw_description.workflow_execution_info.first_run_id or description.run_id
    while link:
        handle = client.get_workflow_handle(run_id, run_id=link)
        following = None
        try:
            async for event in handle.fetch_history_events(wait_new_event=live):
                yield Line(link, event)
                if event.HasField("workflow_execution_continued_as_new_event_attributes"):
                    following = event.workflow_execution_continued_as_new_event_attributes.new_execution_run_id
        except RPCError as error:
            raise not_found(error, run_id) from None
        link = following


def not_found(error: RPCError, run_id: str) -> Exception:
    """Turn the server's answer for an id that it does not know, or does not take, into RunNotFound."""
    if error.status in (RPCStatusCode.NOT_FOUND, RPCStatusCode.INVALID_ARGUMENT):
        return RunNotFound(run_id)
    return error
