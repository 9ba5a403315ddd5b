"""What the tests of hooks and guardrails share: a tool, a hook, and guardrails that do as the text says."""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from typing import Any

from temporalio.api.enums.v1 import EventType as Kind

from holdfast import (
    Agent,
    GuardrailRequest,
    GuardrailResult,
    PolicyDecision,
    PolicyRequest,
    block,
    guardrail,
    passed,
    rewrite,
    tool,
)
from tests.support.stage import MODEL

RAN: Counter[str] = Counter()
"""How often each order was paid back."""
CHECKED: Counter[str] = Counter()
"""How often each run's stage, or a run itself, was checked."""


@tool(effect="once")
def refund(order: str) -> str:
    """Pay money back."""
    RAN[order] += 1
    return f"paid back for {order}"


def order(begins: str = "") -> str:
    """Return the number of an order that no other test knows."""
    return begins + uuid.uuid4().hex


def desk(**fields: Any) -> Agent:
    """Make an agent that can pay back."""
    return Agent(name="desk", model=MODEL, tools=[refund], **fields)


def names(history: Any) -> list[str]:
    """Return the types of a history's activities, as they were scheduled."""
    kind = Kind.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED
    scheduled = [each for each in history.events if each.event_type == kind]
    return [each.activity_task_scheduled_event_attributes.activity_type.name for each in scheduled]


async def careful(request: PolicyRequest) -> PolicyDecision | None:
    """Have dear orders approved, and any allowed."""
    await asyncio.sleep(0)
    if request.arguments["order"].startswith("dear"):
        return PolicyDecision(action="request_approval", reason="dear")
    return PolicyDecision(action="allow") if request.arguments["order"].startswith("any") else None


def verdict(request: GuardrailRequest) -> GuardrailResult | None:
    """Block what says BLOCK, have said again what says AGAIN."""
    CHECKED[f"{request.run_id} {request.stage}"] += 1
    said = request.text + "".join(each.arguments for each in request.tool_calls)
    if "BLOCK" in said:
        return block("no such words")
    return rewrite("say it nicely") if "AGAIN" in said else None


def in_thread(request: GuardrailRequest) -> GuardrailResult | None:
    """Check in a thread."""
    return verdict(request)


async def in_loop(request: GuardrailRequest) -> GuardrailResult | None:
    """Check in the loop of the tools."""
    await asyncio.sleep(0)
    return verdict(request) or passed()


ON_INPUT = guardrail(on="input", name="on_input")(in_thread)
ON_ANSWER = guardrail(on="answer", name="on_answer")(in_loop)
ON_OUTPUT = guardrail(on="output", name="on_output")(in_thread)
GUARDED = {"input": ON_INPUT, "answer": ON_ANSWER, "output": ON_OUTPUT}
