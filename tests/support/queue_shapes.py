"""Shapes of runs whose calls wait on task queues beside their own."""

from __future__ import annotations

from holdfast import Agent, tool
from holdfast.worker.scripted import call, say
from tests.support.shapes import Shape, turns
from tests.support.stage import MODEL


@tool(max_concurrent=1)
def narrow(number: int) -> str:
    """Let one in at once."""
    return f"done {number}"


_NARROW = Agent(name="demo", model=MODEL, tools=[narrow])
_TWO = call(("narrow", {"number": 1}), ("narrow", {"number": 2}))
QUEUE_SHAPES: dict[str, Shape] = {
    "queued": Shape(turns(_TWO, say("Done.")), _NARROW, settings={"model_calls_per_second": 50.0}),
    "queued-over-links": Shape(
        turns(_TWO, _TWO, say("Done.")), _NARROW, settings={"model_calls_per_second": 50.0}, continue_after_events=15
    ),
}
