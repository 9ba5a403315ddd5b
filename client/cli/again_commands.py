"""`holdfast runs resume-run | fork | diff`."""

from __future__ import annotations

from typing import Annotated

import typer

from holdfast.client.cli import ask, show
from holdfast.client.cli.app import AsJson, Interactive, RunId, Watch, client, runs
from holdfast.client.cli.watch import watch as follow

Message = Annotated[str | None, typer.Option("--message", "-m", help="What the model is told first.")]


@runs.command("resume-run")
def resume_run(
    run_id: RunId,
    message: Message = None,
    watch: Watch = False,
    interactive: Interactive = False,
    json: AsJson = False,
) -> None:
    """Take up a run that was interrupted, cancelled or failed; one that is live or completed is left alone."""
    if interactive:
        ask.check_terminal(json)
    with client() as holdfast:
        watch = watch or interactive
        seen = holdfast.runs.get(run_id).logs if watch and holdfast.runs.status(run_id).closed else []
        taken = holdfast.runs.resume_run(run_id, message=message)
        if json:
            show.print_kind("run", taken)
        else:
            print(f"{taken.id}: {taken.status}", flush=True)
        if watch:
            cursor = seen[-1].id if seen else None
            raise typer.Exit(follow(holdfast, run_id, cursor, json, interactive=interactive))


@runs.command("fork")
def fork_run(
    run_id: RunId,
    at_step: Annotated[int | None, typer.Option(min=1, help="The first step to take anew; all are kept else.")] = None,
    message: Message = None,
    agent: Annotated[str | None, typer.Option(help="Another agent, by the name that a worker knows it by.")] = None,
    new_run_id: Annotated[str | None, typer.Option("--run-id", help="The id of the new run.")] = None,
    watch: Watch = False,
    interactive: Interactive = False,
    json: AsJson = False,
) -> None:
    """Start a new run from the first steps of a run that has ended; the old one stays as it is."""
    if interactive:
        ask.check_terminal(json)
    with client() as holdfast:
        started = holdfast.runs.fork(run_id, at_step, message, agent, new_run_id=new_run_id)
        if json:
            show.print_kind("run", started)
        else:
            print(started.id, flush=True)
        if watch or interactive:
            raise typer.Exit(follow(holdfast, started.id, None, json, interactive=interactive))


@runs.command("diff")
def diff_runs(
    run_a: Annotated[str, typer.Argument(help="A run's id.")],
    run_b: Annotated[str, typer.Argument(help="Another run's id.")],
    json: AsJson = False,
) -> None:
    """Set two runs side by side, step by step; = marks what is the same."""
    with client() as holdfast:
        found = holdfast.runs.diff(run_a, run_b)
    if json:
        show.print_json(found.model_dump(mode="json"))
    else:
        from holdfast.client.cli.show_diff import print_diff

        print_diff(found)
