"""Tools that the run itself carries out, without an activity: give them to an agent like any others."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, NoReturn

from pydantic import AwareDatetime, Field

from holdfast.errors import DefinitionError
from holdfast.tools import Builtin, Tool, tool

_TEN_YEARS = 10 * 365 * 86_400.0


def _not_here(name: str) -> NoReturn:
    raise DefinitionError(f"{name} is carried out by the run itself: it can't be called")


def _ask_user(
    question: Annotated[str, Field(min_length=1, max_length=8_000)],
    options: Annotated[list[str], Field(max_length=50)] | None = None,
) -> str:
    """Ask a person, and wait for the answer. Use it only for what can't be found out otherwise.

    Args:
        question: What to ask.
        options: Answers to choose from, if there are only a few.
    """
    _not_here("ask_user")


def _sleep(seconds: Annotated[float, Field(gt=0, le=_TEN_YEARS, allow_inf_nan=False)]) -> str:
    """Rest for a while: seconds, or months. A new message from the user ends the rest early.

    Args:
        seconds: How long.
    """
    _not_here("sleep")


def _wait_until(time: AwareDatetime) -> str:
    """Rest until a point in time. A new message from the user ends the rest early.

    Args:
        time: ISO 8601 with a time zone, such as 2027-01-31T09:00:00+01:00.
    """
    _not_here("wait_until")


def _built_in(name: Builtin, function: Any) -> Tool[..., Any]:
    made: Tool[..., Any] = tool(name=name, effect="pure", max_attempts=1)(function)
    return Tool(made.function, made.spec.model_copy(update={"builtin": name}), made.arguments)


ask_user = _built_in("ask_user", _ask_user)
"""Asks a person: the run is `waiting` until `answer` comes, or the agent's `interaction` falls back."""
sleep = _built_in("sleep", _sleep)
"""Rests on a durable timer, which costs nothing meanwhile and survives every restart."""
wait_until = _built_in("wait_until", _wait_until)
"""Rests until a point in time."""

BUILTINS: dict[str, Tool[..., Any]] = {each.spec.name: each for each in (ask_user, sleep, wait_until)}
"""By name; every worker has them."""


def rest_until(name: str, arguments: dict[str, Any], now: float) -> float:
    """Return when a rest ends, in seconds since the epoch, for arguments that are valid."""
    valid = BUILTINS[name].arguments.validate(arguments)
    if name == "sleep":
        return now + float(valid["seconds"])
    until: datetime = valid["time"]
    return min(max(until.timestamp(), now), now + _TEN_YEARS)
