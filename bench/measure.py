"""The measurements: one run alone, many at once, and a long one whose steps are timed by its own history."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from temporalio.api.enums.v1 import EventType
from temporalio.client import Client, WorkflowHandle

from bench.floor import MODEL
from bench.subjects import Running

RESULT_BYTES = 256
LONG_RESULT_BYTES = 2048


@dataclass(frozen=True)
class Pace:
    """How fast steps were taken, and at what cost to the worker's process."""

    ms_per_step: float
    cpu_ms_per_step: float
    runs_per_second: float


@dataclass(frozen=True)
class Growth:
    """What a long run costs as it grows."""

    ms_per_step: dict[str, float]
    """By window of steps, as `first-last`."""
    history_bytes: dict[int, int]
    """All of history, by the number of steps taken; the run's own result is left out."""
    described_bytes: int
    """What the server says of the whole."""

    @property
    def slowdown(self) -> float:
        """The last window's pace to the first's."""
        paces = list(self.ms_per_step.values())
        return paces[-1] / paces[0]


async def start(
    client: Client, subject: Running, steps: int, size: int, wide: int = 1, helpers: int = 0
) -> WorkflowHandle[Any, Any]:
    """Start one run."""
    name, request = subject.request(steps, size, wide, helpers)
    run_id = f"bench-{uuid.uuid4().hex[:12]}"
    return await client.start_workflow(name, request, id=run_id, task_queue=subject.task_queue)


async def run(client: Client, subject: Running, steps: int, size: int, wide: int = 1, helpers: int = 0) -> None:
    """Take one run to its end, and make sure that it took its steps."""
    result = await (await start(client, subject, steps, size, wide, helpers)).result()
    if result["steps"] != (2 if helpers else steps) or result.get("status", "completed") != "completed":
        raise RuntimeError(f"{subject.label} took {result['steps']} steps of {steps}: {result}")


async def pace(client: Client, subject: Running, runs: int, steps: int, at_once: int, wide: int = 1) -> Pace:
    """Take so many runs, so many of them at once, with so many tool calls in each step."""
    room = asyncio.Semaphore(at_once)

    async def one() -> None:
        async with room:
            await run(client, subject, steps, RESULT_BYTES, wide)

    cpu, began = subject.cpu_seconds(), time.perf_counter()
    await asyncio.gather(*(one() for _ in range(runs)))
    seconds, cpu = time.perf_counter() - began, subject.cpu_seconds() - cpu
    return Pace(1000 * seconds / (runs * steps), 1000 * cpu / (runs * steps), runs / seconds)


async def families(client: Client, subject: Running, runs: int, helpers: int, steps: int) -> Pace:
    """Take so many runs one after the other, each with so many subagents at once; the steps are the subagents'."""
    cpu, began = subject.cpu_seconds(), time.perf_counter()
    for _ in range(runs):
        await run(client, subject, steps, RESULT_BYTES, helpers=helpers)
    seconds, cpu = time.perf_counter() - began, subject.cpu_seconds() - cpu
    taken = runs * helpers * steps
    return Pace(1000 * seconds / taken, 1000 * cpu / taken, runs / seconds)


async def growth(client: Client, subject: Running, steps: int, marks: Sequence[int]) -> Growth:
    """Take one long run, and read from its history when each step began and what it added."""
    handle = await start(client, subject, steps, LONG_RESULT_BYTES)
    await handle.result()
    began: list[float] = []
    size, sizes, at = 0, [], 0.0
    async for event in handle.fetch_history_events():
        at = event.event_time.ToMicroseconds() / 1000
        scheduled = event.activity_task_scheduled_event_attributes
        is_scheduled = event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED
        if is_scheduled and scheduled.activity_type.name == MODEL:
            began.append(at)
            sizes.append(size)
        is_close = event.event_type == EventType.EVENT_TYPE_WORKFLOW_EXECUTION_COMPLETED
        size += 0 if is_close else event.ByteSize()
    began.append(at)
    sizes.append(size)
    described = (await handle.describe()).raw_description.workflow_execution_info.history_size_bytes
    windows = [(0, 10), *((mark - 10, mark) for mark in marks)]
    paces = {f"{first}-{last}": (began[last] - began[first]) / (last - first) for first, last in windows}
    return Growth(paces, {mark: sizes[mark] for mark in marks}, described)
