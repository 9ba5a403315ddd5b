"""What the attempts of one model call have cost so far: each hands it to the next in its heartbeat."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError
from temporalio import activity
from temporalio.exceptions import ApplicationError

from holdfast.activities.answer import Answer, ModelRequest
from holdfast.activities.guard import heart
from holdfast.activities.prices import estimated
from holdfast.message import Usage

_KEY = "spent"


def earlier() -> Usage:
    """Return what the attempts before this one have cost."""
    for detail in activity.info().heartbeat_details[:1]:
        if isinstance(detail, dict) and _KEY in detail:
            try:
                return Usage.recorded(detail[_KEY])
            except ValidationError:
                return Usage()
    return Usage()


def told(spent: Usage) -> dict[str, Any]:
    """Return the part of a heartbeat that says so; nothing where nothing was spent."""
    return {_KEY: spent.wire()} if spent != Usage() else {}


def by(request: ModelRequest, answer: Answer) -> Usage:
    """Return what an attempt has cost whose answer is of no use."""
    if not answer.usage.model_calls and (answer.text or answer.reasoning or answer.calls):
        return estimated(request, answer)
    return answer.usage


def failed(error: ApplicationError, usage: Usage, before: Usage) -> ApplicationError:
    """Return an attempt's error with what all attempts have cost: answers that were of no use are paid for as well.

    Its one detail is {"usage": a Usage's wire form}, where anything was spent.
    """
    spent = before + usage.model_copy(update={"model_calls": 0})
    if spent == Usage():
        return error
    heart().tell_now(told(spent))
    return ApplicationError(
        error.message,
        {"usage": spent.wire()},
        type=error.type,
        non_retryable=error.non_retryable,
        next_retry_delay=error.next_retry_delay,
    )
