"""`model.call`: one answer of a model, asked by reference to a transcript that history holds already."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from temporalio import activity
from temporalio.exceptions import ApplicationError

from holdfast import wire
from holdfast.activities import spent
from holdfast.activities.answer import Answer, Complete, ModelRequest
from holdfast.activities.breaker import Breakers
from holdfast.activities.failures import failure
from holdfast.activities.guard import heart
from holdfast.activities.log import get_logger
from holdfast.activities.memory import Memory
from holdfast.activities.prices import estimated
from holdfast.activities.requests import request_of
from holdfast.activities.secrets import Scrubber
from holdfast.activities.structured import checked
from holdfast.activities.transcripts import TranscriptCache
from holdfast.activities.turns import clean, record
from holdfast.bounds import HEARTBEAT_TAIL_BYTES, TURN_MAX_BYTES
from holdfast.calls import ModelCall

_log = get_logger("holdfast.model")
_SHOW_EVERY_SECONDS = 0.25
_SHOWN_MAX_BYTES = TURN_MAX_BYTES // 2 - 4096
"""How much of a text is shown while it grows: less than what is recorded of one that is cut."""
_UNSURE_CHARS = 3
"""The end of a growing text that is not shown: too short to tell whether it begins a secret (see Scrubber)."""


class ModelActivities:
    """The model calls of one worker."""

    def __init__(self, complete: Complete, cache: TranscriptCache, scrub: Scrubber, breakers: Breakers) -> None:
        self._complete = complete
        self._cache = cache
        self._scrub = scrub
        self._breakers = breakers

    @activity.defn(name=wire.MODEL_CALL)
    async def call(self, call: ModelCall) -> dict[str, Any]:
        """Ask the model for the next turn; returns a Turn's wire form, a partial one when the call is cancelled."""
        memory = Memory(self._cache)
        agent = await memory.agent()
        request = request_of(call, agent, await memory.messages(call))
        answer, before = Answer(model=call.model), spent.earlier()
        if request.budget_usd is not None:
            request = replace(request, budget_usd=max(0.0, request.budget_usd - before.cost_usd))
        showing = asyncio.create_task(_show(answer, self._scrub, spent.told(before)))
        try:
            await self._ask(request, answer)
        except ApplicationError as error:
            raise spent.failed(_impatient(error, call.patience_seconds), spent.by(request, answer), before) from None
        except asyncio.CancelledError:
            if not _cancel_requested():
                raise
            answer.usage, answer.lost = estimated(request, answer), before
            return record(answer, call, self._scrub, partial=True).wire()
        finally:
            showing.cancel()
        answer.lost = before
        turn = await checked(record(answer, call, self._scrub), agent, call)
        memory.replace(call.transcript.length, turn.message.wire())
        usage = turn.usage
        _log.info(
            "model.called",
            model=turn.model,
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            cost_usd=usage.cost_usd,
            tool_calls=len(turn.message.tool_calls),
        )
        return turn.wire()

    async def _ask(self, request: ModelRequest, answer: Answer) -> None:
        """Ask once, and fill the answer in; ApplicationError where there is none that is of use."""
        seconds = request.settings.timeout_seconds
        try:
            with self._breakers.guarding(request.model, lambda: answer.asked):
                async with asyncio.timeout(seconds):
                    await self._complete(request, answer)
        except TimeoutError:
            told = f"{request.model}: no answer within {seconds:g} s"
            raise failure("ModelTimeout", told, retryable=True) from None
        if not answer.text.strip() and not answer.calls:
            raise failure("ModelAnswerEmpty", f"{request.model}: the answer was empty", retryable=True)


def _impatient(error: ApplicationError, patience_seconds: float | None) -> ApplicationError:
    """Return the error, for good where the provider asks for a longer rest than there is patience for."""
    delay = error.next_retry_delay
    if patience_seconds is None or delay is None or delay.total_seconds() <= patience_seconds:
        return error
    return ApplicationError(error.message, type=error.type, non_retryable=True, next_retry_delay=delay)


def _cancel_requested() -> bool:
    details = activity.cancellation_details()
    return details is not None and details.cancel_requested


async def _show(answer: Answer, scrub: Scrubber, besides: dict[str, Any]) -> None:
    """Heartbeat the end of the text so far, with its attempt and the place where it begins, for readers of live text.

    Only what will be recorded as it is: readers complete it from the record.
    """
    beating, attempt, shown = heart(), activity.info().attempt, 0
    while True:
        await asyncio.sleep(_SHOW_EVERY_SECONDS)
        said = clean(answer.text, scrub)
        sure = scrub.without_beginning(said)
        text = _at_most(_SHOWN_MAX_BYTES, sure if len(sure) < len(said) else said[:-_UNSURE_CHARS])
        if len(text) > shown:
            shown = len(text)
            tail = text[-HEARTBEAT_TAIL_BYTES:].encode()[-HEARTBEAT_TAIL_BYTES:].decode(errors="ignore")
            beating.tell({"attempt": attempt, "offset": shown - len(tail), "text": tail, **besides})


def _at_most(max_bytes: int, text: str) -> str:
    return text if len(text) <= max_bytes // 4 else text.encode()[:max_bytes].decode(errors="ignore")


def warm_up() -> None:
    """Import the vendor's library ahead of the first call."""
    from holdfast.activities import _litellm

    _litellm.load()
