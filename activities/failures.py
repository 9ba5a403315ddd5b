"""One posture for every failure: what is retried, how soon, and what its recorded text may hold."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from pydantic import ValidationError
from temporalio import activity
from temporalio.exceptions import ApplicationError

from holdfast.activities.secrets import Scrubber
from holdfast.bounds import cut
from holdfast.message import Usage

_FIRST_DELAY_SECONDS = 1.0
_LONGEST_DELAY_SECONDS = 60.0


def backoff(attempt: int) -> timedelta:
    """Return how long to rest after a failed attempt: 1 s doubling to 60 s, of which a random half is left out.

    Full jitter is AWS's (Exponential Backoff And Jitter, 2015); half of it keeps a floor. The delay stands in the error
    itself, so that the retry policy's own interval can stay short for attempts that died with their worker.
    """
    ceiling = min(_LONGEST_DELAY_SECONDS, _FIRST_DELAY_SECONDS * 2 ** (attempt - 1))
    return timedelta(seconds=ceiling * random.uniform(0.5, 1.0))


def failure(error_type: str, message: str, *, retryable: bool, delay: timedelta | None = None) -> ApplicationError:
    """Make an error with its retry posture; `recorded` cuts its text, after the secrets are out of it."""
    if retryable and delay is None:
        delay = backoff(activity.info().attempt)
    return ApplicationError(
        message,
        type=error_type,
        non_retryable=not retryable,
        next_retry_delay=delay if retryable else None,
    )


def recorded(error: BaseException, scrub: Scrubber) -> ApplicationError:
    """Turn any exception into one that is safe to record: typed, cut to 4 KB, without secrets, without its cause."""
    if isinstance(error, ApplicationError):
        return ApplicationError(
            _safe(error.message, scrub),
            *_usage(error.details),
            type=_safe(error.type or "Error", scrub)[:200],
            non_retryable=error.non_retryable,
            next_retry_delay=error.next_retry_delay,
        )
    return failure(type(error).__name__[:200], _safe(text_of(error), scrub), retryable=True)


def _usage(details: Sequence[Any]) -> list[dict[str, Any]]:
    """Return what a model call says that it has cost all the same: the one detail that is recorded."""
    try:
        return [{"usage": Usage.recorded(each["usage"]).wire()} for each in details[:1] if isinstance(each, dict)]
    except (KeyError, ValidationError):
        return []


def text_of(error: BaseException) -> str:
    """Return an exception's text, whatever its __str__ does: a broken one must not hide the failure itself."""
    try:
        return str(error)
    except BaseException:  # noqa: BLE001 - a SystemExit from here would end the worker
        return "(its text can't be read)"


def _safe(text: str, scrub: Scrubber) -> str:
    return cut(scrub.text(text.encode(errors="replace").decode()))
