"""What a failed activity means: data for the model, or the end of the run."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError
from temporalio.common import RawValue
from temporalio.converter import PayloadConverter
from temporalio.exceptions import (
    ActivityError,
    ApplicationError,
    CancelledError,
    TimeoutType,
)
from temporalio.exceptions import (
    TimeoutError as TemporalTimeout,
)

from holdfast.bounds import check_depth, cut, to_json
from holdfast.carried import Outcome
from holdfast.message import Usage
from holdfast.run import RunError
from holdfast.tools import ToolSpec

_AMBIGUOUS = ("Timeout", "WorkerLost", "WorkerShutdown", "McpConnectionLost")
_UNKNOWN_OUTCOME = "; whether it did its work is unknown, and it was not repeated"


class Unreadable(dict[str, Any]):
    """What stands for a result that could not be read."""


def readable(output: Any, converter: PayloadConverter) -> Any:
    """Return the value of an activity elsewhere, which may be encoded as nobody here reads it; others as they are."""
    if not isinstance(output, RawValue):
        return output
    try:
        return converter.from_payload(output.payload)
    except (RuntimeError, KeyError, ValueError):
        return Unreadable()


def from_output(output: Any, latency_ms: float | None) -> Outcome:
    """Take a tool's output; one that no JSON can hold, which a tool of somebody else's may return, is an error."""
    try:
        if isinstance(output, Unreadable):
            raise ValueError("it is encoded in another way")
        check_depth(output)
        to_json(output)
    except (ValueError, TypeError) as error:
        message = f"the tool ran, but its result is no JSON: {cut(str(error), 500)}"
        return Outcome(error_type="ToolResultInvalid", error=message, latency_ms=latency_ms)
    return Outcome(output=output, latency_ms=latency_ms)


def from_failure(failed: BaseException | None, spec: ToolSpec, latency_ms: float | None) -> Outcome:
    """Turn the cause of a tool's failure into what the model is told."""
    cause = named(failed)
    if isinstance(failed, TemporalTimeout) and failed.type == TimeoutType.SCHEDULE_TO_START:
        own = "the run's own task queue" if spec.is_elsewhere else "a task queue of its own"
        queue = own if spec.task_queue is None else f"task queue {spec.task_queue!r}"
        told = f"no worker took it from {queue} within {spec.queue_seconds:g} s"
        return Outcome(error_type="NoWorker", error=told, latency_ms=latency_ms)
    ambiguous = spec.effect == "once" and cause.type in _AMBIGUOUS
    message = cause.message + (_UNKNOWN_OUTCOME if ambiguous else "")
    return Outcome(error_type=cause.type, error=message, latency_ms=latency_ms)


def named(cause: BaseException | None) -> RunError:
    """Name the cause of an activity's failure, in the words of whoever raised it."""
    if isinstance(cause, ActivityError):
        return named(cause.cause)
    if isinstance(cause, ApplicationError):
        return RunError(type=cut(cause.type or "Error", 200), message=cut(cause.message))
    if isinstance(cause, TemporalTimeout):
        if cause.type == TimeoutType.HEARTBEAT:
            return RunError(type="WorkerLost", message="the worker died in the middle of it, on every attempt")
        if cause.type == TimeoutType.SCHEDULE_TO_START:
            return RunError(type="NoWorker", message="no worker took it from its task queue in time")
        return RunError(type="Timeout", message="it took longer than it may, on every attempt")
    if isinstance(cause, CancelledError):
        return RunError(type="Cancelled", message="it was cancelled")
    return RunError(type=type(cause).__name__, message=cut(str(cause)))


def retry_after(cause: BaseException | None) -> float | None:
    """Return the seconds that a failed activity asked to wait before it is tried again."""
    failed = cause.cause if isinstance(cause, ActivityError) else cause
    delay = failed.next_retry_delay if isinstance(failed, ApplicationError) else None
    return None if delay is None else delay.total_seconds()


def spent_by(cause: BaseException | None) -> Usage:
    """Return what the attempts of a failed model call have cost."""
    failed = cause.cause if isinstance(cause, ActivityError) else cause
    for detail in (failed.details if isinstance(failed, ApplicationError) else ())[:1]:
        if isinstance(detail, dict) and isinstance(detail.get("usage"), dict):
            try:
                return Usage.recorded(detail["usage"])
            except ValidationError:
                return Usage()
    return Usage()


def interrupted_once() -> Outcome:
    """Return what the model is told of a `once` tool that was stopped after it may have begun."""
    return Outcome(error_type="OutcomeUnknown", error=f"it was stopped{_UNKNOWN_OUTCOME}")
