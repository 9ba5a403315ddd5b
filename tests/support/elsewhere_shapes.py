"""The shapes of runs whose tools are activities of somebody else's worker."""

from __future__ import annotations

import asyncio
from typing import Any

from temporalio import activity
from temporalio.worker import Worker

from holdfast import Agent, ToolSpec
from holdfast.worker.scripted import ChatRequest, Reply, call, say
from tests.support.shapes import AGENT, HELD_SECONDS, TOOLS, Play, Shape, turns

QUEUE = "somewhere-else"


@activity.defn(name="Billing.Charge")
async def charge(arguments: dict[str, Any]) -> dict[str, Any]:
    """Charge, and say by which tariff."""
    number = arguments["amount"]
    source = {"url": f"https://example.org/tariff/{number}", "title": f"Tariff {number}"}
    return {"charged": number, "sources": [source]}


@activity.defn(name="Billing.Scan")
async def scan(arguments: dict[str, Any]) -> bytes:
    """Return what is no JSON."""
    return b"\x89PNG"


@activity.defn(name="Billing.Hold")
async def hold(arguments: dict[str, Any]) -> str:
    """Hold on, without a sign of life."""
    await asyncio.sleep(HELD_SECONDS)
    return "held"


def _spec(name: str, kind: str, **more: Any) -> ToolSpec:
    return ToolSpec(name=name, task_queue=QUEUE, activity=kind, **more)


ELSEWHERE = Agent(
    name="elsewhere",
    model=AGENT.model,
    tools=(
        *TOOLS,
        _spec("charge", "Billing.Charge", effect="once"),
        _spec("scan", "Billing.Scan"),
        _spec("hold_still", "Billing.Hold", effect="once"),
        ToolSpec(name="lost", task_queue="nobody-polls-this", queue_seconds=1),
    ),
)


async def _served(play: Play) -> None:
    async with Worker(play.client, task_queue=QUEUE, activities=[charge, scan]):
        await play.run.result()


async def _interrupted(play: Play) -> None:
    async with Worker(play.client, task_queue=QUEUE, activities=[hold]):
        await play.working("Billing.Hold")
        await play.run.signal("interrupt", {"reason": "enough"})
        await play.run.result()


def _many(request: ChatRequest) -> Reply:
    wanted = ("charge", {"amount": request.turn})
    return say("Done.") if request.turn == 5 else call(wanted, ("add", {"left": 1, "right": 2}))


ELSEWHERE_SHAPES = {
    "tools-elsewhere": Shape(
        turns(
            call(("charge", {"amount": 7}), ("scan", {}), ("lost", {}), ("add", {"left": 1, "right": 2})),
            call(("charge", {"amount": 7}), ("broken", {})),
            say("Done."),
        ),
        ELSEWHERE,
        during=_served,
    ),
    "continued-elsewhere": Shape(_many, ELSEWHERE, during=_served, continue_after_events=25),
    "interrupted-elsewhere": Shape(turns(call(("hold_still", {}))), ELSEWHERE, during=_interrupted),
}
