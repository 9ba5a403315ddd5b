"""Shapes of runs by what becomes of their models: fallbacks, breakers, rests, budgets."""

from __future__ import annotations

import asyncio
from typing import Any

from holdfast import Agent, Limits
from holdfast.agent import ModelSettings
from holdfast.failure import Failure
from holdfast.worker.scripted import ChatRequest, Reply, call, fail, say
from tests.support.shapes import AGENT, Play, Shape, turns

_ADD = ("add", {"left": 1, "right": 2})
_BUSY = fail(503, headers={"Retry-After": "0.05"})
FIRST, SECOND = "scripted/test", "scripted/second"


def _breaker(seconds: float) -> dict[str, Any]:
    return {"breaker_failures": 1, "breaker_seconds": seconds}


def _agent(**fields: Any) -> Agent:
    return AGENT.model_copy(update={"model_settings": ModelSettings(max_attempts=2), **fields})


def _second_answers(request: ChatRequest) -> Reply:
    if request.model != "second":
        return _BUSY
    return say("3.") if request.turn else call(_ADD)


def _back_after(requests: int) -> Any:
    """Be out for so many requests."""

    def script(request: ChatRequest) -> Reply:
        if request.number <= requests:
            return _BUSY
        return say("3.") if request.turn else call(_ADD)

    return script


async def _until_resting(play: Play) -> None:
    while not (await play.run.query("status"))["waiting_for"]:
        await asyncio.sleep(0.05)


async def _interrupt_while_resting(play: Play) -> None:
    await _until_resting(play)
    await play.run.signal("interrupt", {"reason": "enough"})


async def _pause_while_resting(play: Play) -> None:
    await _until_resting(play)
    await play.run.signal("pause", {"reason": "lunch"})
    await asyncio.sleep(2.5)
    await play.run.signal("resume")


async def _crowd_while_resting(play: Play) -> None:
    await _until_resting(play)
    for number in range(6):
        await play.say({"text": f"message {number}"})


async def _kill_while_resting(play: Play) -> None:
    await _until_resting(play)
    await play.kill_worker()


MODEL_SHAPES: dict[str, Shape] = {
    "fallen-back": Shape(_second_answers, _agent(fallback_models=(SECOND,))),
    "fallen-back-in-vain": Shape(turns(_BUSY), _agent(fallback_models=(SECOND,))),
    "fallback-beyond-the-limit": Shape(
        turns(_BUSY), _agent(fallback_models=(SECOND,), limits=Limits(max_model_calls=1))
    ),
    "model-failed-degraded": Shape(turns(call(_ADD, text="I add."), _BUSY), _agent(failure=Failure(model="degrade"))),
    "model-failed-continued": Shape(
        turns(_BUSY), _agent(failure=Failure(model="continue")), during=_interrupt_while_resting
    ),
    "model-out": Shape(_back_after(1), _agent(), settings=_breaker(0.6)),
    "model-out-again": Shape(_back_after(2), _agent(), settings=_breaker(0.6)),
    "model-out-too-long": Shape(
        turns(_BUSY),
        _agent(model_settings=ModelSettings(max_attempts=2, max_outage_seconds=0.5)),
        settings=_breaker(0.4),
    ),
    "model-out-paused": Shape(_back_after(1), _agent(), during=_pause_while_resting, settings=_breaker(1.0)),
    "model-out-killed": Shape(
        _back_after(1), _agent(), during=_kill_while_resting, killed=True, settings=_breaker(4.0)
    ),
    "model-out-over-links": Shape(
        _back_after(1), _agent(), during=_crowd_while_resting, continue_after_events=20, settings=_breaker(8.0)
    ),
    "budget-refused": Shape(turns(call(_ADD, text="I add.")), _agent(limits=Limits(max_cost_usd=0.0001))),
}
MODEL_STATUSES = {
    "fallen-back-in-vain": "failed",
    "fallback-beyond-the-limit": "failed",
    "model-failed-degraded": "degraded",
    "model-failed-continued": "interrupted",
    "model-out-too-long": "failed",
    "budget-refused": "degraded",
}
"""Statuses of those that do not complete."""
