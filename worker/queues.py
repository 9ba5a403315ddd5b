"""Workers beside a worker: each polls one of the task queues of `activities/queues.py`, in the same process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from datetime import timedelta
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

from temporalio.worker import Interceptor, Worker

from holdfast.activities.queues import Queue

Serves = Callable[[Queue], list[Callable[..., Any]]]
"""Returns the activities that a queue is for."""

_POLLS = 5
_beside: WeakKeyDictionary[Worker, list[Worker]] = WeakKeyDictionary()
_making: ContextVar[bool] = ContextVar("making", default=False)
_made: WeakSet[Worker] = WeakSet()


@asynccontextmanager
async def beside(
    worker: Worker, queues: Iterable[Queue], serves: Serves, interceptors: Sequence[Interceptor], throttle: timedelta
) -> AsyncIterator[None]:
    """Poll these queues for as long as `worker` runs; whoever stops it may call `stop_beside` first."""
    token = _making.set(True)
    try:
        made = [_worker(worker, queue, serves(queue), interceptors, throttle) for queue in queues]
    finally:
        _making.reset(token)
    _made.update(made)
    _beside[worker] = made
    running = [asyncio.create_task(each.run()) for each in made]
    try:
        yield
    finally:
        stop_beside(worker)
        await asyncio.gather(*running)


def stop_beside(worker: Worker) -> None:
    """Let the workers beside take nothing new, from now on."""
    _stopping.update(asyncio.create_task(each.shutdown()) for each in _beside.pop(worker, []))
    for each in list(_stopping):
        each.add_done_callback(_stopping.discard)


def is_made_beside() -> bool:
    """Say whether the worker that is being made is one of these: a client's plugin is asked about them as well."""
    return _making.get()


def is_beside(worker: Worker) -> bool:
    """Say whether a worker is one of these."""
    return worker in _made


_stopping: set[asyncio.Task[None]] = set()


def _worker(
    main: Worker,
    queue: Queue,
    activities: list[Callable[..., Any]],
    interceptors: Sequence[Interceptor],
    throttle: timedelta,
) -> Worker:
    config = main.config(active_config=True)
    at_once = queue.at_once or config.get("max_concurrent_activities") or 100
    return Worker(
        main.client,
        task_queue=queue.name(main.task_queue),
        activities=activities,
        activity_executor=config.get("activity_executor"),
        interceptors=interceptors,
        identity=config.get("identity"),
        max_concurrent_activities=at_once,
        max_concurrent_activity_task_polls=min(_POLLS, at_once),
        max_task_queue_activities_per_second=queue.per_second,
        max_heartbeat_throttle_interval=throttle,
        default_heartbeat_throttle_interval=throttle,
        graceful_shutdown_timeout=config.get("graceful_shutdown_timeout") or timedelta(),
    )
