"""Finds the agents and tools that a file or a module defines."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import traceback
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import ValidationError

from holdfast import wire
from holdfast.activities.failures import text_of
from holdfast.activities.mcp_tools import check_servers
from holdfast.agent import Agent
from holdfast.bounds import cut
from holdfast.builtins import BUILTINS
from holdfast.errors import DefinitionError, HoldfastError, InputInvalid, field_errors
from holdfast.guardrails import Guardrail, GuardrailSpec
from holdfast.hooks import PolicyEngine
from holdfast.mcp import McpServer
from holdfast.policy import Policy
from holdfast.tools import Tool, ToolSpec

_IMPORTERS = (__file__, importlib.__file__)


@dataclass
class Registry:
    """The agents and tools of one worker, by name; two different ones of the same name are refused."""

    agents: dict[str, Agent] = field(default_factory=dict)
    tools: dict[str, Tool[..., Any]] = field(default_factory=dict)
    elsewhere: dict[str, ToolSpec] = field(default_factory=dict)
    """Tools that are activities of somebody else's."""
    servers: dict[str, McpServer] = field(default_factory=dict)
    guardrails: dict[str, Guardrail] = field(default_factory=dict)
    policy_engine: PolicyEngine | None = None

    @classmethod
    def of(
        cls,
        agents: Iterable[Agent] = (),
        tools: Iterable[Tool[..., Any] | ToolSpec] = (),
        servers: Iterable[McpServer] = (),
        guardrails: Iterable[Guardrail] = (),
        policy_engine: Policy | PolicyEngine | None = None,
    ) -> Registry:
        """Collect agents with what they bring, and more of it besides; DefinitionError for a clash or a missing one."""
        registry = cls(policy_engine=None if policy_engine is None else PolicyEngine.of(policy_engine))
        for server in servers:
            registry.add_server(server)
        for guardrail in guardrails:
            registry.add_guardrail(guardrail)
        for tool in tools:
            if isinstance(tool, ToolSpec):
                registry.add_elsewhere(tool)
            else:
                registry.add_tool(tool)
        for agent in agents:
            registry.add_agent(agent)
        registry.check()
        return registry

    def add_tool(self, tool: Tool[..., Any]) -> None:
        """Add a tool, once."""
        name = tool.spec.name
        if tool.spec.builtin is not None:
            return  # the run carries it out itself, on every worker
        _check_name(name)
        if name in self.elsewhere or self.tools.setdefault(name, tool) is not tool:
            raise DefinitionError(f"two different tools are named {name!r}; activities are told apart by their names")

    def add_elsewhere(self, spec: ToolSpec) -> None:
        """Add a tool that is an activity of somebody else's: on its task queue, or on this worker's own."""
        _check_name(spec.name)
        try:
            spec = ToolSpec.model_validate({**spec.wire(), "activity": spec.activity_type})
        except ValidationError as error:
            raise DefinitionError(f"tool {spec.name!r}: {InputInvalid(field_errors(error))}") from None
        if spec.name in self.tools or self.elsewhere.setdefault(spec.name, spec) != spec:
            raise DefinitionError(f"two different tools are named {spec.name!r}")

    def add_server(self, server: McpServer) -> None:
        """Add an MCP server, once."""
        if self.servers.setdefault(server.name, server) != server:
            raise DefinitionError(f"two different MCP servers are named {server.name!r}")

    def add_guardrail(self, guardrail: Guardrail) -> None:
        """Add a guardrail, once."""
        name = guardrail.spec.name
        if self.guardrails.setdefault(name, guardrail) is not guardrail:
            raise DefinitionError(f"two different guardrails are named {name!r}")

    def add_agent(self, agent: Agent) -> None:
        """Add an agent with its tools and guardrails, once."""
        if self.agents.setdefault(agent.name, agent) != agent:
            raise DefinitionError(f"two different agents are named {agent.name!r}")
        for tool in agent.functions:
            self.add_tool(tool)
        for spec in agent.every_tool_elsewhere:
            self.add_elsewhere(spec)
        for server in agent.held_servers:
            self.add_server(server)
        for guardrail in agent.guards:
            self.add_guardrail(guardrail)

    def check(self) -> None:
        """Raise DefinitionError for an agent that names a tool or a guardrail nobody brought."""
        for agent in self.agents.values():
            agent.resolved(self.specs, self.agents, self.guardrail_specs)

    @property
    def guardrail_specs(self) -> dict[str, GuardrailSpec]:
        """The guardrails as data."""
        return {name: guardrail.spec for name, guardrail in self.guardrails.items()}

    def check_servers(self) -> None:
        """Raise DefinitionError for an agent that names an MCP server nobody told of."""
        for agent in self.agents.values():
            check_servers(agent, self.servers)

    @property
    def specs(self) -> dict[str, ToolSpec]:
        """The tools as data."""
        return {name: tool.spec for name, tool in (self.tools | BUILTINS).items()} | self.elsewhere

    @property
    def every_tool(self) -> list[Tool[..., Any] | ToolSpec]:
        """Its own tools, and those of somebody else's."""
        return [*self.tools.values(), *self.elsewhere.values()]


def _check_name(name: str) -> None:
    if name in BUILTINS:
        raise DefinitionError(f"no tool may be named {name!r}: that is one of Holdfast's own")
    if name in wire.ACTIVITIES:
        raise DefinitionError(f"no tool may be named {name!r}: that is an activity of Holdfast's own")


def discover(sources: Iterable[str]) -> Registry:
    """Import files (*.py) and modules; collect the agents, tools, guardrails and the policy at their top level."""
    agents: list[Agent] = []
    tools: list[Tool[..., Any] | ToolSpec] = []
    servers: list[McpServer] = []
    guardrails: list[Guardrail] = []
    engines: list[PolicyEngine] = []
    for source in sources:
        module = _load(source)
        if not any(isinstance(value, Agent | Tool | ToolSpec | McpServer) for value in vars(module).values()):
            raise DefinitionError(f"{source} defines no agent and no tool at its top level")
        for value in vars(module).values():
            if isinstance(value, Agent) and value not in agents:
                agents.append(value)
            elif isinstance(value, Tool | ToolSpec) and value not in tools:
                tools.append(value)
            elif isinstance(value, McpServer):
                servers.append(value)
            elif isinstance(value, Guardrail) and value not in guardrails:
                guardrails.append(value)
            elif isinstance(value, PolicyEngine) and value not in engines:
                engines.append(value)
    if len(engines) > 1:
        raise DefinitionError("two PolicyEngines stand at the top level: a worker has one policy")
    return Registry.of(agents, tools, servers, guardrails, engines[0] if engines else None)


def _load(source: str) -> ModuleType:
    if not source.endswith(".py"):
        _reach(Path.cwd())
        try:
            return importlib.import_module(source)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - the file's own mistake, told in one line
            if isinstance(error, ModuleNotFoundError) and error.name is not None and source.startswith(error.name):
                raise DefinitionError(f"no module is named {source!r}; name a file as FILE.py") from None
            raise _wrong(source, error) from None
    path = Path(source).resolve()
    if not path.is_file():
        raise DefinitionError(f"there is no file {source!r}")
    for known in list(sys.modules.values()):
        if getattr(known, "__file__", None) == str(path):
            return known  # another file has imported it
    spec = importlib.util.spec_from_file_location(f"holdfast_source_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    sys.modules.setdefault(path.stem, module)  # a file beside it that imports it gets this very module
    _reach(path.parent)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - the file's own mistake, told in one line
        raise _wrong(source, error) from None
    return module


def _reach(folder: Path) -> None:
    """Let a file import its neighbours, as `python FILE` would, also later, inside its tools."""
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


def _wrong(source: str, error: BaseException) -> DefinitionError:
    """Say in one line what is wrong with a file, and in which of its lines; the values of bad data are left out."""
    if isinstance(error, ValidationError):
        said = f"{error.title}: {InputInvalid(field_errors(error))}"
    elif isinstance(error, HoldfastError):
        said = str(error)
    else:
        said = f"{type(error).__name__}: {text_of(error)}"
    return DefinitionError(f"{_place(source, error)}: {cut(' '.join(said.split()))}")


def _place(source: str, error: BaseException) -> str:
    """Return file and line: the last frame in the file that was imported first, or where the syntax is wrong."""
    frames = [each for each in traceback.extract_tb(error.__traceback__) if each.filename not in _IMPORTERS]
    frames = [each for each in frames if not each.filename.startswith("<frozen importlib")]
    if frames:
        last = [each for each in frames if each.filename == frames[0].filename][-1]
        return f"{last.filename}:{last.lineno}"
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    return source
