"""A run's page in the Temporal UI: a few lines of Markdown."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from holdfast.bounds import one_line, pairs
from holdfast.workflows.state import RunState


def page(state: RunState, status: str) -> str:
    """Describe a run: what for, how far, what it cost."""
    agent, usage = state.loaded.agent, state.usage
    lines = [
        f"### {agent.name} · {status}",
        f"**Goal** {state.goal}\n",
        f"- step {state.steps} of at most {state.budget.base.steps + state.limits.max_steps}, "
        f"{state.counts.tool_calls} tool calls",
        f"- {usage.input_tokens:,} tokens in, {usage.output_tokens:,} out, ${usage.cost_usd:.4f}",
        f"- model `{state.models.answered_by or agent.model}`, revision `{state.loaded.revision}`",
    ]
    if usage.unpriced_calls:
        lines.append(f"- {usage.unpriced_calls} calls without a known price")
    if state.paused:
        lines.append(f"- paused: {one_line(state.paused, 300)}")
    lines += [f"- waits for {_wanted(each)}" for each in state.waiting_for()]
    lines += [f"- subagent at work: `{run_id}`" for run_id in state.family.under_way]
    tolerated = state.family.tolerance.tolerated
    lines += [f"- tolerated: {count} × {kind}" for kind, count in tolerated.items()]
    if state.limit_reached:
        lines.append(f"- limit reached: `{state.limit_reached}`")
    if state.inbox:
        lines.append(f"- {len(state.inbox)} messages wait for the next step")
    return "\n".join(lines)


def _wanted(waits: dict[str, Any]) -> str:
    if waits["kind"] == "thread":
        return f"its turn in thread `{waits['id']}`"
    until = ""
    if waits["until"] is not None:
        until = f" until {datetime.fromtimestamp(waits['until'], UTC):%Y-%m-%d %H:%M:%S} UTC"
    if waits["kind"] == "model":
        return f"model `{waits['id']}`, which is out{until}"
    if waits["kind"] == "answer":
        return f"an answer (`{waits['id']}`){until}: {one_line(str(waits['question']), 300)}"
    if waits["kind"] == "timer":
        return f"a time{until}"
    return f"approval of `{waits['tool_name']}` (`{waits['id']}`){until}: {one_line(pairs(waits['arguments']), 300)}"
