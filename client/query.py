"""What runs to list, in the words of Temporal's visibility."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable

from temporalio.client import Client, WorkflowExecution

from holdfast import wire
from holdfast.errors import InputInvalid
from holdfast.run import Status

_OPEN = "ExecutionStatus = 'Running' AND RunStatus = '{}'"
_ENDED = "ExecutionStatus = 'Completed' AND RunStatus = '{}'"
_OF_STATUS: dict[Status, str] = {
    "pending": _OPEN,
    "running": _OPEN,
    "paused": _OPEN,
    "waiting": _OPEN,
    "completed": _ENDED,
    "degraded": _ENDED,
    "interrupted": _ENDED,
    # A run that no worker ended wrote no such status itself.
    "failed": "ExecutionStatus IN ('Failed', 'Terminated', 'TimedOut')",
    "cancelled": "ExecutionStatus = 'Canceled'",
}

_RUNS = f"WorkflowType = '{wire.AGENT_RUN}' AND ExecutionStatus != 'ContinuedAsNew'"
"""One row for each time that a run was started: links that continued as new are left out."""
_PAGE = 100


def runs_query(
    agent_id: str | None,
    status: str | None,
    thread_id: str | None,
    parent_id: str | None = None,
    *,
    subagents: bool = True,
) -> str:
    """Return the query for the runs that fit; InputInvalid for a status that no run can have."""
    terms = [_RUNS] if subagents else [_RUNS, "ParentWorkflowId IS NULL"]
    wanted = {"AgentName": agent_id, "ThreadId": thread_id, "ParentWorkflowId": parent_id}
    terms += [f"{name} = '{_quoted(value)}'" for name, value in wanted.items() if value is not None]
    if status is not None:
        terms += [query.format(name) for name, query in _OF_STATUS.items() if name == status]
        if status not in _OF_STATUS:
            raise InputInvalid({"status": f"{status[:100]!r} is none of {', '.join(_OF_STATUS)}"})
    return " AND ".join(terms)


async def list_runs(client: Client, query: str, limit: int) -> AsyncIterator[WorkflowExecution]:
    """Yield exactly one execution of each run that fits, its latest, up to `limit` runs."""
    rows, seen = client.list_workflows(query), set[str]()
    while limit > 0:
        fresh = await _fresh(rows, seen, min(limit, _PAGE))
        if not fresh:
            return
        latest = await _latest(client, fresh)
        others = [link for each in fresh if (link := latest.get(each.id, each.run_id)) != each.run_id]
        later: dict[str, WorkflowExecution] = {}
        if others:  # started again, as something that does not fit, or in this very moment
            refined = f"{query} AND RunId IN ({_list(others)})"
            later = {row.id: row async for row in client.list_workflows(refined)}
        for each in fresh:
            standing = later.get(each.id) if latest.get(each.id) in others else each
            if standing is not None:
                limit -= 1
                yield standing


async def _fresh(rows: AsyncIterator[WorkflowExecution], seen: set[str], most: int) -> list[WorkflowExecution]:
    """Take the first row of each run that was not seen: rows come open ones first, then the last closed."""
    found: list[WorkflowExecution] = []
    async for row in rows:
        if row.id not in seen:
            seen.add(row.id)
            found.append(row)
        if len(found) == most:
            break
    return found


async def _latest(client: Client, fresh: list[WorkflowExecution]) -> dict[str, str]:
    """Return the latest link of each of these runs, which need not fit a query that an earlier one fits."""
    found: dict[str, str] = {}
    async for row in client.list_workflows(f"{_RUNS} AND WorkflowId IN ({_list(each.id for each in fresh)})"):
        found.setdefault(row.id, row.run_id)
        if len(found) == len(fresh):
            break
    return found


def _list(texts: Iterable[str]) -> str:
    return ", ".join(f"'{_quoted(text)}'" for text in texts)


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace("'", "\\'")
