"""How long, how often: the bounds of every activity, and of a run's history."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from typing import Any

from temporalio import workflow
from temporalio.common import Priority, RawValue, RetryPolicy, TypedSearchAttributes, WorkflowIDReusePolicy

from holdfast.agent import ModelSettings
from holdfast.calls import GuardrailCheck, LoadedAgent, PolicyCheck
from holdfast.tools import ToolSpec
from holdfast.workflows.models import FALLBACK_ATTEMPTS
from holdfast.workflows.thread_state import ThreadState

HEARTBEAT_SECONDS = 3.0
"""Silence after which the server gives an activity to another worker."""
WORKFLOW_TASK_SECONDS = 4
"""A worker that dies inside a workflow task is noticed after this long; the server's own default is 10 s. Long replays
are safe: the server grants more time on each further attempt."""
MODEL_QUEUE = "model:"
MODEL_QUEUE_SECONDS = 3600.0
"""How long a model call waits for its turn at a rate, or for a worker that polls that queue; then it has failed."""
HISTORY_MAX_EVENTS = 40_000
HISTORY_MAX_BYTES = 36 * 1024 * 1024
"""Beyond these a run closes with what it knows; the server would terminate it at 51,200 events or 50 MB."""


SIGNALS_MAX = 5_000
UPDATES_MAX = 1_000
"""Signals and updates of one link, after which a run continues as new; the server takes twice as many."""


def agent_load() -> dict[str, Any]:
    """Bound `agent.load`; a closed link's history may have to be read for it."""
    return _bounds(seconds=60, attempts=5)


def restore() -> dict[str, Any]:
    """Bound `transcript.restore`."""
    return _bounds(seconds=60, attempts=8)


def thread_enter() -> dict[str, Any]:
    """Bound `thread.enter`."""
    return _bounds(seconds=30, attempts=20)


def thread_read() -> dict[str, Any]:
    """Bound `thread.read`."""
    return _bounds(seconds=60, attempts=20)


def thread_collect() -> dict[str, Any]:
    """Bound `thread.collect`, which may have to read a long history; the thread itself asks again, later."""
    return _bounds(seconds=120, attempts=3)


def compact(settings: ModelSettings) -> dict[str, Any]:
    """Bound `context.compact`."""
    return _bounds(seconds=settings.timeout_seconds + 15, attempts=min(3, settings.max_attempts))


def model_call(settings: ModelSettings, *, another: bool = False) -> dict[str, Any]:
    """Bound `model.call`, more tightly where there is another model to ask.

    The activity ends a slow answer itself, and says so better than the server could.
    """
    attempts = min(FALLBACK_ATTEMPTS, settings.max_attempts) if another else settings.max_attempts
    return _bounds(seconds=settings.timeout_seconds + 15, attempts=attempts)


def check(loaded: LoadedAgent, asked: GuardrailCheck | PolicyCheck) -> dict[str, Any]:
    """Bound `guardrail.check`, by the sum of its guardrails' times, and `policy.check`."""
    if isinstance(asked, PolicyCheck):
        return _bounds(seconds=loaded.policy_seconds, attempts=loaded.policy_attempts)
    meant = [each for each in loaded.agent.guardrail_specs if each.name in asked.guardrails]
    seconds, attempts = sum(each.timeout_seconds for each in meant), max(each.max_attempts for each in meant)
    return _bounds(seconds=seconds + 15, attempts=attempts)


def queue(loaded: LoadedAgent, key: str) -> dict[str, Any]:
    """Send a call to the task queue that `LoadedAgent.queues` has for it; to the run's own where it has none."""
    name = loaded.queues.get(key)
    if name is None:
        return {}
    found: dict[str, Any] = {"task_queue": name}
    if key.startswith(MODEL_QUEUE):
        found["schedule_to_start_timeout"] = timedelta(seconds=MODEL_QUEUE_SECONDS)
        if not workflow.info().priority.fairness_key:
            found["priority"] = Priority(fairness_key=fairness_key(loaded.agent.name))
    else:
        spec = next(each for each in loaded.agent.tool_specs if each.name == key)
        found["schedule_to_start_timeout"] = timedelta(seconds=spec.queue_seconds)
    return found


def fairness_key(agent: str) -> str:
    """Return an agent's share of a queue by its name; the server takes 64 bytes."""
    return agent if len(agent) <= 64 else f"{agent[:51]}-{hashlib.sha256(agent.encode()).hexdigest()[:12]}"


def tool_call(spec: ToolSpec) -> dict[str, Any]:
    """Bound a tool call; a `once` tool is never repeated by the engine."""
    bounds = _bounds(seconds=spec.timeout_seconds, attempts=1 if spec.effect == "once" else spec.max_attempts)
    if not spec.is_elsewhere:
        return bounds
    beat = spec.heartbeat_seconds
    return bounds | {
        "task_queue": spec.task_queue,
        "result_type": RawValue,
        "schedule_to_start_timeout": timedelta(seconds=spec.queue_seconds),
        "heartbeat_timeout": None if beat is None else timedelta(seconds=beat),
        # One that does not beat would never hear that it is to stop: nobody waits for it.
        "cancellation_type": bounds["cancellation_type"] if beat else workflow.ActivityCancellationType.TRY_CANCEL,
    }


def child(search_attributes: TypedSearchAttributes | None) -> dict[str, Any]:
    """Say how a subagent's run is started: it ends with its caller, and may be started again under its id."""
    told = {} if search_attributes is None else {"search_attributes": search_attributes}
    return {
        "id_reuse_policy": WorkflowIDReusePolicy.ALLOW_DUPLICATE,
        "parent_close_policy": workflow.ParentClosePolicy.REQUEST_CANCEL,
        "cancellation_type": workflow.ChildWorkflowCancellationType.WAIT_CANCELLATION_COMPLETED,
        "task_timeout": timedelta(seconds=WORKFLOW_TASK_SECONDS),
        **told,
    }


def is_crowded(
    info: workflow.Info, told: LoadedAgent | ThreadState, began: tuple[int, int], signals: int, updates: int
) -> bool:
    """Say whether to continue as new; `began` is the history's events and bytes when the link had begun."""
    events, size = info.get_current_history_length() - began[0], info.get_current_history_size() - began[1]
    if events > told.continue_after_events or size > told.continue_after_bytes:
        return True
    return signals > SIGNALS_MAX or updates > UPDATES_MAX


def history_is_full(info: workflow.Info) -> bool:
    """Say whether a run has come near the server's walls."""
    return info.get_current_history_length() > HISTORY_MAX_EVENTS or info.get_current_history_size() > HISTORY_MAX_BYTES


def _bounds(seconds: float, attempts: int) -> dict[str, Any]:
    """The retry interval is short, for attempts that died with their worker; errors carry their own delay."""
    return {
        "start_to_close_timeout": timedelta(seconds=seconds),
        "heartbeat_timeout": timedelta(seconds=HEARTBEAT_SECONDS),
        "retry_policy": RetryPolicy(
            initial_interval=timedelta(milliseconds=100),
            backoff_coefficient=2.0,
            maximum_interval=timedelta(seconds=10),
            maximum_attempts=attempts,
        ),
        "cancellation_type": workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
    }
