"""Which model a run asks, and what it does when none answers: plain decisions, without Temporal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from holdfast.agent import Agent
from holdfast.carried import Asking
from holdfast.failure import CREDENTIALS_MISSING, MODEL_OUT, PRICE_UNKNOWN

FALLBACK_ATTEMPTS = 3
"""At most so many attempts of a model for which there is another."""
FALLBACK_PATIENCE_SECONDS = 10.0
"""The longest rest that such a model may ask for between them."""
_OUT_SECONDS = 60.0
_FIRST_REST_SECONDS = 60.0
_LONGEST_REST_SECONDS = 600.0
_SAYS_OUT = frozenset(
    {
        "ModelUnavailable",
        "ModelTimeout",
        "ModelRateLimited",
        "ModelUnauthorized",
        "ModelPaymentRequired",
        "ModelNotFound",
        CREDENTIALS_MISSING,
        PRICE_UNKNOWN,
    }
)
"""Failures that the next request would meet as well; others are of one request."""


@dataclass(frozen=True)
class Verdict:
    """What becomes of a step whose model has failed for good: one of these is said."""

    asks: str | None = None
    """The model to ask next."""
    until: float | None = None
    """When to ask again, in seconds since the epoch."""
    ends: Literal["degraded", "failed"] | None = None
    """How the run ends."""


class Models:
    """The models of one run: times are seconds, points in time seconds since the epoch.

    A model that failed in a step is not asked again in it, before the run has rested; the next step begins with the
    first that is not known to be out.
    """

    def __init__(self, agent: Agent, handed_on: Asking | None = None) -> None:
        known = handed_on or Asking()
        self.names = tuple(dict.fromkeys((agent.model, *agent.fallback_models)))
        self.answered_by = known.answered
        self.in_step = known.in_step
        self.asked = ""
        """The model that was asked last."""
        self._on_failure = agent.failure.model
        self._max_outage = agent.model_settings.max_outage_seconds
        self._tried = dict(known.tried)
        self._out = dict(known.out)
        self._resting = None if known.resting is None else (known.resting, known.until)
        self._rests = known.rests
        self._out_since = known.out_since

    @property
    def resting(self) -> tuple[str, float] | None:
        """The model that the run rests for, and until when."""
        return self._resting

    @property
    def may_fall_back(self) -> bool:
        """Whether there is another model, should the one that was asked last fail."""
        return any(name != self.asked and name not in self._tried for name in self.names)

    def next(self, now: float) -> str:
        """Return the model to ask: the first that has not failed in this step, rather one that is not known out."""
        return self._untried(now) or self.names[0]

    def ask(self, model: str) -> bool:
        """Note which model is asked; True where a step begins with it."""
        begins, self.in_step, self.asked, self._resting = not self.in_step, True, model, None
        return begins

    def answered(self) -> None:
        """Take that the model asked last has answered."""
        self.answered_by = self.asked
        self._out.pop(self.asked, None)
        self._rests, self._out_since = 0, None
        self.leave_step()

    def leave_step(self) -> None:
        """Forget what failed in this step: what is asked next is a step of its own."""
        self.in_step, self._tried, self._resting = False, {}, None

    def failed(self, error_type: str, now: float, retry_after: float | None, *, calls_left: bool) -> Verdict:
        """Take that the model asked last has failed for good, and say what comes next.

        Another model is asked; where a breaker has refused a call, the run rests until that model may be asked, for as
        long as an outage may last; else the agent's `failure.model` counts.
        """
        self._tried[self.asked] = error_type
        if error_type == MODEL_OUT:
            self._out[self.asked] = now + (retry_after or _OUT_SECONDS)
        elif error_type in _SAYS_OUT:
            self._out[self.asked] = now + max(_OUT_SECONDS, retry_after or 0.0)
        if not calls_left:
            return Verdict(ends="failed" if self._on_failure == "fail" else "degraded")
        following = self._untried(now)
        if following is not None:
            return Verdict(asks=following)
        return self._wait_for_a_breaker(now) or self._give_up(now, retry_after)

    def rested(self) -> None:
        """Take that a rest is over: every model may be asked again."""
        self._resting, self._tried = None, {}

    def handed_on(self) -> Asking:
        """Return what the next link must know."""
        resting, until = self._resting or (None, 0.0)
        return Asking(
            answered=self.answered_by,
            in_step=self.in_step,
            tried=self._tried,
            out=self._out,
            resting=resting,
            until=until,
            rests=self._rests,
            out_since=self._out_since,
        )

    def _untried(self, now: float) -> str | None:
        left = [name for name in self.names if name not in self._tried]
        return min(left, key=lambda name: self._out.get(name, 0.0) > now, default=None)

    def _wait_for_a_breaker(self, now: float) -> Verdict | None:
        refused = {self._out[name]: name for name in reversed(self.names) if self._tried.get(name) == MODEL_OUT}
        if not refused:
            return None
        if self._out_since is None:
            self._out_since = now
        until = min(refused)
        if self._max_outage is not None:
            end = self._out_since + self._max_outage
            if now >= end:
                return None
            return self._rest(refused[until], min(until, end))
        return self._rest(refused[until], until)

    def _give_up(self, now: float, retry_after: float | None) -> Verdict:
        if self._on_failure != "continue":
            return Verdict(ends="failed" if self._on_failure == "fail" else "degraded")
        seconds = min(_LONGEST_REST_SECONDS, _FIRST_REST_SECONDS * 2 ** min(self._rests, 10))
        self._rests += 1
        return self._rest(self.names[0], now + max(seconds, retry_after or 0.0))

    def _rest(self, model: str, until: float) -> Verdict:
        self._resting = (model, until)
        return Verdict(until=until)
