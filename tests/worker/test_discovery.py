"""Finding agents and tools in files."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast import DefinitionError, ToolSpec
from holdfast.worker.discovery import Registry, discover


@pytest.fixture(autouse=True)
def _modules() -> Iterator[None]:
    """Leave the interpreter's modules and path as they were."""
    modules, path = dict(sys.modules), list(sys.path)
    yield
    sys.modules.clear()
    sys.modules.update(modules)
    sys.path[:] = path


TOOL = """
from holdfast import tool

@tool
def find(number: int) -> int:
    "Find."
    import hf_sibling
    return hf_sibling.VALUE + number
"""
AGENT = "from holdfast import Agent\nfrom hf_tools import find\nagent = Agent(name='a', model='m', tools=[find])\n"


def test_a_tool_may_import_its_neighbour_when_it_runs(tmp_path: Path) -> None:
    (tmp_path / "hf_tools.py").write_text(TOOL)
    (tmp_path / "hf_sibling.py").write_text("VALUE = 40")
    registry = discover([str(tmp_path / "hf_tools.py")])
    assert registry.tools["find"](2) == 42


@pytest.mark.parametrize("order", [("hf_tools.py", "hf_agents.py"), ("hf_agents.py", "hf_tools.py")])
def test_a_file_that_another_imports_is_loaded_once(tmp_path: Path, order: tuple[str, str]) -> None:
    (tmp_path / "hf_tools.py").write_text(TOOL)
    (tmp_path / "hf_agents.py").write_text(AGENT)
    registry = discover([str(tmp_path / name) for name in order])
    assert sorted(registry.tools) == ["find"]
    assert sorted(registry.agents) == ["a"]


def test_a_bound_on_a_tool_of_somebody_elses_is_refused_with_its_name() -> None:
    with pytest.raises(DefinitionError, match="tool 'charge'.*max_concurrent is for functions of the worker"):
        Registry.of(tools=[ToolSpec(name="charge", max_concurrent=2)])
