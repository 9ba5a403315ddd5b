"""Makes Holdfast's own worker."""

from __future__ import annotations

import os
import socket
from datetime import timedelta

import temporalio.client
from temporalio.worker import Worker

from holdfast.worker.plugin import HoldfastPlugin
from holdfast.worker.settings import Settings


def make_worker(
    client: temporalio.client.Client,
    plugin: HoldfastPlugin,
    *,
    task_queue: str | None = None,
) -> Worker:
    """Make a worker of this plugin's agents and tools, with its settings."""
    settings: Settings = plugin.settings
    return Worker(
        client,
        task_queue=task_queue or settings.task_queue,
        plugins=[plugin],
        identity=identity(),
        max_cached_workflows=settings.max_cached_workflows,
        max_concurrent_activities=settings.max_concurrent_activities,
        graceful_shutdown_timeout=timedelta(seconds=settings.grace_seconds),
    )


def identity() -> str:
    """Say who polls: process id and host, by which `holdfast healthcheck --here` finds this machine's worker."""
    return f"{os.getpid()}@{socket.gethostname()}"
