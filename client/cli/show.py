"""How runs and events look: rich on a terminal, plain lines in a pipe, JSON where asked."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any

from holdfast.errors import RunNotFound

if TYPE_CHECKING:
    from pydantic import BaseModel
    from rich.console import Console

    from holdfast.client.views import Run, RunSummary
    from holdfast.event import Event

_STYLES = {
    "run_started": "bold",
    "model_completed": "cyan",
    "tool_completed": "green",
    "subagent_started": "blue",
    "subagent_completed": "bold blue",
    "tool_call_exception": "red",
    "model_call_exception": "red",
    "user_added_message": "magenta",
    "approval_requested": "bold yellow",
    "question_asked": "bold yellow",
    "paused": "yellow",
    "run_completed": "bold green",
    "run_degraded": "bold yellow",
    "run_failed": "bold red",
    "run_interrupted": "bold yellow",
    "task_cancelled": "bold yellow",
}
_STATUS_STYLES = {
    "completed": "green",
    "degraded": "yellow",
    "failed": "red",
    "cancelled": "yellow",
    "interrupted": "yellow",
    "running": "cyan",
    "paused": "magenta",
    "waiting": "magenta",
}
_QUIET = ("step_started", "model_called")


def console() -> Console:
    """Return a console for stdout that never breaks lines in a pipe."""
    from rich.console import Console

    if sys.stdout.isatty():
        return Console(highlight=False)
    return Console(soft_wrap=True, highlight=False, width=10_000)


def print_json(value: Any) -> None:
    """Print one JSON object on one line."""
    print(json.dumps(value, ensure_ascii=False, default=str), flush=True)


def print_kind(kind: str, value: BaseModel) -> None:
    """Print one JSON object on one line, with a key that tells it from other kinds in the same stream."""
    print_json({"kind": kind, **value.model_dump(mode="json")})


def printable(text: str) -> str:
    """Make a text from anywhere safe for a terminal: control characters are shown, not obeyed."""
    return "".join(char if char.isprintable() or char == "\n" else repr(char)[1:-1] for char in text)


def print_event(out: Console, event: Event, level: int = 0) -> None:
    """Print an event on one line; that of a subagent is indented by its level."""
    from rich.text import Text

    when = (event.finished_at or event.created_at).astimezone().strftime("%H:%M:%S.%f")[:-4]
    took = ""
    if event.finished_at is not None:
        took = f" ({(event.finished_at - event.created_at).total_seconds():.2f} s"
        attempt = event.data.get("attempt", 1)
        took += f", attempt {attempt})" if attempt > 1 else ")"
    line = Text(f"{when} {'    ' * level}")
    line.append(f"{event.type:<20}", style=_STYLES.get(event.type, "dim" if event.type in _QUIET else ""))
    line.append(f" {printable(event.message)}")
    line.append(took, style="dim")
    out.print(line)


def wanted(waiting: dict[str, Any]) -> str:
    """Say on one line what a run waits for."""
    from holdfast.bounds import one_line, pairs

    if waiting["kind"] == "approval":
        text = f"{waiting.get('tool_name')} {pairs(waiting.get('arguments') or {})}"
    elif waiting["kind"] == "answer":
        options = " / ".join(map(str, waiting.get("options") or ()))
        text = f"{waiting.get('question')}{f' ({options})' if options else ''}"
    elif waiting["kind"] == "thread":
        text = "its turn in the thread"
    elif waiting["kind"] == "model":
        text = "the model, which is out"
    else:
        text = f"{waiting.get('tool_name') or 'rests'}"
    until = waiting.get("until")
    at = datetime.fromtimestamp(until).astimezone().strftime(", until %Y-%m-%d %H:%M:%S") if until else ""
    return printable(one_line(text, 200) + at)


def print_waiting(waiting: Iterable[dict[str, Any]]) -> None:
    """Print what a run waits for, with the ids to answer with."""
    from rich.table import Table
    from rich.text import Text

    found = list(waiting)
    theirs = any("run_id" in each for each in found)
    table = Table("kind", "id", "what", *(["run"] if theirs else []), box=None, pad_edge=False)
    for each in found:
        cells = [each["kind"], each["id"], wanted(each), *([each.get("run_id", "")] if theirs else [])]
        table.add_row(*(Text(printable(str(cell))) for cell in cells))
    console().print(table)


def print_answer(run: Run) -> None:
    """Print all that a run said at its end, and one line on how it ended."""
    if run.final_text:
        print(printable(run.final_text))
    cost = "" if run.cost_usd is None else f" · ${run.cost_usd:.4f}"
    print(f"{run.status} · {run.steps} step{'' if run.steps == 1 else 's'}{cost}", flush=True)


def print_runs(found: Iterable[RunSummary]) -> None:
    """Print runs as a table."""
    from rich.markup import escape
    from rich.table import Column, Table

    out = console()
    whole = Column("run", no_wrap=True, overflow="fold")
    table = Table(whole, "agent", "status", "steps", "cost", "created", box=None, pad_edge=False)
    for each in found:
        style = _STATUS_STYLES.get(each.status, "")
        table.add_row(
            escape(printable(each.id)),
            escape(printable(each.agent_id or "?")),
            f"[{style}]{each.status}[/]" if style else each.status,
            "" if each.steps is None else str(each.steps),
            "" if each.cost_usd is None else f"${each.cost_usd:.4f}",
            each.created_at.astimezone().strftime("%Y-%m-%d %H:%M:%S"),
        )
    out.print(table)


def print_run(run: Run, find: Callable[[str], Run] | None = None) -> None:
    """Print what there is to know of a run, its events included, and with `find` those of its subagents."""
    from rich.text import Text

    from holdfast.bounds import one_line

    out = console()
    facts: dict[str, Any] = {
        "run": run.id,
        "agent": f"{run.agent_id} (revision {run.revision})",
        "status": run.status,
        "created": run.created_at.astimezone().isoformat(timespec="seconds"),
        "closed": run.closed_at.astimezone().isoformat(timespec="seconds") if run.closed_at else "",
        "steps": run.steps,
        "cost": None if run.cost_usd is None else f"${run.cost_usd:.4f}",
        "prompt": run.original_prompt,
        "error": run.error,
        "answer": run.final_text if run.status != "failed" else "",
    }
    for name, value in facts.items():
        if value not in (None, ""):
            out.print(Text(f"{name:<8} ", style="dim") + Text(printable(str(value))))
    _print_events(out, run, find, 0)
    for each in run.retries:
        told = f"{each.name}: attempt {each.attempt}, since the last one failed: {one_line(each.last_failure)}"
        out.print(Text(printable(told), style="yellow"))


def _print_events(out: Console, run: Run, find: Callable[[str], Run] | None, level: int) -> None:
    for event in run.logs:
        print_event(out, event, level)
        if find is not None and event.type == "subagent_started" and "after" not in event.data:
            with suppress(RunNotFound):  # retention may have deleted it
                _print_events(out, find(event.data["run_id"]), find, level + 1)
