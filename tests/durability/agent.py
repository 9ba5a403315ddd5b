"""The agent whose workers are killed: two tools that keep a journal of every attempt, in a file that outlives them."""

from __future__ import annotations

import asyncio
import json
import os
import time

from holdfast import Agent, Join, Limits, ToolContext, tool
from tests.support.stage import MODEL

JOURNAL = "DURABILITY_JOURNAL"
"""The environment variable that names the journal's file."""


def note(name: str, context: ToolContext, phase: str) -> None:
    """Append one line: O_APPEND keeps the lines of several processes whole."""
    line = {
        "tool": name,
        "run_id": context.run_id,
        "call_id": context.call_id,
        "key": context.idempotency_key,
        "attempt": context.attempt,
        "pid": os.getpid(),
        "phase": phase,
        "at": time.monotonic(),
    }
    file = os.open(os.environ[JOURNAL], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(file, json.dumps(line).encode() + b"\n")
    finally:
        os.close(file)


@tool(max_attempts=10)  # kills of many kinds in one run may hit the same call more than twice
def weigh(step: int, seconds: float, context: ToolContext) -> dict[str, object]:
    """Weigh something, in a thread."""
    note("weigh", context, "begin")
    time.sleep(seconds)
    note("weigh", context, "end")
    return {"step": step, "grams": step * 100}


@tool(max_attempts=10)  # kills of many kinds in one run may hit the same call more than twice
async def fetch(step: int, seconds: float, context: ToolContext) -> str:
    """Fetch something, in the tools' loop."""
    note("fetch", context, "begin")
    await asyncio.sleep(seconds)
    note("fetch", context, "end")
    return f"page {step} " + "x" * 500


AGENT = Agent(
    name="durable",
    model=MODEL,
    instructions="Be brief.",
    tools=[weigh, fetch],
    limits=Limits(max_steps=1000, max_model_calls=1000, max_tool_calls=2000),
)
LEAD = Agent(name="durable-lead", model=MODEL, subagents=[AGENT.name])
RACE = Agent(name="durable-race", model=MODEL, subagents=[AGENT.name], join=Join(mode="any"))
