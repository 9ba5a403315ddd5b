"""Tools: typed Python functions that a model may call."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any, Generic, Literal, ParamSpec, TypeVar, overload

import docstring_parser
from pydantic import Field, GetCoreSchemaHandler, ValidationError, model_validator
from pydantic_core import core_schema

from holdfast import wire
from holdfast.data import Data
from holdfast.errors import DefinitionError, InputInvalid, field_errors
from holdfast.signatures import Arguments, read_arguments

P = ParamSpec("P")
R = TypeVar("R")
Effect = Literal["pure", "idempotent", "once"]
Builtin = Literal["ask_user", "sleep", "wait_until"]

TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")


class ToolSpec(Data):
    """A tool as data: all that a model and the engine need to know of it."""

    name: str = Field(pattern=f"^{TOOL_NAME.pattern}$")
    """Also the activity's type, so it is what a person reads in the Temporal timeline."""
    description: str = ""
    parameters: dict[str, Any] = Field(default_factory=lambda: {"type": "object", "properties": {}})
    """JSON schema of the arguments, an object."""
    timeout_seconds: float = Field(default=60, ge=0.001, le=7 * 86_400)
    """Seconds that one attempt may take."""
    effect: Effect = "idempotent"
    """What a repeated call would do: nothing (pure), nothing more under the same idempotency key (idempotent), or harm
    (once: never repeated by the engine once it may have begun; the model is told that the outcome is unknown)."""
    max_attempts: int = Field(default=3, ge=1, le=100)
    """Attempts before the model is told of the failure; 1 for a `once` tool, whatever stands here."""
    requires_approval: bool = False
    """Each call waits until somebody approves it."""
    task_queue: str | None = Field(default=None, min_length=1, max_length=200)
    """Where the tool's activity is served, by a worker of any language; the run's own task queue by default."""
    activity: str | None = Field(default=None, min_length=1, max_length=200)
    """The activity's type, where it is not the tool's name."""
    heartbeat_seconds: float | None = Field(default=None, ge=0.001, le=7 * 86_400)
    """Silence after which an activity elsewhere is taken for dead; by default such a one need not beat."""
    queue_seconds: float = Field(default=600, ge=0.001, le=7 * 86_400)
    """Seconds that a call elsewhere waits for a worker to take it, each attempt anew; then the model is told."""
    max_concurrent: int | None = Field(default=None, ge=1, le=1000)
    """Calls under way at once on one worker, all runs together; those beyond it wait on the server."""
    secrets: tuple[str, ...] = ()
    """Handles of the secrets that the worker gives to its function."""
    builtin: Builtin | None = None
    """Set for the tools that the run itself carries out: a question to a person, a rest."""
    mcp_server: str | None = None
    """Set for a tool of an MCP server: the server's name."""
    fingerprint: str | None = None
    """Of a tool that somebody else describes: the hash of its description and schema, as the run found them."""
    subagent: str | None = None
    """Set for a tool that is an agent: the name of that subagent."""

    @model_validator(mode="after")
    def _is_sound(self) -> ToolSpec:
        if self.activity in wire.ACTIVITIES:
            raise ValueError(f"{self.activity!r} is an activity of Holdfast's own, and no tool")
        if self.is_elsewhere and (self.builtin or self.subagent):
            raise ValueError("task_queue and activity are for tools that are plain activities")
        if self.is_elsewhere and self.max_concurrent is not None:
            raise ValueError("max_concurrent is for functions of the worker: whoever serves this one bounds it there")
        if self.mcp_server is not None and not (self.activity or "").startswith(f"{self.mcp_server}."):
            raise ValueError("a tool of an MCP server is the activity `server.tool`")
        return self

    @property
    def is_elsewhere(self) -> bool:
        """Whether it is somebody else's activity: it need not beat, nor be Python."""
        return self.mcp_server is None and (self.task_queue is not None or self.activity is not None)

    @property
    def activity_type(self) -> str:
        """The type of the activity that carries it out."""
        return self.activity or self.name


class Tool(Generic[P, R]):
    """A function with its `ToolSpec`; calling it calls the function."""

    def __init__(self, function: Callable[P, R], spec: ToolSpec, arguments: Arguments) -> None:
        self.function = function
        self.spec = spec
        self.arguments = arguments
        self.__name__ = spec.name
        self.__doc__ = function.__doc__

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<tool {self.spec.name}>"

    @property
    def is_async(self) -> bool:
        """True for an `async def`."""
        return inspect.iscoroutinefunction(self.function)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.is_instance_schema(
            cls,
            serialization=core_schema.plain_serializer_function_ser_schema(lambda each: each.spec.wire()),
        )


@overload
def tool(function: Callable[P, R], /) -> Tool[P, R]: ...
@overload
def tool(
    *,
    name: str | None = None,
    description: str | None = None,
    timeout_seconds: float = 60,
    effect: Effect = "idempotent",
    max_attempts: int = 3,
    max_concurrent: int | None = None,
    requires_approval: bool = False,
) -> Callable[[Callable[P, R]], Tool[P, R]]: ...
def tool(
    function: Callable[P, R] | None = None,
    /,
    *,
    name: str | None = None,
    description: str | None = None,
    timeout_seconds: float = 60,
    effect: Effect = "idempotent",
    max_attempts: int = 3,
    max_concurrent: int | None = None,
    requires_approval: bool = False,
) -> Tool[P, R] | Callable[[Callable[P, R]], Tool[P, R]]:
    """Make a typed function, sync or async, a tool; its name, description and schema come from the function itself.

    `timeout_seconds` bounds one attempt, `max_attempts` their number, and `effect` says what a repeated call would do.
    At most `max_concurrent` calls run at once on one worker. With `requires_approval` each call waits until somebody
    approves it.
    Raises DefinitionError where the function can't be a tool.
    """

    def make(function: Callable[P, R]) -> Tool[P, R]:
        documented = docstring_parser.parse(inspect.getdoc(function) or "")
        arguments = read_arguments(function, documented)
        told = "\n\n".join(part for part in (documented.short_description, documented.long_description) if part)
        try:
            spec = ToolSpec(
                name=function.__name__ if name is None else name,
                description=told if description is None else description,
                parameters=arguments.schema,
                timeout_seconds=timeout_seconds,
                effect=effect,
                max_attempts=max_attempts,
                max_concurrent=max_concurrent,
                requires_approval=requires_approval,
                secrets=tuple(dict.fromkeys(arguments.secrets.values())),
            )
        except ValidationError as error:
            raise DefinitionError(f"tool {name or function.__name__!r}: {InputInvalid(field_errors(error))}") from None
        return Tool(function, spec, arguments)

    return make if function is None else make(function)
