"""What litellm knows of prices, and what the worker's endpoints say of theirs."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from holdfast.activities.endpoints import Endpoint
from holdfast.activities.prices import Price
from holdfast.message import Usage


def price_of(litellm: ModuleType, model: str, endpoint: Endpoint, tokens: int) -> Price | None:
    """Return what a model costs at so many tokens of input; None where nobody knows."""
    told = endpoint.price
    if told is not None:
        return Price(*told)
    tokens = max(1, tokens)
    known = _cost(litellm, model, Usage(input_tokens=tokens, output_tokens=tokens))
    return None if known is None else Price(known[0] / tokens, known[1] / tokens)


def priced(litellm: ModuleType, model: str, endpoint: Endpoint, usage: Usage) -> Usage:
    """Return the usage with its cost."""
    told = endpoint.price
    if told is not None:
        return usage.model_copy(update={"cost_usd": Price(*told).of(usage)})
    known = _cost(litellm, model, usage)
    if known is None:
        return usage.model_copy(update={"unpriced_calls": 1})
    return usage.model_copy(update={"cost_usd": sum(known)})


def usage_of(told: Any) -> Usage | None:
    """Return the tokens that a provider has told, if it has."""
    if told is None or (told.prompt_tokens == 0 and told.completion_tokens == 0):
        return None
    read = getattr(told, "prompt_tokens_details", None)
    written = getattr(told, "completion_tokens_details", None)
    return Usage(
        model_calls=1,
        input_tokens=max(0, told.prompt_tokens or 0),
        output_tokens=max(0, told.completion_tokens or 0),
        cached_input_tokens=getattr(read, "cached_tokens", None) or 0,
        reasoning_tokens=getattr(written, "reasoning_tokens", None) or 0,
    )


def _cost(litellm: ModuleType, model: str, usage: Usage) -> tuple[float, float] | None:
    try:
        read, written = litellm.cost_per_token(
            model=model,
            prompt_tokens=usage.input_tokens,
            completion_tokens=usage.output_tokens,
            cache_read_input_tokens=usage.cached_input_tokens,
        )
    except Exception:  # noqa: BLE001 - litellm raises a plain Exception for a model without a price
        return None
    if not read + written and not {model, model.partition("/")[2]} & litellm.model_cost.keys():
        return None  # litellm guesses nothing for names it half knows
    return read, written
