"""`holdfast run` and `holdfast runs …`."""

from __future__ import annotations

from typing import Annotated

import typer

from holdfast.client.cli import ask, show
from holdfast.client.cli.app import AsJson, Interactive, RunId, Watch, app, client, parse_pairs, read_object, runs
from holdfast.client.cli.images import with_images
from holdfast.client.cli.watch import watch as follow

Images = Annotated[
    list[str] | None, typer.Option("--image", metavar="FILE|URL", help="An image beside the message; repeatable.")
]


@app.command()
def run(
    agent: Annotated[str, typer.Argument(help="The name of an agent that a worker knows.")],
    input: Annotated[
        list[str] | None, typer.Option("--input", "-i", help="key=value, JSON or text; repeatable.")
    ] = None,
    input_json: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="The whole input, a JSON object; - for stdin. --input adds to it."),
    ] = None,
    message: Annotated[str | None, typer.Option("--message", "-m", help="The first user message.")] = None,
    image: Images = None,
    watch: Watch = False,
    interactive: Interactive = False,
    thread: Annotated[str | None, typer.Option(help="The thread that the run belongs to.")] = None,
    run_id: Annotated[str | None, typer.Option(help="The id of the new run.")] = None,
    key: Annotated[str | None, typer.Option(help="Idempotency key: the same key is the same run.")] = None,
    metadata: Annotated[list[str] | None, typer.Option(help="key=value; may be repeated.")] = None,
    json: AsJson = False,
) -> None:
    """Start a run, and with --watch follow it: exit code 0 for completed or degraded, 1 for any other end.

    A value of --input that is JSON is taken as JSON: number=1001 is a number, number='"1001"' is a text.
    """
    given = read_object(input_json) | parse_pairs(input)
    if interactive:
        ask.check_terminal(json)
    with client() as holdfast:
        started = holdfast.runs.create(
            agent,
            input=given,
            message=with_images(message, image or ()),
            thread_id=thread,
            run_id=run_id,
            idempotency_key=key,
            metadata=parse_pairs(metadata),
            interaction_mode="interactive" if interactive else None,
        )
        if json:
            show.print_kind("run", started)
        else:
            print(started.id, flush=True)
        if watch or interactive:
            raise typer.Exit(follow(holdfast, started.id, None, json, interactive=interactive))


@runs.command("list")
def list_runs(
    agent: Annotated[str | None, typer.Option(help="Only runs of this agent.")] = None,
    status: Annotated[str | None, typer.Option(help="Only runs of this status.")] = None,
    thread: Annotated[str | None, typer.Option(help="Only runs of this thread.")] = None,
    parent: Annotated[str | None, typer.Option(help="Only subagents' runs that this run has called.")] = None,
    subagents: Annotated[bool, typer.Option(help="With the runs of subagents, or without any.")] = True,
    limit: Annotated[
        int, typer.Option(min=1, max=10_000, help="At most so many: the open ones, then the last closed.")
    ] = 50,
    json: AsJson = False,
) -> None:
    """List runs, the open and the last closed ones, shown latest first."""
    with client() as holdfast:
        wanted = {"status": status, "thread_id": thread, "parent_id": parent}
        found = holdfast.runs.list(agent, **wanted, subagents=subagents, limit=limit)
    if not json:
        show.print_runs(found)
        return
    for each in found:
        show.print_json(each.model_dump(mode="json"))


@runs.command("show")
def show_run(
    run_id: RunId,
    tree: Annotated[bool, typer.Option("--tree", help="With the timelines of its subagents, indented.")] = False,
    json: AsJson = False,
) -> None:
    """Show a run: its status, answer, cost and timeline."""
    with client() as holdfast:
        found = holdfast.runs.get(run_id)
        if json:
            show.print_json(found.model_dump(mode="json"))
        else:
            show.print_run(found, holdfast.runs.get if tree else None)


@runs.command("watch")
def watch_run(
    run_id: RunId,
    after: Annotated[str | None, typer.Option(help="Go on after this event's id.")] = None,
    interactive: Interactive = False,
    json: AsJson = False,
) -> None:
    """Show a run's events until it has ended, then its answer: exit code 0 for completed or degraded, 1 otherwise."""
    if interactive:
        ask.check_terminal(json)
    with client() as holdfast:
        raise typer.Exit(follow(holdfast, run_id, after, json, interactive=interactive))


@runs.command("message")
def message_run(
    run_id: RunId,
    text: Annotated[str, typer.Argument(help="What to say.")],
    image: Images = None,
    message_id: Annotated[str | None, typer.Option("--id", help="The same id twice counts once.")] = None,
    json: AsJson = False,
) -> None:
    """Send a follow-up message, which the model sees at its next step; a run that has ended starts again with it."""
    with client() as holdfast:
        sent = holdfast.runs.append_message(run_id, with_images(text, image or ()), id=message_id)
    if json:
        show.print_json({"run_id": run_id, "message_id": sent})
    else:
        print(sent)


@runs.command("cancel")
def cancel_run(run_id: RunId, json: AsJson = False) -> None:
    """Ask a run to stop; what has ended stays as it is."""
    with client() as holdfast:
        ended = holdfast.runs.status(run_id).closed
        holdfast.runs.cancel(run_id)
        status = holdfast.runs.status(run_id).status
    if json:
        show.print_json({"run_id": run_id, "status": status})
    else:
        print(f"it had ended: {status}" if ended else f"asked to stop; it is {status}")
