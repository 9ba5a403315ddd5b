"""What failures do to a run, as its agent says: plain decisions, without Temporal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import JsonValue

from holdfast.failure import Failure
from holdfast.run import RunError

Kind = Literal["tool", "subagent", "denial"]
_DENIALS = frozenset({"ApprovalDenied", "PolicyDenied", "PolicyFailed"})
_MISTAKES = frozenset({"ToolArgumentsInvalid", "InputInvalid"})
"""Arguments that do not fit are the model's mistake, not the tool's failure: the model is told, whatever is set."""


class Tolerance:
    """Counts the failures that a run goes on after, and keeps the first that it must not go on after."""

    def __init__(self, policy: Failure, tolerated: Mapping[str, int] | None = None) -> None:
        self.policy = policy
        self.tolerated = dict(tolerated or {})
        """Kind → how many failures of it make the run's end a degraded one."""
        self.fatal: RunError | None = None

    def take(self, kind: Kind, error: RunError) -> None:
        """Take a failure."""
        if getattr(self.policy, kind) == "degrade":
            self.tolerated[kind] = self.tolerated.get(kind, 0) + 1
        elif getattr(self.policy, kind) == "fail":
            self.fatal = self.fatal or error

    def summary(self) -> dict[str, JsonValue]:
        """Return what a result's `state_snapshot` says of it."""
        return {"tolerated_failures": {**self.tolerated}} if self.tolerated else {}


def kind_of(error_type: str | None, *, made: bool, subagent: bool) -> Kind | None:
    """Say what kind of failure a call's end is, if it is one; `made` says that the tool was called."""
    if error_type in _DENIALS:
        return "denial"
    if error_type is None or not made or error_type in _MISTAKES:
        return None
    return "subagent" if subagent else "tool"
