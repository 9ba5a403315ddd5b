"""The workers of runners: in one process at most one for each task queue, unless two are the same."""

from __future__ import annotations

import asyncio
import hashlib
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import temporalio.client

from holdfast.activities.answer import Complete
from holdfast.bounds import canonical_json
from holdfast.client.portal import Portal
from holdfast.errors import DefinitionError
from holdfast.guardrails import Guardrail
from holdfast.hooks import PolicyEngine
from holdfast.mcp import McpServer
from holdfast.policy import Policy
from holdfast.secrets import SecretResolver
from holdfast.tools import Tool
from holdfast.worker.build import Serving, make_worker
from holdfast.worker.plugin import HoldfastPlugin
from holdfast.worker.settings import Settings

THREADS = "holdfast-threads"
"""The task queue where threads of runners live, whatever the script and its tools."""

Brought = Tool[..., Any] | Guardrail | McpServer
Parts = dict[tuple[str, str], Brought]
"""What a worker needs of an agent beside its data, by kind and name."""
Place = tuple[str, str, str]
"""Address, namespace, task queue."""

_polling: dict[Place, Hosting] = {}
"""Who began last to poll a place, from this process."""


@dataclass
class Hosting:
    """One runner's workers; all but the fields is used from its portal's loop only."""

    portal: Portal
    settings: Settings
    complete: Complete | None
    policy_engine: Policy | PolicyEngine | None = None
    secrets: SecretResolver | None = None
    workers: dict[Place, tuple[Parts, Serving]] = field(default_factory=dict)
    threads: Serving | None = None
    """The worker of threads, once one is used."""

    async def serve(self, temporal: temporalio.client.Client, queue: str, parts: Iterable[Brought]) -> None:
        """See that a worker with these functions polls a queue; it keeps those that it had, newer ones for older.

        A worker that would do otherwise is stopped first, another runner's too: a notebook's cell that is run again
        makes new functions, and maybe a new runner, under the old names.
        """
        place = (temporal.service_client.config.target_host, temporal.namespace, queue)
        brought = {_key(each): each for each in parts}
        known = self._known(place)
        if known is not None and {**known, **brought} == known:
            return
        other = _polling.get(place)
        if other is not None and other is not self:
            theirs = other._known(place)
            same = theirs == brought and other._told == self._told
            known = None if same else await other.portal.bridge(other._release(place))
        elif known is not None:
            await self._release(place)
        wanted = {**(known or {}), **brought}
        for (kind, name), each in (known or {}).items():
            if origin(wanted[kind, name]) != origin(each):
                raise DefinitionError(f"two different {kind}s are named {name!r} on task queue {queue!r}")
        functions = [each for each in wanted.values() if isinstance(each, Tool)]
        servers = [each for each in wanted.values() if isinstance(each, McpServer)]
        guardrails = [each for each in wanted.values() if isinstance(each, Guardrail)]
        plugin = HoldfastPlugin((), functions, *self._told, mcp_servers=servers, guardrails=guardrails)
        serving = Serving(make_worker(temporal, plugin, task_queue=queue))
        await serving.begun()
        self.workers[place] = (wanted, serving)
        _polling[place] = self

    async def serve_threads(self, temporal: temporalio.client.Client, queue: str) -> None:
        """See that a worker without tools polls the queue where threads live, which outlast any script's tools."""
        if self.threads is None or self.threads.ended.done():
            plugin = HoldfastPlugin(settings=self.settings, complete=self.complete)
            self.threads = Serving(make_worker(temporal, plugin, task_queue=queue))
            await self.threads.begun()

    async def stop(self) -> None:
        """Stop all of its workers at once; running activities get their grace."""
        threads, self.threads = self.threads, None
        others = [] if threads is None or threads.ended.done() else [threads.stop()]
        await asyncio.gather(*(self._release(place) for place in list(self.workers)), *others)

    @property
    def _told(self) -> tuple[Settings, Complete | None, Policy | PolicyEngine | None, SecretResolver | None]:
        return self.settings, self.complete, self.policy_engine, self.secrets

    def _known(self, place: Place) -> Parts | None:
        parts, serving = self.workers.get(place, ({}, None))
        return parts if serving is not None and not serving.ended.done() else None

    async def _release(self, place: Place) -> Parts | None:
        """Stop the worker of a place, and return the functions that it had."""
        parts, serving = self.workers.pop(place, (None, None))
        if _polling.get(place) is self:
            del _polling[place]
        if serving is not None and not serving.ended.done():
            await serving.stop()
        return parts


def queue_of_script(tools: Iterable[Brought]) -> str:
    """Name the task queue of a script with these tools: the same whenever it is started, another where they differ.

    A notebook or a prompt has no script; its folder stands for it.
    """
    path = getattr(sys.modules["__main__"], "__file__", None)
    script = str(Path(path).resolve() if path else Path.cwd())
    told = sorted(canonical_json([*origin(each), each.spec.wire() if isinstance(each, Tool) else ""]) for each in tools)
    return f"runner-{hashlib.sha256(canonical_json([script, *told]).encode()).hexdigest()[:16]}"


def _key(brought: Brought) -> tuple[str, str]:
    if isinstance(brought, McpServer):
        return "MCP server", brought.name
    return type(brought).__name__.lower(), brought.spec.name


def origin(tool: Brought) -> tuple[str, str]:
    """Return where a function is defined: its module, and its name there; of an MCP server its name."""
    if isinstance(tool, McpServer):
        return "mcp", tool.name
    return tool.function.__module__, tool.function.__qualname__
