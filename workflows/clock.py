"""The clocks of a run: active time, which stands still while it waits for people, and the deadline, which does not."""

from __future__ import annotations

from dataclasses import dataclass

from holdfast.agent import Limits


@dataclass
class Clock:
    """All times are seconds; points in time are seconds since the epoch."""

    limits: Limits
    started_at: float
    active_seconds: float = 0.0
    """Active time until `since`."""
    since: float | None = None
    """When the present stretch of active time began; None while the clock stands still."""

    @property
    def runs(self) -> bool:
        """True while active time passes."""
        return self.since is not None

    def turn(self, active: bool, now: float) -> None:
        """Let active time pass, or stand still."""
        self.active_seconds, self.since = self.active(now), now if active else None

    def active(self, now: float) -> float:
        """Return the active time so far."""
        return self.active_seconds + (0.0 if self.since is None else max(0.0, now - self.since))

    def next_limit(self, now: float) -> tuple[float, str] | None:
        """Return in how many seconds which limit will be reached, if things stay as they are."""
        known = []
        if self.limits.deadline_seconds is not None:
            known.append((self.started_at + self.limits.deadline_seconds - now, "deadline_seconds"))
        if self.limits.max_active_seconds is not None and self.runs:
            known.append((self.limits.max_active_seconds - self.active(now), "max_active_seconds"))
        return min(known, default=None)
