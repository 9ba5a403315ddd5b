"""Task queues beside a worker's own: for model calls at a rate, and for tools of which few may run at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from holdfast import wire
from holdfast.activities.endpoints import Endpoint
from holdfast.agent import Agent
from holdfast.mcp import McpServer
from holdfast.tools import ToolSpec

MCP = "mcp"
"""Stands for the one activity that all MCP tools are."""


@dataclass(frozen=True)
class Queue:
    """One task queue, by what follows the worker's own and a colon."""

    suffix: str
    activities: tuple[str, ...]
    """The names of what is served there."""
    per_second: float | None = None
    """Calls begun a second, over all workers."""
    at_once: int | None = None
    """Calls under way at once on one worker."""

    def name(self, task_queue: str) -> str:
        """Return its whole name, beside the queue of this name."""
        return f"{task_queue}:{self.suffix}"


class Queues:
    """The queues that one worker's settings ask for: all workers of a task queue must have the same."""

    def __init__(
        self,
        endpoints: Mapping[str, Endpoint],
        model_calls_per_second: float | None,
        tools: Mapping[str, ToolSpec],
        servers: Mapping[str, McpServer],
    ) -> None:
        asked = (wire.MODEL_CALL, wire.CONTEXT_COMPACT)
        rates = {pattern: each.calls_per_second for pattern, each in endpoints.items()}
        self._models: dict[str, Queue | None] = {
            pattern: Queue(f"model:{pattern}", asked, per_second=rate) if rate else None
            for pattern, rate in rates.items()
        }
        if model_calls_per_second is not None:
            others = Queue("model", asked, per_second=model_calls_per_second)
            self._models = {pattern: known or others for pattern, known in self._models.items()}
            self._models.setdefault("*", others)
        self._tools = {
            name: Queue(f"tool:{name}", (name,), at_once=spec.max_concurrent)
            for name, spec in tools.items()
            if spec.max_concurrent is not None and not spec.is_elsewhere
        }
        self._servers = {
            name: Queue(f"mcp:{name}", (MCP,), at_once=server.max_concurrent)
            for name, server in servers.items()
            if server.max_concurrent is not None
        }

    def all(self) -> list[Queue]:
        """Return every queue, once."""
        models = [each for each in self._models.values() if each is not None]
        return list(dict.fromkeys((*models, *self._tools.values(), *self._servers.values())))

    def of(self, agent: Agent, task_queue: str) -> dict[str, str]:
        """Return what of an agent's is called on another queue than `task_queue`, as `LoadedAgent.queues` has it."""
        compacting = agent.compaction.model if agent.compaction else None
        models = dict.fromkeys((agent.model, *agent.fallback_models, *([compacting] if compacting else [])))
        found = {f"model:{name}": self._of_model(name) for name in models}
        for spec in agent.tool_specs:
            server = spec.mcp_server
            found[spec.name] = self._tools.get(spec.name) if server is None else self._servers.get(server)
        return {key: queue.name(task_queue) for key, queue in found.items() if queue is not None}

    def _of_model(self, model: str) -> Queue | None:
        return next((queue for pattern, queue in self._models.items() if fnmatchcase(model, pattern)), None)
