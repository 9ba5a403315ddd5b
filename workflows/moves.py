"""What a run does next: one of these, decided by `RunState`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from holdfast.calls import Compact, GuardrailCheck, ModelCall, PolicyCheck
from holdfast.run import RunError
from holdfast.workflows.turn import Turn


@dataclass(frozen=True)
class CallModel:
    """Next: ask the model."""

    call: ModelCall


@dataclass(frozen=True)
class CallTools:
    """Next: settle the calls of the last turn that have not ended."""

    turn: Turn


@dataclass(frozen=True)
class CompactContext:
    """Next: have the oldest turns summarised."""

    call: Compact


@dataclass(frozen=True)
class Rest:
    """Next: ask no model before a time."""

    model: str
    until: float
    """Seconds since the epoch."""


@dataclass(frozen=True)
class Finish:
    """Next: end the run."""

    status: Literal["completed", "degraded"]
    text: str


@dataclass(frozen=True)
class Fail:
    """Next: end the run as failed."""

    error: RunError


@dataclass(frozen=True)
class Review:
    """Next: ask the worker's guardrails or hooks."""

    check: GuardrailCheck | PolicyCheck


Move = CallModel | CallTools | CompactContext | Rest | Review | Finish | Fail
