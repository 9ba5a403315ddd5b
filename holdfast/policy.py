"""Policy: which tool calls are made at once, which need a person, and which never happen."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, JsonValue

from holdfast.data import Data

Action = Literal["allow", "deny", "request_approval", "request_user_input"]


class Match(Data):
    """What a rule is about; all of it must fit."""

    tool: str = "*"
    """A tool's name, or a pattern of it, as `fnmatch` reads them: `refund`, `crm_*`."""
    agent: str = "*"
    """An agent's name, or a pattern of it."""
    arguments: dict[str, JsonValue] = Field(default_factory=dict)
    """Dotted name of an argument → its value, or a `Condition`."""
    context: dict[str, JsonValue] = Field(default_factory=dict)
    """Dotted name in the run's metadata → its value, or a `Condition`."""


class PolicyRule(Data):
    """One rule: the first that matches counts, by priority (the highest first), then by id."""

    id: Annotated[str, Field(min_length=1, max_length=100)]
    action: Action
    priority: int = 0
    match: Match = Match()
    reason: str = ""
    """Told to the model with a deny, and to the person who is asked."""


class Policy(Data):
    """Rules about the tool calls of an agent. A call that no rule matches is as its tool says."""

    rules: tuple[PolicyRule, ...] = ()
