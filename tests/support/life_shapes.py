"""The shapes of a run's whole life: people in the loop, pauses, rests, clocks, links and restarts."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import Any

from holdfast import Agent, Compaction, Interaction, Limits, ToolContext, ask_user, sleep, tool, wait_until
from holdfast.worker.scripted import ChatRequest, Reply, call, fail, hang, say
from tests.support.answer_shapes import ANSWER_SHAPES
from tests.support.elsewhere_shapes import ELSEWHERE_SHAPES
from tests.support.kin_shapes import KIN_SHAPES
from tests.support.mcp_shapes import MCP_SHAPES
from tests.support.model_shapes import MODEL_SHAPES
from tests.support.policy_shapes import POLICY_SHAPES
from tests.support.queue_shapes import QUEUE_SHAPES
from tests.support.shapes import AGENT, HELD_SECONDS, SHAPES, TOOLS, Act, Play, Shape, turns


@tool(requires_approval=True)
def pay(invoice: str, amount: int = 1) -> str:
    """Pay an invoice."""
    return f"paid {amount} for {invoice}"


_stalled: set[str] = set()


@tool
def stall(context: ToolContext) -> str:
    """Work until told to stop; the same call made again is quick."""
    fresh = context.idempotency_key not in _stalled
    _stalled.add(context.idempotency_key)
    while fresh and not context.cancelled:
        time.sleep(0.05)
    return "done"


ALL_TOOLS = (*TOOLS, pay, stall)
PERSONS = AGENT.model_copy(update={"tools": (*ALL_TOOLS, ask_user, sleep, wait_until)})


def _agent(**fields: Any) -> Agent:
    return PERSONS.model_copy(update=fields)


def _limited(**limits: Any) -> Agent:
    return _agent(limits=Limits(**limits))


async def waits(play: Play, number: int = 1) -> list[dict[str, Any]]:
    """Wait until the run waits for so many things, and return them."""
    while True:
        status = await play.run.query("status")
        if len(status["waiting_for"]) == number:
            found: list[dict[str, Any]] = status["waiting_for"]
            return found
        await asyncio.sleep(0.05)


async def stands(play: Play, status: str) -> None:
    """Wait until the run has a status."""
    while (await play.run.query("status"))["status"] != status:
        await asyncio.sleep(0.05)


def _decides(*decisions: dict[str, Any]) -> Act:
    async def act(play: Play) -> None:
        for each, decision in zip(await waits(play, len(decisions)), decisions, strict=True):
            await play.run.execute_update("decide", {"call_id": each["id"], **decision})

    return act


async def _answer(play: Play) -> None:
    (asked,) = await waits(play)
    await play.run.execute_update("answer", {"question_id": asked["id"], "text": "the second"})


async def _wake(play: Play) -> None:
    await waits(play)
    await play.say({"text": "wake up", "id": "a"})


async def _pause_and_resume_a_tool(play: Play) -> None:
    await play.working("wait")
    await play.run.signal("pause", {"reason": "lunch"})
    await play.run.signal("pause", {"reason": "again"})
    await stands(play, "paused")
    await play.say({"text": "one more thing"})
    await play.run.signal("resume")
    await play.run.signal("resume")


async def _pause_first(play: Play) -> None:
    await play.start()
    await play.run.signal("pause")


async def _resume(play: Play) -> None:
    await stands(play, "paused")
    await play.run.signal("resume", {"reason": "back"})


async def _pause_while_waiting(play: Play) -> None:
    (asked,) = await waits(play)
    await play.run.signal("pause")
    await stands(play, "paused")
    await play.run.execute_update("decide", {"call_id": asked["id"], "decision": "approve"})
    await play.run.signal("resume")


async def _interrupt(play: Play) -> None:
    await play.run.signal("interrupt", {"reason": "enough"})


async def _interrupt_first(play: Play) -> None:
    await play.start()
    await _interrupt(play)


async def _interrupt_while_asked(play: Play) -> None:
    await play.asked()
    await asyncio.sleep(0.7)
    await _interrupt(play)


async def _interrupt_while_working(play: Play) -> None:
    await play.working("stall", "hold_once")
    await asyncio.sleep(0.7)
    await _interrupt(play)


async def _interrupt_while_waiting(play: Play) -> None:
    await waits(play)
    await _interrupt(play)


async def _interrupt_while_paused(play: Play) -> None:
    await stands(play, "paused")
    await _interrupt(play)


async def _crowd(play: Play) -> None:
    for number in range(12):
        await play.say({"text": f"message {number}", "id": str(number)})
        await asyncio.sleep(0.05)


async def _crowd_then_approve(play: Play) -> None:
    await waits(play)
    await _crowd(play)
    await _decides({"decision": "approve"})(play)


async def _crowd_then_resume(play: Play) -> None:
    await stands(play, "paused")
    await _crowd(play)
    await _resume(play)


async def _again(play: Play, **request: Any) -> None:
    """Start the run again, after the link that has just ended."""
    link = (await play.run.describe()).run_id
    await play.start({"agent": play.agent.name, "after": {"run": link}, **request})


async def _interrupt_and_again(play: Play) -> None:
    await _interrupt_while_working(play)
    await play.run.result()
    await _again(play)


async def _ended_and_again(play: Play) -> None:
    await asyncio.wait([asyncio.ensure_future(play.run.result())])
    await _again(play, message="And then?")


async def _in_thread(play: Play, thread_id: str, message: str) -> None:
    request = {"agent": play.agent.name, "message": message, "thread_id": thread_id}
    await play.client.start_workflow("AgentRun", request, id=play.name, task_queue=thread_id)


async def _begin_thread(play: Play) -> None:
    await _in_thread(play, play.name, "Go")


async def _go_on_in_thread(play: Play) -> None:
    await play.run.result()
    thread_id, play.name = play.name, f"{play.name}-behind"
    await _in_thread(play, thread_id, "And again?")


async def _wait_in_thread(play: Play) -> None:
    holder = play.run
    await waits(play)
    await asyncio.sleep(0.2)  # it has had its turn, and asks
    await waits(play)
    await _go_behind(play)
    await play.say({"text": "More.", "id": "a"})
    await holder.signal("interrupt")


async def _crowd_in_thread(play: Play) -> None:
    holder = play.run
    await waits(play)
    await asyncio.sleep(0.2)
    await waits(play)
    await _go_behind(play)
    await _crowd(play)
    await holder.signal("interrupt")


async def _interrupt_in_thread(play: Play) -> None:
    await waits(play)
    await asyncio.sleep(0.2)
    await waits(play)
    await _go_behind(play)
    await play.run.signal("interrupt")


async def _go_behind(play: Play) -> None:
    thread_id, play.name = play.name, f"{play.name}-behind"
    await _in_thread(play, thread_id, "And again?")
    await waits(play)


async def _again_in_thread(play: Play) -> None:
    await _interrupt_while_working(play)
    await play.run.result()
    await _again(play, thread_id=play.name)


async def _fork(play: Play) -> None:
    await play.run.result()
    ended = await play.run.describe()
    play.name = f"{ended.id}-anew"
    after = {"run": ended.run_id, "workflow_id": ended.id, "step": 2}
    request = {"agent": play.agent.name, "after": after, "message": "Another way."}
    await play.client.start_workflow("AgentRun", request, id=play.name, task_queue=ended.task_queue)


_PAY = ("pay", {"invoice": "a"})
_ASK = ("ask_user", {"question": "Which one?", "options": ["the first", "the second"]})
_SLEEP = ("sleep", {"seconds": HELD_SECONDS})
_ADD = ("add", {"left": 1, "right": 2})
_BUSY: tuple[tuple[str, dict[str, Any]], ...] = (("stall", {}), ("hold_once", {}), _ADD)
_SOON = (datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=1)).isoformat()
_LONG = "a long story " * 60


def _compacting(request: ChatRequest) -> Reply:
    if not request.body.get("tools"):
        return say("They added numbers.")
    return call(_ADD, text=_LONG) if request.number < 6 else say("3.")


def _not_compacting(request: ChatRequest) -> Reply:
    if not request.body.get("tools"):
        return fail(400, message="no summaries here")
    return call(_ADD, text=_LONG) if request.turn < 4 else say("3.")


def _too_long(request: ChatRequest) -> Reply:
    if not request.body.get("tools"):
        return say("They added numbers.")
    if request.number == 5:
        return fail(400, message="This model's maximum context length is 10 tokens", code="context_length_exceeded")
    return call(_ADD, text=_LONG) if request.number < 5 else say("3.")


def _busy_once(request: ChatRequest) -> Reply:
    return call(*_BUSY) if request.number == 1 else say("Done.")


def _asks_once(request: ChatRequest) -> Reply:
    return call(_ASK) if request.number == 1 else say("At last.")


def _refused_once(request: ChatRequest) -> Reply:
    return fail(400, message="not today") if request.number == 2 else call(_ADD) if request.turn == 0 else say("3.")


LIFE_SHAPES: dict[str, Shape] = {
    "approved": Shape(turns(call(_PAY), say("Paid.")), PERSONS, during=_decides({"decision": "approve"})),
    "approved-edited-and-denied": Shape(
        turns(call(_PAY, _PAY, _PAY, _ADD), say("Done.")),
        PERSONS,
        during=_decides(
            {"decision": "approve"},
            {"decision": "approve", "arguments": {"invoice": "b", "amount": 7}},
            {"decision": "deny", "reason": "too much"},
        ),
    ),
    "approval-timed-out": Shape(
        turns(call(_PAY, _ADD), say("Not paid.")), _agent(interaction=Interaction(timeout_seconds=1))
    ),
    "approval-fallen-back": Shape(
        turns(call(_PAY), say("Paid.")), _agent(interaction=Interaction(timeout_seconds=1, fallback="approve"))
    ),
    "headless": Shape(turns(call(_PAY, _ASK), say("Alone.")), _agent(interaction=Interaction(mode="headless"))),
    "answered": Shape(turns(call(_ASK), say("The second.")), PERSONS, during=_answer),
    "answer-timed-out": Shape(
        turns(call(_ASK), say("The first, say.")), _agent(interaction=Interaction(timeout_seconds=1))
    ),
    "rested": Shape(turns(call(("sleep", {"seconds": 0.5}), _ADD), say("Well rested.")), PERSONS),
    "rested-until": Shape(turns(call(("wait_until", {"time": _SOON})), say("That is past.")), PERSONS),
    "woken": Shape(turns(call(_SLEEP), say("Awake.")), PERSONS, during=_wake),
    "paused-in-a-tool": Shape(turns(call(("wait", {"seconds": 0.7})), say("Done.")), during=_pause_and_resume_a_tool),
    "paused-before-load": Shape(turns(say("Done.")), before=_pause_first, during=_resume),
    "paused-while-waiting": Shape(turns(call(_PAY), say("Paid.")), PERSONS, during=_pause_while_waiting),
    "interrupted-before-load": Shape(turns(hang()), before=_interrupt_first),
    "interrupted-in-model-call": Shape(turns(say(_LONG, pace=0.1)), during=_interrupt_while_asked),
    "interrupted-in-tools": Shape(turns(call(*_BUSY)), PERSONS, during=_interrupt_while_working),
    "interrupted-while-waiting": Shape(turns(call(_PAY)), PERSONS, during=_interrupt_while_waiting),
    "interrupted-while-paused": Shape(turns(hang()), before=_pause_first, during=_interrupt_while_paused),
    "interrupted-by-active-time": Shape(turns(call(*_BUSY)), _limited(max_active_seconds=1.5)),
    "interrupted-by-deadline": Shape(turns(call(_SLEEP)), _limited(deadline_seconds=1.5)),
    "limit-cost": Shape(turns(call(_ADD, text="I add."), say("3.")), _limited(max_cost_usd=0.000001)),
    "compacted": Shape(_compacting, _agent(compaction=Compaction(at_tokens=500, keep_tokens=100))),
    "compaction-failed": Shape(_not_compacting, _agent(compaction=Compaction(at_tokens=500, keep_tokens=100))),
    "compacted-when-too-long": Shape(_too_long, _agent(compaction=Compaction(at_tokens=2_000, keep_tokens=100))),
    "continued": Shape(turns(*[call(_ADD)] * 5, say("3.")), continue_after_events=15),
    "continued-while-waiting": Shape(
        turns(call(_PAY, _ADD), say("Paid.")), PERSONS, during=_crowd_then_approve, continue_after_events=15
    ),
    "continued-while-paused": Shape(
        turns(say("Done.")), before=_pause_first, during=_crowd_then_resume, continue_after_events=15
    ),
    "again-after-interrupt": Shape(_busy_once, PERSONS, during=_interrupt_and_again),
    "again-after-failure": Shape(_refused_once, during=_ended_and_again),
    "again-after-completion": Shape(turns(call(_ADD), say("3."), say("Nothing more.")), during=_ended_and_again),
    "thread-begun": Shape(turns(call(_ADD), say("3.")), before=_begin_thread),
    "thread-gone-on": Shape(
        turns(call(_ADD), say("3."), call(_ADD), say("Again 3.")), before=_begin_thread, during=_go_on_in_thread
    ),
    "thread-waited-for": Shape(_asks_once, PERSONS, before=_begin_thread, during=_wait_in_thread),
    "interrupted-in-a-thread": Shape(
        turns(call(_ASK), say("Never.")), PERSONS, before=_begin_thread, during=_interrupt_in_thread
    ),
    "again-in-a-thread": Shape(_busy_once, PERSONS, before=_begin_thread, during=_again_in_thread),
    "continued-in-a-thread": Shape(
        _asks_once, PERSONS, before=_begin_thread, during=_crowd_in_thread, continue_after_events=15
    ),
    "forked": Shape(turns(call(_ADD), call(_ADD), say("3.")), during=_fork),
}
SHAPES_OF_ALL = SHAPES | LIFE_SHAPES | ANSWER_SHAPES | ELSEWHERE_SHAPES | KIN_SHAPES | MODEL_SHAPES | MCP_SHAPES
SHAPES_OF_ALL |= POLICY_SHAPES | QUEUE_SHAPES
