"""Two runs side by side, step by step."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from holdfast.bounds import one_line
from holdfast.client.views import Run
from holdfast.data import Data
from holdfast.event import Event
from holdfast.message import tool_text
from holdfast.run import Status

_LINE = 200
"""Characters of a text that is shown on one line."""


class ToolDiff(Data):
    """One tool call, as one of the two runs made it."""

    tool_name: str
    arguments: Any = None
    output: str | None = None
    """One line of it, or of the error; None where there is none yet."""
    success: bool | None = None


class StepDiff(Data):
    """One step, as one of the two runs took it."""

    text: str = ""
    """One line of what the model said."""
    tool_calls: tuple[ToolDiff, ...] = ()


class StepPair(Data):
    """One step of both; None for a run that has not taken it."""

    step: int
    same: bool
    """Whether the model said the same and its tools did the same, in full."""
    a: StepDiff | None = None
    b: StepDiff | None = None


class RunSide(Data):
    """What one of the two came to."""

    id: str
    status: Status
    agent_id: str | None = None
    revision: str | None = None
    answer: str = ""
    """The whole of it; the error of a run that failed."""
    steps: int | None = None
    cost_usd: float | None = None
    total_tokens: int | None = None


class RunDiff(Data):
    """Two runs, and where they part."""

    a: RunSide
    b: RunSide
    same_answer: bool
    first_difference: int | None = None
    """The first step that is not the same."""
    steps: tuple[StepPair, ...] = ()


def compare(a: Run, b: Run) -> RunDiff:
    """Set two runs side by side."""
    ours, theirs = _steps(a.logs), _steps(b.logs)
    _share(ours, theirs, a.metadata.get("forked_from") == b.id)
    _share(theirs, ours, b.metadata.get("forked_from") == a.id)
    numbers = sorted({*ours, *theirs})
    pairs = tuple(_pair(number, ours.get(number), theirs.get(number)) for number in numbers)
    return RunDiff(
        a=_side(a),
        b=_side(b),
        same_answer=a.final_text == b.final_text,
        first_difference=next((pair.step for pair in pairs if not pair.same), None),
        steps=pairs,
    )


class _Step:
    """A step as it is read from events."""

    def __init__(self) -> None:
        self.text = ""
        self.calls: dict[str, dict[str, Any]] = {}

    @property
    def whole(self) -> Any:
        return self.text, list(self.calls.values())

    def shown(self) -> StepDiff:
        calls = [each | {"output": _shown(each["output"])} for each in self.calls.values()]
        return StepDiff(text=one_line(self.text, _LINE), tool_calls=tuple(ToolDiff(**each) for each in calls))


def _steps(events: Iterable[Event]) -> dict[int, _Step]:
    found: dict[int, _Step] = {}
    step = _Step()
    for event in events:
        data = event.data
        if event.type == "step_started":
            step = found[data["step"]] = _Step()
        elif event.type == "model_completed":
            step.text = data.get("text") or ""
            step.calls = {
                each["id"]: {"tool_name": each["name"], "arguments": each["arguments"], "output": None, "success": None}
                for each in data.get("tool_calls") or ()
            }
        elif event.type in ("tool_called", "tool_completed", "tool_call_exception"):
            call = step.calls.get(data.get("call_id", ""))
            if call is not None:
                call |= _told(event)
    return found


def _share(fork: dict[int, _Step], origin: dict[int, _Step], is_fork: bool) -> None:
    """Give a fork the steps before its own, which it has from the other."""
    begin = min(fork, default=0)
    if is_fork:
        fork.update({number: step for number, step in origin.items() if number < begin})


def _told(event: Event) -> dict[str, Any]:
    if event.type == "tool_called":
        return {"arguments": event.data["arguments"]}
    failed = event.type == "tool_call_exception"
    said = f"{event.data['error_type']}: {event.data['error']}" if failed else event.data["output"]
    return {"output": said, "success": not failed}


def _shown(output: Any) -> str | None:
    return None if output is None else one_line(tool_text(output), _LINE)


def _pair(number: int, a: _Step | None, b: _Step | None) -> StepPair:
    same = a is not None and b is not None and a.whole == b.whole
    return StepPair(step=number, same=same, a=a.shown() if a else None, b=b.shown() if b else None)


def _side(run: Run) -> RunSide:
    return RunSide(
        id=run.id,
        status=run.status,
        agent_id=run.agent_id,
        revision=run.revision,
        answer=run.final_text or run.error or "",
        steps=run.steps,
        cost_usd=run.cost_usd,
        total_tokens=run.result.usage_aggregate.total_tokens if run.result else None,
    )
