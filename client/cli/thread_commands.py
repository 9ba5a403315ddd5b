"""`holdfast threads …`."""

from __future__ import annotations

from typing import Annotated

import typer

from holdfast.client.cli import show
from holdfast.client.cli.app import AsJson, client, threads

ThreadId = Annotated[str, typer.Argument(help="The thread's id.")]


@threads.command("list")
def list_threads(
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many.")] = 50, json: AsJson = False
) -> None:
    """List threads, the latest first."""
    with client() as holdfast:
        found = holdfast.threads.list(limit)
    if json:
        for each in found:
            show.print_json(each.model_dump(mode="json"))
        return
    from rich.table import Table
    from rich.text import Text

    table = Table("thread", "created", "task queue", box=None, pad_edge=False)
    for each in found:
        created = each.created_at.astimezone().strftime("%Y-%m-%d %H:%M:%S")
        table.add_row(Text(show.printable(each.id)), created, Text(show.printable(each.task_queue)))
    show.console().print(table)


@threads.command("show")
def show_thread(thread_id: ThreadId, json: AsJson = False) -> None:
    """Show what a thread remembers, whose turn it is, and who waits."""
    with client() as holdfast:
        found = holdfast.threads.get(thread_id)
    if json:
        show.print_json(found.model_dump(mode="json"))
        return
    from rich.text import Text

    out = show.console()
    facts = {
        "thread": found.id,
        "created": found.created_at.astimezone().isoformat(timespec="seconds"),
        "runs": str(found.runs),
        "turn": found.holder or "",
        "waiting": ", ".join(found.queue),
    }
    for name, value in facts.items():
        if value:
            out.print(Text(f"{name:<8} ", style="dim") + Text(show.printable(value)))
    for message in found.messages:
        called = ", ".join(f"{each.name}({each.function.arguments})" for each in message.tool_calls)
        said = " ".join(part for part in (message.text, called) if part)
        out.print(Text(f"{message.role:<10}", style="dim") + Text(show.printable(said)))


@threads.command("compact")
def compact_thread(
    thread_id: ThreadId,
    model: Annotated[str | None, typer.Option(help="The model that writes the summary; the last run's.")] = None,
    keep_tokens: Annotated[int, typer.Option(min=0, help="Tokens of the latest turns that stay as they are.")] = 0,
    json: AsJson = False,
) -> None:
    """Have a model summarise what is old in a thread."""
    with client() as holdfast:
        done = holdfast.threads.compact(thread_id, model, keep_tokens=keep_tokens)
    if json:
        show.print_json({"thread_id": thread_id, **done.model_dump(mode="json")})
    else:
        print(f"{done.messages} messages → {done.messages_after}\n{show.printable(done.summary)}")


@threads.command("delete")
def delete_thread(thread_id: ThreadId, json: AsJson = False) -> None:
    """Delete a thread and all that it remembers; its runs stay."""
    with client() as holdfast:
        holdfast.threads.delete(thread_id)
    if json:
        show.print_json({"thread_id": thread_id, "deleted": True})
    else:
        print(f"deleted {show.printable(thread_id)}")
