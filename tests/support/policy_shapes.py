"""The shapes of runs that policies, hooks and guardrails have a say in."""

from __future__ import annotations

import asyncio
from typing import Any

from temporalio import activity

from holdfast import (
    Agent,
    GuardrailRequest,
    GuardrailResult,
    Policy,
    PolicyDecision,
    PolicyEngine,
    PolicyRequest,
    block,
    guardrail,
    rewrite,
)
from holdfast.worker.scripted import ChatRequest, Reply, call, say
from tests.support.shapes import AGENT, HELD_SECONDS, Play, Shape, turns


@guardrail(on="input")
def polite(request: GuardrailRequest) -> GuardrailResult | None:
    """Let nobody be rude."""
    return block("no shouting") if request.text.endswith("!") else None


@guardrail(on="answer")
async def modest(request: GuardrailRequest) -> GuardrailResult | None:
    """Have boasts said again."""
    return rewrite("do not boast") if "best" in request.text else None


@guardrail(on="output")
def whole(request: GuardrailRequest) -> GuardrailResult | None:
    """Have an answer that says nothing said again."""
    return rewrite("say more") if len(request.text) < 3 else None


@guardrail(on="answer", max_attempts=1)
def absent(request: GuardrailRequest) -> GuardrailResult | None:
    """Raise, always."""
    raise ConnectionError("the moderator is away")


@guardrail(on="answer")
async def held(request: GuardrailRequest) -> GuardrailResult | None:
    """Take its time over a thoughtful answer, at the first attempt."""
    if request.text == "Hm." and activity.info().attempt == 1:
        await asyncio.sleep(HELD_SECONDS)
    return None


def small(request: PolicyRequest) -> PolicyDecision | None:
    """Forbid large sums, and have negative ones approved."""
    left = request.arguments.get("left", 0)
    if left < 0:
        return PolicyDecision(action="request_approval", reason="negative")
    return PolicyDecision(action="deny", reason="large") if left > 100 else None


def away(request: PolicyRequest) -> PolicyDecision | None:
    """Raise, always."""
    raise ConnectionError("the policy server is away")


def _add(left: int, right: int = 2) -> tuple[str, dict[str, Any]]:
    return ("add", {"left": left, "right": right})


def _agent(**fields: Any) -> Agent:
    return AGENT.model_copy(update=fields)


def _rules(*rules: dict[str, Any]) -> Policy:
    return Policy.model_validate({"rules": rules})


_LARGE = {"id": "large", "action": "deny", "reason": "too large", "match": {"arguments": {"left": {"above": 100}}}}
_TENANT = {"id": "tenant", "action": "request_approval", "match": {"context": {"tenant": "new"}}}
_GIVEN = {"id": "given", "action": "request_user_input", "into": "right", "match": {"arguments": {"left": 7}}}
_TALK = {"id": "talk", "action": "request_user_input", "question": "What else?", "match": {"tool": "greet"}}


async def _start_for_tenant(play: Play) -> None:
    await play.start({"agent": play.agent.name, "message": "Go", "metadata": {"tenant": "new", "notes": "x" * 20_000}})


async def _see_to(play: Play) -> None:
    """Answer and approve whatever the run asks for, until nothing is asked any more."""
    while True:
        status = await play.run.query("status")
        if status["status"] == "completed":
            return
        for each in status["waiting_for"]:
            if each["kind"] == "answer":
                await play.run.execute_update("answer", {"question_id": each["id"], "text": "35"})
            else:
                await play.run.execute_update("decide", {"call_id": each["id"], "decision": "approve"})
        await asyncio.sleep(0.05)


async def _kill_in_a_check(play: Play) -> None:
    await play.working("guardrail.check")
    await play.kill_worker()


async def _interrupt_in_a_check(play: Play) -> None:
    await play.working("guardrail.check")
    await play.run.signal("interrupt", {"reason": "enough"})


def _goes_on(request: ChatRequest) -> Reply:
    if request.turn >= 6:
        return say("It is done.")
    return call(_add(request.turn * 30), text="The best sum" if request.turn == 2 else "")


_EVERY = (polite, modest, whole)
POLICY_SHAPES: dict[str, Shape] = {
    "policy-denied": Shape(
        turns(call(_add(500), _add(1)), call(_add(501)), say("Some.")), _agent(policy=_rules(_LARGE))
    ),
    "policy-asks": Shape(
        turns(call(_add(7), ("greet", {"name": "Ada"}), _add(1)), say("Done.")),
        _agent(policy=_rules(_GIVEN, _TALK)),
        before=_start_for_tenant,
        during=_see_to,
        policy_engine=PolicyEngine([_LARGE, _TENANT]),
    ),
    "policy-asks-over-links": Shape(
        turns(*(call(_add(7), _add(each)) for each in range(3)), say("Done.")),
        _agent(policy=_rules(_GIVEN)),
        before=_start_for_tenant,
        during=_see_to,
        policy_engine=PolicyEngine([_LARGE, _TENANT]),
        continue_after_events=20,
    ),
    "hooks": Shape(
        turns(call(_add(500), _add(-1), _add(1)), say("Done.")),
        during=_see_to,
        policy_engine=PolicyEngine([_LARGE], hooks=[small]),
    ),
    "hooks-away": Shape(
        turns(call(_add(1)), say("Then not.")), policy_engine=PolicyEngine(hooks=[away], max_attempts=1)
    ),
    "guardrails": Shape(
        turns(call(_add(1), text="The best sum"), call(_add(1)), say("3"), say("It is 3.")), _agent(guardrails=_EVERY)
    ),
    "guardrails-over-links": Shape(
        _goes_on,
        _agent(guardrails=_EVERY),
        policy_engine=PolicyEngine(hooks=[small]),
        continue_after_events=20,
    ),
    "guardrail-blocked-input": Shape(
        turns(say("Hello.")),
        _agent(guardrails=_EVERY),
        before=lambda play: play.start({"agent": play.agent.name, "message": "Go!"}),
    ),
    "guardrail-blocked-answer": Shape(turns(say("I am the best.")), _agent(guardrails=_EVERY, guardrail_retries=1)),
    "guardrail-away": Shape(turns(call(_add(1)), say("3.")), _agent(guardrails=(absent,))),
    "guardrail-killed": Shape(
        turns(call(_add(1), text="Hm."), say("3.")), _agent(guardrails=(held,)), during=_kill_in_a_check, killed=True
    ),
    "interrupted-in-a-check": Shape(
        turns(call(_add(1), text="Hm."), say("3.")), _agent(guardrails=(held,)), during=_interrupt_in_a_check
    ),
}
POLICY_STATUSES = {
    "interrupted-in-a-check": "interrupted",
    **dict.fromkeys(("guardrail-blocked-input", "guardrail-blocked-answer", "guardrail-away"), "failed"),
}
