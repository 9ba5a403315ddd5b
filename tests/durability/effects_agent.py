"""The agent whose worker is killed in the middle of tools of every effect; each notes its attempts, and holds on."""

from __future__ import annotations

import asyncio
import time

from holdfast import Agent, ToolContext, tool
from tests.durability.agent import note
from tests.support.stage import MODEL

FOR_EVER = 600


@tool(effect="once")
def pay_once(kills: int, context: ToolContext) -> str:
    """Pay: never twice."""
    note("once", context, "begin")
    time.sleep(FOR_EVER)
    return "paid"


@tool(effect="once")
async def post_once(kills: int, context: ToolContext) -> str:
    """Post: never twice, in the tools' loop."""
    note("once_async", context, "begin")
    await asyncio.sleep(FOR_EVER)
    return "posted"


@tool(effect="idempotent")
def book(kills: int, context: ToolContext) -> str:
    """Book under one key; it ends once its worker is not killed any more."""
    note("idempotent", context, "begin")
    time.sleep(FOR_EVER if context.attempt <= kills else 0)
    return f"booked at attempt {context.attempt}"


@tool(effect="pure", max_attempts=1)
async def look(kills: int, context: ToolContext) -> str:
    """Look, once only."""
    note("pure", context, "begin")
    await asyncio.sleep(FOR_EVER if context.attempt <= kills else 0)
    return f"seen at attempt {context.attempt}"


agent = Agent(name="effects", model=MODEL, tools=[pay_once, post_once, book, look])
