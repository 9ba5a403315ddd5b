"""The seam to a model vendor: what is asked, and what comes back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from holdfast.agent import ModelSettings
from holdfast.message import Usage

if TYPE_CHECKING:
    from holdfast.activities.prices import Price


@dataclass(frozen=True)
class ModelRequest:
    """One request to a model."""

    model: str
    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]]
    settings: ModelSettings
    output_schema: dict[str, Any] | None = None
    """What the answer is to fit, for providers that can be held to it."""
    budget_usd: float | None = None
    """What may still be spent, where that has a bound."""
    unknown_price: Literal["refuse", "allow"] = "refuse"
    """What becomes of a call with such a bound whose price nobody knows."""


@dataclass
class WantedCall:
    """A tool call as the provider sent it."""

    id: str = ""
    """The provider's; it may repeat in a run."""
    name: str = ""
    arguments: str = ""
    provider_specific_fields: dict[str, Any] | None = None


@dataclass
class Answer:
    """A model's answer, as it grows: what has arrived when a call is cancelled is its partial answer."""

    model: str = ""
    text_pieces: list[str] = field(default_factory=list)
    reasoning_pieces: list[str] = field(default_factory=list)
    thinking_blocks: list[dict[str, Any]] = field(default_factory=list)
    provider_specific_fields: dict[str, Any] | None = None
    calls: dict[int, WantedCall] = field(default_factory=dict)
    """By their order; a stream's index says nothing where a provider numbers every call 0."""
    open_calls: dict[int, WantedCall] = field(default_factory=dict)
    """By a stream's index: the call that pieces without an id belong to."""
    finish_reason: str | None = None
    usage: Usage = field(default_factory=Usage)
    asked: bool = True
    """False where no provider was asked: the answer was kept, or the request was refused before it was made."""
    lost: Usage = field(default_factory=Usage)
    """What earlier attempts took."""
    price: Callable[[int], Price | None] | None = None
    """What the model costs at so many tokens of input, as far as anybody knows."""

    @property
    def text(self) -> str:
        """The text so far."""
        return "".join(self.text_pieces)

    @property
    def reasoning(self) -> str:
        """The model's own account of its thinking so far."""
        return "".join(self.reasoning_pieces)


Complete = Callable[[ModelRequest, Answer], Awaitable[None]]
"""Asks a model and fills the answer in; raises ApplicationError, whose retry posture is set."""
