"""MCP servers as sources of tools: how a worker reaches one, and what an agent takes from it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Annotated, Any

from pydantic import AfterValidator, ConfigDict, Field, GetCoreSchemaHandler, SecretStr, model_validator
from pydantic_core import PydanticSerializationUnexpectedValue, core_schema

from holdfast.data import Data
from holdfast.tools import Effect
from holdfast.wire import ACTIVITIES

_NAME = r"^[A-Za-z0-9_-]{1,40}$"
_RESERVED = frozenset(each.partition(".")[0] for each in ACTIVITIES)
"""A server's tool is the activity `server.tool`, which must be none of ours."""


def _hidden(given: Mapping[str, str | SecretStr]) -> dict[str, SecretStr]:
    return {name: each if isinstance(each, SecretStr) else SecretStr(each) for name, each in given.items()}


Hidden = Annotated[Mapping[str, str | SecretStr], AfterValidator(_hidden)]
"""Values that show themselves nowhere."""


class McpServer(Data):
    """How a worker reaches an MCP server: a program that it starts, or a URL. Never part of an agent's JSON.

    `${NAME}` in a value of `env` or `headers` stands for that environment variable of the worker's.
    """

    model_config = ConfigDict(hide_input_in_errors=True)  # an input may be a key in the wrong place

    name: str = Field(pattern=_NAME)
    """At most 40 letters, digits, dashes and underscores."""
    command: str | None = Field(default=None, min_length=1)
    """The program, spoken to over its stdin and stdout."""
    args: tuple[str, ...] = ()
    env: Hidden = Field(default_factory=dict)
    """Its environment, beside HOME, LOGNAME, PATH, SHELL, TERM and USER: it gets nothing else of the worker's."""
    cwd: str | None = None
    """Its working directory; the worker's own by default."""
    url: str | None = Field(default=None, pattern=r"^https?://")
    """The endpoint of a server that speaks streamable HTTP."""
    headers: Hidden = Field(default_factory=dict)
    """Sent with every request."""
    start_timeout_seconds: float = Field(default=20, gt=0, le=45)
    """Seconds until it must be up and have listed its tools."""
    max_concurrent: int | None = Field(default=None, ge=1, le=1000)
    """Calls of its tools under way at once on one worker, all runs together; those beyond it wait on the server."""
    idle_seconds: float = Field(default=300, gt=0)
    """Seconds after its last use until a worker closes its connection, and ends its program."""

    @property
    def values(self) -> dict[str, str]:
        """What it is given by name, as it was written: variables of its environment, or headers."""
        given = {**self.env, **self.headers}
        return {name: each if isinstance(each, str) else each.get_secret_value() for name, each in given.items()}

    @model_validator(mode="after")
    def _is_one_kind(self) -> McpServer:
        if self.name in _RESERVED:
            raise ValueError(f"no server may be named {self.name!r}: activities of Holdfast's own begin so")
        if (self.command is None) == (self.url is None):
            raise ValueError("give a command or a url")
        if self.url is None and self.headers:
            raise ValueError("headers are for a server with a url")
        if self.command is None and (self.args or self.env or self.cwd):
            raise ValueError("args, env and cwd are for a server with a command")
        return self


class _ByName:
    """Takes an McpServer of this process, and no data: whoever may send an agent must not make a worker start programs.

    Its JSON form is the server's name.
    """

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        named = core_schema.plain_serializer_function_ser_schema(_name)
        return core_schema.is_instance_schema(McpServer, serialization=named)


def _name(server: Any) -> str:
    if not isinstance(server, McpServer):
        raise PydanticSerializationUnexpectedValue("no McpServer")  # another member of the union
    return server.name


HeldServer = Annotated[McpServer, _ByName]


class McpTools(Data):
    """Which tools of an MCP server an agent has, and how they are called."""

    server: Annotated[str, Field(pattern=_NAME)] | HeldServer
    """The server, or the name of one that the worker has; in JSON the name."""
    allow: tuple[str, ...] | None = None
    """Names of its tools, or patterns of them as `fnmatch` reads them: `search_*`. None takes all."""
    requires_approval: bool | tuple[str, ...] = False
    """Whether each call waits until somebody approves it; or for which names and patterns."""
    effect: Effect | None = None
    """What a repeated call would do. None takes the server's word: pure where it says that the tool only reads,
    idempotent where it says that, else once."""
    timeout_seconds: float = Field(default=60, ge=0.001, le=7 * 86_400)
    max_attempts: int = Field(default=3, ge=1, le=100)
    missing: str = Field(default="", max_length=1000)
    """What of its tools a run lacks, and why: written by the worker when a run begins, and told to the model."""

    @property
    def name(self) -> str:
        """The server's name."""
        return self.server if isinstance(self.server, str) else self.server.name

    def allows(self, tool: str) -> bool:
        """Say whether the agent has this tool."""
        return self.allow is None or any(fnmatchcase(tool, pattern) for pattern in self.allow)

    def asks(self, tool: str) -> bool:
        """Say whether this tool's calls wait for approval."""
        if isinstance(self.requires_approval, bool):
            return self.requires_approval
        return any(fnmatchcase(tool, pattern) for pattern in self.requires_approval)


def as_mcp_tools(given: Sequence[McpTools | McpServer | str]) -> tuple[McpTools, ...]:
    """Return what an agent takes from its servers; ValueError for a server that is named twice."""
    found = tuple(each if isinstance(each, McpTools) else McpTools(server=each) for each in given)
    names = [each.name for each in found]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"two entries are of the MCP server {name!r}")
    return found


def server_of(activity: str) -> str | None:
    """Return the server's name in an activity type `server.tool`; None for another type."""
    name, dot, tool = activity.partition(".")
    return name if dot and tool and re.fullmatch(_NAME[1:-1], name) else None
