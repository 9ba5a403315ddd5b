"""Policy hooks in real runs: asked once a turn, and nothing is called because they could not be."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from holdfast import (
    Policy,
    PolicyDecision,
    PolicyEngine,
    PolicyRequest,
)
from holdfast.worker.scripted import call, say
from tests.support.checks import (
    CHECKED,
    RAN,
    careful,
    desk,
    names,
    order,
    refund,
)
from tests.support.shapes import turns
from tests.support.stage import result, stage
from tests.workflows.test_policy_runs import folded, told, waiting

ASKED: list[PolicyRequest] = []
GATE = threading.Event()


def strict(request: PolicyRequest) -> PolicyDecision | None:
    ASKED.append(request)
    if request.arguments["order"].startswith("bad"):
        return PolicyDecision(action="deny", reason=f"{request.context['tenant']} pays nothing for bad orders")
    return None


def broken(request: PolicyRequest) -> PolicyDecision | None:
    CHECKED[request.run_id] += 1
    raise ConnectionError("the policy server is away")


def wrong(request: PolicyRequest) -> Any:
    return True


def slow(request: PolicyRequest) -> PolicyDecision | None:
    GATE.wait(10)
    return None


async def test_hooks_are_asked_once_a_turn_about_the_calls_that_no_rule_forbids(address: str) -> None:
    good, bad, rude = order("good"), order("bad"), order("rude")
    rule = {"id": "rude", "action": "deny", "match": {"arguments": {"order": {"pattern": "rude*"}}}}
    engine = PolicyEngine([rule], hooks=[strict, careful])
    script = turns(call(*[("refund", {"order": each}) for each in (good, bad, rude)]), say("Done."))
    async with stage(address, script, tools=[refund], policy_engine=engine) as at:
        run = await at.start(desk(), message="Pay!", metadata={"tenant": "acme"})
        await result(run)
        events = await folded(at, run.id)
        history = await run.fetch_history()
    assert (RAN[good], RAN[bad], RAN[rude]) == (1, 0, 0)
    mine = [each for each in ASKED if each.run_id == run.id]
    assert [each.arguments["order"] for each in mine] == [good, bad]
    assert {(each.tool, each.agent, each.context["tenant"]) for each in mine} == {("refund", "desk", "acme")}
    reason = "acme pays nothing for bad orders"
    assert told(events, "policy_decision", "policy", "rule", "action", "reason") == [
        ("hook", "strict", "deny", reason),
        ("worker", "rude", "deny", ""),
    ]
    assert f"Error (PolicyDenied): {reason}" in at.model.requests[1].tool_results.values()
    assert names(history).count("policy.check") == 1
    assert [each.data["call_id"] for each in events if each.type == "tool_called"] == [mine[0].call_id]


async def test_a_hook_may_have_a_call_approved_and_never_allows_what_a_rule_forbids(address: str) -> None:
    dear, some = order("dear"), order("any")
    deny = {"id": "any", "action": "deny", "match": {"arguments": {"order": {"pattern": "any*"}}}}
    script = turns(call(("refund", {"order": dear}), ("refund", {"order": some})), say("Done."))
    agent = desk(policy=Policy.model_validate({"rules": [deny]}))
    async with stage(address, script, [agent], policy_engine=PolicyEngine(hooks=[careful])) as at:
        run = await at.start("desk", message="Pay!")
        asked = await waiting(run)
        assert (asked["rule"], asked["reason"], RAN[dear]) == ("careful", "dear", 0)
        await run.execute_update("decide", {"call_id": asked["id"], "decision": "approve"})
        await result(run)
        await folded(at, run.id)
    assert (RAN[dear], RAN[some]) == (1, 0)


@pytest.mark.parametrize(("hook", "times", "said"), [(broken, 2, "policy server is away"), (wrong, 1, "returned bool")])
async def test_a_hook_that_cannot_be_asked_forbids(address: str, hook: Any, times: int, said: str) -> None:
    number = order()
    engine = PolicyEngine(hooks=[hook], max_attempts=2)
    script = turns(call(("refund", {"order": number})), say("Then not."))
    async with stage(address, script, tools=[refund], policy_engine=engine) as at:
        done = await at.run(desk(), run_id := f"broken-{number}", message="Pay!")
        events = await folded(at, run_id)
    assert (done.status, RAN[number]) == ("completed", 0)
    (execution,) = done.tool_executions
    assert str(execution.error).startswith("PolicyFailed: ")
    assert said in str(execution.error)
    assert hook is not broken or CHECKED[run_id] == times
    assert told(events, "policy_decision", "policy", "action") == [("hook", "deny")]


async def test_a_hook_that_never_answers_forbids_in_time(address: str) -> None:
    number = order()
    engine = PolicyEngine(hooks=[slow], timeout_seconds=0.5, max_attempts=1)
    script = turns(call(("refund", {"order": number})), say("Then not."))
    async with stage(address, script, tools=[refund], policy_engine=engine) as at:
        done = await at.run(desk(), message="Pay!")
    GATE.set()
    assert (done.status, RAN[number]) == ("completed", 0)
    assert str(done.tool_executions[0].error).startswith("PolicyFailed: ")
