"""Queries that meet a run which this worker does not hold: what they load is not kept.

A query that the server hands over directly brings the run's history up to now, with events of the next workflow task.
Temporal's core applies those at once, keeps the run, and applies only the later ones when the task itself comes: in two
activations then, in one at each later replay. Their commands may differ, and the run would never replay again. So a run
that may have been loaded by a query is forgotten after it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from temporalio.bridge.proto.workflow_activation import WorkflowActivation
from temporalio.bridge.proto.workflow_completion import WorkflowActivationCompletion
from temporalio.worker import UnsandboxedWorkflowRunner, Worker, WorkflowInstance, WorkflowInstanceDetails
from temporalio.workflow import Info

_LEGACY = "legacy_query"
"""The core's own id of a query that came without a workflow task."""
_AT_ONCE_SECONDS = 2.0
"""A query that comes so soon after a run was loaded may be what loaded it; being wrong costs one replay."""


class ForgetfulRunner(UnsandboxedWorkflowRunner):
    """Runs workflows as ever, and has the worker forget those that a query may have loaded."""

    def __init__(self) -> None:
        self.forget: Callable[[str], None] = lambda run_id: None
        """Given the worker's own way, once it runs."""

    def create_instance(self, det: WorkflowInstanceDetails) -> WorkflowInstance:
        """Make an instance that looks at what it is asked."""
        return _Watched(super().create_instance(det), lambda: self.forget(det.info.run_id))

    def serve(self, worker: Worker) -> None:
        """Forget in this worker."""
        self.forget = worker._bridge_worker.request_workflow_eviction


class _Watched(WorkflowInstance):
    def __init__(self, instance: WorkflowInstance, forget: Callable[[], None]) -> None:
        self._instance = instance
        self._forget = forget
        self._met_news_at: float | None = None
        """When it first met events that no workflow task had handled before."""

    def activate(self, act: WorkflowActivation) -> WorkflowActivationCompletion:
        """Handle one activation; after a query that may have loaded the run, ask for it to be forgotten."""
        done = self._instance.activate(act)
        if any(job.query_workflow.query_id == _LEGACY for job in act.jobs):
            if self._met_news_at is not None and time.monotonic() - self._met_news_at < _AT_ONCE_SECONDS:
                self._forget()
        elif self._met_news_at is None and not act.is_replaying:
            self._met_news_at = time.monotonic()
        return done

    def get_serialization_context(self, *given: Any, **named: Any) -> Any:
        return self._instance.get_serialization_context(*given, **named)

    def get_external_store_context(self, *given: Any, **named: Any) -> Any:
        return self._instance.get_external_store_context(*given, **named)

    def get_info(self) -> Info:
        return self._instance.get_info()

    def get_thread_id(self) -> int | None:
        return self._instance.get_thread_id()
