"""The chain behind a run: Temporal's own run ids, from the earliest that is still there to the current one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from temporalio.api.enums.v1 import ContinueAsNewInitiator as Initiator
from temporalio.api.history.v1 import WorkflowExecutionStartedEventAttributes
from temporalio.client import Client, WorkflowExecutionDescription

from holdfast.client.rpc import describe, translated
from holdfast.errors import RunNotFound


@dataclass(frozen=True)
class Link:
    """One link; `id` is Temporal's own run id."""

    id: str
    begins: bool = True
    """Whether the run was started with it, or started again; else the link before it continued as new."""


@dataclass(frozen=True)
class Chain:
    """The links of a run as it stands, oldest first."""

    links: tuple[Link, ...]
    lost: bool = False
    """Whether there were links before them, which retention (or somebody) has deleted."""

    @property
    def ids(self) -> list[str]:
        """Temporal's own run ids."""
        return [link.id for link in self.links]

    def after(self, link_id: str) -> list[Link]:
        """Return the links that come after one; ValueError for one that is not in the chain."""
        return list(self.links[self.ids.index(link_id) + 1 :])


async def find_chain(client: Client, run_id: str) -> Chain:
    """Walk back from the current link; links that a reset has replaced are not met on this way."""
    found: list[Link] = []
    following: str | None = (await describe(client, run_id)).run_id
    while following:
        started = await _start(client, run_id, following)
        if started is None:
            if not found:
                raise RunNotFound(run_id)
            return Chain(tuple(reversed(found)), lost=True)
        before = started.continued_execution_run_id
        begins = not before or started.initiator != Initiator.CONTINUE_AS_NEW_INITIATOR_WORKFLOW
        found.append(Link(following, begins))
        following = before or await _restarted(client, run_id, started)
    return Chain(tuple(reversed(found)))


async def reset_to(client: Client, run_id: str, link_id: str) -> str | None:
    """Return the link that stands for one since it was reset (`temporal workflow reset`)."""
    return (await describe_link(client, run_id, link_id)).raw_description.workflow_extended_info.reset_run_id or None


async def describe_link(client: Client, run_id: str, link_id: str) -> WorkflowExecutionDescription:
    """Return what the server says of a link at once; RunNotFound for one that is not there."""
    with translated(client, run_id):
        return await client.get_workflow_handle(run_id, run_id=link_id).describe()


async def _start(client: Client, run_id: str, link_id: str) -> WorkflowExecutionStartedEventAttributes | None:
    """Return how a link began, None for one that is not there."""
    handle = client.get_workflow_handle(run_id, run_id=link_id)
    try:
        with translated(client, run_id):
            event = await anext(handle.fetch_history_events(page_size=1))
    except (RunNotFound, StopAsyncIteration):
        return None
    return event.workflow_execution_started_event_attributes


async def _restarted(client: Client, run_id: str, started: WorkflowExecutionStartedEventAttributes) -> str | None:
    """Return the closed link of this same run that a link was started to go on from; a fork's is another run's."""
    try:
        given: list[Any] = await client.data_converter.decode(list(started.input.payloads))
    except (RuntimeError, KeyError, ValueError):
        return None
    after = given[0].get("after") if given and isinstance(given[0], dict) else None
    if not isinstance(after, dict) or after.get("workflow_id") not in (None, run_id):
        return None
    return str(after.get("run") or "") or None
