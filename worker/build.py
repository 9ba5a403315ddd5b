"""Makes Holdfast's own worker."""

from __future__ import annotations

import asyncio
import os
import socket
from datetime import timedelta

import temporalio.client
from temporalio.worker import Worker

from holdfast.worker.plugin import HoldfastPlugin
from holdfast.worker.queues import stop_beside
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


class Serving:
    """A worker that is under way, from its registration of search attributes to its last activity's end."""

    def __init__(self, worker: Worker) -> None:
        self.ended = asyncio.create_task(worker.run())
        """Done once it has stopped; raises what stopped it."""
        self._worker = worker

    async def begun(self) -> None:
        """Wait until it polls; raises what ended it before."""
        while not self._worker.is_running and not self.ended.done():
            await asyncio.wait([self.ended], timeout=0.01)
        if self.ended.done():
            await self.ended

    async def stop(self) -> None:
        """Take nothing new, let running activities end within their grace, and wait until it has stopped."""
        stop_beside(self._worker)
        telling = asyncio.create_task(self._worker.shutdown())  # which never returns where a start has failed
        await asyncio.wait([self.ended])
        telling.cancel()
        await self.ended
