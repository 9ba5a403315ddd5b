"""Fallback and parking as a table: what the models of a step answer, and what the run does then."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from holdfast import Agent
from holdfast.agent import ModelSettings
from holdfast.carried import Asking
from holdfast.failure import Failure, OnFailure
from holdfast.workflows.models import Models

DOWN, LIMITED, REFUSED, OUT = "ModelUnavailable", "ModelRateLimited", "ModelContentRefused", "ModelOut"


def models(*names: str, on_failure: OnFailure = "fail", max_outage: float | None = 3600, known: Any = None) -> Models:
    """The models of an agent."""
    settings = ModelSettings(max_outage_seconds=max_outage)
    failure = Failure(model=on_failure)
    agent = Agent(name="a", model=names[0], fallback_models=names[1:], model_settings=settings, failure=failure)
    return Models(agent, known)


@dataclass(frozen=True)
class Case:
    """A script of (time, what the model says, its Retry-After), and what the run then does, call by call."""

    names: str
    calls: tuple[tuple[float, str, float | None], ...]
    told: tuple[str, ...]
    on_failure: OnFailure = "fail"
    max_outage: float | None = 3600
    calls_left: int = 100


CASES = {
    "one model that fails": Case("a", ((0, DOWN, None),), ("a: failed",)),
    "the next is asked": Case("abc", ((0, DOWN, None), (1, DOWN, None), (2, "ok", None)), ("a: b", "b: c", "c: ok")),
    "all fail": Case("ab", ((0, DOWN, None), (1, "ModelUnauthorized", None)), ("a: b", "b: failed")),
    "all fail, and the run may degrade": Case("ab", ((0, DOWN, None),) * 2, ("a: b", "b: degraded"), "degrade"),
    "no call is left for the next": Case("ab", ((0, DOWN, None),), ("a: failed",), calls_left=0),
    "no call is left, and the run goes on for ever": Case(
        "ab", ((0, DOWN, None),), ("a: degraded",), "continue", calls_left=0
    ),
    "the next step leaves out what is out": Case(
        "ab",
        ((0, DOWN, None), (1, "ok", None), (59, "ok", None), (60, "ok", None)),
        ("a: b", "b: ok", "b: ok", "a: ok"),
    ),
    "a rate limit is out for as long as the provider says": Case(
        "ab",
        ((0, LIMITED, 300), (1, "ok", None), (299, "ok", None), (300, "ok", None)),
        ("a: b", "b: ok", "b: ok", "a: ok"),
    ),
    "what is one request's own fault says nothing of the next": Case(
        "ab", ((0, REFUSED, None), (1, "ok", None), (2, "ok", None)), ("a: b", "b: ok", "a: ok")
    ),
    "where all are out, each is asked": Case(
        "ab",
        ((0, DOWN, None), (1, "ok", None), (2, DOWN, None), (3, "ok", None)),
        ("a: b", "b: ok", "b: a", "a: ok"),
    ),
    "an open breaker is rested for": Case(
        "a", ((0, OUT, 30), (30, OUT, 60), (90, "ok", None)), ("a: until 30", "a: until 90", "a: ok")
    ),
    "an open breaker leads to the next model": Case("ab", ((0, OUT, 30), (0, "ok", None)), ("a: b", "b: ok")),
    "a rest ends with the first breaker": Case(
        "ab", ((0, OUT, 90), (0, OUT, 30), (30, "ok", None)), ("a: b", "b: until 30", "b: ok")
    ),
    "one out, one failed: the run rests, and asks both": Case(
        "ab",
        ((0, OUT, 70), (0, DOWN, None), (70, DOWN, None), (71, "ok", None)),
        ("a: b", "b: until 70", "a: b", "b: ok"),
    ),
    "an outage ends the run": Case(
        "a",
        ((0, OUT, 30), (30, OUT, 60), (90, OUT, 60), (100, OUT, 60)),
        ("a: until 30", "a: until 90", "a: until 100", "a: failed"),
        max_outage=100,
    ),
    "an outage ends the run degraded": Case("a", ((0, OUT, 30),), ("a: degraded",), "degrade", max_outage=0),
    "an outage never ends": Case(
        "a",
        ((0, OUT, 600), (86_400, OUT, 600), (172_800, OUT, 600)),
        ("a: until 600", "a: until 87000", "a: until 173400"),
        max_outage=None,
    ),
    "an answer ends an outage": Case(
        "a",
        ((0, OUT, 30), (30, "ok", None), (95, OUT, 30), (125, OUT, 60)),
        ("a: until 30", "a: ok", "a: until 125", "a: until 185"),
        max_outage=100,
    ),
    "a run that goes on for ever rests 1 minute, doubling to 10": Case(
        "a",
        tuple((sum((60, 120, 240, 480, 600)[:rest]), DOWN, None) for rest in range(6)),
        tuple(f"a: until {at}" for at in (60, 180, 420, 900, 1500, 2100)),
        "continue",
    ),
    "it rests as long as the provider asks": Case("a", ((0, LIMITED, 1800),), ("a: until 1800",), "continue"),
    "an answer makes the rests short again": Case(
        "a",
        ((0, DOWN, None), (60, DOWN, None), (180, "ok", None), (200, DOWN, None)),
        ("a: until 60", "a: until 180", "a: ok", "a: until 260"),
        "continue",
    ),
}  # fmt: skip


def play(asked: Models, case: Case, *, links: bool) -> list[str]:
    """Play a case; every call is made by the next link of the run's chain, where `links` says so."""
    told = []
    for now, word, retry_after in case.calls:
        if links:
            handed_on = Asking.model_validate_json(asked.handed_on().model_dump_json())
            asked = models(*case.names, on_failure=case.on_failure, max_outage=case.max_outage, known=handed_on)
        if asked.resting is not None:
            assert asked.resting[1] <= now
            asked.rested()
        model = asked.next(now)
        asked.ask(model)
        if word == "ok":
            asked.answered()
            assert (asked.answered_by, asked.in_step) == (model, False)
            told.append(f"{model}: ok")
            continue
        verdict = asked.failed(word, now, retry_after, calls_left=case.calls_left > 0)
        until = None if verdict.until is None else f"until {verdict.until:g}"
        told.append(f"{model}: {verdict.asks or until or verdict.ends}")
        assert (asked.resting is not None) == (verdict.until is not None)
    return told


@pytest.mark.parametrize("links", [False, True], ids=["one link", "a link each"])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_models(case: Case, links: bool) -> None:
    asked = models(*case.names, on_failure=case.on_failure, max_outage=case.max_outage)
    assert play(asked, case, links=links) == list(case.told)


def test_a_step_begins_once_however_many_models_it_asks() -> None:
    asked = models("a", "b", "a")
    assert asked.names == ("a", "b")
    assert (asked.ask("a"), asked.may_fall_back) == (True, True)
    asked.failed(DOWN, 0, None, calls_left=True)
    assert (asked.ask("b"), asked.may_fall_back) == (False, False)
    asked.answered()
    assert (asked.ask("a"), asked.may_fall_back) == (True, True)
