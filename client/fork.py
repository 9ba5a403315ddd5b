"""Forks: a new run from the beginning of another, which stays as it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import temporalio.client
from temporalio.client import WorkflowExecutionStatus

from holdfast.agent import Agent
from holdfast.client.restart import ClosedLink
from holdfast.client.rpc import describe, translated
from holdfast.client.views import Run
from holdfast.content import Said
from holdfast.errors import InputInvalid
from holdfast.request import RunRequest


async def fork_of(
    temporal: temporalio.client.Client,
    run: Run,
    at_step: int | None,
    *,
    message: Said | None,
    agent: str | Agent | Mapping[str, Any] | None,
    thread_id: str | None,
    metadata: Mapping[str, Any] | None,
) -> RunRequest:
    """Ask for a run that begins as another did; InputInvalid for a step that it has not, or that is under way."""
    if at_step is None and message is None:
        raise InputInvalid({"message": "give at_step, a message, or both: there is nothing new to do"})
    last = (await describe(temporal, run.id)).run_id
    link = last if at_step is None else _link_of(run, at_step)
    with translated(temporal, run.id):
        found = await temporal.get_workflow_handle(run.id, run_id=link).describe()
    if found.status == WorkflowExecutionStatus.RUNNING:
        raise InputInvalid({"run_id": f"run {run.id!r} is under way: fork a run that has ended, or interrupt it first"})
    closed = await ClosedLink.of(temporal, found)
    told = {**(closed.request.get("metadata") or {}), **(metadata or {}), "forked_from": run.id}
    return closed.forked(step=at_step, message=message, agent=agent, thread_id=thread_id, metadata=told)


def _link_of(run: Run, step: int) -> str:
    """Return the link in which a step was taken; an interrupted one keeps its number, and the next has another."""
    links = {event.data["step"]: event.id.partition("/")[0] for event in run.logs if event.type == "step_started"}
    if step not in links:
        has = f"has the steps {min(links)} to {max(links)}" if links else "has taken no step"
        raise InputInvalid({"at_step": f"run {run.id!r} {has}, not {step}"})
    return str(links[step])
