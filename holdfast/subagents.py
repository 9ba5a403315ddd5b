"""Subagents: an agent as a tool of another, each call a run of its own."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, JsonValue, model_validator

from holdfast.data import Data
from holdfast.errors import InputInvalid
from holdfast.tools import TOOL_NAME, ToolSpec

if TYPE_CHECKING:
    from holdfast.agent import Agent

NESTED_MAX = 20
"""Levels of agents inside agents, where they are given whole."""
PATH_MAX_CHARS = 3_000
_UNFIT = re.compile(r"[^a-zA-Z0-9_-]+")
_DEFINITIONS = ("$defs", "definitions")


class Join(Data):
    """How many of the subagents that one turn starts must succeed before the model goes on."""

    mode: Literal["all", "any", "quorum"] = "all"
    """all: each is waited for. any: the first success is enough. quorum: `count` of them are (all of them, where fewer
    were started). The rest is stopped, also once enough of them can no longer succeed."""
    count: int | None = Field(default=None, ge=1)
    """The quorum."""

    @model_validator(mode="after")
    def _is_whole(self) -> Join:
        if (self.mode == "quorum") != (self.count is not None):
            raise ValueError("a quorum needs its count, and nothing else has one")
        return self


class Subagent(Data):
    """An agent that another one may call as a tool, each call a run of its own."""

    agent: Agent | str
    """A whole agent, or the name of one that the worker has."""
    name: str | None = Field(default=None, pattern=f"^{TOOL_NAME.pattern}$")
    """The tool's name; made of the agent's by default."""
    description: str | None = None
    """What the calling model reads; the agent's own by default."""
    input_schema: dict[str, JsonValue] | None = None
    """The agent's own: known of a named one once its caller is loaded."""
    requires_approval: bool = False
    """Each call waits until somebody approves it."""
    timeout_seconds: float | None = Field(default=None, gt=0, le=10 * 365 * 86_400)
    """Seconds from a call's start, after which its run is interrupted: an error for the calling model."""

    @property
    def agent_name(self) -> str:
        """The name of the agent that is called."""
        return self.agent if isinstance(self.agent, str) else self.agent.name

    @property
    def tool_name(self) -> str:
        """The name that the calling model knows it by."""
        return self.name or _UNFIT.sub("_", self.agent_name)[:64]

    @property
    def spec(self) -> ToolSpec:
        """The tool that the calling model sees."""
        said = self.description
        if said is None:
            said = "" if isinstance(self.agent, str) else self.agent.description
        return ToolSpec(
            name=self.tool_name,
            description=said or f"Ask the agent {self.agent_name!r}.",
            parameters=_parameters(self._schema()),
            requires_approval=self.requires_approval,
            subagent=self.agent_name,
        )

    def described(self, agent: Agent) -> Subagent:
        """Return the same subagent, by name, with what the worker's agent of this name says of itself."""
        told = {"description": agent.description} if self.description is None else {}
        return self.model_copy(update={**told, "input_schema": _input_of(agent)})

    def _schema(self) -> dict[str, Any] | None:
        return self.input_schema if isinstance(self.agent, str) else _input_of(self.agent)


class Lineage(Data):
    """Whose subagent a run is: what a run tells those that it starts, and nobody else."""

    run_id: str
    """The run that called."""
    call_id: str
    """Its tool call."""
    root_run_id: str
    """The run that nobody called."""
    depth: int = Field(ge=1, le=NESTED_MAX)
    """1 for a subagent of the root."""
    path: str = Field(max_length=PATH_MAX_CHARS)
    """Names of agents from the root's to the run's own, joined by slashes."""
    levels_left: int = Field(default=0, ge=0, le=NESTED_MAX)
    """Levels of subagents that it may have itself: the root's `max_subagent_depth` counts."""
    budget_usd: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """Dollars that the caller sets aside for it."""
    deadline_seconds: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Seconds from its start that the caller gives it."""


def check_words(parameters: dict[str, Any], arguments: dict[str, Any]) -> None:
    """Raise InputInvalid for arguments of a call that don't fit; the input itself is for the subagent to check."""
    wrong = {name: "is no argument" for name in arguments if name not in parameters["properties"]}
    wrong |= {name: "is missing" for name in parameters["required"] if name not in arguments}
    if not isinstance(arguments.get("message", ""), str):
        wrong["message"] = "must be a text"
    if not isinstance(arguments.get("input", {}), dict):
        wrong["input"] = "must be an object"
    if wrong:
        raise InputInvalid(wrong)


def _input_of(agent: Agent) -> dict[str, JsonValue] | None:
    """Return the schema of an agent's input, with what the agent says of it."""
    if agent.input_schema is None or not agent.input_description:
        return agent.input_schema
    return {**agent.input_schema, "description": agent.input_description}


def _parameters(schema: dict[str, Any] | None) -> dict[str, Any]:
    """Return the arguments of a call: what to do, in words, and the input where the agent takes one."""
    message = {"type": "string", "description": "What it is to do, with all that it must know: it sees nothing else."}
    if schema is None:
        return {
            "type": "object",
            "properties": {"message": message},
            "required": ["message"],
            "additionalProperties": False,
        }
    inner = {name: each for name, each in schema.items() if name not in _DEFINITIONS}
    lifted = {name: schema[name] for name in _DEFINITIONS if name in schema}  # a reference is read from the top
    return {
        "type": "object",
        "properties": {"input": inner, "message": message},
        "required": ["input"],
        "additionalProperties": False,
        **lifted,
    }
