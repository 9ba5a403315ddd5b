"""Policies in real runs: what is denied never runs, what wants a person waits for one, and the timeline tells why."""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from typing import Any

import pytest
from temporalio.client import WorkflowHandle

from holdfast import Agent, Event, Limits, Policy, RunResult, tool
from holdfast.client.runs import AsyncClient
from holdfast.worker.scripted import ChatRequest, Reply, Script, call, say
from tests.support.shapes import turns
from tests.support.stage import DEADLINE, MODEL, Stage, result, stage, timeline

RAN: Counter[str] = Counter()


@tool(effect="once")
def refund(order: str, amount: float = 1.0, pin: str = "") -> str:
    """Pay money back."""
    RAN[order] += 1
    return f"{amount:g} paid back for {order}, pin {pin!r}"


def order() -> str:
    """Return the number of an order that no other test knows."""
    return uuid.uuid4().hex


def policy(*rules: dict[str, Any]) -> Policy:
    return Policy.model_validate({"rules": rules})


def agent(**fields: Any) -> Agent:
    return Agent(name="desk", model=MODEL, tools=[refund], **fields)


def asks_for(number: str, **arguments: Any) -> Script:
    return turns(call(("refund", {"order": number, **arguments})), say("Done."))


async def waiting(run: WorkflowHandle[Any, Any]) -> dict[str, Any]:
    """Wait until the run waits for one thing, and return it."""
    async with asyncio.timeout(DEADLINE):
        while True:
            found: list[dict[str, Any]] = (await run.query("status"))["waiting_for"]
            if found:
                return found[0]
            await asyncio.sleep(0.02)


async def folded(at: Stage, run_id: str) -> list[Event]:
    """Return the timeline, whose transcript must be the run's own."""
    fold, events = await timeline(at.client, run_id)
    shown = await at.client.get_workflow_handle(run_id).query("transcript", {"start": 0})
    assert [message.wire() for message in fold.messages] == shown["messages"]
    return events


def told(events: list[Event], kind: str, *names: str) -> list[tuple[Any, ...]]:
    return [tuple(each.data[name] for name in names) for each in events if each.type == kind]


async def test_a_denied_tool_never_runs_however_often_the_model_insists(address: str) -> None:
    number, steps = order(), 12
    ways: list[Any] = [150, "150", 1.5e2, "1e3", None, [5, 500], {"value": 500}, "Infinity", "nan"]

    def insists(request: ChatRequest) -> Reply:
        amount = ways[request.turn % len(ways)]
        return call(*[("refund", {"order": number, "amount": amount})] * 4)

    rule = {"id": "dear", "action": "deny", "reason": "over 100", "match": {"arguments": {"amount": {"above": 100}}}}
    desk = agent(policy=policy(rule), limits=Limits(max_steps=steps))
    async with stage(address, insists, [desk]) as at:
        done = await at.run("desk", run_id := f"insists-{number}", message="Pay!")
        events = await folded(at, run_id)
    assert RAN[number] == 0
    assert done.status == "degraded"
    assert {each.error for each in done.tool_executions} == {"PolicyDenied: over 100"}
    decisions = told(events, "policy_decision", "rule", "action", "reason", "policy", "tool_name")
    assert decisions == [("dear", "deny", "over 100", "agent", "refund")] * 4 * (steps - 1)
    assert "tool_called" not in {each.type for each in events}
    assert "Error (PolicyDenied): over 100" in at.model.requests[1].tool_results.values()


async def test_the_workers_rule_counts_for_an_agent_that_would_allow_itself_everything(address: str) -> None:
    number = order()
    never = policy({"id": "never", "action": "deny", "match": {"tool": "refund"}})
    loose = agent(policy=policy({"id": "mine", "action": "allow", "priority": 1_000_000}))
    async with stage(address, asks_for(number), tools=[refund], policy_engine=never) as at:
        await at.run(loose, run_id := f"loose-{number}", message="Pay!")
        events = await folded(at, run_id)
    assert RAN[number] == 0
    said = told(events, "policy_decision", "rule", "action", "policy")
    assert said == [("never", "deny", "worker"), ("mine", "allow", "agent")]


async def test_a_rule_has_a_call_approved_and_the_timeline_tells_both(address: str) -> None:
    number = order()
    rule = {"id": "ask", "action": "request_approval", "reason": "money", "match": {"tool": "ref*"}}
    async with stage(address, asks_for(number), tools=[refund], policy_engine=policy(rule)) as at:
        run = await at.start(agent(), message="Pay!")
        asked = await waiting(run)
        assert (asked["kind"], asked["rule"], asked["reason"]) == ("approval", "ask", "money")
        assert RAN[number] == 0
        await run.execute_update("decide", {"call_id": asked["id"], "decision": "approve", "digest": asked["digest"]})
        done = await result(run)
        events = await folded(at, run.id)
    assert (done.status, RAN[number]) == ("completed", 1)
    kinds = [each.type for each in events if each.type.startswith(("policy", "approval", "tool"))]
    assert kinds == ["policy_decision", "approval_requested", "approval_resolved", "tool_called", "tool_completed"]


async def test_a_person_gives_an_argument_that_the_model_has_not(address: str) -> None:
    number = order()
    rule = {"id": "pin", "action": "request_user_input", "into": "pin", "question": "Which pin?"}
    async with stage(address, asks_for(number), [agent(policy=policy(rule))]) as at:
        run = await at.start("desk", message="Pay!")
        asked = await waiting(run)
        assert (asked["kind"], asked["question"], asked["rule"]) == ("answer", "Which pin?", "pin")
        await run.execute_update("answer", {"question_id": asked["id"], "text": "0042"})
        done = await result(run)
        events = await folded(at, run.id)
    assert (done.status, RAN[number]) == ("completed", 1)
    (seen,) = at.model.requests[1].tool_results.values()
    assert "pin '0042'" in seen
    assert 'called with what a person gave: {"pin":"0042"}' in seen
    kinds = [each.type for each in events if each.type.startswith(("policy", "question", "tool"))]
    assert kinds == ["policy_decision", "question_asked", "question_answered", "tool_called", "tool_completed"]
    assert told(events, "question_answered", "text", "answered") == [("0042", True)]


async def test_a_person_answers_in_place_of_the_tool(address: str) -> None:
    number = order()
    rule = {"id": "talk", "action": "request_user_input", "match": {"tool": "refund"}}
    async with stage(address, asks_for(number), [agent(policy=policy(rule))]) as at:
        run = await at.start("desk", message="Pay!")
        asked = await waiting(run)
        await run.execute_update("answer", {"question_id": asked["id"], "text": "It was paid already"})
        done = await result(run)
        await folded(at, run.id)
    assert (done.status, RAN[number]) == ("completed", 0)
    assert done.state_snapshot["tool_calls"] == 0
    (seen,) = at.model.requests[1].tool_results.values()
    assert seen == "It was not called. In its place a person says: It was paid already"


TENANT = {"id": "evil", "action": "deny", "match": {"context": {"tenant": "evil"}}}


@pytest.mark.parametrize("how", ["forked", "by any SDK", "forked by any SDK", "told more"])
async def test_a_run_that_goes_on_is_still_its_tenants(address: str, how: str) -> None:
    number = order()
    script = turns(say("What shall I do?"), call(("refund", {"order": number})), say("Done."))
    async with stage(address, script, tools=[refund], policy_engine=policy(TENANT)) as at:
        runs = AsyncClient(temporal=at.client, task_queue=at.task_queue).runs
        first = await at.start(agent(), f"tenant-{number}", message="Hello", metadata={"tenant": "evil"})
        await result(first)
        link = (await first.describe()).run_id
        after = {"run": link, **({"workflow_id": first.id} if how == "forked by any SDK" else {})}
        run_id = first.id
        if how == "told more":
            await runs.append_message(first.id, "Pay!")
        elif how == "forked":
            run_id = (await runs.fork(first.id, message="Pay!")).id
        else:
            run_id = f"{first.id}-fork" if how == "forked by any SDK" else first.id
            await at.start(agent(), run_id, after=after, message="Pay!")
        async with asyncio.timeout(DEADLINE):
            done: RunResult = await result(at.client.get_workflow_handle(run_id))
    assert (done.status, RAN[number]) == ("completed", 0)
    assert [each.error and each.error.split(":")[0] for each in done.tool_executions] == ["PolicyDenied"]


async def test_a_run_of_many_links_is_its_tenants_to_the_end(address: str) -> None:
    number, steps = order(), 8

    def insists(request: ChatRequest) -> Reply:
        return call(("refund", {"order": number, "amount": request.turn})) if request.turn < steps else say("Done.")

    large = {"tenant": "evil", "notes": "x" * 20_000}
    engine = policy(TENANT)
    async with stage(address, insists, tools=[refund], policy_engine=engine, continue_after_events=30) as at:
        done = await at.run(agent(), run_id := f"links-{number}", message="Pay!", metadata=large)
        events = await folded(at, run_id)
    assert (done.status, RAN[number]) == ("completed", 0)
    assert len(told(events, "policy_decision", "rule")) == steps
    assert "run_continued" in {each.type for each in events}


async def test_metadata_that_links_could_not_hand_on_is_refused_at_the_start(address: str) -> None:
    large = {"tenant": {"name": "x" * 20_000}}
    async with stage(address, asks_for("none"), tools=[refund], policy_engine=policy(TENANT)) as at:
        done = await at.run(agent(), message="Pay!", metadata=large)
    assert done.status == "failed"
    assert done.error is not None
    assert done.error.type == "InputInvalid"
    assert "16,384" in done.error.message
    assert at.model.hits == 0
