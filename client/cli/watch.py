"""Following a run on the terminal, to its end."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from holdfast.client.cli import show
from holdfast.client.cli.ask import Asker
from holdfast.errors import RunNotFound

if TYPE_CHECKING:
    from holdfast.client.sync import Client

_ASKS = ("approval_requested", "question_asked")


def watch(client: Client, run_id: str, after: str | None, json: bool, *, interactive: bool = False) -> int:
    """Show a run's events until it has ended, then its answer; returns the exit code.

    With `interactive`, whoever sits at the terminal is asked for what the run waits for.
    """
    if json:
        for event in client.runs.stream_events(run_id, after=after):
            show.print_kind("event", event)
    else:
        _follow(client, run_id, after, Asker(client, run_id) if interactive else None)
    ended = client.runs.get(run_id)
    if not json:
        show.print_answer(ended)
    elif ended.result is not None:
        show.print_kind("result", ended.result)
    return 0 if ended.status in ("completed", "degraded") else 1


def _follow(client: Client, run_id: str, after: str | None, asker: Asker | None) -> None:
    from rich.text import Text

    out = show.console()
    if asker is not None and after is not None and client.runs.status(run_id).status == "waiting":
        asker.ask()  # what it waits for may have been told before the cursor
    with out.status("waiting for the first event") as live:

        def follow(run_id: str, after: str | None, level: int) -> None:
            for event in client.runs.stream_events(run_id, after=after):
                show.print_event(out, event, level)
                live.update(Text(f"{event.type} {show.printable(event.message)[:80]}"))
                if asker is None:
                    continue
                if event.type == "subagent_started":  # it may ask as well; its caller's events wait meanwhile
                    with suppress(RunNotFound):
                        follow(event.data["run_id"], None, level + 1)
                if event.type in _ASKS:
                    live.stop()
                    asker.ask()
                    live.start()

        follow(run_id, after, 0)
