"""The commands that host a process; only these import `holdfast.worker`, and only when they run."""

from __future__ import annotations

from typing import Annotated

import typer

from holdfast.client.cli.app import AsJson, Where, app

Sources = Annotated[list[str], typer.Argument(help="Python files (*.py) or modules that define agents and tools.")]


Port = Annotated[int, typer.Option(min=0, max=65_535, help="A free one is used where it is taken.")]


@app.command()
def worker(sources: Sources) -> None:
    """Serve runs of the agents defined in SOURCES, until SIGTERM or Ctrl-C; settings are HOLDFAST_* variables."""
    from holdfast.worker import host

    host.leave(host.serve(sources, address=Where.address, namespace=Where.namespace, task_queue=Where.task_queue))


@app.command()
def dev(
    sources: Sources,
    port: Annotated[
        int, typer.Option(min=0, max=65_535, help="The server's port; a free one where it is taken.")
    ] = 7233,
    ui_port: Annotated[
        int, typer.Option(min=0, max=65_535, help="The Web UI's port; a free one where it is taken.")
    ] = 8233,
) -> None:
    """Run an embedded Temporal server (kept in the folder .holdfast) and a worker in one, for development."""
    from holdfast.worker import host

    host.leave(host.develop(sources, port=port, ui_port=ui_port, task_queue=Where.task_queue))


@app.command()
def demo(
    model: Annotated[str | None, typer.Option(help="Any litellm model; without one, a scripted model offline.")] = None,
    keep: Annotated[bool, typer.Option(help="Keep the Web UI up at the end, until Enter or Ctrl-C.")] = False,
) -> None:
    """Check invoices against orders, with a tool that fails and a worker that is killed in the middle."""
    from holdfast.worker import demo as demonstration
    from holdfast.worker import host

    host.leave(demonstration.run(model, keep=keep))


@app.command()
def setup(as_json: AsJson = False) -> None:
    """Register the search attributes that runs write, and wait until the server takes them."""
    from holdfast.worker import host

    host.leave(host.set_up(address=Where.address, namespace=Where.namespace, as_json=as_json))


@app.command()
def healthcheck(
    here: Annotated[bool, typer.Option("--here", help="Only a worker on this very host counts.")] = False,
    as_json: AsJson = False,
) -> None:
    """Exit 0 if the server answers and a worker polls the task queue."""
    from holdfast.worker import host

    host.leave(
        host.check_health(
            here=here,
            address=Where.address,
            namespace=Where.namespace,
            task_queue=Where.task_queue,
            as_json=as_json,
        )
    )
