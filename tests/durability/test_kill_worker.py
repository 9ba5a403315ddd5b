"""kill -9 of the worker, at every step boundary and inside model and tool calls."""

from __future__ import annotations

import asyncio
import statistics
from collections import Counter
from collections.abc import Awaitable, Callable, Collection
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from temporalio.api.enums.v1 import EventType as Kind
from temporalio.api.history.v1 import HistoryEvent

from holdfast.worker.scripted import ChatRequest, Reply, hang
from holdfast.workflows.options import HEARTBEAT_SECONDS
from tests.durability.theatre import (
    STEPS,
    TOOL_STEPS,
    Nursery,
    Seconds,
    Theatre,
    live,
    steps,
    theatre,
    tool_counts,
    turn_counts,
    undisturbed,
    until,
)

SOON = HEARTBEAT_SECONDS + 2
"""Seconds within which a run must move again, wherever its worker died."""


def _at_once(turn: int) -> tuple[float, float]:
    return 0, 0


def _short(turn: int) -> tuple[float, float]:
    return 0.1, 0.1


def _both_slow(turn: int) -> tuple[float, float]:
    return 1, 1


def _one_slow(turn: int) -> tuple[float, float]:
    return (0, 1) if turn % 2 else (1, 0)


def _held(turns: Collection[int], times: int) -> Callable[[ChatRequest], Reply]:
    """Do not answer these turns the first so many times: silence in even turns, and half an answer in odd ones."""
    asked: Counter[int] = Counter()
    answer = steps(_at_once)

    def script(request: ChatRequest) -> Reply:
        asked[request.turn] += 1
        if request.turn not in turns or asked[request.turn] > times:
            return answer(request)
        return replace(answer(request), pace=0.3) if request.turn % 2 else hang()

    return script


@pytest.mark.parametrize(
    ("point", "seconds", "at_least"),
    [
        ("workflow task", _short, STEPS + TOOL_STEPS),
        ("model call or load", _at_once, 1 + STEPS),
        ("tool call", _one_slow, 2 * TOOL_STEPS),
    ],
)
async def test_a_kill_as_soon_as_something_is_recorded_repeats_nothing_recorded(
    address: str, hatchery: Nursery, tmp_path: Path, point: str, seconds: Seconds, at_least: int
) -> None:
    async def disturbed(at: Theatre) -> None:
        await at.start()
        kinds: dict[int, bool] = {}
        async for event in live(at.handle):
            if _kind(event, kinds) == point and event.event_id > at.seen:
                await at.kill()

    script = steps(seconds)
    at = await _compare(address, hatchery, tmp_path, script, script, disturbed, f"after a {point}")
    assert len(at.recoveries) >= at_least
    if point == "model call or load":
        assert turn_counts(at.counts())[1:] == [1] * (STEPS - 1)


@pytest.mark.parametrize(("turns", "times"), [(range(STEPS), 1), ((1, 2), 2)], ids=["every step", "twice in a row"])
async def test_a_kill_inside_a_model_call_repeats_that_call_only(
    address: str, hatchery: Nursery, tmp_path: Path, turns: Collection[int], times: int
) -> None:
    async def disturbed(at: Theatre) -> None:
        await at.start()
        for turn in turns:
            for _ in range(times):
                await until(partial(at.asking, turn))
                await asyncio.sleep(0.7 if turn % 2 else 0.1)
                await at.kill()

    at = await _compare(
        address, hatchery, tmp_path, _held(turns, times), steps(_at_once), disturbed, "inside model calls"
    )
    assert turn_counts(at.counts()) == [1 + times * (turn in turns) for turn in range(STEPS)]
    assert tool_counts(at.counts()) == [1] * 2 * TOOL_STEPS


@pytest.mark.parametrize(("turns", "times"), [(range(TOOL_STEPS), 1), ((2,), 2)], ids=["every step", "twice in a row"])
async def test_a_kill_inside_tool_calls_repeats_those_calls_only(
    address: str, hatchery: Nursery, tmp_path: Path, turns: Collection[int], times: int
) -> None:
    async def disturbed(at: Theatre) -> None:
        await at.start()
        for turn in turns:
            for _ in range(times):
                await until(partial(at.working, turn))
                await at.kill()

    script = steps(_both_slow)
    at = await _compare(address, hatchery, tmp_path, script, script, disturbed, "inside tool calls")
    assert turn_counts(at.counts()) == [1] * STEPS
    assert tool_counts(at.counts()) == [1 + times * (turn in turns) for turn in range(TOOL_STEPS) for _ in range(2)]


def _kind(event: HistoryEvent, are_tools: dict[int, bool]) -> str | None:
    """Say what it is that this event records, if it does."""
    if event.event_type == Kind.EVENT_TYPE_WORKFLOW_TASK_COMPLETED:
        return "workflow task"
    if event.event_type == Kind.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED:
        name = event.activity_task_scheduled_event_attributes.activity_type.name
        are_tools[event.event_id] = "." not in name
    if event.event_type == Kind.EVENT_TYPE_ACTIVITY_TASK_COMPLETED:
        scheduled = event.activity_task_completed_event_attributes.scheduled_event_id
        return "tool call" if are_tools[scheduled] else "model call or load"
    return None


async def _compare(
    address: str,
    nursery: Nursery,
    folder: Path,
    script: Callable[[ChatRequest], Reply],
    calm: Callable[[ChatRequest], Reply],
    disturb: Callable[[Theatre], Awaitable[None]],
    title: str,
) -> Theatre:
    """Run it disturbed and undisturbed at the same time: the transcripts are equal, and recovery was soon."""
    async with theatre(address, nursery, folder, script) as at:
        expected = asyncio.create_task(undisturbed(address, nursery, folder, calm))
        await disturb(at)
        transcript = await at.finish()
        at.tell(title)
        assert transcript == await expected
        at.check()
        assert max(at.recoveries) <= SOON
        assert statistics.median(at.recoveries) <= HEARTBEAT_SECONDS + 1.5
        return at
