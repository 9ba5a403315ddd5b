"""Joins, and what failures do: as tables of cases, then with real runs."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from pydantic import ValidationError

from holdfast import Agent, Failure, Join
from holdfast.failure import OnFailure
from holdfast.run import RunError
from holdfast.workflows.join import Verdict, verdict
from holdfast.workflows.tolerance import Kind, Tolerance, kind_of
from tests.support.casts import AGENTS, CALLS, Cast, agent, asks, says, script, stays_silent, uses, waits
from tests.support.stage import Stage, result, stage, timeline

ALL, ANY = Join(), Join(mode="any")


def quorum(count: int) -> Join:
    return Join(mode="quorum", count=count)


@pytest.mark.parametrize(
    ("join", "total", "succeeded", "failed", "expected"),
    [
        (ALL, 3, 0, 0, "open"),
        (ALL, 3, 2, 0, "open"),
        (ALL, 3, 0, 3, "open"),
        (ANY, 3, 0, 0, "open"),
        (ANY, 3, 1, 0, "enough"),
        (ANY, 3, 1, 2, "enough"),
        (ANY, 3, 0, 2, "open"),
        (ANY, 3, 0, 3, "hopeless"),
        (ANY, 1, 0, 0, "open"),
        (ANY, 0, 0, 0, "open"),
        (quorum(2), 3, 1, 0, "open"),
        (quorum(2), 3, 1, 1, "open"),
        (quorum(2), 3, 2, 1, "enough"),
        (quorum(2), 3, 1, 2, "hopeless"),
        (quorum(2), 3, 0, 2, "hopeless"),
        (quorum(2), 1, 0, 0, "open"),
        (quorum(2), 1, 1, 0, "enough"),
        (quorum(2), 1, 0, 1, "hopeless"),
        (quorum(3), 3, 2, 0, "open"),
        (quorum(3), 3, 2, 1, "hopeless"),
    ],
)
def test_a_join_is_open_until_enough_have_succeeded_or_too_many_failed(
    join: Join, total: int, succeeded: int, failed: int, expected: Verdict
) -> None:
    assert verdict(join, total=total, succeeded=succeeded, failed=failed) == expected


@pytest.mark.parametrize("wrong", [{"mode": "quorum"}, {"mode": "any", "count": 2}, {"mode": "quorum", "count": 0}])
def test_a_join_that_makes_no_sense_is_refused_when_it_is_made(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Join.model_validate(wrong)


@pytest.mark.parametrize(
    ("error_type", "made", "subagent", "expected"),
    [
        (None, True, False, None),
        ("RuntimeError", True, False, "tool"),
        ("RuntimeError", True, True, "subagent"),
        ("Interrupted", True, True, "subagent"),
        ("Timeout", True, False, "tool"),
        ("ToolArgumentsInvalid", True, False, None),
        ("InputInvalid", True, True, None),
        ("ToolUnknown", False, False, None),
        ("LimitReached", False, True, None),
        ("ApprovalDenied", False, False, "denial"),
        ("ApprovalDenied", False, True, "denial"),
        ("PolicyDenied", False, False, "denial"),
        ("PolicyFailed", False, False, "denial"),
        ("NoAnswer", False, False, None),
    ],
)
def test_only_calls_that_were_made_and_denials_are_failures(
    error_type: str | None, made: bool, subagent: bool, expected: Kind | None
) -> None:
    assert kind_of(error_type, made=made, subagent=subagent) == expected


@pytest.mark.parametrize(
    ("on", "tolerated", "fatal"),
    [("continue", {}, None), ("degrade", {"tool": 2}, None), ("fail", {}, "first")],
)
def test_a_failure_does_what_the_agent_says(on: OnFailure, tolerated: dict[str, int], fatal: str | None) -> None:
    tolerance = Tolerance(Failure(tool=on))
    for message in ("first", "second"):
        tolerance.take("tool", RunError(type="RuntimeError", message=message))
        tolerance.take("subagent", RunError(type="RuntimeError", message="of another kind"))
    assert tolerance.tolerated == tolerated
    assert (tolerance.fatal.message if tolerance.fatal else None) == fatal


FAILURES: tuple[OnFailure, ...] = ("continue", "degrade", "fail")
BREAKING = {on: agent(f"breaking-{on}", failure=Failure(tool=on)) for on in FAILURES}
CALLING = {on: agent(f"calling-{on}", *CALLS, failure=Failure(subagent=on)) for on in FAILURES}
GATED = {on: agent(f"gated-{on}", failure=Failure(denial=on)) for on in FAILURES}
ENDS = {"continue": "completed", "degrade": "degraded", "fail": "failed"}
MORE: list[Agent] = [*BREAKING.values(), *CALLING.values(), *GATED.values()]
QUORUM_FAILS = agent("strict", *CALLS, join=quorum(2), failure=Failure(subagent="fail"))


@pytest.fixture(scope="module")
async def at(address: str) -> AsyncIterator[Stage]:
    async with stage(address, script, [*AGENTS, *MORE, QUORUM_FAILS]) as made:
        yield made


async def test_of_any_the_first_answer_counts_and_the_others_stop_asking(at: Stage) -> None:
    cast = Cast(
        {
            "first": (asks(*CALLS), says("One has answered.")),
            "writer": (uses("note"), says("Written.")),
            "checker": (stays_silent,),
            "third": (uses("hold"), says("Too late.")),
        }
    )
    ended = await at.run("first", run_id=cast.key, message=cast.key)
    assert (ended.status, ended.final_text) == ("completed", "One has answered.")
    told = {each.tool_name: each.error for each in ended.tool_executions if each.agent_depth == 0}
    settled = "JoinSettled: it was stopped: enough of the others have answered"
    assert told == {"writer": None, "checker": settled, "third": settled}
    assert {each.agent_name: each.status for each in ended.subagent_executions} == {
        "writer": "completed",
        "checker": "interrupted",
        "third": "interrupted",
    }
    assert cast.asked["checker"] == 1
    assert cast.asked["third"] <= 1
    assert ended.cost_usd >= sum(each.cost_usd for each in ended.subagent_executions) > 0
    folded, _ = await timeline(at.client, cast.key)
    assert folded.result == ended
    assert folded.state is not None
    assert folded.state.usage == ended.usage_aggregate


async def test_a_quorum_waits_for_as_many_as_it_needs(at: Stage) -> None:
    cast = Cast(
        {
            "two": (asks(*CALLS), says("Two have answered.")),
            "writer": (says("Written."),),
            "checker": (says("Checked."),),
            "third": (stays_silent,),
        }
    )
    ended = await at.run("two", run_id=cast.key, message=cast.key)
    assert ended.status == "completed"
    assert {each.agent_name: each.success for each in ended.subagent_executions} == {
        "writer": True,
        "checker": True,
        "third": False,
    }


async def test_a_quorum_that_can_no_longer_be_reached_stops_the_rest_and_is_one_failure(at: Stage) -> None:
    cast = Cast(
        {
            "strict": (asks(*CALLS), says("Never.")),
            "writer": (stays_silent,),
            "checker": (stays_silent,),
            "third": (uses("hold"),),
        }
    )
    run = await at.start("strict", run_id=cast.key, message=cast.key)
    await cast.has_run("hold")
    await cast.asked_for("writer")
    for child in ("checker", "third"):
        found = [each async for each in _children(at, cast.key) if each.endswith(child)]
        await at.client.get_workflow_handle(found[0].partition(" ")[0]).cancel()
    ended = await result(run)
    assert (ended.status, ended.error and ended.error.type) == ("failed", "SubagentsFailed")
    assert ended.final_text.startswith("2 of 3 subagents failed; the first: it was cancelled")
    assert {each.agent_name: each.status for each in ended.subagent_executions}["writer"] == "interrupted"


async def _children(at: Stage, run_id: str) -> AsyncIterator[str]:
    _, events = await timeline(at.client, run_id)
    for each in events:
        if each.type == "subagent_started":
            yield f"{each.data['run_id']} {each.data['agent_name']}"


@pytest.mark.parametrize("on", FAILURES)
async def test_a_tool_that_fails_does_to_the_run_what_its_agent_says(at: Stage, on: OnFailure) -> None:
    name = BREAKING[on].name
    cast = Cast({name: (uses("breaks", "hold"), says("So be it."))})
    if on != "fail":
        cast.gate.set()
    ended = await at.run(name, run_id=cast.key, message=cast.key)
    assert ended.status == ENDS[on]
    assert cast.asked[name] == (1 if on == "fail" else 2)
    if on == "fail":
        assert (ended.error and ended.error.type, ended.final_text) == ("RuntimeError", "breaks: this part is missing")
    assert ended.state_snapshot.get("tolerated_failures") == ({"tool": 1} if on == "degrade" else None)
    folded, _ = await timeline(at.client, cast.key)
    assert folded.result == ended


@pytest.mark.parametrize("on", FAILURES)
async def test_a_subagent_that_fails_does_to_the_run_what_its_agent_says(at: Stage, on: OnFailure) -> None:
    name = CALLING[on].name
    cast = Cast({name: (asks("writer", "checker"), says("So be it.")), "checker": (waits,), "writer": (waits,)})
    run = await at.start(name, run_id=cast.key, message=cast.key)
    await cast.asked_for("writer")
    await cast.asked_for("checker")
    children = {each.partition(" ")[2]: each.partition(" ")[0] async for each in _children(at, cast.key)}
    await at.client.get_workflow_handle(children["writer"]).terminate(reason="no")
    if on != "fail":
        cast.gate.set()
    ended = await result(run)
    assert ended.status == ENDS[on]
    found = {each.agent_name: each.status for each in ended.subagent_executions}
    assert found == {"writer": "failed", "checker": "interrupted" if on == "fail" else "completed"}
    assert (ended.error and ended.error.type) == ("Terminated" if on == "fail" else None)
    folded, _ = await timeline(at.client, cast.key)
    assert folded.result == ended


@pytest.mark.parametrize("on", FAILURES)
async def test_a_denial_does_to_the_run_what_its_agent_says(at: Stage, on: OnFailure) -> None:
    name = GATED[on].name
    cast = Cast({name: (uses("pay"), says("So be it."))})
    ended = await at.run(name, run_id=cast.key, message=cast.key, interaction_mode="headless")
    assert (ended.status, cast.ran) == (ENDS[on], [])
    folded, _ = await timeline(at.client, cast.key)
    assert folded.result == ended
