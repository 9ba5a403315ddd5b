"""Conditions on JSON data: what a policy rule says of a call's arguments, and of a run's metadata.

A model writes the arguments, so a condition is read against it. A rule that restricts matches as soon as *any* reading
of the value fits (a number written as text, one item of a list); a rule that allows, only where *all* of it fits.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase, translate
from typing import Annotated, Any

from pydantic import AfterValidator, Field, JsonValue, model_validator

from holdfast.bounds import canonical_json, to_json
from holdfast.data import Data

PATTERN_TEXT_MAX_CHARS = 16_384
"""A longer text is matched against no pattern: it fits a rule that restricts, and none that allows."""
_MISSING = object()
_TRUE, _FALSE = ("1", "true", "t", "yes", "y", "on"), ("0", "false", "f", "no", "n", "off")
"""Texts that a tool's boolean parameter takes."""


def _sound_pattern(pattern: str) -> str:
    try:
        re.compile(translate(pattern))
    except re.error as error:
        raise ValueError(f"is no pattern: {error}") from None
    if pattern.count("[") and "[" in re.sub(r"\[!?\]?[^]]*\]", "", pattern):
        raise ValueError("has a [ that no ] closes; write [[] for the character itself")
    return pattern


Pattern = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_sound_pattern)]
"""Read as `fnmatch` does, letter case included: `*`, `?`, `[abc]`, `[!abc]`."""
Number = Annotated[int, Field(strict=True)] | Annotated[float, Field(strict=True, allow_inf_nan=False)]


class Condition(Data):
    """All that is given must hold. A missing value meets nothing but `exists=False`."""

    equals: JsonValue = None
    """This very value: `True` is not 1, and "1" is not 1. For null, write `one_of: [null]`."""
    one_of: tuple[JsonValue, ...] | None = Field(default=None, min_length=1, max_length=1_000)
    pattern: Pattern | None = None
    """Of a text."""
    at_least: Number | None = None
    at_most: Number | None = None
    above: Number | None = None
    below: Number | None = None
    exists: bool | None = None
    """Whether there is such a value at all; null is one."""

    @model_validator(mode="after")
    def _says_something(self) -> Condition:
        if not self.wire():
            known = ", ".join(type(self).model_fields)
            raise ValueError(f"says nothing: give one of {known} (for null, one_of: [null])")
        if self.exists is False and len(self.wire()) > 1:
            raise ValueError("what does not exist can meet nothing else")
        to_json([self.equals, self.one_of])
        return self

    def holds(self, values: list[Any], *, restricting: bool) -> bool:
        """Say whether the values that a name stands for (see `values_at`) meet it."""
        met = (self._met(value, restricting) for value in values)
        return any(met) if restricting else all(met)

    def _met(self, value: Any, restricting: bool) -> bool:
        if value is _MISSING:
            return self.exists is False
        if self.exists is not None and not self.exists:
            return False
        if self._fits(value, restricting):
            return True
        if isinstance(value, list | tuple) and value:
            inner = (self._met(each, restricting) for each in value)
            return any(inner) if restricting else all(inner)
        return False

    def _fits(self, value: Any, restricting: bool) -> bool:
        wanted = self.one_of if self.equals is None else (self.equals,)
        if self.equals is not None and self.one_of is not None:
            wanted = tuple(each for each in self.one_of if _same(each, self.equals))
        same = _alike if restricting else _same
        if wanted is not None and not any(same(each, value) for each in wanted):
            return False
        return self._fits_pattern(value, restricting) and self._fits_bounds(value, restricting)

    def _fits_pattern(self, value: Any, restricting: bool) -> bool:
        if self.pattern is None:
            return True
        if not isinstance(value, str):
            if not restricting or isinstance(value, dict | list | tuple) or value is None:
                return False
            value = to_json(value)
        if len(value) > PATTERN_TEXT_MAX_CHARS:
            return restricting
        return fnmatchcase(value, self.pattern)

    def _fits_bounds(self, value: Any, restricting: bool) -> bool:
        bounds = (self.at_least, self.at_most, self.above, self.below)
        if all(bound is None for bound in bounds):
            return True
        if restricting and isinstance(value, list | tuple) and value:
            return False  # its items are asked one by one
        number = _read_number(value) if restricting else _number(value)
        if number is None or math.isnan(number):
            return restricting  # who can tell what the tool would make of it
        least, most, above, below = bounds
        return (
            (least is None or number >= least)
            and (most is None or number <= most)
            and (above is None or number > above)
            and (below is None or number < below)
        )


def values_at(name: str, data: Mapping[str, Any]) -> list[Any]:
    """Return all that a dotted name stands for: inside objects, and inside each item of a list (`items.price`).

    A number names one item of a list (`items.0.price`). A name that has dots of its own is found as well. What is
    missing, or is so in some of a list's items, is in the list as a mark that only `exists=False` meets.
    """
    return list(_values(name.split("."), data))


def _values(path: list[str], value: Any) -> Iterator[Any]:
    if not path:
        yield value
    elif isinstance(value, list | tuple):
        if path[0].isdecimal() and int(path[0]) < len(value):
            yield from _values(path[1:], value[int(path[0])])
        elif value and not path[0].isdecimal():
            for each in value:
                yield from _values(path, each)
        else:
            yield _MISSING
    elif isinstance(value, Mapping):
        lengths = [length for length in range(1, len(path) + 1) if ".".join(path[:length]) in value]
        for length in lengths:
            yield from _values(path[length:], value[".".join(path[:length])])
        if not lengths:
            yield _MISSING
    else:
        yield _MISSING


def _same(one: Any, other: Any) -> bool:
    """Say whether two JSON values are one and the same: 1 and 1.0 are, 1 and true are not."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, int | float) and isinstance(other, int | float):
        return one == other
    if isinstance(one, dict | list | tuple) and isinstance(other, dict | list | tuple):
        return canonical_json(_plain(one)) == canonical_json(_plain(other))
    return type(one) is type(other) and bool(one == other)


def _alike(one: Any, other: Any) -> bool:
    """Say whether a tool might take two JSON values for the same: "150" for 150, "yes" for true."""
    if _same(one, other):
        return True
    if isinstance(one, bool) or isinstance(other, bool):
        truth = _truth(one)
        return truth is not None and truth is _truth(other)
    number = _read_number(one)
    return number is not None and number == _read_number(other)


def _plain(value: Any) -> Any:
    """Write whole floats as integers, so that equal numbers have one form."""
    if isinstance(value, Mapping):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _number(value: Any) -> int | float | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _read_number(value: Any) -> int | float | None:
    if isinstance(value, str) and len(value) <= 400:
        try:
            return float(value)
        except ValueError:
            return None
    return value if isinstance(value, int | float) else None


def _truth(value: Any) -> bool | None:
    text = value.strip().lower() if isinstance(value, str) else None
    if value is True or text in _TRUE or (_number(value) == 1):
        return True
    return False if value is False or text in _FALSE or (_number(value) == 0) else None
