"""What is recorded of a model's answer: bounded, without secrets, with call ids that are unique in the run."""

from __future__ import annotations

from typing import Any

from holdfast import ids
from holdfast.activities.answer import Answer
from holdfast.activities.secrets import Scrubber
from holdfast.bounds import TURN_MAX_BYTES, TURN_MAX_TOOL_CALLS, cut, json_size
from holdfast.calls import ModelCall
from holdfast.message import Message, ToolCall, Turn

_ARGUMENTS_SHOWN_BYTES = 512
"""What is kept of a call's arguments where the whole has no room."""
_NOTHING_SAID = "(no answer)"
"""What a provider is sent back for a message of neither text nor calls, which it would refuse."""


def record(answer: Answer, asked: ModelCall, scrub: Scrubber, *, partial: bool = False) -> Turn:
    """Make what is recorded: safe text, ids that are unique in the run, at most 32 calls and 256 KB."""
    room = TURN_MAX_BYTES - 4096
    said = grown if partial else clean
    text = cut(said(answer.text, scrub), room // 2)
    room -= json_size(text)
    reasoning = cut(said(answer.reasoning, scrub), room // 4)
    room -= json_size(reasoning)
    extras = scrub.json({"blocks": answer.thinking_blocks, "fields": answer.provider_specific_fields})
    if not partial and _json_size(extras) < room // 2:
        room -= _json_size(extras)
    else:
        extras = {}
    calls: list[ToolCall] = []
    wanted = [] if partial else [each for _, each in sorted(answer.calls.items())]
    for each in [] if asked.closing or asked.planning else wanted[:TURN_MAX_TOOL_CALLS]:
        name, arguments = cut(clean(each.name, scrub), 256), clean(each.arguments, scrub)
        call_id = ids.call_id(asked.step, len(calls), name, arguments, asked.transcript.digest)
        fields = scrub.json(each.provider_specific_fields)
        call = ToolCall.of(call_id, name, arguments, provider_specific_fields=fields)
        if _json_size(call.wire()) > room:
            # Cut JSON is refused, and the model told so; without its only call, a turn would look like an answer.
            call = ToolCall.of(call_id, name, cut(arguments, _ARGUMENTS_SHOWN_BYTES))
        room -= _json_size(call.wire())
        if room < 0:
            break
        calls.append(call)
    message = Message(
        role="assistant",
        content=text or None,
        tool_calls=tuple(calls),
        reasoning_content=reasoning or None,
        thinking_blocks=extras.get("blocks") or None,
        provider_specific_fields=extras.get("fields") or None,
    )
    return Turn(
        message=message,
        model=cut(clean(answer.model, scrub), 200),
        usage=answer.usage,
        lost=answer.lost,
        finish_reason=answer.finish_reason and cut(clean(answer.finish_reason, scrub), 200),
        dropped_tool_calls=len(wanted) - len(calls),
        partial=partial,
    )


def clean(text: str, scrub: Scrubber) -> str:
    """Return a text without secrets and without lone surrogates, which no history can hold."""
    return scrub.text(text.encode(errors="replace").decode())


def grown(text: str, scrub: Scrubber) -> str:
    """Return `clean` text that has not all arrived: without an end that may be the first half of a secret."""
    return scrub.without_beginning(clean(text, scrub))


def sayable(message: dict[str, Any]) -> dict[str, Any]:
    """Return a message as providers take it."""
    if message["role"] == "assistant" and not message.get("content") and not message.get("tool_calls"):
        return {**message, "content": _NOTHING_SAID}
    return dict(message)


def _json_size(value: Any) -> int:
    try:
        return json_size(value)
    except (TypeError, ValueError):
        return TURN_MAX_BYTES
