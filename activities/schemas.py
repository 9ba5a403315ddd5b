"""Input schemas, which anybody may send: checked in bounded time, and without asking anybody for what they refer to."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import jsonschema
import regex
from jsonschema.exceptions import SchemaError, ValidationError
from referencing import Registry
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012

from holdfast.bounds import cut
from holdfast.errors import DefinitionError, InputInvalid

_SECONDS = 2.0
_PATTERN_SECONDS = 1.0

Keyword = Callable[[Any, Any, Any, Any], Iterator[ValidationError] | None]


def check(schema: dict[str, Any], given: Any, *, name: str, where: str) -> None:
    """Raise InputInvalid, with every field's message, for data that does not fit, DefinitionError for a bad schema.

    Nothing is fetched for a `$ref`, and all of it takes at most 2 seconds, 1 for a pattern: a longer one is refused.
    """
    try:
        base = jsonschema.validators.validator_for(schema)
        base.check_schema(schema)
        if "unevaluatedProperties" in (found := _keywords(schema)) and "patternProperties" in found:
            raise DefinitionError(
                f"{name} has unevaluatedProperties beside patternProperties: use additionalProperties"
            )
        validator = _bounded(base)(schema, registry=Registry())
        errors = {
            ".".join([where, *map(str, error.absolute_path)]): _shown(error.message)
            for error in validator.iter_errors(given)
        }
    except SchemaError as error:
        raise DefinitionError(f"{name} is no JSON schema: {cut(error.message, 300)}") from None
    except Unresolvable as error:
        raise DefinitionError(f"{name} refers to what is not in it: {cut(str(error.ref), 300)}") from None
    except TimeoutError:
        raise InputInvalid({where: "takes too long to be checked against the schema"}) from None
    except (regex.error, RecursionError, TypeError, AttributeError) as error:
        raise DefinitionError(f"{name} can't be used: {cut(str(error), 300)}") from None
    if errors:
        raise InputInvalid(errors)


def check_schema(schema: dict[str, Any], *, name: str) -> None:
    """Raise DefinitionError for what is no JSON schema, or refers to what is not in it."""
    try:
        base = jsonschema.validators.validator_for(schema)
        base.check_schema(schema)
        found = Registry().with_resource("", DRAFT202012.create_resource(schema)).resolver()
        for ref in () if "$id" in _keywords(schema) else _refs(schema):
            found.lookup(ref)
    except SchemaError as error:
        raise DefinitionError(f"{name} is no JSON schema: {cut(error.message, 300)}") from None
    except Unresolvable as error:
        raise DefinitionError(f"{name} refers to what is not in it: {cut(str(error.ref), 300)}") from None
    except (regex.error, RecursionError, TypeError, AttributeError, ValueError) as error:
        raise DefinitionError(f"{name} can't be used: {cut(str(error), 300)}") from None


def _refs(schema: Any) -> Iterator[str]:
    """Return what a schema refers to, the data in it left out."""
    if isinstance(schema, Mapping):
        for keyword, each in schema.items():
            if keyword == "$ref" and isinstance(each, str):
                yield each
            elif keyword not in ("const", "default", "enum", "examples"):
                yield from _refs(each)
    elif isinstance(schema, list):
        for each in schema:
            yield from _refs(each)


def _shown(message: str) -> str:
    """Shorten a message in its middle: what is wrong stands at its end, behind the data."""
    return message if len(message) <= 300 else f"{message[:140]} … {message[-150:]}"


def _keywords(schema: Any) -> set[str]:
    """Return every name that stands anywhere in a schema."""
    if isinstance(schema, Mapping):
        return {*schema, *(name for each in schema.values() for name in _keywords(each))}
    if isinstance(schema, list):
        return {name for each in schema for name in _keywords(each)}
    return set()


def _bounded(base: Any) -> Any:
    """Extend a validator class: every keyword looks at the clock, and patterns are searched with a timeout."""
    deadline = time.monotonic() + _SECONDS
    ours: dict[str, Keyword] = {
        "pattern": partial(_pattern, deadline),
        "patternProperties": partial(_pattern_properties, deadline),
        "additionalProperties": partial(_additional_properties, deadline, base.VALIDATORS["additionalProperties"]),
    }
    extend: Any = jsonschema.validators.extend
    return extend(
        base, {name: partial(_timed, deadline, keyword) for name, keyword in {**base.VALIDATORS, **ours}.items()}
    )


def _timed(deadline: float, keyword: Keyword, *given: Any) -> Iterator[ValidationError]:
    if time.monotonic() > deadline:
        raise TimeoutError
    yield from keyword(*given) or ()


def _found(deadline: float, pattern: str, text: str) -> bool:
    seconds = min(_PATTERN_SECONDS, deadline - time.monotonic())
    if seconds <= 0:
        raise TimeoutError
    return regex.search(pattern, text, timeout=seconds, concurrent=True) is not None


def _pattern(deadline: float, validator: Any, pattern: str, given: Any, _: Any) -> Iterator[ValidationError]:
    if validator.is_type(given, "string") and not _found(deadline, pattern, given):
        yield ValidationError(f"{given!r} does not match {pattern!r}")


def _pattern_properties(
    deadline: float, validator: Any, patterns: Mapping[str, Any], given: Any, _: Any
) -> Iterator[ValidationError]:
    if validator.is_type(given, "object"):
        for pattern, schema in patterns.items():
            for key, value in given.items():
                if _found(deadline, pattern, key):
                    yield from validator.descend(value, schema, path=key, schema_path=pattern)


def _additional_properties(
    deadline: float, theirs: Keyword, validator: Any, allowed: Any, given: Any, schema: Mapping[str, Any]
) -> Iterator[ValidationError]:
    """Hand their keyword only what no pattern has matched, so that it searches for none itself."""
    patterns = schema.get("patternProperties", {})
    if patterns and validator.is_type(given, "object"):
        given = {
            key: value for key, value in given.items() if not any(_found(deadline, each, key) for each in patterns)
        }
        schema = {name: value for name, value in schema.items() if name != "patternProperties"}
    yield from theirs(validator, allowed, given, schema) or ()
