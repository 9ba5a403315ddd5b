"""Guardrails: Python checks on what a run is told, on each answer of its model, and on what it would end with."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field, GetCoreSchemaHandler, ValidationError
from pydantic_core import core_schema

from holdfast.data import Data
from holdfast.errors import DefinitionError, InputInvalid, field_errors

Stage = Literal["input", "answer", "output"]
Verdict = Literal["pass", "rewrite", "block"]


class GuardrailSpec(Data):
    """A guardrail as data; the worker has the function of this name."""

    name: str = Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")
    on: Stage
    """input: messages of people, before the model sees them. answer: each answer of the model, before any of its tool
    calls is made. output: the text that the run would end with."""
    timeout_seconds: float = Field(default=30, gt=0, le=3600)
    """Seconds that one attempt may take."""
    max_attempts: int = Field(default=3, ge=1, le=20)
    """Attempts before the run fails: a guardrail that can't be asked lets nothing pass."""


class CalledTool(Data):
    """One call that an answer asks for, as the model wrote it."""

    name: str
    arguments: str
    """JSON text, which may be invalid."""


class GuardrailRequest(Data):
    """What a guardrail is asked about."""

    stage: Stage
    text: str
    """The messages of people, the model's answer, or the text that the run would end with."""
    tool_calls: tuple[CalledTool, ...] = ()
    """Of an answer."""
    output: Any = None
    """Of a text that the run would end with: its JSON, where the agent has an `output_schema`."""
    agent: str
    run_id: str
    context: dict[str, Any] = Field(default_factory=dict)
    """The run's metadata."""


class GuardrailResult(Data):
    """What a guardrail says; make it with `passed`, `rewrite` or `block`."""

    action: Verdict
    reason: str = Field(default="", max_length=2_000)
    """With rewrite, told to the model; with block, the run's error."""


def passed() -> GuardrailResult:
    """Let it pass, as None does."""
    return GuardrailResult(action="pass")


def rewrite(reason: str) -> GuardrailResult:
    """Have the model answer again; what people have said can't be rewritten, and is blocked."""
    return GuardrailResult(action="rewrite", reason=reason[:2_000])


def block(reason: str) -> GuardrailResult:
    """Fail the run."""
    return GuardrailResult(action="block", reason=reason[:2_000])


Check = Callable[[GuardrailRequest], GuardrailResult | Awaitable[GuardrailResult | None] | None]


@dataclass(frozen=True)
class Guardrail:
    """A function with its `GuardrailSpec`; calling it calls the function."""

    function: Check
    spec: GuardrailSpec

    def __call__(self, request: GuardrailRequest) -> Any:
        return self.function(request)

    def __repr__(self) -> str:
        return f"<guardrail {self.spec.name} on {self.spec.on}>"

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.is_instance_schema(
            cls,
            serialization=core_schema.plain_serializer_function_ser_schema(lambda each: each.spec.wire()),
        )


def guardrail(
    *, on: Stage, name: str | None = None, timeout_seconds: float = 30, max_attempts: int = 3
) -> Callable[[Check], Guardrail]:
    """Make a function, sync or async, that takes a GuardrailRequest a guardrail; give it to an agent.

    Raises DefinitionError where it can't be one.
    """

    def make(function: Check) -> Guardrail:
        called = str(name or getattr(function, "__name__", type(function).__name__))
        try:
            inspect.signature(function).bind(object())
            spec = GuardrailSpec(name=called, on=on, timeout_seconds=timeout_seconds, max_attempts=max_attempts)
        except TypeError as error:
            raise DefinitionError(f"guardrail {called!r} must take one GuardrailRequest: {error}") from None
        except ValidationError as error:
            raise DefinitionError(f"guardrail {called!r}: {InputInvalid(field_errors(error))}") from None
        return Guardrail(function, spec)

    return make


def guardrail_spec(declared: GuardrailSpec | Guardrail) -> GuardrailSpec:
    """Return a guardrail's specification, whichever form it stands in."""
    return declared.spec if isinstance(declared, Guardrail) else declared


def declared_guardrails(given: Any) -> Any:
    """Return what an agent is given as guardrails; ValueError for a bare function."""
    if not isinstance(given, Iterable) or isinstance(given, str | dict):
        return given
    declared = list(given)
    for each in declared:
        if callable(each) and not isinstance(each, Guardrail):
            raise ValueError(f"{getattr(each, '__name__', each)!r} is a bare function: put @guardrail on it")
    return declared


def resolved_guardrails(
    agent: str, names: Iterable[str], known: Mapping[str, GuardrailSpec]
) -> tuple[GuardrailSpec, ...]:
    """Return the worker's own specification for each name; DefinitionError for one that it lacks."""
    wanted = list(names)
    for name in wanted:
        if name not in known:
            raise DefinitionError(f"agent {agent!r}: no guardrail named {name!r}")
    return tuple(known[name] for name in wanted)
