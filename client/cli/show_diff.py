"""How two runs look side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.bounds import one_line, pairs
from holdfast.client.cli.show import console, printable

if TYPE_CHECKING:
    from holdfast.client.diff import RunDiff, RunSide, StepDiff, ToolDiff


def print_diff(found: RunDiff) -> None:
    """Print a table: what each came to, then each step; the middle column marks what differs."""
    from rich.table import Column, Table
    from rich.text import Text

    table = Table(
        "",
        Column(printable(found.a.id), ratio=1, overflow="fold"),
        "",
        Column(printable(found.b.id), ratio=1, overflow="fold"),
        box=None,
        pad_edge=False,
    )

    def row(name: str, a: str, b: str, same: bool) -> None:
        style = "dim" if same else ""
        cells = (name, printable(a), "=" if same else "≠", printable(b))
        table.add_row(*(Text(cell, style=style) for cell in cells))

    for name, a, b in zip(_FACTS, _facts(found.a), _facts(found.b), strict=True):
        row(name, a, b, a == b)
    for pair in found.steps:
        lines_a, lines_b = _lines(pair.a), _lines(pair.b)
        for index in range(max(len(lines_a), len(lines_b), 1)):
            a, b = (lines[index] if index < len(lines) else "" for lines in (lines_a, lines_b))
            row(f"step {pair.step}" if index == 0 else "", a, b, pair.same or (a == b and index > 0))
    row("answer", one_line(found.a.answer, 400), one_line(found.b.answer, 400), found.same_answer)
    console().print(table)


_FACTS = ("agent", "status", "steps", "cost", "tokens")


def _facts(side: RunSide) -> tuple[str, ...]:
    cost = "" if side.cost_usd is None else f"${side.cost_usd:.4f}"
    agent = f"{side.agent_id or '?'} {side.revision or ''}".strip()
    return agent, side.status, _number(side.steps), cost, _number(side.total_tokens)


def _number(value: int | None) -> str:
    return "" if value is None else f"{value:,}"


def _lines(step: StepDiff | None) -> list[str]:
    if step is None:
        return ["(not taken)"]
    return [*([step.text] if step.text else []), *map(_call, step.tool_calls)]


def _call(call: ToolDiff) -> str:
    told = pairs(call.arguments) if isinstance(call.arguments, dict) else str(call.arguments or "")
    return f"{call.tool_name} {one_line(told, 120)} → {'…' if call.output is None else call.output}"
