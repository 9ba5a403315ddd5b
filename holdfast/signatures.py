"""Signatures: how a Python function's parameters become a tool's arguments."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import docstring_parser
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from holdfast.errors import DefinitionError, InputInvalid, field_errors
from holdfast.secrets import Secret
from holdfast.tool_context import ToolContext

_PLAIN_VALUES = ("const", "default", "enum", "examples")
"""Keywords of JSON schema that hold data, not schemas."""


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


def read_arguments(function: Callable[..., Any], documented: docstring_parser.Docstring) -> Arguments:
    """Read a tool's signature, with what its docstring says of each parameter; DefinitionError where it can't be."""
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
