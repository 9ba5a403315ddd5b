"""What the tests of threads share: agents, a script that the messages themselves write, and waiting."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from temporalio.client import WorkflowHandle, WorkflowQueryFailedError
from temporalio.service import RPCError

from holdfast import Agent, Compaction, Limits, ask_user, tool
from holdfast.envelope import without_envelope
from holdfast.worker.scripted import ChatRequest, Reply, call, fail, say
from tests.support.shapes import Play
from tests.support.stage import DEADLINE, MODEL, Stage


@tool
def add(left: int, right: int) -> int:
    """Add two numbers."""
    return left + right


@tool
async def rest(seconds: float) -> str:
    """Take a while."""
    await asyncio.sleep(seconds)
    return "rested"


TOOLS = (add, rest, ask_user)
AGENTS = [
    Agent(name="plain", model=MODEL, tools=TOOLS),
    Agent(name="endless", model=MODEL, tools=TOOLS, compaction=None),
    Agent(name="hasty", model=MODEL, tools=TOOLS, limits=Limits(deadline_seconds=1.5)),
    Agent(name="long", model=MODEL, tools=TOOLS, limits=Limits(max_steps=1000, max_model_calls=1000)),
    Agent(name="brief", model=MODEL, tools=TOOLS, compaction=Compaction(at_tokens=600, keep_tokens=50)),
]


def script(request: ChatRequest) -> Reply:
    """Do what the last first message says: the run's own lines, one for each turn since then."""
    if any("summar" in str(each.get("content")).lower() for each in request.messages if each["role"] == "system"):
        return fail(401, message="no such key") if "poison" in str(request.messages) else say("They talked.")
    asked = [index for index, each in enumerate(request.messages) if str(each.get("content")).startswith("do:")]
    lines = str(request.messages[asked[-1]]["content"])[3:].splitlines()
    turn = sum(each["role"] == "assistant" for each in request.messages[asked[-1] :])
    reply: Reply = eval(lines[min(turn, len(lines) - 1)], {"call": call, "say": say, "fail": fail, "turn": turn})
    return reply


async def start(at: Stage, thread: str, *lines: str, name: str = "plain", **request: Any) -> WorkflowHandle[Any, Any]:
    return await at.start(name, message="do:" + "\n".join(lines), thread_id=thread, **request)


async def until(asks: Callable[[], Any], wanted: Callable[[Any], bool]) -> Any:
    async with asyncio.timeout(DEADLINE):
        while True:
            try:
                found = await asks()
                if wanted(found):
                    return found
            except (RPCError, WorkflowQueryFailedError):
                pass
            await asyncio.sleep(0.02)


async def status(run: WorkflowHandle[Any, Any], wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    found: dict[str, Any] = await until(lambda: run.query("status"), wanted)
    return found


async def is_waiting(run: WorkflowHandle[Any, Any]) -> dict[str, Any]:
    return await status(run, lambda told: bool(told["waiting_for"]) and told["status"] == "waiting")


async def question(run: WorkflowHandle[Any, Any]) -> str:
    """Wait until a run asks somebody, and return the question's id."""
    told = await status(run, lambda told: any(each["kind"] == "answer" for each in told["waiting_for"]))
    return str(told["waiting_for"][-1]["id"])


async def idle(at: Stage | Play, thread: str) -> list[dict[str, Any]]:
    """Wait until nobody has the thread's turn, and return what it remembers."""
    handle = at.client.get_workflow_handle(f"thread:{thread}")
    await until(lambda: handle.query("status"), lambda told: told["holder"] is None and not told["queue"])
    found = await until(lambda: handle.query("transcript"), lambda page: True)
    return list(found["messages"])


def well_formed(messages: list[dict[str, Any]]) -> bool:
    open_calls: list[str] = []
    for each in messages:
        if each["role"] == "tool":
            open_calls.remove(each["tool_call_id"])
        elif open_calls:
            return False
        open_calls += [call["id"] for call in each.get("tool_calls", ())]
    return not open_calls


def seen(at: Stage, number: int = -1) -> list[str]:
    """Return the texts of what the model was last asked with, instructions and envelopes left out."""
    messages = [each for each in at.model.requests[number].messages if each["role"] != "system"]
    return [without_envelope(str(each.get("content"))) for each in messages]
