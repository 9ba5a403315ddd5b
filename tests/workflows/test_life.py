"""A run's life on the real server: people in the loop, pauses, rests, clocks, many links."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from temporalio.api.enums.v1 import EventType as Kind
from temporalio.client import WorkflowHandle, WorkflowUpdateFailedError

from holdfast import Agent, Compaction, Event, Interaction, Limits, ToolContext, ask_user, sleep, tool, wait_until
from holdfast.worker.scripted import ChatRequest, Reply, call, say
from tests.support.stage import DEADLINE, MODEL, Stage, result, stage, timeline

PAID: list[str] = []
BLOCKED: set[str] = set()


@tool(requires_approval=True)
def pay(invoice: str, amount: int = 1) -> str:
    """Pay an invoice."""
    PAID.append(f"{invoice}:{amount}")
    return f"paid {invoice} {amount}"


@tool
def add(left: int, right: int) -> int:
    """Add two numbers."""
    return left + right


@tool
async def rest(seconds: float) -> str:
    """Take a while."""
    await asyncio.sleep(seconds)
    return "rested"


@tool
def block(seconds: float, context: ToolContext) -> str:
    """Work in a call that no exception reaches, the first time."""
    if context.idempotency_key not in BLOCKED:
        BLOCKED.add(context.idempotency_key)
        time.sleep(seconds)
    return "blocked"


TOOLS = (pay, add, rest, block, ask_user, sleep, wait_until)


def agent(name: str, **fields: Any) -> Agent:
    return Agent(name=name, model=MODEL, tools=TOOLS, **fields)


AGENTS = [
    agent("plain"),
    agent("headless", interaction=Interaction(mode="headless")),
    agent("trusting", interaction=Interaction(mode="headless", fallback="approve")),
    agent("hurried", interaction=Interaction(timeout_seconds=2)),
    agent("impatient", interaction=Interaction(timeout_seconds=1)),
    agent("active", limits=Limits(max_active_seconds=1.5)),
    agent("deadline", limits=Limits(deadline_seconds=1.5)),
    agent("cheap", limits=Limits(max_cost_usd=0.003)),
    agent("long", limits=Limits(max_steps=1000, max_model_calls=1000)),
    agent("compact", limits=Limits(max_steps=1000), compaction=Compaction(at_tokens=500, keep_tokens=100)),
]


def script(request: ChatRequest) -> Reply:
    """Do what the first message says: a line for each turn."""
    if any("summar" in str(each.get("content")).lower() for each in request.messages if each["role"] == "system"):
        return say("They added numbers.")
    first = next(str(each["content"]) for each in request.messages if each["role"] == "user")
    lines = first.splitlines()
    turn = sum(each["role"] == "assistant" for each in request.messages)
    reply: Reply = eval(
        lines[min(turn, len(lines) - 1)], {"call": call, "say": say, "turn": turn, "number": request.number}
    )
    return reply


@pytest.fixture
async def at(address: str) -> AsyncIterator[Stage]:
    async with stage(address, script, AGENTS) as made:
        yield made


async def start(at: Stage, name: str, *lines: str, **request: Any) -> WorkflowHandle[Any, Any]:
    return await at.start(name, message="\n".join(lines), **request)


async def until(run: WorkflowHandle[Any, Any], wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    async with asyncio.timeout(DEADLINE):
        while True:
            status: dict[str, Any] = await run.query("status")
            if wanted(status):
                return status
            await asyncio.sleep(0.02)


async def waiting(run: WorkflowHandle[Any, Any], number: int = 1) -> list[dict[str, Any]]:
    status = await until(run, lambda told: told["status"] == "waiting" and len(told["waiting_for"]) == number)
    found: list[dict[str, Any]] = status["waiting_for"]
    return found


def types(events: list[Event]) -> list[str]:
    return [event.type for event in events]


async def test_a_call_that_needs_approval_waits_for_it_and_then_runs_once(at: Stage) -> None:
    run = await start(at, "plain", 'call(("pay", {"invoice": "a"}))', 'say("Done.")')
    (asked,) = await waiting(run)
    assert (asked["kind"], asked["tool_name"], asked["arguments"]) == ("approval", "pay", {"invoice": "a"})
    await run.execute_update("decide", {"call_id": asked["id"], "decision": "approve", "digest": asked["digest"]})
    ended = await result(run)
    assert (ended.status, ended.tool_executions[0].output) == ("completed", "paid a 1")
    _, events = await timeline(at.client, run.id)
    assert types(events)[4:8] == ["model_completed", "approval_requested", "approval_resolved", "tool_called"]


async def test_several_calls_of_one_turn_are_approved_edited_and_denied_each_by_its_own_id(at: Stage) -> None:
    calls = ", ".join(f'("pay", {{"invoice": "{name}"}})' for name in "abc")
    run = await start(at, "plain", f'call({calls}, ("add", {{"left": 1, "right": 2}}))', 'say("Done.")')
    first, second, third = await waiting(run, 3)
    await run.execute_update("decide", {"call_id": third["id"], "decision": "deny", "reason": "too much"})
    edited = {"invoice": "b", "amount": 7}
    await run.execute_update("decide", {"call_id": second["id"], "decision": "approve", "arguments": edited})
    with pytest.raises(WorkflowUpdateFailedError) as refused:
        await run.execute_update("decide", {"call_id": third["id"], "decision": "approve"})
    assert getattr(refused.value.cause, "type", None) == "DecisionRefused"
    await run.execute_update("decide", {"call_id": first["id"], "decision": "approve"})
    ended = await result(run)
    assert [each.output for each in ended.tool_executions] == ["paid a 1", "paid b 7", None, 3]
    assert ended.tool_executions[2].error == "ApprovalDenied: it was not approved: too much"
    folded, _ = await timeline(at.client, run.id)
    assert '"amount":7' in str(folded.messages[3].content)
    assert ended.state_snapshot["tool_calls"] == 3


async def test_headless_runs_fall_back_at_once(at: Stage) -> None:
    lines = ('call(("pay", {"invoice": "h"}), ("ask_user", {"question": "why?"}))', 'say("Done.")')
    denied = await result(await start(at, "headless", *lines))
    assert [each.success for each in denied.tool_executions] == [False, False]
    approved = await result(await start(at, "trusting", *lines))
    assert [each.success for each in approved.tool_executions] == [True, False]
    asked = await start(at, "plain", *lines, interaction_mode="headless")
    assert [each.success for each in (await result(asked)).tool_executions] == [False, False]


async def test_a_question_waits_for_its_answer_and_falls_back_when_nobody_answers_in_time(at: Stage) -> None:
    lines = ('call(("ask_user", {"question": "Which one?", "options": ["a", "b"]}))', 'say("Done.")')
    run = await start(at, "plain", *lines)
    (asked,) = await waiting(run)
    assert (asked["question"], asked["options"]) == ("Which one?", ["a", "b"])
    await run.execute_update("answer", {"question_id": asked["id"], "text": "b"})
    assert (await result(run)).tool_executions[0].output == "b"
    late = await result(await start(at, "impatient", *lines))
    assert str(late.tool_executions[0].error).startswith("NoAnswer")


async def test_an_approval_that_nobody_gives_in_time_is_a_denial(at: Stage) -> None:
    run = await start(at, "impatient", 'call(("pay", {"invoice": "late"}))', 'say("Done.")')
    ended = await result(run)
    assert str(ended.tool_executions[0].error).startswith("ApprovalDenied")
    assert "late:1" not in PAID
    folded, events = await timeline(at.client, run.id)
    assert "approval_resolved" in types(events)
    assert folded.messages[2].content is not None


async def test_a_rest_ends_at_its_time_or_with_a_message(at: Stage) -> None:
    run = await start(at, "plain", 'call(("sleep", {"seconds": 0.5}))', 'say("Done.")')
    assert (await result(run)).tool_executions[0].output == "The time has come."
    run = await start(at, "plain", 'call(("sleep", {"seconds": 5000000}))', 'say("Done.")')
    (asked,) = await waiting(run)
    assert asked["kind"] == "timer"
    await run.signal("append_message", {"text": "wake up"})
    ended = await result(run)
    assert ended.tool_executions[0].output == "Woken before the time by a new message."
    folded, _ = await timeline(at.client, run.id)
    assert [each.role for each in folded.messages] == ["user", "assistant", "tool", "user", "assistant"]


async def test_a_paused_run_begins_nothing_and_goes_on_where_it_stood(at: Stage) -> None:
    run = await start(at, "plain", 'call(("rest", {"seconds": 0.6}))', 'say("Done.")')
    await until(run, lambda told: told["step"] == 1)
    await run.signal("pause", {"reason": "lunch"})
    await until(run, lambda told: told["status"] == "paused")
    hits = at.model.hits
    await run.signal("append_message", {"text": "hello"})
    await asyncio.sleep(0.5)
    assert at.model.hits == hits
    await run.signal("resume")
    ended = await result(run)
    assert (ended.status, ended.steps) == ("completed", 2)
    _, events = await timeline(at.client, run.id)
    assert {"paused", "resumed"} <= set(types(events))


async def test_an_interrupted_run_keeps_its_partial_text(at: Stage) -> None:
    run = await start(at, "plain", 'say("word " * 200, pace=0.05)')
    await until(run, lambda told: told["step"] == 1)
    while not at.model.hits:
        await asyncio.sleep(0.02)
    await asyncio.sleep(0.8)
    began = time.monotonic()
    await run.signal("interrupt", {"reason": "enough"})
    ended = await result(run)
    assert time.monotonic() - began < 2
    assert ended.status == "interrupted"
    assert ended.final_text.startswith("word word")
    assert ended.state_snapshot["interrupted_by"] == "enough"
    _, events = await timeline(at.client, run.id)
    assert types(events)[-1] == "run_interrupted"


async def test_approvals_are_asked_afresh_when_a_run_is_started_again_and_never_made_by_a_fork(at: Stage) -> None:
    run = await start(at, "hurried", 'call(("pay", {"invoice": "again"}))', 'say("Done.")')
    await waiting(run)
    await run.signal("interrupt")
    assert (await result(run)).status == "interrupted"
    await asyncio.sleep(2.1)  # longer than anybody would have waited in the first place
    link = (await run.describe()).run_id
    fork = await at.start("plain", message="Go on.", after={"run": link, "workflow_id": run.id})
    assert str((await result(fork)).tool_executions[0].error).startswith("NotCalled")
    run = await at.start("hurried", run_id=run.id, after={"run": link})
    (asked,) = await waiting(run)
    await run.execute_update("decide", {"call_id": asked["id"], "decision": "approve"})
    assert (await result(run)).tool_executions[0].output == "paid again 1"
    assert PAID.count("again:1") == 1


@pytest.mark.parametrize("name", ["active", "deadline"])
async def test_a_time_limit_interrupts_within_a_second_even_in_the_middle_of_a_tool(at: Stage, name: str) -> None:
    run = await start(at, name, 'call(("rest", {"seconds": 30}))', 'say("Done.")')
    ended = await result(run)
    assert ended.status == "interrupted"
    limited, ends = await _clocked(run, name)
    assert 1.4 < (ends - limited).total_seconds() < 2.5
    assert ended.state_snapshot["interrupted_by"] == {"active": "max_active_seconds"}.get(name, "deadline_seconds")


async def _clocked(run: WorkflowHandle[Any, Any], name: str) -> tuple[datetime, datetime]:
    """Return when a run's clock began, by the server's time, and when the run ended."""
    described = await run.describe()
    assert described.close_time is not None
    if name == "deadline":
        return described.start_time, described.close_time
    async for event in run.fetch_history_events():
        if event.event_type == Kind.EVENT_TYPE_ACTIVITY_TASK_COMPLETED:  # the agent is loaded: work begins
            return event.event_time.ToDatetime(tzinfo=UTC), described.close_time
    raise AssertionError("it never began")


async def test_active_time_stands_still_while_a_run_waits(at: Stage) -> None:
    run = await start(at, "active", 'call(("ask_user", {"question": "?"}))', 'say("Done.")')
    (asked,) = await waiting(run)
    await asyncio.sleep(2.5)
    await run.execute_update("answer", {"question_id": asked["id"], "text": "yes"})
    assert (await result(run)).status == "completed"


async def test_no_model_call_is_made_once_the_money_is_spent(at: Stage) -> None:
    hits = at.model.hits
    ended = await result(
        await start(
            at,
            "cheap",
            'call(("add", {"left": 1, "right": 2}), text="I add.", usage={"completion_tokens": 999})',
            'say("3")',
        )
    )
    assert (ended.status, ended.final_text) == ("degraded", "I add.")
    assert at.model.hits == hits + 1


async def test_a_run_continues_as_new_and_its_timeline_runs_straight_through(address: str) -> None:
    async with stage(address, script, AGENTS, continue_after_events=30) as at:
        run = await start(at, "long", 'call(("add", {"left": 1, "right": 2})) if turn < 20 else say("Done.")')
        ended = await result(run)
        assert (ended.status, ended.steps, ended.final_text) == ("completed", 21, "Done.")
        assert len(ended.tool_executions) == 20
        folded, events = await timeline(at.client, run.id)
        assert types(events).count("run_continued") > 3
        assert types(events).count("tool_completed") == 20
        assert types(events).count("run_started") == 1
        assert len(folded.messages) == 42
        assert list(at.model.requests[-1].tool_results.values()) == ["3"] * 20


async def test_people_who_write_at_length_neither_stop_a_run_nor_keep_it_from_continuing(address: str) -> None:
    async with stage(address, script, AGENTS, continue_after_events=100) as at:
        calls = ", ".join(f'("pay", {{"invoice": "{number}"}})' for number in range(12))
        run = await start(at, "long", f"call({calls})", 'say("Done.")')
        asked = await waiting(run, 12)
        await run.signal("pause", {"reason": "p" * 250_000})
        for each in asked[:9]:
            await run.execute_update("decide", {"call_id": each["id"], "decision": "deny", "reason": "d" * 250_000})
        refused = 0
        for each in asked[9:]:
            edited = {"call_id": each["id"], "decision": "approve", "arguments": {"invoice": "i" * 250_000}}
            try:
                await run.execute_update("decide", edited)
            except WorkflowUpdateFailedError as error:
                refused += 1
                assert getattr(error.cause, "type", None) == "DecisionRefused"
                await run.execute_update("decide", {"call_id": each["id"], "decision": "approve"})
        for number in range(100):
            await run.signal("append_message", {"text": f"{number}"})
        await until(run, lambda told: told["status"] == "paused")
        await run.signal("resume")
        ended = await result(run)
        assert (ended.status, ended.final_text, refused) == ("completed", "Done.", 1)
        assert [each.success for each in ended.tool_executions] == [False] * 9 + [True] * 3
        _, events = await timeline(at.client, run.id)
        assert "run_continued" in types(events)


async def test_a_long_transcript_is_compacted(at: Stage) -> None:
    padding = "x" * 400
    line = f'call(("rest", {{"seconds": 0}}), text="{padding}") if number < 9 else say("Done.")'
    run = await start(at, "compact", line)
    ended = await result(run)
    _, events = await timeline(at.client, run.id)
    assert ended.status == "completed", ended
    assert "context_compressed" in types(events)


async def test_an_interrupted_run_does_not_wait_for_a_tool_that_can_not_be_stopped(at: Stage) -> None:
    run = await start(at, "deadline", 'call(("block", {"seconds": 6}))', 'say("Done.")')
    ended = await result(run)
    assert (ended.status, ended.state_snapshot["interrupted_by"]) == ("interrupted", "deadline_seconds")
    limited, ends = await _clocked(run, "deadline")
    assert 1.4 < (ends - limited).total_seconds() < 2.6
    again = await at.start("plain", run_id=run.id, after={"run": (await run.describe()).run_id})
    assert (await result(again)).tool_executions[0].output == "blocked"
