"""Circuit breakers: a model that fails again and again is left alone for a while, by all runs of a worker."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

from temporalio.exceptions import ApplicationError

from holdfast.activities.log import get_logger
from holdfast.bounds import cut
from holdfast.failure import MODEL_OUT

_log = get_logger("holdfast.breaker")
_LONGEST_SECONDS = 600.0
_WHILE_PROBING_SECONDS = 5.0
_SPREAD = 0.25
_MOST_MODELS = 1_000
_OUTAGES = frozenset({"ModelUnavailable", "ModelTimeout"})
"""What opens a breaker; with any other error the provider has answered."""


@dataclass
class Breaker:
    """One model's: closed while `until` is None, else open until then, and after that half-open."""

    failures: int = 0
    """In a row."""
    seconds: float = 0.0
    """How long it is open, or was last."""
    until: float | None = None
    probing: bool = False
    last: str = ""
    """The last failure, in its own words."""


class Breakers:
    """The breakers of one worker process, by the names that agents have for models; the clock counts seconds.

    `most` failures in a row, of any runs, open a breaker for `seconds`. Then one call is let through, the probe: if it
    is answered the breaker closes, else it opens for twice as long, up to 10 minutes. 0 turns breakers off.
    """

    def __init__(
        self,
        most: int = 10,
        seconds: float = 30.0,
        *,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._most = most
        self._seconds = seconds
        self._clock = clock
        self._chance = chance
        self._known: dict[str, Breaker] = {}

    @contextmanager
    def guarding(self, model: str, asked: Callable[[], bool] = lambda: True) -> Iterator[None]:
        """Make one request, and learn from how it ends; ApplicationError `ModelOut` where it is not to be made.

        Where `asked` says that no provider was asked after all, nothing is learnt.
        """
        seconds = self.admit(model)
        if seconds is not None:
            raise self._refusal(model, seconds)
        probe = self.is_open(model)
        try:
            yield
        except TimeoutError:
            if asked():
                self.failed(model, "no answer in time", probe=probe)
            raise
        except ApplicationError as error:
            if asked() and error.type in _OUTAGES:
                self.failed(model, f"{error.type}: {error.message}", probe=probe)
            elif asked():
                self.answered(model)
            raise
        else:
            if asked():
                self.answered(model)
        finally:
            if probe and model in self._known:
                self._known[model].probing = False  # where nothing was learnt, another call may be the probe

    def admit(self, model: str) -> float | None:
        """Let a request through, as the probe where the breaker is half-open; else say in how many seconds to ask.

        Some are told up to a quarter more, so that not all who wait ask at once.
        """
        known = self._known.get(model)
        if known is None or known.until is None:
            return None
        left = known.until - self._clock()
        if left <= 0 and not known.probing:
            known.probing = True
            return None
        wait = left if left > 0 else min(_WHILE_PROBING_SECONDS, known.seconds)
        return wait * (1 + _SPREAD * self._chance())

    def is_open(self, model: str) -> bool:
        """Say whether a model is held to be out; a call that is let through all the same is the probe."""
        known = self._known.get(model)
        return known is not None and known.until is not None

    def answered(self, model: str) -> None:
        """Take that the provider has answered: the breaker closes."""
        known = self._known.pop(model, None)
        if known is not None and known.until is not None:
            _log.info("model.back", model=model)

    def failed(self, model: str, said: str = "", *, probe: bool = False) -> None:
        """Take that the model is not to be reached; what was under way when the breaker opened says nothing new."""
        if not self._most:
            return
        known = self._known.setdefault(model, Breaker())
        known.failures += 1
        known.last = cut(said, 1_000)
        if probe or (known.until is None and known.failures >= self._most):
            known.seconds = min(_LONGEST_SECONDS, known.seconds * 2) if probe else self._seconds
            known.until = self._clock() + known.seconds
            _log.warning("model.out", model=model, failures=known.failures, seconds=known.seconds)
        if len(self._known) > _MOST_MODELS:
            del self._known[next(iter(self._known))]

    def _refusal(self, model: str, seconds: float) -> ApplicationError:
        known = self._known[model]
        told = f"{model} is held to be out after {known.failures} failures in a row, and asked again in {seconds:.0f} s"
        told += f"; the last one: {known.last}" if known.last else ""
        return ApplicationError(told, type=MODEL_OUT, non_retryable=True, next_retry_delay=timedelta(seconds=seconds))
