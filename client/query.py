"""What runs to list, in the words of Temporal's visibility."""

from __future__ import annotations

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


def runs_query(agent_id: str | None, status: str | None, thread_id: str | None) -> str:
    """Return the query for the runs that fit; InputInvalid for a status that no run can have."""
    terms = [f"WorkflowType = '{wire.AGENT_RUN}'"]
    wanted = {"AgentName": agent_id, "ThreadId": thread_id}
    terms += [f"{name} = '{_quoted(value)}'" for name, value in wanted.items() if value is not None]
    if status is not None:
        terms += [query.format(name) for name, query in _OF_STATUS.items() if name == status]
        if status not in _OF_STATUS:
            raise InputInvalid({"status": f"{status[:100]!r} is none of {', '.join(_OF_STATUS)}"})
    return " AND ".join(terms)


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace("'", "\\'")
