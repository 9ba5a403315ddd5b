"""The agent whose worker is killed between its answer and the answer's repair."""

from __future__ import annotations

from holdfast import Agent
from tests.support.stage import MODEL

agent = Agent(
    name="judge",
    model=MODEL,
    planning=True,
    output_schema={"type": "object", "properties": {"score": {"type": "integer"}}, "required": ["score"]},
    output_retries=1,
)
