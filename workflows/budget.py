"""What a run has used up, and which of its limits that has reached: plain data, without Temporal."""

from __future__ import annotations

from dataclasses import dataclass, field

from holdfast.agent import Limits
from holdfast.carried import Counts
from holdfast.message import Usage


@dataclass
class Budget:
    """Counts and costs of one run, held against its limits."""

    limits: Limits
    counts: Counts = field(default_factory=Counts)
    base: Counts = field(default_factory=Counts)
    """What had been done when this run_seq began: limits count from there."""
    usage: Usage = field(default_factory=Usage)
    reached: str | None = None
    """The first limit whose count was used up."""

    @property
    def tool_calls(self) -> int:
        """Tool calls of this run_seq."""
        return self.counts.tool_calls - self.base.tool_calls

    @property
    def model_calls_left(self) -> int:
        """Model calls that may still be made."""
        return self.limits.max_model_calls - (self.counts.model_calls - self.base.model_calls)

    @property
    def cost_left(self) -> float | None:
        """Dollars that may still be spent; None without a bound."""
        most = self.limits.max_cost_usd
        return None if most is None else max(0.0, most - (self.counts.cost_usd - self.base.cost_usd))

    def reach(self, limit: str) -> None:
        """Note that a limit's count is used up; the first one counts."""
        self.reached = self.reached or limit

    def take_step(self) -> None:
        """Count a step, before its model call."""
        self._count(steps=1)
        if self.counts.steps - self.base.steps >= self.limits.max_steps:
            self.reach("max_steps")

    def take_call(self) -> None:
        """Count a model call that takes a step, or goes on with it, before it is made."""
        self._count(model_calls=1)
        if self.model_calls_left <= 0:
            self.reach("max_model_calls")

    def give_back(self) -> None:
        """Count a model call no more: it was not made."""
        self._count(model_calls=-1)
        if self.reached == "max_model_calls":
            self.reached = None

    def take_model_call(self) -> None:
        """Count a model call that is no step."""
        self._count(model_calls=1)

    def take_tool_calls(self, made: int) -> None:
        """Count the tool calls of one turn that were made."""
        self._count(tool_calls=made)
        if self.tool_calls >= self.limits.max_tool_calls:
            self.reach("max_tool_calls")

    def spend(self, usage: Usage) -> None:
        """Take what a call has cost."""
        self.usage = self.usage + usage
        self.counts = self.counts.model_copy(update={"cost_usd": self.usage.cost_usd})
        if self.cost_left == 0:
            self.reach("max_cost_usd")

    def _count(self, **more: int) -> None:
        self.counts = self.counts.model_copy(
            update={name: getattr(self.counts, name) + number for name, number in more.items()}
        )
