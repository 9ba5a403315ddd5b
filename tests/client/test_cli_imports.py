"""What the command line imports: a person waits for it at every command."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("aiohttp", "jinja2", "jsonschema", "litellm", "mcp", "openai", "pydantic", "structlog", "temporalio")
TELL = """
import atexit, sys
atexit.register(lambda: print("imported:", *sorted({name.partition(".")[0] for name in sys.modules})))
sys.argv[0] = "holdfast"
from holdfast.client.cli import main
main()
"""


def imported(*arguments: str) -> set[str]:
    """Run the command line, and return the top-level names of all that it imported."""
    done = subprocess.run([sys.executable, "-c", TELL, *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.rpartition("imported:")[2].split())


def test_help_imports_nothing_heavy() -> None:
    found = imported("--help")
    assert {"holdfast", "typer"} <= found
    assert found.isdisjoint(HEAVY)


@pytest.mark.parametrize(
    "arguments",
    [("run", "--help"), ("runs", "--help"), ("runs", "list", "--help"), ("dev", "--help")],
    ids=" ".join,
)
def test_a_commands_help_imports_nothing_heavy_but_what_typer_itself_reads_options_with(
    arguments: tuple[str, ...],
) -> None:
    assert imported(*arguments).isdisjoint({*HEAVY} - {"pydantic"})


def test_a_client_imports_no_model_library() -> None:
    code = "import sys, holdfast.client as c; c.Client(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert {"temporalio", "pydantic"} <= {*done.stdout.split()}
    assert {"litellm", "openai", "aiohttp"}.isdisjoint(done.stdout.split())


def test_the_package_itself_imports_nothing_heavy() -> None:
    code = "import sys, holdfast; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert {*HEAVY}.isdisjoint(done.stdout.split())
