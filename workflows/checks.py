"""Asks the worker's hooks and guardrails, as activities, before a run goes on."""

from __future__ import annotations

from temporalio import workflow
from temporalio.exceptions import ActivityError

from holdfast import wire
from holdfast.bounds import summary
from holdfast.calls import GuardrailCheck, GuardrailChecked, PolicyCheck, PolicyChecked
from holdfast.workflows import options, review
from holdfast.workflows.live import Live
from holdfast.workflows.outcomes import named
from holdfast.workflows.state import RunState


async def ask_worker(live: Live, state: RunState, check: GuardrailCheck | PolicyCheck) -> None:
    """Ask, and take the answer; hooks that can't be asked forbid, guardrails that can't be asked fail the run."""
    bounds = options.check(state.loaded, check)
    if isinstance(check, GuardrailCheck):
        label = summary(f"{check.stage} · {', '.join(check.guardrails)}")
        found = await live.hands.call(wire.GUARDRAIL_CHECK, check.wire(), **bounds, summary=label)
        review.guarded(state, check, GuardrailChecked.recorded(found).said, workflow.time())
        return
    label = summary(f"{len(check.calls)} call{'s' if len(check.calls) > 1 else ''}")
    try:
        found = await live.hands.call(wire.POLICY_CHECK, check.wire(), **bounds, summary=label)
    except ActivityError as error:
        if live.hands.stopped:
            raise
        review.unjudged(state, named(error), workflow.time())
        return
    review.judged(state, PolicyChecked.recorded(found).verdicts, workflow.time())
