"""Shapes of runs by what their model answers: structured answers, plans, content parts."""

from __future__ import annotations

import asyncio
from typing import Any

from holdfast.failure import Failure
from holdfast.worker.scripted import ChatRequest, Reply, call, hang, say
from tests.support.shapes import AGENT, Play, Shape, turns

_SUM: dict[str, Any] = {"type": "object", "properties": {"sum": {"type": "integer"}}, "required": ["sum"]}
_ADD = ("add", {"left": 1, "right": 2})
_GOOD, _BAD = say('{"sum": 3}'), say('{"sum": "three"}')
PLANNING = AGENT.model_copy(update={"planning": True})
_PICTURE = "data:image/png;base64,iVBORw0KGgo="
STRUCTURED = AGENT.model_copy(update={"output_schema": _SUM})


def _silent_repair(request: ChatRequest) -> Reply:
    return _BAD if request.turn == 0 else hang() if request.number == 2 else _GOOD


async def _start_with_parts(play: Play) -> None:
    parts = [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": _PICTURE}}]
    await play.start({"agent": play.agent.name, "message": parts})
    await play.say({"text": [{"type": "text", "text": "And this?"}], "id": "a"})


async def _kill_while_repairing(play: Play) -> None:
    await play.asked(2)
    await asyncio.sleep(0.3)
    await play.kill_worker()


ANSWER_SHAPES: dict[str, Shape] = {
    "structured": Shape(turns(call(_ADD), _GOOD), STRUCTURED),
    "structured-repaired-over-links": Shape(
        turns(call(_ADD), _BAD, _BAD, call(_ADD), _GOOD), STRUCTURED, continue_after_events=10
    ),
    "structured-killed-in-a-repair": Shape(_silent_repair, STRUCTURED, during=_kill_while_repairing, killed=True),
    "structured-failed": Shape(turns(_BAD), STRUCTURED.model_copy(update={"output_retries": 1})),
    "structured-degraded": Shape(
        turns(_BAD), STRUCTURED.model_copy(update={"output_retries": 0, "failure": Failure(output="degrade")})
    ),
    "content-parts": Shape(turns(call(_ADD), say("3.")), before=_start_with_parts, continue_after_events=10),
    "planned": Shape(turns(say("1. Add.\n2. Say it."), call(_ADD), say("3.")), PLANNING),
    "planned-over-links": Shape(turns(say("1. Add."), call(_ADD), say("3.")), PLANNING, continue_after_events=10),
}
ANSWER_STATUSES = {"structured-failed": "failed", "structured-degraded": "degraded"}
"""Statuses of those that do not complete."""
