"""Policy hooks: Python on the worker, for what rules can't say."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from pydantic import Field, ValidationError

from holdfast.data import Data
from holdfast.errors import DefinitionError, InputInvalid, field_errors
from holdfast.policy import Action, AskedCall, Policy, PolicyRule

HOOKS_MAX = 32


class PolicyRequest(AskedCall):
    """A tool call that a hook is asked about: tool, arguments, agent, context, and which call of which run it is."""

    run_id: str
    call_id: str


class PolicyDecision(Data):
    """What a hook says of a call. It may only restrain: `allow`, like None, leaves all to the rules."""

    action: Action
    reason: str = Field(default="", max_length=2_000)
    """Told to the model with a deny, and to the person who is asked."""
    question: str = Field(default="", max_length=2_000)
    """With `request_user_input`: what the person is asked."""
    into: str | None = Field(default=None, min_length=1, max_length=200)
    """With `request_user_input`: the argument that the answer is put into, as in a `PolicyRule`."""


Hook = Callable[[PolicyRequest], PolicyDecision | Awaitable[PolicyDecision | None] | None]


class PolicyEngine:
    """A worker's policy: rules, and hooks in Python, sync or async. It holds for every agent that the worker runs.

    Hooks are asked once a turn, before any of its calls is made, about those calls that no rule forbids. One that
    raises, or takes longer than `timeout_seconds` for the turn, is asked again, `max_attempts` times in all; then the
    calls are refused. DefinitionError for a broken rule, and for what is no hook.
    """

    def __init__(
        self,
        rules: Policy | Iterable[PolicyRule | dict[str, Any]] = (),
        hooks: Iterable[Hook] = (),
        *,
        timeout_seconds: float = 30,
        max_attempts: int = 3,
    ) -> None:
        try:
            given = rules.rules if isinstance(rules, Policy) else tuple(rules)
            self.policy = Policy.model_validate({"rules": given})
        except ValidationError as error:
            raise DefinitionError(f"policy: {InputInvalid(field_errors(error))}") from None
        self.hooks: dict[str, Hook] = {}
        for hook in hooks:
            name = _name_of(hook)
            if name in self.hooks:
                raise DefinitionError(f"policy: two hooks are named {name!r}")
            self.hooks[name] = hook
        if len(self.hooks) > HOOKS_MAX:
            raise DefinitionError(f"policy: at most {HOOKS_MAX} hooks are taken")
        if not 0 < timeout_seconds <= 3600 or not 1 <= max_attempts <= 20:
            raise DefinitionError("policy: timeout_seconds is over 0 and at most 3,600; max_attempts is 1 to 20")
        self.timeout_seconds = timeout_seconds
        self.max_attempts = max_attempts

    @classmethod
    def of(cls, given: Policy | PolicyEngine | None) -> PolicyEngine:
        """Take rules alone, or a whole engine."""
        return given if isinstance(given, PolicyEngine) else cls(given or ())

    def __repr__(self) -> str:
        return f"<PolicyEngine of {len(self.policy.rules)} rules, hooks: {', '.join(self.hooks) or 'none'}>"


def _name_of(hook: Hook) -> str:
    name = getattr(hook, "__name__", None) or type(hook).__name__
    if not callable(hook):
        raise DefinitionError(f"policy: {name} is no function, so it can be no hook")
    try:
        inspect.signature(hook).bind(object())
    except (TypeError, ValueError) as error:
        raise DefinitionError(f"policy: hook {name} must take one PolicyRequest: {error}") from None
    return str(name)[:100]
