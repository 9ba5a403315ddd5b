"""Policy: which tool calls are made at once, which need a person, and which never happen."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, JsonValue, field_validator, model_validator

from holdfast.conditions import Condition, Pattern, values_at
from holdfast.data import Data

Action = Literal["allow", "deny", "request_approval", "request_user_input"]
RESTRAINT: dict[Action, int] = {"allow": 0, "request_user_input": 1, "request_approval": 2, "deny": 3}
"""How much an action restrains a call: of what several hooks say, that counts which restrains it most."""
RULES_MAX = 500


def _condition(given: Any) -> Any:
    """Read a plain value as the condition of being just that; an object is a condition already."""
    if isinstance(given, dict | Condition):
        return given
    return {"one_of": (None,)} if given is None else {"equals": given}


def _sound_name(name: str) -> str:
    if not all(name.split(".")) or len(name) > 200:
        raise ValueError(f"{name[:50]!r} is no dotted name of at most 200 characters")
    return name


Conditions = dict[str, Annotated[Condition, BeforeValidator(_condition)]]


class Match(Data):
    """What a rule is about; all of it must fit."""

    tool: Pattern = "*"
    """A tool's name, or a pattern of it: `refund`, `crm_*`."""
    agent: Pattern = "*"
    """An agent's name, or a pattern of it."""
    arguments: Conditions = Field(default_factory=dict)
    """Dotted name of an argument → its value, or a `Condition`."""
    context: Conditions = Field(default_factory=dict)
    """Dotted name in the run's metadata → its value, or a `Condition`."""

    @field_validator("arguments", "context", mode="before")
    @classmethod
    def _names_are_sound(cls, given: Any) -> Any:
        for name in given if isinstance(given, dict) else ():
            _sound_name(str(name))
        return given

    def fits(self, call: AskedCall, *, restricting: bool) -> bool:
        """Say whether a call is one of those that are meant; a rule that restricts is read the stricter way."""
        names = {call.tool, call.activity or call.tool} if restricting else {call.tool}
        if not any(fnmatchcase(name, self.tool) for name in names) or not fnmatchcase(call.agent, self.agent):
            return False
        found = ((self.arguments, call.arguments), (self.context, call.context))
        return all(
            condition.holds(values_at(name, data), restricting=restricting)
            for conditions, data in found
            for name, condition in conditions.items()
        )


class AskedCall(Data):
    """A tool call as rules and hooks see it."""

    tool: str
    activity: str = ""
    """The activity that carries it out, where that has another name: a rule that restrains matches that name too."""
    arguments: dict[str, Any] = Field(default_factory=dict)
    agent: str = ""
    context: dict[str, Any] = Field(default_factory=dict)
    """The run's metadata: of all rules, what they name of it; of hooks, all of it."""


class PolicyRule(Data):
    """One rule: the first that matches counts, by priority (the highest first), then by id."""

    id: Annotated[str, Field(min_length=1, max_length=100)]
    action: Action
    priority: Annotated[int, Field(strict=True, ge=-1_000_000, le=1_000_000)] = 0
    match: Match = Match()
    reason: Annotated[str, Field(max_length=2_000)] = ""
    """Told to the model with a deny, and to the person who is asked."""
    question: Annotated[str, Field(max_length=2_000)] = ""
    """With `request_user_input`: what the person is asked; by default, to see to this call."""
    into: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    """With `request_user_input`: the argument that the answer is put into before the call is made. Without it the call
    is not made, and the model gets the answer in place of a result."""

    @model_validator(mode="after")
    def _asks_where_it_says_so(self) -> PolicyRule:
        if self.action != "request_user_input" and (self.question or self.into):
            raise ValueError(f"rule {self.id!r}: question and into are for request_user_input")
        return self

    def matches(self, call: AskedCall) -> bool:
        """Say whether the rule speaks of a call."""
        return self.match.fits(call, restricting=self.action != "allow")


class Policy(Data):
    """Rules about tool calls. A call that no rule matches is as its tool says."""

    rules: Annotated[tuple[PolicyRule, ...], Field(max_length=RULES_MAX)] = ()

    @field_validator("rules")
    @classmethod
    def _is_in_order(cls, rules: tuple[PolicyRule, ...]) -> tuple[PolicyRule, ...]:
        known: set[str] = set()
        for rule in rules:
            if rule.id in known:
                raise ValueError(f"two rules have the id {rule.id!r}")
            known.add(rule.id)
        return tuple(sorted(rules, key=lambda rule: (-rule.priority, rule.id)))

    def first(self, call: AskedCall) -> PolicyRule | None:
        """Return the rule that counts for a call; None where none speaks of it."""
        return next((rule for rule in self.rules if rule.matches(call)), None)

    def context_of(self, metadata: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
        """Return those top-level fields of a run's metadata that rules name."""
        named = {name for rule in self.rules for name in rule.match.context}
        tops = {".".join(name.split(".")[: length + 1]) for name in named for length in range(name.count(".") + 1)}
        return {name: value for name, value in metadata.items() if name in tops}
