"""Tools and time, through real runs: what blocks, what is too slow, what is cancelled, what runs beside what."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from temporalio.client import WorkflowExecutionStatus, WorkflowFailureError
from temporalio.exceptions import CancelledError as TemporalCancelled

from holdfast import Agent, Limits, Tool, ToolContext, tool
from holdfast.worker.scripted import ChatRequest, Reply, Script, call, say
from tests.support.stage import MODEL, Stage, stage


def by_message(request: ChatRequest) -> Reply:
    """Call the tool that the message names, then say done."""
    return say("done") if request.turn else call((request.last_text, {}))


def several(name: str, count: int) -> Script:
    """Call one tool many times in one turn, then say done."""
    return lambda request: say("done") if request.turn else call(*((name, {"number": each}) for each in range(count)))


def user(*tools: Tool[..., Any], **fields: Any) -> Agent:
    """An agent with these tools."""
    return Agent(name="user", model=MODEL, tools=tools, **fields)


def told(at: Stage, message: str) -> list[str]:
    """Return what the model was last told of the tools' results, in the run of this message."""
    last = [each for each in at.model.requests if each.last_text == message][-1]
    return list(last.tool_results.values())


async def until(true: Callable[[], bool], seconds: float = 10) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


@tool
def quick() -> str:
    """Take no time."""
    return "quick"


@tool
async def quick_too() -> str:
    """Take no time."""
    await asyncio.sleep(0.01)
    return "quick"


@pytest.mark.parametrize("kind", ["sync", "async", "async that blocks its loop"])
async def test_a_tool_that_is_too_slow_is_told_after_its_attempts(address: str, kind: str) -> None:
    attempts: list[tuple[int, str, float]] = []
    release = threading.Event()

    @tool(name="slow", timeout_seconds=1, max_attempts=2)
    def slow(context: ToolContext) -> None:
        attempts.append((context.attempt, context.idempotency_key, time.monotonic()))
        release.wait(10)

    @tool(name="slow", timeout_seconds=1, max_attempts=2)
    async def slow_too(context: ToolContext) -> None:
        attempts.append((context.attempt, context.idempotency_key, time.monotonic()))
        if kind == "async":
            await asyncio.sleep(10)
        release.wait(10)

    asks = user(slow if kind == "sync" else slow_too)
    async with stage(address, by_message, [asks]) as at:
        result = await at.run("user", message="slow")
        release.set()
        assert result.status == "completed"
        assert told(at, "slow") == ["Error (Timeout): it took longer than it may, on every attempt"]
        (first, key, began), (second, same_key, began_again) = attempts
        assert (first, second, key) == (1, 2, same_key)
        assert 0.9 < began_again - began < 5


async def test_a_once_tool_that_is_too_slow_is_not_repeated_and_the_model_hears_that_its_outcome_is_unknown(
    address: str,
) -> None:
    count = 0

    @tool(timeout_seconds=1, effect="once")
    async def pay() -> None:
        nonlocal count
        count += 1
        await asyncio.sleep(10)

    async with stage(address, by_message, [user(pay)]) as at:
        assert (await at.run("user", message="pay")).status == "completed"
        assert "unknown" in told(at, "pay")[0]
        assert count == 1


async def test_tools_that_block_their_thread_or_their_loop_stall_no_other_run(address: str) -> None:
    """They block for 10 s, well over the heartbeat timeout of 3 s."""
    release, blocking, attempts = threading.Event(), 0, 0

    def block(context: ToolContext) -> str:
        nonlocal blocking, attempts
        blocking += 1
        attempts = max(attempts, context.attempt)
        release.wait(10)
        blocking -= 1
        return "unblocked"

    @tool
    def block_thread(context: ToolContext) -> str:
        return block(context)

    @tool
    async def block_loop(context: ToolContext) -> str:
        return block(context)

    async with stage(address, by_message, [user(block_thread, block_loop, quick, quick_too)]) as at:
        names = ["block_thread"] * 2 + ["block_loop"] * 2
        blocked = [asyncio.ensure_future(at.run("user", message=each)) for each in names]
        try:
            await until(lambda: blocking == 4)
            began = time.monotonic()
            for each in ("quick", "quick_too"):
                assert (await at.run("user", message=each)).status == "completed"
                assert told(at, each) == ["quick"]
            assert time.monotonic() - began < 4  # 2 s of which the blocked loop is given
            await asyncio.sleep(4)  # they would have been lost by now, had their heartbeats stopped
        finally:
            release.set()
        results = await asyncio.gather(*blocked)
        assert [each.status for each in results] == ["completed"] * 4
        assert told(at, "block_loop") == told(at, "block_thread") == ["unblocked"]
        assert attempts == 1


async def test_loops_that_were_blocked_are_not_kept_for_ever(address: str) -> None:
    def loops() -> set[threading.Thread]:
        return {each for each in threading.enumerate() if each.name == "holdfast-tools"}

    began, release = 0, threading.Event()

    @tool
    async def block_loop() -> str:
        nonlocal began
        began += 1
        release.wait(30)
        return "unblocked"

    before = loops()
    async with stage(address, by_message, [user(block_loop)]) as at:
        runs = [asyncio.ensure_future(at.run("user", message="block_loop")) for _ in range(3)]
        try:
            await until(lambda: began == 3, 20)
            assert len(loops() - before) == 3
        finally:
            release.set()
        assert [each.status for each in await asyncio.gather(*runs)] == ["completed"] * 3
        await until(lambda: len(loops() - before) == 1)
        assert (await at.run("user", message="block_loop")).status == "completed"
        assert began == 4


async def test_heartbeat_details_are_found_by_the_next_attempt(address: str) -> None:
    found: dict[str, list[tuple[Any, ...]]] = {"copy": [], "copy_too": []}

    def copy_(name: str, context: ToolContext) -> str:
        found[name].append(context.last_heartbeat)
        context.heartbeat({"page": context.attempt}, "half")
        if context.attempt == 1:
            raise ConnectionError("torn")
        return "copied"

    @tool
    def copy(context: ToolContext) -> str:
        return copy_("copy", context)

    @tool
    async def copy_too(context: ToolContext) -> str:
        return copy_("copy_too", context)

    async with stage(address, by_message, [user(copy, copy_too)]) as at:
        for name in found:
            assert (await at.run("user", message=name)).status == "completed"
            assert found[name] == [(), ({"page": 1}, "half")]


@pytest.mark.parametrize("detail", [float("nan"), "\ud800", object(), "x" * 100_000])
async def test_a_heartbeat_that_cannot_be_recorded_is_an_error_of_its_caller_and_stops_no_heart(
    address: str, detail: Any
) -> None:
    @tool(max_attempts=1)
    async def beat(context: ToolContext) -> str:
        try:
            context.heartbeat(detail)
        except (ValueError, TypeError) as error:
            context.heartbeat("fine")
            await asyncio.sleep(0.6)
            return type(error).__name__
        return "taken"

    async with stage(address, by_message, [user(beat)]) as at:
        assert (await at.run("user", message="beat")).status == "completed"
        assert told(at, "beat")[0] in ("ValueError", "TypeError", "UnicodeEncodeError")


async def test_cancelling_a_run_stops_its_tools_and_closes_it_only_after_they_have_stopped(address: str) -> None:
    began: list[str] = []
    ended: dict[str, float] = {}
    saw: dict[str, bool] = {}

    @tool
    def polls(context: ToolContext) -> None:
        began.append("polls")
        try:
            while not context.cancelled:
                time.sleep(0.02)
        finally:
            saw["polls"] = context.cancelled
            ended["polls"] = time.time()

    @tool
    async def awaits(context: ToolContext) -> None:
        began.append("awaits")
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.5)  # a clean-up that the run's end must wait for
            saw["awaits"] = context.cancelled
            ended["awaits"] = time.time()

    @tool
    def blocks(context: ToolContext) -> None:
        began.append("blocks")
        time.sleep(2.5)
        ended["blocks"] = time.time()

    def script(_: ChatRequest) -> Reply:
        return call(("polls", {}), ("awaits", {}), ("blocks", {}))

    async with stage(address, script, [user(polls, awaits, blocks)]) as at:
        handle = await at.start("user", message="Go")
        await until(lambda: len(began) == 3)
        asked = time.time()
        await handle.cancel()
        with pytest.raises(WorkflowFailureError):
            await asyncio.wait_for(handle.result(), 10)
        described = await handle.describe()
        assert described.status == WorkflowExecutionStatus.CANCELED
        assert described.close_time is not None
        assert saw == {"polls": True, "awaits": True}
        assert ended["polls"] - asked < 1.5
        assert ended["awaits"] - asked < 2
        assert described.close_time.timestamp() >= max(ended.values()) - 0.01
        assert at.model.hits == 1


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_tools_run_side_by_side_as_many_as_the_limit_allows(address: str, kind: str) -> None:
    lock, now, most = threading.Lock(), 0, 0

    def enter(step: int) -> None:
        nonlocal now, most
        with lock:
            now += step
            most = max(most, now)

    @tool(name="rest")
    def rest(number: int) -> int:
        enter(1)
        time.sleep(0.3)
        enter(-1)
        return number

    @tool(name="rest")
    async def rest_too(number: int) -> int:
        enter(1)
        await asyncio.sleep(0.3)
        enter(-1)
        return number

    asks = user(rest if kind == "sync" else rest_too, limits=Limits(max_parallel_tools=5))
    async with stage(address, several("rest", 20), [asks]) as at:
        began = time.monotonic()
        assert (await at.run("user", message="Go")).status == "completed"
        assert told(at, "Go") == [str(each) for each in range(20)]
        assert most == 5
        assert time.monotonic() - began < 5  # 1.2 s of rest where one after the other would take 6


@tool
async def stop_the_loop() -> str:
    """Stop the loop that it runs on."""
    asyncio.get_running_loop().stop()
    await asyncio.sleep(0.1)
    return "went on"


@tool
def give_up() -> str:
    """Raise a cancellation that nobody asked for."""
    raise TemporalCancelled("of my own")


async def test_a_tool_that_stops_its_loop_harms_no_other_and_an_unasked_cancellation_is_its_own_error(
    address: str,
) -> None:
    def script(request: ChatRequest) -> Reply:
        if request.turn < 2:
            return call(("stop_the_loop", {}), ("give_up", {}))
        return say("done")

    odd = Agent(name="odd", model=MODEL, tools=[stop_the_loop, give_up])
    async with stage(address, script, [odd]) as at:
        result = await at.run("odd", message="Go")
        assert result.status == "completed"
        stopped = [each for each in result.tool_executions if each.tool_name == "stop_the_loop"]
        assert [(each.success, each.output) for each in stopped] == [(True, "went on")] * 2
        gave_up = [each for each in result.tool_executions if each.tool_name == "give_up"]
        assert all("of my own" in str(each.error) for each in gave_up)
        assert not any("WorkerLost" in str(each.error) for each in gave_up)
