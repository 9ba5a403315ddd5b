"""Guardrails in real runs: nothing is seen, called or told before they have let it pass."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections import Counter
from typing import Any

import pytest
from temporalio.api.enums.v1 import EventType as Kind

from holdfast import (
    Agent,
    Event,
    GuardrailRequest,
    GuardrailResult,
    PolicyDecision,
    PolicyEngine,
    PolicyRequest,
    RunResult,
    guardrail,
    rewrite,
)
from holdfast.client.runs import AsyncClient
from holdfast.worker.scripted import ChatRequest, Reply, call, say
from holdfast.workflows.plans import CARRY_OUT
from tests.support.checks import (
    CHECKED,
    GUARDED,
    ON_ANSWER,
    ON_INPUT,
    ON_OUTPUT,
    RAN,
    desk,
    names,
    order,
)
from tests.support.plays import until
from tests.support.shapes import turns
from tests.support.stage import MODEL, Stage, result, stage, timeline
from tests.test_replay import fold
from tests.workflows.test_policy_runs import folded, told


async def guarded(at: Stage, stage_name: str, message: str = "Hello", **fields: Any) -> tuple[RunResult, list[Event]]:
    """Run an agent with the guardrail of one stage."""
    agent = desk(guardrails=[GUARDED[stage_name].spec], **fields)
    done = await at.run(agent, run_id := f"guarded-{uuid.uuid4().hex[:12]}", message=message)
    events = await folded(at, run_id)
    assert len(told(events, "guardrail_checked", "stage")) == CHECKED[f"{run_id} {stage_name}"]
    return done, events


CASES: list[tuple[str, str, list[str], str, list[str], int]] = [
    ("input", "Hello", ["Hi."], "completed", ["pass"], 1),
    ("input", "BLOCK", ["Hi."], "GuardrailBlocked", ["block"], 0),
    ("input", "AGAIN", ["Hi."], "GuardrailBlocked", ["rewrite"], 0),
    ("answer", "Hello", ["Hi."], "completed", ["pass"], 1),
    ("answer", "Hello", ["BLOCK"], "GuardrailBlocked", ["block"], 1),
    ("answer", "Hello", ["AGAIN", "Hi."], "completed", ["rewrite", "pass"], 2),
    ("answer", "Hello", ["AGAIN", "AGAIN", "Hi."], "completed", ["rewrite", "rewrite", "pass"], 3),
    ("answer", "Hello", ["AGAIN"], "GuardrailBlocked", ["rewrite", "rewrite", "rewrite"], 3),
    ("output", "Hello", ["Hi."], "completed", ["pass"], 1),
    ("output", "Hello", ["BLOCK"], "GuardrailBlocked", ["block"], 1),
    ("output", "Hello", ["AGAIN", "Hi."], "completed", ["rewrite", "pass"], 2),
    ("output", "Hello", ["AGAIN"], "GuardrailBlocked", ["rewrite", "rewrite", "rewrite"], 3),
]


@pytest.mark.parametrize(
    ("where", "message", "answers", "ends", "verdicts", "asked"),
    CASES,
    ids=[f"{c[0]}-{c[1]}-{'-'.join(c[2])}" for c in CASES],
)
async def test_a_guardrail_lets_pass_has_it_said_again_or_blocks(
    address: str, where: str, message: str, answers: list[str], ends: str, verdicts: list[str], asked: int
) -> None:
    async with stage(address, turns(*map(say, answers)), [desk(guardrails=GUARDED.values())]) as at:
        done, events = await guarded(at, where, message)
    assert ends == (done.error.type if done.error else done.status)
    assert at.model.hits == asked
    assert told(events, "guardrail_checked", "stage", "guardrail", "action") == [
        (where, f"on_{where}", each) for each in verdicts
    ]
    if done.status == "completed":
        assert done.final_text == "Hi."
    if "rewrite" in verdicts and asked > 1:
        assert "say it nicely" in at.model.requests[1].last_text


async def test_no_tool_of_an_answer_starts_before_its_guardrails_have_ended(address: str) -> None:
    bad, good = order("AGAIN"), order()
    script = turns(
        call(("refund", {"order": bad}), ("refund", {"order": good})), call(("refund", {"order": good})), say("Done.")
    )
    async with stage(address, script, [agent := desk(guardrails=[ON_ANSWER])]) as at:
        run = await at.start(agent, message="Pay!")
        done = await result(run)
        history = await run.fetch_history()
        events = await folded(at, run.id)
    assert (done.status, RAN[bad], RAN[good]) == ("completed", 0, 1)
    assert names(history) == [
        *("agent.load", "model.call", "guardrail.check"),
        *("model.call", "guardrail.check", "refund", "model.call", "guardrail.check"),
    ]
    open_checks = 0
    for each in history.events:
        if each.event_type == Kind.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED:
            name = each.activity_task_scheduled_event_attributes.activity_type.name
            open_checks += name == "guardrail.check"
            assert name != "refund" or not open_checks
        elif each.event_type == Kind.EVENT_TYPE_ACTIVITY_TASK_COMPLETED:
            open_checks = 0
    assert set(at.model.requests[1].tool_results.values()) == {"Error (GuardrailRewrite): say it nicely"}
    assert [each.type for each in events].index("guardrail_checked") < [each.type for each in events].index(
        "tool_called"
    )


async def test_a_message_that_comes_later_is_checked_before_the_model_sees_it(address: str) -> None:
    async with stage(address, turns(say("Hi.")), [desk(guardrails=[ON_INPUT])]) as at:
        runs = AsyncClient(temporal=at.client, task_queue=at.task_queue).runs
        done = await at.run("desk", run_id := f"later-{uuid.uuid4().hex}", message="Hello")
        assert done.status == "completed"
        await runs.append_message(run_id, "BLOCK")
        blocked = await result(at.client.get_workflow_handle(run_id))
        assert blocked.error is not None
        assert blocked.error.type == "GuardrailBlocked"
        await runs.resume_run(run_id)
        again = await result(at.client.get_workflow_handle(run_id))
        assert again.error == blocked.error
        assert at.model.hits == 1
        fork = await runs.fork(run_id, message="Hello again")
        assert (await result(at.client.get_workflow_handle(fork.id))).error == blocked.error
        await folded(at, run_id)


@guardrail(on="answer", max_attempts=2)
def falls_over(request: GuardrailRequest) -> GuardrailResult | None:
    """Raise, always."""
    CHECKED[request.run_id] += 1
    raise RuntimeError("no such model")


async def test_a_guardrail_that_cannot_be_asked_lets_nothing_pass(address: str) -> None:
    number = order()
    script = turns(call(("refund", {"order": number})), say("Done."))
    async with stage(address, script, [desk(guardrails=[falls_over])]) as at:
        done = await at.run("desk", run_id := f"falls-{number}", message="Pay!")
        await folded(at, run_id)
    assert (done.status, RAN[number], CHECKED[run_id]) == ("failed", 0, 2)
    assert done.error is not None
    assert done.error.type == "GuardrailFailed"
    assert done.error.message == "guardrail falls_over raised RuntimeError: no such model"


async def test_a_guardrail_that_the_worker_lacks_is_an_error_at_the_start(address: str) -> None:
    async with stage(address, turns(say("Hi."))) as at:
        done = await at.run(Agent(name="a", model=MODEL, guardrails=["nobody"]), message="Hello")
    assert done.error is not None
    assert "no guardrail named 'nobody'" in done.error.message
    assert at.model.hits == 0


async def test_structure_comes_first_and_the_output_guardrail_sees_the_json(address: str) -> None:
    seen: list[Any] = []

    @guardrail(on="output", name=f"sees_{uuid.uuid4().hex}")
    def sees(request: GuardrailRequest) -> GuardrailResult | None:
        seen.append(request.output)
        return rewrite("too low") if request.output["score"] < 5 else None

    schema: dict[str, Any] = {"type": "object", "required": ["score"], "properties": {"score": {"type": "integer"}}}
    script = turns(say("no idea"), say(json.dumps({"score": 3})), say(json.dumps({"score": 7})))
    agent = Agent(name="judge", model=MODEL, output_schema=schema, guardrails=[sees])
    async with stage(address, script, [agent]) as at:
        done = await at.run("judge", run_id := f"judge-{uuid.uuid4().hex}", message="Judge!")
        await folded(at, run_id)
    assert (done.status, done.output) == ("completed", {"score": 7})
    assert seen == [{"score": 3}, {"score": 7}]


@pytest.mark.parametrize("events", [10_000, 10])
async def test_a_plan_that_is_not_let_pass_is_made_again_and_then_carried_out(address: str, events: int) -> None:
    script = turns(say("AGAIN: a plan"), say("A better plan"), say("Done."))
    agent = desk(guardrails=[ON_ANSWER], planning=True)
    async with stage(address, script, [agent], continue_after_events=events) as at:
        done = await at.run("desk", run_id := f"planned-{uuid.uuid4().hex}", message="Go")
        types = [each.type for each in await folded(at, run_id)]
    assert (done.status, done.final_text, done.steps) == ("completed", "Done.", 3)
    assert types.count("planning") == 2
    assert ("run_continued" in types) == (events == 10)
    told = [each["content"].splitlines()[0] for each in at.model.requests[-1].messages if each["role"] != "system"]
    assert told == ["Go", "AGAIN: a plan", "This answer was not accepted: say it nicely", "A better plan", CARRY_OUT]


async def test_a_plan_that_no_guardrail_is_left_to_see_is_carried_out(address: str) -> None:
    script = turns(say("BLOCK"), say("Done."))
    async with stage(address, script, [desk(guardrails=[falls_over], planning=True)]) as at:
        blocked = await at.run("desk", run_id := f"unseen-{uuid.uuid4().hex}", message="Go")
        assert blocked.error is not None
        at.model.script = turns(say("never"), say("Done."))
        after = {"run": await first_link(at, run_id), "workflow_id": run_id}
        done = await at.run(desk(planning=True), message="Go on", after=after)
    assert (done.status, done.final_text) == ("completed", "Done.")
    assert [each["content"] for each in at.model.requests[-1].messages[-2:]] == [CARRY_OUT, "Go on"]


async def first_link(at: Stage, run_id: str) -> str:
    """Return Temporal's own id of a run's link."""
    return (await at.client.get_workflow_handle(run_id).describe()).run_id


async def test_many_links_keep_what_was_checked_and_what_was_said(address: str) -> None:
    number, steps = order(), 9

    def script(request: ChatRequest) -> Reply:
        if request.turn >= steps:
            return say("Done.")
        text = "AGAIN" if request.turn % 3 == 1 else ""
        return call(("refund", {"order": number + ("" if request.turn % 2 else "bad")}), text=text)

    engine = PolicyEngine(hooks=[ends_badly])
    agent = desk(guardrails=[ON_ANSWER, ON_OUTPUT, ON_INPUT])
    async with stage(address, script, [agent], policy_engine=engine, continue_after_events=20) as at:
        done = await at.run("desk", run_id := f"links-{number}", message="Pay!")
        events = await folded(at, run_id)
    assert done.status == "completed"
    assert (RAN[number], RAN[number + "bad"]) == (2, 0)
    actions = Counter(each for (each,) in told(events, "guardrail_checked", "action"))
    assert actions == {"pass": 1 + 6 + 1 + 1, "rewrite": 3}
    assert len(told(events, "policy_decision", "rule")) == 4
    assert len([each for each in events if each.type == "run_continued"]) >= 2


def ends_badly(request: PolicyRequest) -> PolicyDecision | None:
    return PolicyDecision(action="deny") if request.arguments["order"].endswith("bad") else None


@pytest.mark.parametrize("how", ["interrupt", "cancel"])
async def test_a_run_stopped_in_a_check_goes_on_with_it_and_calls_each_tool_once(address: str, how: str) -> None:
    number, gate, begun = order(), asyncio.Event(), Counter[str]()

    @guardrail(on="answer", name=f"waits_{number}")
    async def waits(request: GuardrailRequest) -> GuardrailResult | None:
        begun["check"] += 1
        while not gate.is_set() and request.tool_calls:
            await asyncio.sleep(0.01)
        return None

    script = turns(call(("refund", {"order": number})), say("Done."))
    async with stage(address, script, [desk(guardrails=[waits])]) as at:
        runs = AsyncClient(temporal=at.client, task_queue=at.task_queue).runs
        run = await at.start("desk", f"stopped-{number}", message="Pay!")
        await until(lambda: begun["check"] == 1)
        await (runs.interrupt(run.id) if how == "interrupt" else runs.cancel(run.id))
        async with asyncio.timeout(30):
            while not (await runs.status(run.id)).closed:
                await asyncio.sleep(0.02)
        assert RAN[number] == 0
        gate.set()
        await runs.resume_run(run.id)
        done = await result(at.client.get_workflow_handle(run.id))
        _, events = await timeline(at.client, run.id)
    assert (done.status, RAN[number], at.model.hits) == ("completed", 1, 2)
    assert begun["check"] == 3
    assert [each.type for each in events if each.type.startswith("tool")] == ["tool_called", "tool_completed"]


async def test_a_check_whose_worker_was_killed_is_made_again_and_the_tool_called_once() -> None:
    _, events = await fold("guardrail-killed")
    checks = [each.data for each in events if each.type == "guardrail_checked"]
    assert [(each["action"], each["attempt"]) for each in checks] == [("pass", 2), ("pass", 1)]
    assert "heartbeat" in checks[0]["last_failure"].lower()
    assert [each.type for each in events if each.type.startswith("tool")] == ["tool_called", "tool_completed"]
