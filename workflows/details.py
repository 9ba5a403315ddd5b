"""A run's page in the Temporal UI: a few lines of Markdown."""

from __future__ import annotations

from holdfast.bounds import one_line
from holdfast.workflows.state import RunState


def page(state: RunState, status: str) -> str:
    """Describe a run: what for, how far, what it cost."""
    agent, usage = state.loaded.agent, state.usage
    lines = [
        f"### {agent.name} · {status}",
        f"**Goal** {one_line(state.loaded.prompts[0], 300)}\n",
        f"- step {state.steps} of at most {state.limits.max_steps}, {state.tool_calls} tool calls",
        f"- {usage.input_tokens:,} tokens in, {usage.output_tokens:,} out, ${usage.cost_usd:.4f}",
        f"- model `{agent.model}`, revision `{state.loaded.revision}`",
    ]
    if usage.unpriced_calls:
        lines.append(f"- {usage.unpriced_calls} calls without a known price")
    if state.limit_reached:
        lines.append(f"- limit reached: `{state.limit_reached}`")
    if state.inbox:
        lines.append(f"- {len(state.inbox)} messages wait for the next step")
    return "\n".join(lines)
