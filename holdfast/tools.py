"""Tools: typed Python functions that a model may call."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Generic,
    Literal,
    ParamSpec,
    TypeVar,
    get_args,
    get_origin,
    get_type_hints,
    overload,
)

import docstring_parser
from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, ValidationError, create_model, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined, core_schema

from holdfast import wire
from holdfast.data import Data
from holdfast.errors import DefinitionError, InputInvalid, field_errors
from holdfast.secrets import Secret

if TYPE_CHECKING:
    from holdfast.calls import RunContext

P = ParamSpec("P")
R = TypeVar("R")
Effect = Literal["pure", "idempotent", "once"]
Builtin = Literal["ask_user", "sleep", "wait_until"]

TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_PLAIN_VALUES = ("const", "default", "enum", "examples")
"""Keywords of JSON schema that hold data, not schemas."""


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


@dataclass(frozen=True)
class ToolContext:
    """What a running tool may know of its call; a parameter annotated with it is filled in, unseen by the model."""

    run_id: str
    call_id: str
    attempt: int = 1
    """The attempt under way, from 1."""
    idempotency_key: str = ""
    """The same for every attempt of one call: hand it to whatever must not happen twice."""
    last_heartbeat: tuple[Any, ...] = ()
    """What an earlier attempt last gave to `heartbeat`: where to go on from."""
    _about: Callable[[], RunContext] | None = field(default=None, repr=False, compare=False)
    _beat: Callable[..., None] | None = field(default=None, repr=False, compare=False)
    _cancelled: Callable[[], bool] | None = field(default=None, repr=False, compare=False)

    def heartbeat(self, *details: Any) -> None:
        """Record at most 64 KB of JSON that a later attempt finds in `last_heartbeat`; liveness needs no call."""
        if self._beat is not None:
            self._beat(*details)

    @property
    def metadata(self) -> dict[str, Any]:
        """The run's metadata, as whoever started it gave it. RuntimeError where it is larger than 16 KB and the run has
        many links: only its first then knows it, unless a tool takes a secret."""
        known = self._about().metadata if self._about is not None else {}
        if known is None:
            raise RuntimeError("the run's metadata is too large to be known in this link of the run")
        return dict(known)

    @property
    def agent_name(self) -> str:
        """The name of the agent that called the tool."""
        return self._about().agent if self._about is not None else ""

    @property
    def cancelled(self) -> bool:
        """True once the run wants this call stopped: return or raise soon."""
        return self._cancelled is not None and self._cancelled()


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


@dataclass(frozen=True)
class Arguments:
    """The parameters of a tool's function: their JSON schema, and their validation."""

    model: type[BaseModel]
    names: tuple[str, ...]
    context_name: str | None
    secrets: Mapping[str, str] = field(default_factory=dict)
    """Parameter → the handle of its secret."""

    @property
    def schema(self) -> dict[str, Any]:
        """JSON schema of the object that the model must send."""
        schema: dict[str, Any] = _without_titles(self.model.model_json_schema(by_alias=True))
        schema.setdefault("properties", {})
        return schema

    def validate(self, given: Any) -> dict[str, Any]:
        """Return keyword arguments of the declared types; InputInvalid names every field that is wrong."""
        try:
            valid = self.model.model_validate(given)
        except ValidationError as error:
            raise InputInvalid(field_errors(error)) from None
        present = valid.model_fields_set
        return {name: getattr(valid, key) for name, key in self._keys() if key in present}

    def _keys(self) -> list[tuple[str, str]]:
        return [(name, f"argument_{index}") for index, name in enumerate(self.names)]


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
        arguments = _read_arguments(function, documented)
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


def _read_arguments(function: Callable[..., Any], documented: docstring_parser.Docstring) -> Arguments:
    where = f"tool {getattr(function, '__name__', function)!r}"
    if inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function):
        raise DefinitionError(f"{where}: a generator can't be a tool; return the whole result")
    try:
        signature = inspect.signature(function)
        hints = get_type_hints(function, include_extras=True)
    except (TypeError, ValueError, NameError) as error:
        raise DefinitionError(f"{where}: its signature can't be read: {error}") from None
    described = {each.arg_name: each.description for each in documented.params}
    fields: dict[str, Any] = {}
    names: list[str] = []
    secrets: dict[str, str] = {}
    context_name = None
    for parameter in signature.parameters.values():
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise DefinitionError(f"{where}: parameter {parameter.name!r} must be one that can be named")
        if parameter.name not in hints:
            raise DefinitionError(f"{where}: parameter {parameter.name!r} needs a type")
        if hints[parameter.name] is ToolContext:
            if context_name is not None:
                raise DefinitionError(f"{where}: only one parameter can be a ToolContext")
            context_name = parameter.name
            continue
        handle = _secret_of(hints[parameter.name])
        if handle is not None:
            if get_args(hints[parameter.name])[0] is not str:
                raise DefinitionError(f"{where}: parameter {parameter.name!r}: a secret is a str")
            secrets[parameter.name] = handle
            continue
        told: dict[str, Any] = {"description": described[parameter.name]} if described.get(parameter.name) else {}
        if isinstance(parameter.default, FieldInfo):
            raise DefinitionError(f"{where}: write {parameter.name}: Annotated[…, Field(…)] = default")
        default = PydanticUndefined if parameter.default is parameter.empty else parameter.default
        fields[f"argument_{len(names)}"] = (hints[parameter.name], Field(default, alias=parameter.name, **told))
        names.append(parameter.name)
    try:
        model = create_model(where, __config__=ConfigDict(extra="forbid", arbitrary_types_allowed=False), **fields)
        arguments = Arguments(model, tuple(names), context_name, secrets)
        _ = arguments.schema
    except Exception as error:  # noqa: BLE001 - whatever pydantic finds wrong with a type is the author's to read
        raise DefinitionError(f"{where}: a parameter's type has no JSON form: {error}") from None
    return arguments


def _secret_of(hint: Any) -> str | None:
    """Return the handle of the secret that a parameter's type asks for."""
    marks = get_args(hint)[1:] if get_origin(hint) is Annotated else ()
    return next((each.name for each in marks if isinstance(each, Secret)), None)


def _without_titles(schema: Any, inside_properties: bool = False) -> Any:
    if isinstance(schema, dict):
        return {
            key: value
            if key in _PLAIN_VALUES and not inside_properties
            else _without_titles(value, key in ("properties", "$defs") and not inside_properties)
            for key, value in schema.items()
            if inside_properties or key != "title" or not isinstance(value, str)
        }
    if isinstance(schema, list):
        return [_without_titles(item) for item in schema]
    return schema
