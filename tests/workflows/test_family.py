"""What a run's subagents may spend, what they cost, and what their ends mean: plain decisions, in tables."""

from __future__ import annotations

import pytest

from holdfast import Agent, Interaction, Limits, RunResult, Usage
from holdfast.message import ToolCall
from holdfast.run import RunError
from holdfast.subagents import Lineage
from holdfast.workflows.admission import admit
from holdfast.workflows.family import JOIN_SETTLED, START_ATTEMPTS, Family, limits_of
from holdfast.workflows.turn import Turn

LEAD = Agent(name="lead", model="m", subagents=["a", "b", "c"])
CALLS = tuple(ToolCall.of(f"00{number}", name, '{"message": "Go"}') for number, name in enumerate("abc"))
LINEAGE = Lineage(run_id="r", call_id="c", root_run_id="r", depth=2, path="x/lead", levels_left=1, budget_usd=0.5)


def turn(agent: Agent = LEAD) -> Turn:
    specs = {each.name: each for each in agent.tool_specs}
    return Turn(admit(CALLS, specs, agent.limits, 0), Interaction(), 0.0)


def cost(dollars: float) -> RunResult:
    return RunResult(status="completed", cost_usd=dollars, usage_aggregate=Usage(model_calls=1, cost_usd=dollars))


def test_those_that_start_together_share_evenly_and_what_is_left_over_comes_back() -> None:
    family, calls = Family(LEAD), turn()
    for call_id in ("000", "001", "002"):
        given = family.share(calls, 0.9)
        family.began(call_id, f"run:{call_id}", given)
        assert given == pytest.approx(0.3)
    family.ended("000", "a", cost(0.1), None)
    calls.slots["000"].settle(family.outcome("000", cost(0.1), None, stopped=False) or pytest.fail("no"), made=True)
    assert family.share(calls, 0.8) == pytest.approx(0.2)  # 0.6 are promised to the two others


def test_one_that_starts_later_gets_what_the_others_left() -> None:
    family, calls = Family(LEAD), turn()
    for call_id in ("000", "001"):
        family.began(call_id, f"run:{call_id}", family.share(calls, 0.9))
    family.ended("000", "a", cost(0.3), None)
    calls.slots["000"].settle(family.outcome("000", cost(0.3), None, stopped=False) or pytest.fail("no"), made=True)
    assert family.share(calls, 0.6) == pytest.approx(0.3)


@pytest.mark.parametrize("left", [0.0, -1.0])
def test_with_nothing_left_a_subagent_may_spend_next_to_nothing(left: float) -> None:
    assert 0 < (Family(LEAD).share(turn(), left) or 0.0) < 1e-6


def test_without_a_bound_there_is_no_share() -> None:
    assert Family(LEAD).share(turn(), None) is None


@pytest.mark.parametrize(
    ("own", "lineage", "cost_usd", "levels"),
    [
        (Limits(), None, None, 3),
        (Limits(max_cost_usd=2), None, 2.0, 3),
        (Limits(max_cost_usd=2), LINEAGE, 0.5, 1),
        (Limits(max_cost_usd=0.1, max_subagent_depth=9), LINEAGE, 0.1, 1),
        (Limits(), LINEAGE, 0.5, 1),
    ],
)
def test_a_subagents_limits_are_the_smaller_ones_and_its_depth_the_roots_word(
    own: Limits, lineage: Lineage | None, cost_usd: float | None, levels: int
) -> None:
    found = limits_of(LEAD.model_copy(update={"limits": own}), lineage)
    assert (found.max_cost_usd, found.max_subagent_depth) == (cost_usd, levels)


def test_a_run_that_goes_on_counts_only_what_its_subagent_has_spent_since() -> None:
    family = Family(LEAD)
    family.began("000", "run:000")
    assert family.ended("000", "a", cost(0.25), None).cost_usd == 0.25
    family.began("000", "run:000")
    later = RunResult(status="completed", usage_aggregate=Usage(model_calls=3, input_tokens=7, cost_usd=0.75))
    assert family.ended("000", "a", later, None) == Usage(model_calls=2, input_tokens=7, cost_usd=0.5)
    assert [each.run_id for each in family.executions.all()] == ["run:000"]


@pytest.mark.parametrize(
    ("result", "lost", "stopped", "expected"),
    [
        (RunResult(status="completed", final_text="Yes."), False, False, (None, "Yes.")),
        (RunResult(status="degraded", final_text="Perhaps."), False, False, (None, "Perhaps.")),
        (RunResult(status="completed", final_text='{"a": 1}', output={"a": 1}), False, False, (None, {"a": 1})),
        (RunResult(status="completed", final_text="Yes."), True, False, (None, "Yes.")),
        (RunResult(status="completed", final_text="Yes."), False, True, (None, "Yes.")),
        (RunResult(status="interrupted"), True, False, (JOIN_SETTLED, None)),
        (RunResult(status="cancelled"), False, False, ("Cancelled", None)),
        (RunResult(status="failed", error=RunError(type="Odd", message="it was")), False, False, ("Odd", None)),
        (RunResult(status="interrupted"), False, True, "open"),
        (RunResult(status="cancelled"), False, True, "open"),
    ],
)
def test_how_a_subagents_run_ended_is_what_its_caller_is_told(
    result: RunResult, lost: bool, stopped: bool, expected: object
) -> None:
    family = Family(LEAD)
    family.began("000", "run:000")
    if lost:
        family.lost["000"] = "enough"
    found = family.outcome("000", result, 1.0, stopped=stopped)
    assert ("open" if found is None else (found.error_type, found.output)) == expected


def test_a_run_whose_id_stays_taken_is_given_up_in_the_end() -> None:
    family = Family(LEAD)
    family.began("000", "run:000")
    assert [family.refused("000") for _ in range(START_ATTEMPTS - 1)] == [None] * (START_ATTEMPTS - 1)
    given_up = family.refused("000")
    assert given_up is not None
    assert given_up.error_type == "SubagentBusy"
