"""Goals: Jinja templates of the first user message, rendered in a sandbox, strictly, within bounds."""

from __future__ import annotations

import time
from typing import Any

from jinja2 import StrictUndefined, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment, SecurityError

from holdfast.bounds import REQUEST_MAX_BYTES, cut
from holdfast.errors import InputInvalid

_SECONDS = 2.0


class _Goals(ImmutableSandboxedEnvironment):
    """Jinja's own sandbox; what it calls is also bounded in time."""

    intercepted_binops = frozenset({"*", "**"})

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Refuse the operators that make much out of little."""
        if operator == "**" or not all(isinstance(each, int | float) for each in (left, right)):
            raise SecurityError(f"the operator {operator} is not allowed here")
        return super().call_binop(context, operator, left, right)


_ENVIRONMENT = _Goals(undefined=StrictUndefined, autoescape=False, keep_trailing_newline=False)


def render(goal: str, given: dict[str, Any]) -> str:
    """Render a goal with a run's input; InputInvalid for a missing name, a bad template, or one that is too large.

    Rendering is bounded at 256 KB and 2 seconds of output; the activity around it bounds one that puts out nothing.
    """
    deadline, size, pieces = time.monotonic() + _SECONDS, 0, []
    try:
        for piece in _ENVIRONMENT.from_string(goal).generate(**given):
            size += len(piece)
            if size > REQUEST_MAX_BYTES or time.monotonic() > deadline:
                raise InputInvalid({"goal": f"renders to more than {REQUEST_MAX_BYTES:,} bytes or {_SECONDS} seconds"})
            pieces.append(piece)
    except InputInvalid:
        raise
    except (
        TemplateError,
        TypeError,
        ValueError,
        ArithmeticError,
        LookupError,
        RecursionError,
        MemoryError,
    ) as error:
        raise InputInvalid({"goal": f"can't be rendered: {cut(str(error), 300)}"}) from None
    return "".join(pieces)
