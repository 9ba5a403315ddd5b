"""`context.compact`: a summary that stands for the oldest part of a transcript, which has grown long."""

from __future__ import annotations

import asyncio
from typing import Any

from temporalio import activity
from temporalio.exceptions import ApplicationError

from holdfast import wire
from holdfast.activities import spent, summaries
from holdfast.activities.answer import Answer, Complete, ModelRequest
from holdfast.activities.breaker import Breakers
from holdfast.activities.failures import failure
from holdfast.activities.log import get_logger
from holdfast.activities.memory import Memory
from holdfast.activities.secrets import Scrubber
from holdfast.activities.transcripts import TranscriptCache
from holdfast.activities.turns import clean
from holdfast.agent import ModelSettings
from holdfast.bounds import COMPACTION_MAX_CHARS, cut
from holdfast.calls import Compact, Compacted
from holdfast.failure import CONTEXT_WINDOW_EXCEEDED
from holdfast.message import summary_message

_log = get_logger("holdfast.compaction")
_LEAST_CHARS = 4_000
"""A text shorter than this is not halved again for a model whose window it exceeds."""
_MARK_CHARS = 12


class CompactionActivities:
    """The compactions of one worker."""

    def __init__(self, complete: Complete, cache: TranscriptCache, scrub: Scrubber, breakers: Breakers) -> None:
        self._complete = complete
        self._cache = cache
        self._scrub = scrub
        self._breakers = breakers

    @activity.defn(name=wire.CONTEXT_COMPACT)
    async def compact(self, call: Compact) -> dict[str, Any]:
        """Summarise a part of the transcript; returns a Compacted's wire form, and holds what it becomes."""
        memory = Memory(self._cache)
        settings = call.settings or (await memory.agent()).model_settings
        messages = await memory.messages(call)
        span = messages[call.start : call.stop]
        if not span:
            raise failure("SpanEmpty", f"there are no messages from {call.start} to {call.stop}", retryable=False)
        answer = await self._summarised(call, settings, span)
        compacted = Compacted(
            summary=cut(clean(answer.text.strip(), self._scrub), summaries.summary_bytes(span)),
            model=cut(clean(answer.model, self._scrub), 200),
            usage=answer.usage,
        )
        memory.replace(call.start, summary_message(compacted.summary).wire(), *messages[call.stop :])
        _log.info(
            "context.compacted",
            model=compacted.model,
            messages=len(span),
            input_tokens=compacted.usage.input_tokens,
            output_tokens=compacted.usage.output_tokens,
            cost_usd=compacted.usage.cost_usd,
        )
        return compacted.wire()

    async def _summarised(self, call: Compact, settings: ModelSettings, span: list[dict[str, Any]]) -> Answer:
        seconds, made = settings.timeout_seconds, [Answer(model=call.model, asked=False)]
        try:
            with self._breakers.guarding(call.model, lambda: made[-1].asked):
                async with asyncio.timeout(seconds):
                    answer = await self._ask(call, settings, span, made)
        except TimeoutError:
            raise failure("ModelTimeout", f"{call.model}: no summary within {seconds:g} s", retryable=True) from None
        if not answer.text.strip():
            empty = failure("ModelAnswerEmpty", f"{call.model}: the summary was empty", retryable=True)
            raise spent.failed(empty, answer.usage, spent.earlier())
        answer.usage = answer.usage + spent.earlier()
        return answer

    async def _ask(
        self, call: Compact, settings: ModelSettings, span: list[dict[str, Any]], made: list[Answer]
    ) -> Answer:
        """Ask once, and again with half of the text while that is beyond the model's window, which costs nothing."""
        # Neither tools nor a mark to stop at belong to a summary.
        settings = settings.model_copy(update={"tool_choice": None, "parallel_tool_calls": None, "stop": None})
        # The messages' own digest: whoever wrote them can't have known it, and so can't have written a label.
        mark, room = call.transcript.digest[:_MARK_CHARS], COMPACTION_MAX_CHARS
        while True:
            messages = summaries.request(span, mark, room)
            answer = Answer(model=call.model)
            made.append(answer)
            try:
                asked = ModelRequest(
                    model=call.model,
                    messages=messages,
                    tools=[],
                    settings=settings,
                    budget_usd=call.budget_usd,
                    unknown_price=call.unknown_price,
                )
                await self._complete(asked, answer)
            except ApplicationError as error:
                room = len(messages[-1]["content"]) // 2
                if error.type != CONTEXT_WINDOW_EXCEEDED or room < _LEAST_CHARS:
                    raise
            else:
                return answer
