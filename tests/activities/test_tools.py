"""Tools through real runs: whatever one raises or returns is data for the model, and never harms the worker."""

from __future__ import annotations

import asyncio
import math
import uuid
from pathlib import Path
from typing import Any

import pytest

from holdfast import Agent, RunResult, Tool, ToolContext, tool
from holdfast.bounds import ERROR_MAX_BYTES, TOOL_OUTPUT_MAX_CHARS
from holdfast.envelope import without_envelope
from holdfast.worker.scripted import ChatRequest, Reply, Script, call, say
from tests.support.stage import KEY, MODEL, Stage, stage, timeline


def calls_once(*wanted: tuple[str, Any]) -> Script:
    """Ask for these calls, then say done."""

    def script(request: ChatRequest) -> Reply:
        return say("done") if request.turn else call(*wanted)

    return script


def user(*tools: Tool[..., Any]) -> Agent:
    """An agent with these tools."""
    return Agent(name="user", model=MODEL, tools=tools)


async def told(at: Stage, result: RunResult) -> list[str]:
    """Return what the model was told of its calls, once the run is known to be whole."""
    assert (result.status, result.error) == ("completed", None)
    folded, events = await timeline(at.client, result.run_id)
    assert events[-1].type == "run_completed"
    said = [each["content"] for each in at.model.requests[-1].messages if each["role"] == "tool"]
    assert said == [each.content for each in folded.messages if each.role == "tool"]
    return [without_envelope(each) for each in said]


async def use(address: str, *tools: Tool[..., Any], arguments: Any = None) -> list[str]:
    """Let a run call each of these tools once, in one turn, and return what the model was told."""
    script = calls_once(*((each.spec.name, arguments or {}) for each in tools))
    async with stage(address, script, [user(*tools)]) as at:
        return await told(at, await at.run("user", message="Go"))


async def test_an_exception_is_data_after_as_many_attempts_as_declared_under_one_key(address: str) -> None:
    attempts: list[ToolContext] = []

    @tool(max_attempts=2)
    def fragile(context: ToolContext) -> str:
        attempts.append(context)
        raise OSError("the disk is full")

    @tool(max_attempts=2)
    async def shaky(context: ToolContext) -> str:
        attempts.append(context)
        raise LookupError

    assert await use(address, fragile, shaky) == [
        "Error (OSError): the disk is full",
        "Error (LookupError): shaky raised LookupError",
    ]
    assert sorted(each.attempt for each in attempts) == [1, 1, 2, 2]
    assert len({each.call_id for each in attempts}) == 2
    assert {each.idempotency_key for each in attempts} == {f"{each.run_id}:{each.call_id}" for each in attempts}


async def test_a_tool_that_recovers_is_a_success(address: str) -> None:
    @tool
    def second(context: ToolContext) -> int:
        if context.attempt == 1:
            raise ConnectionError("not yet")
        return context.attempt

    assert await use(address, second) == ["2"]


async def test_a_once_tool_is_never_repeated(address: str) -> None:
    count = 0

    @tool(effect="once", max_attempts=5)
    def pay() -> str:
        nonlocal count
        count += 1
        raise ConnectionError("the line went dead")

    assert await use(address, pay) == ["Error (ConnectionError): the line went dead"]
    assert count == 1


async def test_wrong_arguments_are_told_per_field_and_not_retried(address: str) -> None:
    made = 0

    @tool
    def add(left: int, right: int, unit: str = "") -> int:
        nonlocal made
        made += 1
        return left + right

    wrong = [{"left": "one", "rihgt": 2}, "[1]", "{", '{"left": NaN, "right": 1}', {"left": 1, "right": 2}]
    async with stage(address, calls_once(*(("add", each) for each in wrong)), [user(add)]) as at:
        said = await told(at, await at.run("user", message="Go"))
        assert all(each.startswith("Error (ToolArgumentsInvalid): ") for each in said[:4])
        assert [name for name in ("left:", "right:", "rihgt:") if name not in said[0]] == []
        assert said[4] == "3"
        assert made == 1


BIG = 50_000_000


async def test_a_result_of_50_mb_is_cut_in_history_and_for_the_model(address: str) -> None:
    @tool
    def long_text() -> str:
        return "é" * (BIG // 2)

    @tool
    async def long_list() -> list[str]:
        return ["x" * 1000] * (BIG // 1000)

    @tool
    def long_bytes() -> bytes:
        return b"\xff" * BIG

    said = await use(address, long_text, long_list, long_bytes)
    assert [each[:3] for each in said] == ["ééé", '["x', "___"]
    assert all(len(each) <= TOOL_OUTPUT_MAX_CHARS and "cut" in each for each in said)


async def test_what_json_cannot_hold_is_told_and_the_tool_is_not_repeated(address: str) -> None:
    count = 0

    def counted(value: Any) -> Any:
        nonlocal count
        count += 1
        return value

    @tool
    def not_a_number() -> dict[str, float]:
        return counted({"mean": math.nan, "max": math.inf})  # type: ignore[no-any-return]

    @tool
    async def an_object() -> Any:
        return counted(object())

    @tool
    def a_circle() -> Any:
        circle: list[Any] = []
        circle.append(circle)
        return counted(circle)

    @tool
    def a_depth() -> Any:
        deep: list[Any] = []
        for _ in range(100_000):
            deep = [deep]
        return counted(deep)

    said = await use(address, not_a_number, an_object, a_circle, a_depth)
    assert all(each.startswith("Error (ToolResultInvalid): the tool ran") for each in said), said
    assert count == 4


async def test_half_a_surrogate_pair_is_replaced_in_results_and_errors(address: str) -> None:
    @tool
    def a_name() -> dict[str, str]:
        return {"file\udcff": "caf\udce9"}

    @tool(max_attempts=1)
    def an_error() -> str:
        raise FileNotFoundError("caf\udce9")

    @tool(max_attempts=1)
    async def a_long_error() -> str:
        raise FileNotFoundError("caf\udce9 " * 1000)

    said = await use(address, a_name, an_error, a_long_error)
    assert said[:2] == ['{"file?":"caf?"}', "Error (FileNotFoundError): caf?"]
    assert said[2].startswith("Error (FileNotFoundError): caf? caf?")


class Unreadable(Exception):
    """Its text can't be read."""

    def __str__(self) -> str:
        raise SystemExit(3)


async def test_an_error_of_5_mb_is_cut_and_one_without_a_readable_text_is_told(address: str) -> None:
    @tool(max_attempts=1)
    def long_error() -> str:
        raise ValueError("x" * 5_000_000)

    @tool(max_attempts=1)
    async def long_cause() -> str:
        raise ValueError("short") from ValueError("y" * 5_000_000)

    @tool(max_attempts=1)
    def unreadable() -> str:
        raise Unreadable

    @tool(max_attempts=1)
    async def unreadable_too() -> str:
        raise Unreadable

    said = await use(address, long_error, long_cause, unreadable, unreadable_too)
    assert said[0].startswith("Error (ValueError): xxx")
    assert "5,000,000 bytes" in said[0]
    assert len(said[0]) < ERROR_MAX_BYTES + 100
    assert said[1:] == ["Error (ValueError): short", *["Error (Unreadable): (its text can't be read)"] * 2]


@pytest.mark.parametrize("end", [SystemExit, KeyboardInterrupt, GeneratorExit, asyncio.CancelledError, StopIteration])
async def test_a_tool_that_ends_its_thread_or_loop_ends_only_its_call(address: str, end: type[BaseException]) -> None:
    @tool(max_attempts=1)
    def leave() -> str:
        raise end("bye")

    @tool(max_attempts=1)
    async def leave_too() -> str:
        raise end("bye")

    @tool(max_attempts=1)
    async def leave_behind() -> str:
        async def child() -> None:
            raise end("bye")

        task = asyncio.ensure_future(child())
        await asyncio.sleep(0.05)
        return f"child done: {task.done()}"

    @tool
    async def stay() -> str:
        await asyncio.sleep(0.2)
        return "still here"

    said = await use(address, leave, leave_too, leave_behind, stay)
    name = "RuntimeError" if end is StopIteration else end.__name__  # no coroutine can raise a StopIteration
    assert [each.partition(":")[0] for each in said[:2]] == [f"Error ({end.__name__})", f"Error ({name})"]
    assert said[2:] == ["child done: True", "still here"]


async def test_a_secret_in_a_tools_result_error_or_heartbeat_is_not_recorded(address: str) -> None:
    @tool
    def leak() -> dict[str, Any]:
        return {KEY: [f"Bearer {KEY}", Path(KEY)]}

    @tool
    async def leak_much() -> str:
        return (KEY + " ") * 10_000

    @tool(max_attempts=1)
    def leak_in_error() -> str:
        raise PermissionError(f"{KEY} is no longer valid " * 300)

    @tool(timeout_seconds=1, max_attempts=1)
    async def leak_in_heartbeat(context: ToolContext) -> str:
        context.heartbeat({"with": KEY})
        await asyncio.sleep(30)
        return ""

    tools = (leak, leak_much, leak_in_error, leak_in_heartbeat)
    async with stage(address, calls_once(*((each.spec.name, {}) for each in tools)), [user(*tools)]) as at:
        run_id = f"leak-{uuid.uuid4().hex}"
        said = await told(at, await at.run("user", run_id, message="Go"))
        events = at.client.get_workflow_handle(run_id).fetch_history_events()
        history = b"".join([event.SerializeToString() async for event in events])
    assert b"is no longer valid" in history
    assert "[secret" in said[0]
    assert "is no longer valid" in said[2]
    for part in (KEY, KEY[:-3], KEY[3:]):  # nor cut into a piece that no one knows any more
        assert part not in "".join(said)
        assert part.encode() not in history
