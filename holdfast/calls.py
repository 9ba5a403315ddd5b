"""Arguments and results of our own activities: what passes between a run and the world."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from holdfast.agent import Agent
from holdfast.bounds import TOOL_OUTPUT_MAX_CHARS
from holdfast.data import Data


class LoadedAgent(Data):
    """What `agent.load` records once: all that a run is pinned to."""

    agent: Agent
    """Resolved: every tool is a whole ToolSpec."""
    revision: str
    prompts: tuple[str, ...]
    """The first user messages: the rendered goal or input, then the request's own message."""
    search_attributes: bool = False
    """Whether the worker found the search attributes registered, so that the run may write them."""
    tool_output_max_chars: int = TOOL_OUTPUT_MAX_CHARS
    """The worker's setting when the run began."""


class Reference(Data):
    """A transcript by its length and digest instead of its messages."""

    length: int
    digest: str


class Pushed(Data):
    """One message that no activity can have fed to a worker's cache, with its place in the transcript."""

    index: int
    message: dict[str, Any]


class ModelCall(Data):
    """The one argument of `model.call`."""

    step: int
    model: str
    closing: str | None = None
    """The limit whose last allowed call this is: made without tools, asking for an answer from what is known."""
    tool_output_max_chars: int = TOOL_OUTPUT_MAX_CHARS
    transcript: Reference
    pushed: tuple[Pushed, ...] = Field(default=())


class Page(Data):
    """The answer to the query `transcript`: messages from `start` on, at most 1 MB of them."""

    messages: tuple[dict[str, Any], ...] = ()
    next: int | None = None
    """Where to go on reading; None at the end."""
