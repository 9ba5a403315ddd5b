"""A circuit breaker as a table: what happens to one model, when, and what a call is told then."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import pytest
from temporalio.exceptions import ApplicationError

from holdfast.activities.breaker import Breakers


class Clock:
    """A clock that stands until it is set."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def breakers(clock: Clock, most: int = 3, chance: Callable[[], float] = lambda: 0.0) -> Breakers:
    """Breakers that open after three failures, for 30 seconds."""
    return Breakers(most, 30.0, clock=clock, chance=chance)


def attempt(at: Breakers, word: str, model: str = "m") -> str:
    """Make one call that ends as the word says; return how it went."""
    try:
        with at.guarding(model, lambda: word != "unasked"):
            match word:
                case "ok":
                    return "asked"
                case "late":
                    raise TimeoutError
                case "unasked":
                    raise ApplicationError("no price", type="ModelPriceUnknown")
                case "gone":
                    raise KeyboardInterrupt
                case _:
                    raise ApplicationError("because", type=word)
    except ApplicationError as error:
        if error.type != "ModelOut":
            return "asked"
        assert error.non_retryable
        assert error.next_retry_delay is not None
        return f"{error.next_retry_delay.total_seconds():g}"
    except (TimeoutError, KeyboardInterrupt):
        return "asked"


DOWN = "ModelUnavailable"
OPEN = [(0, DOWN, "asked"), (0, "ModelTimeout", "asked"), (0, "late", "asked")]
CASES: dict[str, list[tuple[float, str, str]]] = {
    "three in a row open it": [*OPEN, (1, "ok", "29"), (29, "ok", "1")],
    "an answer between begins anew": [*OPEN[:2], (0, "ok", "asked"), *OPEN[:2], (0, "ok", "asked")],
    "a rate limit is an answer": [*OPEN[:2], (0, "ModelRateLimited", "asked"), *OPEN[:2], (0, "ok", "asked")],
    "a refused request is an answer": [*OPEN[:2], (0, "ModelRequestInvalid", "asked"), *OPEN[:2], (0, "ok", "asked")],
    "what was never asked says nothing": [*OPEN[:2], (0, "unasked", "asked"), OPEN[2], (0, "ok", "30")],
    "a call that was stopped says nothing": [*OPEN[:2], (0, "gone", "asked"), OPEN[2], (0, "ok", "30")],
    "a probe that is answered closes it": [*OPEN, (30, "ok", "asked"), (30, "ok", "asked")],
    "a probe that is refused closes it": [*OPEN, (30, "ModelRateLimited", "asked"), (30, "ok", "asked")],
    "a probe that fails opens it for twice as long": [
        *OPEN,
        (30, DOWN, "asked"),
        (31, "ok", "59"),
        (90, "late", "asked"),
        (90, "ok", "120"),
    ],
    "10 minutes are the longest": [
        *OPEN,
        *[(30 * (2**doubled - 1), DOWN, "asked") for doubled in range(1, 6)],
        (930, "ok", "600"),
        (1_529, "ok", "1"),
        (1_530, DOWN, "asked"),
        (1_530, "ok", "600"),
    ],
    "a probe that asked nobody leaves the next one to be it": [
        *OPEN,
        (30, "unasked", "asked"),
        (30, DOWN, "asked"),
        (30, "ok", "60"),
    ],
    "a probe that was stopped leaves the next one to be it": [*OPEN, (30, "gone", "asked"), (30, "ok", "asked")],
    "closed again, it takes three": [*OPEN, (30, "ok", "asked"), *[(31, DOWN, "asked")] * 3, (31, "ok", "30")],
}


@pytest.mark.parametrize("calls", CASES.values(), ids=CASES)
def test_breaker(calls: list[tuple[float, str, str]]) -> None:
    clock = Clock()
    at = breakers(clock)
    told = []
    for clock.now, word, _ in calls:
        told.append(attempt(at, word))
    assert told == [each for _, _, each in calls]


def test_a_breaker_is_one_models_own() -> None:
    at = breakers(Clock())
    for _, word, _ in OPEN:
        attempt(at, word)
    assert (attempt(at, "ok"), attempt(at, "ok", "other")) == ("30", "asked")


def test_breakers_may_be_turned_off() -> None:
    at = breakers(Clock(), most=0)
    assert {attempt(at, DOWN) for _ in range(50)} == {"asked"}


def test_while_one_call_probes_others_are_refused_for_a_short_while() -> None:
    clock = Clock()
    at = breakers(clock)
    for _, word, _ in OPEN:
        attempt(at, word)
    clock.now = 31.0
    with at.guarding("m"):
        assert [attempt(at, "ok") for _ in range(3)] == ["5"] * 3
    assert attempt(at, "ok") == "asked"


def test_a_call_that_was_under_way_when_it_opened_neither_opens_it_further_nor_ends_the_probe() -> None:
    clock = Clock()
    at = breakers(clock)
    with suppress(TimeoutError), at.guarding("m"):
        for _, word, _ in OPEN:
            attempt(at, word)
        clock.now = 31.0
        raise TimeoutError
    with at.guarding("m"):
        at.failed("m", "another one")
        assert attempt(at, "ok") == "5"
    assert attempt(at, "ok") == "asked"


def test_those_who_are_refused_come_back_spread_over_a_quarter_of_the_time() -> None:
    chances = iter([0.0, 0.5, 1.0])
    at = breakers(Clock(), chance=lambda: next(chances))
    for _, word, _ in OPEN:
        attempt(at, word)
    assert [attempt(at, "ok") for _ in range(3)] == ["30", "33.75", "37.5"]


def test_a_refusal_says_what_the_provider_said_last() -> None:
    at = breakers(Clock())
    for _ in OPEN:
        attempt(at, DOWN)
    with pytest.raises(ApplicationError) as refused, at.guarding("m"):
        pass
    told = refused.value.message
    assert told.startswith("m is held to be out after 3 failures in a row, and asked again in 30 s; the last one: ")
    assert told.endswith("ModelUnavailable: because")


def test_what_is_known_of_models_is_bounded() -> None:
    at = breakers(Clock(), most=1)
    for number in range(3_000):
        attempt(at, DOWN, f"m{number}")
    assert (attempt(at, "ok", "m2999"), attempt(at, "ok", "m0")) == ("30", "asked")
    assert len(at._known) <= 1_001
