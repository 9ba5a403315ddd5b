"""Whether the last answer is what the agent is to give, and how often the model is told that it isn't."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from holdfast.agent import Agent
from holdfast.message import Turn
from holdfast.outputs import read_json, repair_note


@dataclass
class Answers:
    """The last answer held against the agent's `output_schema`; without one, every text is an answer."""

    structured: bool = False
    retries: int = 0
    """Times that the model may be told what is wrong, since the last message of a person."""
    fits: bool = False
    """Whether the last turn was an answer that fits."""
    error: str | None = None
    """What is wrong with it, as `model.call` found."""
    repairs: int = 0
    """Times that the model was told."""

    @classmethod
    def of(cls, agent: Agent, fits: bool = False, error: str | None = None, repairs: int = 0) -> Answers:
        """Begin, or go on from what a link has handed on."""
        return cls(agent.output_schema is not None, agent.output_retries, fits, error, repairs)

    def record(self, turn: Turn) -> None:
        """Take a whole turn; one with tool calls is no answer."""
        answered = self.structured and not turn.message.tool_calls
        self.fits, self.error = answered and turn.output_error is None, turn.output_error
        if self.fits:
            self.repairs = 0

    @property
    def taken(self) -> bool:
        """Whether the run may end with the last answer."""
        return self.fits or not self.structured

    @property
    def repairable(self) -> bool:
        """Whether the last answer does not fit, and the model may be told so once more."""
        return not self.taken and self.repairs < self.retries

    def heard(self) -> None:
        """Let the repairs begin anew: a person has said something since."""
        self.repairs = 0

    def repair(self) -> str:
        """Count a repair, and word it."""
        self.repairs += 1
        return repair_note(self.error)

    def output(self, text: str) -> Any:
        """Return a run's output: of a structured one the JSON where its last answer fits, else None; else the text."""
        if not self.structured:
            return text
        return read_json(text) if self.fits else None

    def refusal(self) -> str:
        """Say why the run can't end with the last answer."""
        told = f", after {self.repairs} repair{'s' if self.repairs > 1 else ''}" if self.repairs else ""
        return f"the answer does not fit the output_schema{told}: {self.error or 'it was not checked'}"
