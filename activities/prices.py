"""What a model call costs, before it is made or where no provider tells: an estimate of 4 characters a token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from holdfast.activities.answer import Answer, ModelRequest
from holdfast.activities.failures import failure
from holdfast.bounds import CHARS_PER_TOKEN, to_json
from holdfast.content import IMAGE_CHARS
from holdfast.failure import BUDGET_EXCEEDED, PRICE_UNKNOWN
from holdfast.message import Usage


@dataclass(frozen=True)
class Price:
    """US dollars a token."""

    input_usd: float
    output_usd: float

    def of(self, usage: Usage) -> float:
        """Return what so many tokens cost."""
        return usage.input_tokens * self.input_usd + usage.output_tokens * self.output_usd


def input_tokens(request: ModelRequest) -> int:
    """Estimate the tokens of a request: of its messages and its tools."""
    chars = sum(len(to_json(tool)) for tool in request.tools)
    for message in request.messages:
        content = message.get("content") or ""
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        chars += sum(len(part.get("text") or "") if part.get("type") == "text" else IMAGE_CHARS for part in parts)
        chars += len(message.get("reasoning_content") or "") + _called(message.get("tool_calls") or ())
    return chars // CHARS_PER_TOKEN


def reserve(request: ModelRequest, price: Price | None) -> None:
    """Raise ApplicationError where a call must not be made: its price is unknown, or its input alone costs too much."""
    left = request.budget_usd
    if left is None:
        return
    if price is None:
        if request.unknown_price == "allow":
            return
        told = (
            f"nobody knows the price of {request.model}, and max_cost_usd is set: give its endpoint "
            'input_cost_per_token and output_cost_per_token, or set limits.unknown_price to "allow"'
        )
        raise failure(PRICE_UNKNOWN, told, retryable=False)
    needed = input_tokens(request) * price.input_usd
    if needed > left:
        told = (
            f"{request.model}: the input alone would cost about ${needed:.6f}, and ${left:.6f} of max_cost_usd is left"
        )
        raise failure(BUDGET_EXCEEDED, told, retryable=False)


def estimated(request: ModelRequest, answer: Answer) -> Usage:
    """Return what a call took whose provider did not say, such as an aborted one; nothing where it was not made yet."""
    if not answer.asked:
        return Usage()
    said = len(answer.text) + len(answer.reasoning) + sum(len(each.arguments) for each in answer.calls.values())
    asked = input_tokens(request)
    usage = Usage(model_calls=1, input_tokens=asked, output_tokens=-(-said // CHARS_PER_TOKEN), estimated_calls=1)
    price = answer.price(asked) if answer.price is not None else None
    if price is None:
        return usage.model_copy(update={"unpriced_calls": 1})
    return usage.model_copy(update={"cost_usd": price.of(usage)})


def _called(calls: Sequence[Mapping[str, Any]]) -> int:
    return sum(len(call["function"]["name"]) + len(call["function"]["arguments"]) for call in calls)
