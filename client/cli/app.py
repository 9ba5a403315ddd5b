"""The command tree, and how an error ends it: one line on stderr, exit code 2."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from holdfast.errors import HoldfastError, InputInvalid

if TYPE_CHECKING:
    from holdfast.client.sync import Client

app = typer.Typer(
    name="holdfast",
    help="Durable LLM agent runs on Temporal. Where Temporal is: TEMPORAL_ADDRESS, TEMPORAL_NAMESPACE or a profile.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
runs = typer.Typer(help="List, show, watch and steer runs.", no_args_is_help=True)
agents = typer.Typer(help="The agents that workers know.", no_args_is_help=True)
threads = typer.Typer(help="The conversations that runs share.", no_args_is_help=True)
app.add_typer(runs, name="runs")
app.add_typer(agents, name="agents")
app.add_typer(threads, name="threads")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, one object a line.")]
Watch = Annotated[bool, typer.Option("--watch", "-w", help="Show events until the run has ended.")]
Interactive = Annotated[bool, typer.Option("--interactive", help="Watch, and be asked here for approvals and answers.")]
RunId = Annotated[str, typer.Argument(help="The run's id: Temporal's workflow id.")]


class Where:
    """What the command line said of where Temporal is."""

    address: str | None = None
    namespace: str | None = None
    task_queue: str | None = None


@app.callback()
def _where(
    address: Annotated[str | None, typer.Option(help="Temporal's address; TEMPORAL_ADDRESS otherwise.")] = None,
    namespace: Annotated[str | None, typer.Option(help="Temporal's namespace.")] = None,
    task_queue: Annotated[str | None, typer.Option(help="The workers' task queue; HOLDFAST_TASK_QUEUE.")] = None,
) -> None:
    Where.address, Where.namespace, Where.task_queue = address, namespace, task_queue


def client() -> Client:
    """Make the client that the options describe; Temporal's native part keeps its warnings off our stdout."""
    from temporalio.runtime import LoggingConfig, Runtime, TelemetryConfig, TelemetryFilter

    from holdfast.client.sync import Client

    quiet = LoggingConfig(filter=TelemetryFilter(core_level="ERROR", other_level="ERROR"))
    Runtime.set_default(Runtime(telemetry=TelemetryConfig(logging=quiet)), error_if_already_set=False)
    return Client(Where.address, Where.namespace, task_queue=Where.task_queue)


def parse_pairs(pairs: list[str] | None) -> dict[str, Any]:
    """Read `key=value` pairs; a value that is JSON is taken as JSON, anything else as text.

    So `number=1001` is a number, and `number="1001"`, its quotes included, a text.
    """
    found: dict[str, Any] = {}
    for pair in pairs or []:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise InputInvalid({"input": f"{pair!r} is not key=value"})
        try:
            found[key] = json.loads(value)
        except (ValueError, RecursionError):
            found[key] = value
    return found


def read_object(source: str | None) -> dict[str, Any]:
    """Read one JSON object from a file, or from stdin where the source is `-`."""
    if source is None:
        return {}
    try:
        found = json.loads(sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes())
    except OSError as error:
        raise InputInvalid({"input-json": f"can't read {source!r}: {error.strerror}"}) from None
    except (ValueError, RecursionError) as error:
        raise InputInvalid({"input-json": f"{source!r} is no JSON: {error}"}) from None
    if not isinstance(found, dict):
        raise InputInvalid({"input-json": f"{source!r} must hold one JSON object"})
    return found


def main() -> None:
    """Run the command line; errors that a person can mend are one line, without a traceback."""
    from holdfast.client.cli import (  # noqa: F401 - they register themselves
        again_commands,
        agents_commands,
        host_commands,
        run_commands,
        steer_commands,
        thread_commands,
    )

    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal that has no é shows it all the same
    code: int | str | None = 0
    try:
        app(standalone_mode=True)
    except SystemExit as ended:
        code = ended.code
    except (HoldfastError, TimeoutError) as error:
        print(f"holdfast: {error}", file=sys.stderr)
        code = 2
    except BrokenPipeError:
        code = 141
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nobody reads on: nothing is left to flush
    except OSError as error:
        print(f"holdfast: {error}", file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        code = 130
    except Exception as error:
        if not type(error).__module__.startswith("temporalio."):
            raise
        print(f"holdfast: {' '.join(str(error).split()) or type(error).__name__}", file=sys.stderr)
        code = 2
    sys.exit(code)
