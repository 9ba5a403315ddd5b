"""Answers that a model has given, kept for requests that are the same in everything that shapes them."""

from __future__ import annotations

import hashlib
import json
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from holdfast.activities.answer import Answer, WantedCall
from holdfast.bounds import canonical_json
from holdfast.envelope import opened
from holdfast.message import Usage

_SHAPES_NOTHING = frozenset(
    {"stream", "stream_options", "timeout", "num_retries", "max_retries", "_skip_mcp_handler", "api_key"}
)
"""Options of a request that leave its answer as it is; the key is told by its hash."""
_WHOLE = frozenset({None, "stop", "tool_calls", "function_call"})
"""How an answer ends that is whole."""


class Responses:
    """One worker's answers, in memory: the least recently used go first once they take more than `max_bytes`."""

    def __init__(self, max_bytes: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_bytes = max_bytes
        self._clock = clock
        self._kept: OrderedDict[str, tuple[float, str]] = OrderedDict()
        self._bytes = 0

    def recall(self, key: str, seconds: float, answer: Answer) -> bool:
        """Fill the answer in with one that is at most so many seconds old; False where there is none."""
        at, text = self._kept.get(key, (0.0, ""))
        if not text or self._clock() - at > seconds:
            return False
        self._kept.move_to_end(key)
        told = json.loads(text)
        calls = [WantedCall(**each) for each in told.pop("calls")]
        answer.text_pieces, answer.reasoning_pieces = [told.pop("text")], [told.pop("reasoning")]
        answer.calls = dict(enumerate(calls))
        for name, value in told.items():
            setattr(answer, name, value)
        answer.usage = Usage(model_calls=1, cached_calls=1)
        return True

    def keep(self, key: str, answer: Answer) -> None:
        """Keep a whole answer; one that is empty, or was cut off, may be better the next time."""
        if answer.finish_reason not in _WHOLE or not (answer.text.strip() or answer.calls):
            return
        told = {
            "model": answer.model,
            "text": answer.text,
            "reasoning": answer.reasoning,
            "thinking_blocks": answer.thinking_blocks,
            "provider_specific_fields": answer.provider_specific_fields,
            "finish_reason": answer.finish_reason,
            "calls": [asdict(call) for _, call in sorted(answer.calls.items())],
        }
        try:
            text = json.dumps(told)
        except (TypeError, ValueError):  # a provider's own fields may hold anything
            return
        self._drop(key)
        self._kept[key] = (self._clock(), text)
        self._bytes += len(text)
        while self._bytes > self._max_bytes:
            self._drop(next(iter(self._kept)))

    def _drop(self, key: str) -> None:
        self._bytes -= len(self._kept.pop(key, (0.0, ""))[1])


def key_of(model: str, messages: Sequence[Mapping[str, Any]], options: Mapping[str, Any]) -> str:
    """Return the hash of all that shapes an answer: the model, where and with which key it is asked, and what.

    Call ids, and the marks around what tools returned, are made for each run anew and shape nothing.
    """
    secret = hashlib.sha256(str(options.get("api_key")).encode()).hexdigest()
    asked = {name: each for name, each in options.items() if name not in _SHAPES_NOTHING}
    text = canonical_json([model, secret, _without_marks(messages), asked])
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def _without_marks(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return messages with call ids in the order of the calls, and envelopes opened."""
    places: dict[str, int] = {}
    forms = []
    for message in messages:
        form = dict(message)
        if calls := message.get("tool_calls"):
            form["tool_calls"] = [{**each, "id": places.setdefault(each["id"], len(places))} for each in calls]
        if message.get("role") == "tool":
            called, content = message.get("tool_call_id"), message.get("content")
            form["tool_call_id"] = places.get(str(called), called)
            inside = opened(content) if isinstance(content, str) else None
            form["content"] = content if inside is None else list(inside)
        forms.append(form)
    return forms
