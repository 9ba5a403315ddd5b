"""Subagents: an agent as a tool of another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from holdfast.data import Data

if TYPE_CHECKING:
    from holdfast.agent import Agent


class Join(Data):
    """How many of the subagents that one turn starts must succeed before the model goes on."""

    mode: Literal["all", "any", "quorum"] = "all"
    """all: each is waited for. any: the first success is enough. quorum: `count` of them are. The rest is cancelled."""
    count: int | None = Field(default=None, ge=1)
    """The quorum."""


class Subagent(Data):
    """An agent that another one may call as a tool, each call a run of its own."""

    agent: Agent | str
    """A whole agent, or the name of one that the worker has."""
    name: str | None = None
    """The tool's name; made of the agent's by default."""
    description: str | None = None
    """What the calling model reads; the agent's own by default."""
