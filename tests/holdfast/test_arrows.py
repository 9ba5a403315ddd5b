"""Imports go one way: holdfast ← activities ← workflows ← client ← worker."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import holdfast

ROOT = Path(__file__).parents[2]
FOLDERS = ("holdfast", "activities", "workflows", "client", "worker")
RANK = {folder: rank for rank, folder in enumerate(FOLDERS)}
FILES = [path.relative_to(ROOT) for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
WITH_TEMPORAL = {
    Path(f"workflows/{name}.py")
    for name in (
        *("begin", "catalog", "checks", "hands", "in_thread", "live", "loop", "options", "outcomes", "run", "shown"),
        *("subagents", "thread"),
    )
}
"""The shells around what is decided: every other file of workflows/ is plain, and can be tested without a server."""
ALONE = {"litellm": "activities/_litellm", "mcp": "activities/_mcp", "mcp_types": "activities/_mcp"}
"""Somebody else's package → the beginning of the paths that may know it."""


def imported(tree: ast.AST) -> Iterator[tuple[ast.AST, str]]:
    """Yield every module or name that is imported, wherever the import stands; import_module("…") included."""
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from ((node, each.name) for each in names)
            case ast.ImportFrom(module=module, names=names, level=level):
                yield from ((node, f"{'.' * level}{module or ''}.{each.name}") for each in names)
            case ast.Call(func=ast.Attribute(attr="import_module") | ast.Name(id="import_module" | "__import__")):
                text = next((each.value for each in ast.walk(node) if isinstance(each, ast.Constant)), "")
                if text:
                    yield node, str(text)


def target(name: str) -> str | None:
    """Return the folder that an imported name belongs to, or None for somebody else's."""
    first, _, rest = name.partition(".")
    if first != "holdfast":
        return first if first in FOLDERS else None
    second = rest.partition(".")[0]
    second = holdfast._WHERE.get(second, second)
    return second if second in FOLDERS else "holdfast"


def is_plain(path: Path) -> bool:
    """Say whether a file holds decisions alone."""
    return path.parts[0] == "workflows" and path not in WITH_TEMPORAL


def breaches(path: Path, source: str) -> list[str]:
    """Say what a file imports that it must not."""
    tree = ast.parse(source)
    lazy = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
    }
    typing_only = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and isinstance(block.test, ast.Name) and block.test.id == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    found = []
    for node, name in imported(tree):
        first, folder = name.partition(".")[0], target(name)
        may_host = path.parent.as_posix() == "client/cli" and path.name.startswith("host")
        if not first:
            found.append(f"a relative import: {name}")
        elif first in FOLDERS and first != "holdfast":
            found.append(f"the bare {name}")
        elif first in ALONE and not path.as_posix().startswith(ALONE[first]):
            found.append(first)
        elif first == "temporalio" and (path.parts[0] == "holdfast" or is_plain(path)):
            found.append("temporalio")
        elif folder is not None and RANK[folder] > RANK[path.parts[0]]:
            exported = path == Path("holdfast/__init__.py") and id(node) in typing_only
            hosted = folder == "worker" and may_host and id(node) in lazy
            if not exported and not hosted:
                found.append(name)
    return found


@pytest.mark.parametrize("path", FILES, ids=str)
def test_imports_go_one_way(path: Path) -> None:
    assert breaches(path, (ROOT / path).read_text()) == []


def test_every_folder_is_looked_at() -> None:
    assert {path.parts[0] for path in FILES} == set(FOLDERS)


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("holdfast/agent.py", "from holdfast.activities import model"),
        ("holdfast/agent.py", "from holdfast import activities"),
        ("holdfast/agent.py", "from holdfast import Client"),
        ("holdfast/agent.py", "import temporalio.client"),
        ("holdfast/__init__.py", "from holdfast.client import Client"),
        ("activities/model.py", "def f():\n    from holdfast.workflows.state import RunState"),
        ("activities/model.py", "if TYPE_CHECKING:\n    from holdfast.client import Client"),
        ("activities/model.py", "import litellm"),
        ("activities/mcp_pool.py", "def f():\n    from mcp import Client"),
        ("activities/model.py", "from . import tools"),
        ("workflows/state.py", "from temporalio import workflow"),
        ("workflows/a_new_decision.py", "from temporalio import workflow"),
        ("workflows/run.py", "with passed_through():\n    import holdfast.client.timeline"),
        ("client/runs.py", "def f():\n    from holdfast.worker import Runner"),
        ("client/runs.py", "import_module('holdfast.worker.build')"),
        ("client/cli/host.py", "from holdfast.worker import Runner"),
        ("client/cli/show.py", "def f():\n    from holdfast.worker import Runner"),
        ("client/runs.py", "import workflows"),
        ("worker/build.py", "from activities.model import ModelActivities"),
        ("worker/build.py", "def f():\n    import litellm.types"),
    ],
)
def test_an_import_against_the_arrows_is_seen(path: str, source: str) -> None:
    assert len(breaches(Path(path), source)) == 1


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("holdfast/__init__.py", "if TYPE_CHECKING:\n    from holdfast.worker import Runner"),
        ("activities/_litellm.py", "def f():\n    import litellm"),
        ("activities/_mcp.py", "def f():\n    from mcp import Client"),
        ("client/cli/host.py", "def f():\n    from holdfast.worker import Runner"),
        ("worker/build.py", "from holdfast.client.connect import connect\nfrom holdfast import Agent, Client"),
        ("workflows/run.py", "from temporalio import workflow\nfrom holdfast.activities.transcripts import Held"),
    ],
)
def test_an_import_along_the_arrows_is_let_through(path: str, source: str) -> None:
    assert breaches(Path(path), source) == []
