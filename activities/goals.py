"""Goals: Jinja templates of the first user message, rendered in a sandbox, strictly, within bounds.

Every single operation is bounded in what it can make out of what it is given, and every loop and filter looks at the
clock; so no template can take a worker's memory or its time. What can't be bounded so (macros, blocks that are kept in
memory, most string methods) is refused.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any

from jinja2 import StrictUndefined, TemplateError, TemplateSyntaxError, Undefined, nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.exceptions import SecurityError
from jinja2.filters import FILTERS
from jinja2.sandbox import ImmutableSandboxedEnvironment

from holdfast.bounds import REQUEST_MAX_BYTES, cut
from holdfast.errors import InputInvalid

_SECONDS = 2.0
_ARGUMENT_MAX = 1000
"""A filter's numbers, and the length of its texts."""
_NUMBER_MAX = 2**64
_RANGE_MAX = 10_000

_REFUSED = (
    nodes.AssignBlock,
    nodes.Block,
    nodes.CallBlock,
    nodes.FilterBlock,
    nodes.FromImport,
    nodes.Import,
    nodes.Include,
    nodes.Extends,
    nodes.Macro,
    nodes.NSRef,
)
_FILTERS = (
    *("abs", "capitalize", "count", "d", "default", "dictsort", "first", "float", "groupby", "indent", "int", "items"),
    *("join", "last", "length", "list", "lower", "map", "max", "min", "reject", "rejectattr", "replace", "reverse"),
    *("round", "select", "selectattr", "sort", "string", "sum", "title", "trim", "truncate", "unique"),
    *("upper", "wordcount"),
)
_TAKE_LISTS = frozenset({"d", "default", "reject", "rejectattr", "select", "selectattr"})
_METHODS = frozenset(
    (
        *("capitalize", "changed", "count", "cycle", "endswith", "find", "get", "index", "items", "keys", "lower"),
        *("lstrip", "removeprefix", "removesuffix", "rstrip", "split", "splitlines", "startswith", "strip", "title"),
        *("upper", "values"),
    )
)


class _Generator(CodeGenerator):
    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:  # noqa: N802 - the name is Jinja's
        self.write("environment.concatenate(")
        for each in node.nodes:
            self.visit(each, frame)
            self.write(", ")
        self.write(")")


class _Goals(ImmutableSandboxedEnvironment):
    """Jinja's own sandbox, and a bound for each thing that makes much out of little."""

    code_generator_class = _Generator
    intercepted_binops = frozenset({"+", "*", "%", "**"})

    def __init__(self) -> None:
        super().__init__(undefined=StrictUndefined, autoescape=False, keep_trailing_newline=False)
        self.globals = {"range": _range}
        self.filters = {name: _bounded(FILTERS[name], name in _TAKE_LISTS) for name in _FILTERS}
        self.filters["tojson"] = _to_json

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        for found in tree.find_all(_REFUSED):
            raise TemplateSyntaxError(f"{type(found).__name__} is not allowed here", found.lineno)
        for literal in tree.find_all((nodes.List, nodes.Tuple, nodes.Dict)):
            if getattr(literal, "ctx", "load") == "load" and any(literal.find_all((nodes.Name, nodes.Filter))):
                raise TemplateSyntaxError("a list or dict may hold constants only", literal.lineno)
        for loop in tree.find_all(nodes.For):
            if loop.recursive:
                raise TemplateSyntaxError("a recursive loop is not allowed here", loop.lineno)
            loop.body.insert(0, nodes.Output([nodes.TemplateData("")]))  # so that render sees every turn
        return tree

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Take numbers of a common size, and bounded texts for +."""
        if isinstance(left, Undefined) or isinstance(right, Undefined):
            return super().call_binop(context, operator, left, right)  # which says what is missing
        if operator == "+" and isinstance(left, str) and isinstance(right, str):
            return self.concatenate(left, right)
        if operator == "**" or not all(isinstance(each, int | float) for each in (left, right)):
            raise SecurityError(f"the operator {operator} is not allowed here")
        if max(abs(left), abs(right)) > _NUMBER_MAX:
            raise SecurityError("the number is too large")
        return super().call_binop(context, operator, left, right)

    def call(self, context: Any, callee: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Call range, and those methods of JSON data that make no more than they are given."""
        name = getattr(callee, "__name__", "it")
        is_ours = hasattr(callee, "__self__") and name in _METHODS
        if not (is_ours or callee is _range or isinstance(callee, Undefined)):
            raise SecurityError(f"{name}() is not allowed here")
        return super().call(context, callee, *args, **kwargs)

    def concatenate(self, *parts: Any) -> str:
        """Join texts, within the bound of a whole goal."""
        text = "".join(map(str, parts))
        _small(text)
        return text


def _range(*bounds: int) -> range:
    numbers = range(*bounds)
    if len(numbers) > _RANGE_MAX:
        raise SecurityError(f"a range may hold {_RANGE_MAX:,} numbers")
    return numbers


def _bounded(function: Callable[..., Any], takes_lists: bool) -> Callable[..., Any]:
    """Wrap one of Jinja's filters; the marks that it passes its context by stay on it."""
    given = 2 if hasattr(function, "jinja_pass_arg") else 1

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        for each in (*args[given:], *kwargs.values()):
            is_large = (
                len(each) > _ARGUMENT_MAX
                if isinstance(each, str)
                else abs(each) > _ARGUMENT_MAX
                if isinstance(each, int | float)
                else isinstance(each, list | tuple | dict) and not takes_lists
            )
            if is_large:
                raise SecurityError("a filter's argument is too large")
        return _small(function(*args, **kwargs))

    wrapped.__dict__.update(getattr(function, "__dict__", {}))
    return wrapped


def _to_json(value: Any, indent: int | None = None) -> str:
    text = json.dumps(value, ensure_ascii=False, indent=None if indent is None else min(int(indent), 8))
    _small(text)
    return text


def _small(value: Any) -> Any:
    if time.monotonic() > _deadline.get():
        raise SecurityError(f"takes longer than {_SECONDS} seconds")
    if isinstance(value, str) and len(value) > REQUEST_MAX_BYTES:
        raise SecurityError(f"a text grows beyond {REQUEST_MAX_BYTES:,} bytes")
    return value


_ENVIRONMENT = _Goals()
_deadline = ContextVar("deadline", default=math.inf)


def render(goal: str, given: Mapping[str, Any]) -> str:
    """Render a goal with a run's input, within 256 KB and 2 seconds; InputInvalid for a missing name or a bad goal."""
    deadline, size, pieces = time.monotonic() + _SECONDS, 0, []
    _deadline.set(deadline)
    try:
        for piece in _ENVIRONMENT.from_string(goal).generate(given):
            size += len(piece.encode())
            if size > REQUEST_MAX_BYTES or time.monotonic() > deadline:
                raise InputInvalid({"goal": f"renders to more than {REQUEST_MAX_BYTES:,} bytes or {_SECONDS} seconds"})
            pieces.append(piece)
    except InputInvalid:
        raise
    except (
        TemplateError,
        AttributeError,
        TypeError,
        ValueError,
        SyntaxError,
        ArithmeticError,
        LookupError,
        RecursionError,
        MemoryError,
    ) as error:
        raise InputInvalid({"goal": f"can't be rendered: {cut(str(error), 300)}"}) from None
    return "".join(pieces)
