"""Which part of a long transcript to summarise, and what the transcript is then: plain decisions, without Temporal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from holdfast.agent import Compaction
from holdfast.bounds import CHARS_PER_TOKEN
from holdfast.content import chars_of
from holdfast.message import Message, is_summary, summary_message

_LEAST_GAIN = 16
"""At least this part of `at_tokens`, by estimate: as the densest texts have a token a character, up to a quarter."""


@dataclass(frozen=True)
class Span:
    """The messages from `start` up to `stop`, which stays."""

    start: int
    stop: int


def tokens_of(messages: Sequence[Message]) -> int:
    """Estimate tokens, 4 characters each: of texts, of thinking, and of the names and arguments of tool calls."""
    return sum(map(_chars, messages)) // CHARS_PER_TOKEN


def plan(messages: Sequence[Message], compaction: Compaction) -> Span | None:
    """Say which whole turns to summarise, once a transcript has grown past `at_tokens`; None where little is gained.

    What stood before the first answer stays, unless it fills half of `at_tokens`; an earlier summary is summarised
    again. The last turn stays in any case, and with it as much as fits into `keep_tokens`, but at most half of what
    there is beside the opening: so there is room for a while, whatever the settings. What is summarised, earlier
    summaries aside, comes to a sixteenth of `at_tokens` at least: a run is compacted now and then, not at every step.
    """
    answers = [index for index, message in enumerate(messages) if message.role == "assistant"]
    if not answers:
        return None
    start = _opening(messages, compaction)
    beside = min(compaction.at_tokens, tokens_of(messages)) - tokens_of(messages[:start])
    stop = _kept_from(messages, start, answers[-1], min(compaction.keep_tokens, beside // 2))
    gained = tokens_of([message for message in messages[start:stop] if not is_summary(message)])
    return Span(start, stop) if gained >= compaction.at_tokens // _LEAST_GAIN else None


def compacted(messages: Sequence[Message], span: Span, summary: str) -> list[Message]:
    """Return the transcript with one user message, which says that it is a summary, in the span's place."""
    return [*messages[: span.start], summary_message(summary), *messages[span.stop :]]


def _opening(messages: Sequence[Message], compaction: Compaction) -> int:
    """Return where the first messages end, which say what the run is about: they stay unless they are too large."""
    ends = (index for index, message in enumerate(messages) if message.role == "assistant" or is_summary(message))
    length = next(ends, len(messages))
    return length if tokens_of(messages[:length]) <= compaction.at_tokens // 2 else 0


def _kept_from(messages: Sequence[Message], start: int, last_turn: int, room: int) -> int:
    """Return where the rest begins that stays: never at a tool's result, which belongs to the turn before it."""
    kept_from = last_turn
    left = room * CHARS_PER_TOKEN - sum(map(_chars, messages[last_turn:]))
    for index in range(last_turn - 1, start, -1):
        left -= _chars(messages[index])
        if left < 0:
            break
        if messages[index].role != "tool":
            kept_from = index
    return kept_from


def _chars(message: Message) -> int:
    called = sum(len(call.name) + len(call.function.arguments) for call in message.tool_calls)
    return chars_of(message.content) + len(message.reasoning_content or "") + called
