"""Limits of calls and money as a table: what is taken, and what is reached or left then."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from holdfast import Limits, Usage
from holdfast.workflows.budget import Budget

Do = Callable[[Budget], None]


def step(at: Budget) -> None:
    at.take_step()
    at.take_call()


def fallback(at: Budget) -> None:
    at.take_call()


def refused(at: Budget) -> None:
    at.give_back()


def spend(dollars: float) -> Do:
    return lambda at: at.spend(Usage(model_calls=1, cost_usd=dollars))


CASES: dict[str, tuple[Limits, list[Do], str | None]] = {
    "a first step": (Limits(max_steps=2), [step], None),
    "the last step": (Limits(max_steps=2), [step, step], "max_steps"),
    "a fallback is no step": (Limits(max_steps=2), [step, fallback, fallback], None),
    "a fallback is a call": (Limits(max_model_calls=2), [step, fallback], "max_model_calls"),
    "a call that was refused is none": (Limits(max_model_calls=2), [step, refused, fallback], None),
    "the last call, refused, is to be made still": (Limits(max_model_calls=1), [step, refused], None),
    "the last call, refused and made": (Limits(max_model_calls=1), [step, refused, fallback], "max_model_calls"),
    "a refused call gives no step back": (Limits(max_steps=1), [step, refused], "max_steps"),
    "money left": (Limits(max_cost_usd=1.0), [spend(0.6), spend(0.39)], None),
    "money spent": (Limits(max_cost_usd=1.0), [spend(0.6), spend(0.4)], "max_cost_usd"),
    "the first limit counts": (Limits(max_steps=1, max_cost_usd=1.0), [step, spend(2)], "max_steps"),
}


@pytest.mark.parametrize(("limits", "done", "reached"), CASES.values(), ids=CASES)
def test_limits(limits: Limits, done: list[Do], reached: str | None) -> None:
    budget = Budget(limits)
    for each in done:
        each(budget)
    assert budget.reached == reached


@pytest.mark.parametrize(
    ("most", "before", "spent", "left"),
    [(None, 0.0, 5.0, None), (2.0, 0.0, 0.5, 1.5), (2.0, 7.0, 0.5, 1.5), (2.0, 0.0, 2.5, 0.0)],
    ids=["no bound", "of this run", "beside earlier starts", "passed"],
)
def test_money_left(most: float | None, before: float, spent: float, left: float | None) -> None:
    begun = Budget(Limits())
    spend(before)(begun)
    budget = Budget(Limits(max_cost_usd=most), begun.counts, begun.counts, begun.usage)
    spend(spent)(budget)
    assert budget.cost_left == left
