"""The public surface: its names, and what importing it costs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import holdfast

ROOT = Path(__file__).parents[2]


def fresh(code: str) -> str:
    """Run code in a fresh process; return what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def loaded(code: str) -> set[str]:
    """Return the top-level modules that a fresh process has loaded after running code."""
    return set(fresh(f"import sys\n{code}\nprint(*{{name.split('.')[0] for name in sys.modules}})").split())


def test_the_exported_names_are_these() -> None:
    assert holdfast.__all__ == [
        "Agent",
        "AgentNotFound",
        "AsyncClient",
        "Client",
        "Compaction",
        "Condition",
        "DecisionRefused",
        "DefinitionError",
        "Event",
        "Failure",
        "Guardrail",
        "GuardrailRequest",
        "GuardrailResult",
        "GuardrailSpec",
        "HoldfastError",
        "HoldfastPlugin",
        "IdempotencyConflict",
        "InputInvalid",
        "Interaction",
        "Join",
        "Limits",
        "Match",
        "McpServer",
        "McpTools",
        "Message",
        "ModelSettings",
        "NoWorker",
        "Policy",
        "PolicyDecision",
        "PolicyEngine",
        "PolicyRequest",
        "PolicyRule",
        "Run",
        "RunClosed",
        "RunExists",
        "RunNotFound",
        "RunRequest",
        "RunResult",
        "RunSummary",
        "Runner",
        "RunnerConfig",
        "Secret",
        "SecretRequest",
        "ServerError",
        "ServerUnavailable",
        "Settings",
        "Source",
        "Subagent",
        "SubagentExecution",
        "Thread",
        "ThreadNotFound",
        "Tool",
        "ToolCall",
        "ToolContext",
        "ToolExecution",
        "ToolSpec",
        "Usage",
        "ask_user",
        "block",
        "guardrail",
        "http_get",
        "make_http_get",
        "passed",
        "rewrite",
        "sleep",
        "tool",
        "wait_until",
    ]
    assert dir(holdfast) == holdfast.__all__


@pytest.mark.parametrize("name", holdfast.__all__)
def test_every_exported_name_is_there(name: str) -> None:
    assert getattr(holdfast, name) is getattr(holdfast, name)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'holdfast' has no attribute 'Agnet'"):
        _ = holdfast.Agnet


def test_importing_holdfast_loads_no_library_at_all() -> None:
    heavy = {"litellm", "temporalio", "pydantic", "jinja2", "structlog", "typer", "aiohttp"}
    assert not loaded("import holdfast") & heavy


def test_making_agents_and_tools_loads_neither_litellm_nor_temporal() -> None:
    code = """
from holdfast import Agent, tool
@tool
def add(a: int, b: int) -> int: return a + b
Agent(name='demo', model='m', tools=[add]).revision
"""
    modules = loaded(code)
    assert "pydantic" in modules
    assert not modules & {"litellm", "temporalio"}


def test_no_public_name_pulls_in_litellm() -> None:
    modules = loaded("from holdfast import *")
    assert "temporalio" in modules
    assert "litellm" not in modules


def test_the_runs_decisions_load_no_temporal() -> None:
    assert "temporalio" not in loaded("import holdfast.workflows.state, holdfast.workflows.admission")


def test_tool_is_the_decorator_even_after_its_module_is_imported() -> None:
    said = fresh("import holdfast.tools\nfrom holdfast import tool\nprint(callable(tool), tool is holdfast.tools.tool)")
    assert said == "True True"
