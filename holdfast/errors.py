"""What can go wrong, as a caller sees it.

HoldfastError
  ├ ServerUnavailable   no Temporal server answers at this address
  ├ NoWorker            nothing polls the run's task queue
  ├ RunNotFound         no run has this id
  ├ RunExists           a run with this id was started before
  ├ ThreadNotFound      no thread has this id
  ├ RunClosed           the run has ended
  ├ DecisionRefused     no call or question of this id waits, or not any more, or it is another one by now
  ├ IdempotencyConflict the key was used before, for another request
  ├ InputInvalid        .errors: field → message
  ├ AgentNotFound       no worker knows an agent of this name
  ├ DefinitionError     a tool is declared wrongly, or clashes (a wrong Agent raises pydantic's ValidationError)
  └ ServerError         the embedded server could not be started
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError


class HoldfastError(Exception):
    """The root of everything that Holdfast raises on purpose."""


class ServerUnavailable(HoldfastError):
    """No Temporal server answers at this address."""

    def __init__(self, address: str, cause: str = "") -> None:
        super().__init__(
            f"no Temporal server answers at {address}{f' ({cause})' if cause else ''}: "
            f"start one with 'holdfast dev FILE', or set TEMPORAL_ADDRESS"
        )
        self.address = address


class NoWorker(HoldfastError):
    """Nothing polls the run's task queue, so the run waits."""

    def __init__(self, task_queue: str, run_id: str | None = None) -> None:
        waits = f"run {run_id!r} waits: " if run_id else ""
        super().__init__(f"{waits}no worker polls task queue {task_queue!r}: start one with 'holdfast worker FILE'")
        self.task_queue = task_queue
        self.run_id = run_id


class RunNotFound(HoldfastError):
    """No run has this id (or retention has removed it)."""

    def __init__(self, run_id: str) -> None:
        super().__init__(f"no run has the id {run_id!r}")
        self.run_id = run_id


class RunExists(HoldfastError):
    """A run with this id was started before; a run id is never used twice."""

    def __init__(self, run_id: str) -> None:
        super().__init__(f"a run with the id {run_id!r} was started before")
        self.run_id = run_id


class ThreadNotFound(HoldfastError):
    """No thread has this id (or it was deleted)."""

    def __init__(self, thread_id: str) -> None:
        super().__init__(f"no thread has the id {thread_id!r}")
        self.thread_id = thread_id


class RunClosed(HoldfastError):
    """The run has ended, and what was asked for can be had of a live one only."""

    def __init__(self, run_id: str, status: str) -> None:
        super().__init__(f"run {run_id!r} has ended ({status})")
        self.run_id = run_id
        self.status = status


class DecisionRefused(HoldfastError):
    """What was decided or answered does not fit: nothing of this id waits, not any more, or it is another by now."""


class IdempotencyConflict(HoldfastError):
    """The idempotency key was used before, for another request."""

    def __init__(self, key: str, run_id: str) -> None:
        super().__init__(f"idempotency key {key!r} was used before, for another request: run {run_id!r}")
        self.key = key
        self.run_id = run_id


class InputInvalid(HoldfastError, ValueError):
    """What was handed over does not fit: `.errors` maps each field to what is wrong with it."""

    def __init__(self, errors: Mapping[str, str]) -> None:
        super().__init__("; ".join(f"{field}: {message}" for field, message in errors.items()))
        self.errors = dict(errors)


class AgentNotFound(HoldfastError):
    """No worker on this task queue knows an agent of this name."""


class DefinitionError(HoldfastError, ValueError):
    """A tool is declared wrongly, or agents and tools clash; said when they are made, not when they run."""


class ServerError(HoldfastError):
    """The embedded Temporal server could not be found or started."""


CHOICE = "?"
"""Begins the name of a choice between types, which is no field's name."""


def field_errors(error: ValidationError) -> dict[str, str]:
    """Turn pydantic's errors into field → message, without the offending values."""
    found: dict[str, str] = {}
    for each in error.errors(include_url=False, include_context=False, include_input=False):
        field = ".".join(str(part) for part in each["loc"] if not str(part).startswith(CHOICE)) or "value"
        found.setdefault(field, each["msg"].removeprefix("Value error, "))
    return found
