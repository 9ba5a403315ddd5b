"""The composition root, as a Temporal plugin: adds Holdfast to any worker, its own or one that people already have."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import threading
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from types import NoneType
from typing import Any

import temporalio.worker
from temporalio import activity
from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.converter import DataConverter
from temporalio.plugin import SimplePlugin
from temporalio.worker import Interceptor, UnsandboxedWorkflowRunner, WorkerConfig, WorkflowRunner
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner

from holdfast import wire
from holdfast.activities import mcp_access
from holdfast.activities.agents import AgentActivities
from holdfast.activities.answer import Complete
from holdfast.activities.breaker import Breakers
from holdfast.activities.checks import CheckActivities
from holdfast.activities.compaction import CompactionActivities
from holdfast.activities.guard import Guard
from holdfast.activities.inside import Insides, of_environment
from holdfast.activities.keys import run_key
from holdfast.activities.loops import ToolLoops
from holdfast.activities.mcp_calls import McpActivities
from holdfast.activities.mcp_pool import McpPool
from holdfast.activities.model import ModelActivities, warm_up
from holdfast.activities.past import PastActivities
from holdfast.activities.queues import MCP, Queue, Queues
from holdfast.activities.reading import tolerant
from holdfast.activities.responses import Responses
from holdfast.activities.secrets import Scrubber
from holdfast.activities.threads import ThreadActivities
from holdfast.activities.tools import activity_of
from holdfast.activities.transcripts import TranscriptCache
from holdfast.agent import Agent
from holdfast.client.presence import pollers
from holdfast.client.recall import ended, recall
from holdfast.guardrails import Guardrail
from holdfast.hooks import PolicyEngine
from holdfast.mcp import McpServer
from holdfast.policy import Policy
from holdfast.secrets import SecretResolver
from holdfast.tools import Tool, ToolSpec
from holdfast.worker.attributes import register
from holdfast.worker.discovery import Registry
from holdfast.worker.queries import ForgetfulRunner
from holdfast.worker.queues import beside, is_beside, is_made_beside
from holdfast.worker.settings import Settings, read_settings
from holdfast.workflows.catalog import AgentList
from holdfast.workflows.run import AgentRun
from holdfast.workflows.thread import AgentThread

_STICKY = timedelta(seconds=1)
_THROTTLE = timedelta(milliseconds=400)
_IMPORT_SECONDS = 5.0
_LOOK_SECONDS = 0.02


class HoldfastPlugin(SimplePlugin):
    """`Worker(client, task_queue="holdfast", plugins=[HoldfastPlugin(agents=[…])])`, or among its client's plugins.

    Agents are those that runs may name; their tools, and `tools`, become activities under their own names. A ToolSpec
    among them is an activity that somebody else serves. `complete` asks the models, instead of litellm.
    `policy_engine` holds for every run, whatever its agent says; `mcp_servers` are those that agents may
    name, `guardrails` too. `secrets` finds what tools take by handle, instead of the settings and the environment.
    """

    def __init__(
        self,
        agents: Iterable[Agent] = (),
        tools: Iterable[Tool[..., Any] | ToolSpec] = (),
        settings: Settings | None = None,
        complete: Complete | None = None,
        policy_engine: Policy | PolicyEngine | None = None,
        secrets: SecretResolver | None = None,
        *,
        mcp_servers: Iterable[McpServer] = (),
        guardrails: Iterable[Guardrail] = (),
    ) -> None:
        self.settings = settings or read_settings()
        servers = [*self.settings.mcp_servers.values(), *mcp_servers]
        self.registry = Registry.of(agents, tools, servers, guardrails, policy_engine)
        self.registry.check_servers()
        self.search_attributes = False
        self._warm_up = warm_up if complete is None else None
        asks = complete or _litellm(self.settings)
        parts = _Parts(self.registry, self.settings, asks, self._may_search, secrets)
        self._mcp, self._insides = parts.mcp, parts.guard.insides
        self._parts = parts
        self._interceptors = [*_watching(self.settings, parts), parts.guard]
        self._running = 0
        super().__init__(
            "holdfast",
            data_converter=_with_pydantic,
            workflows=[AgentRun, AgentThread, AgentList],
            activities=parts.activities,
            interceptors=self._interceptors,
            workflow_runner=_with_passthrough,
        )

    def configure_worker(self, config: WorkerConfig) -> WorkerConfig:
        """Add our workflows and activities, and the settings without which recovery takes many times as long."""
        if is_made_beside():
            return config
        config = super().configure_worker(config)
        if config.get("activity_executor") is None:
            # One for each worker, for a client's plugin serves all of its workers.
            config["activity_executor"] = _Threads(self.settings.max_concurrent_activities, "holdfast-tool")
        if type(config.get("unsandboxed_workflow_runner")) in (UnsandboxedWorkflowRunner, NoneType):
            config["unsandboxed_workflow_runner"] = ForgetfulRunner()
        config["sticky_queue_schedule_to_start_timeout"] = _STICKY
        config["max_heartbeat_throttle_interval"] = _THROTTLE
        config["default_heartbeat_throttle_interval"] = _THROTTLE
        return config

    async def run_worker(
        self,
        worker: temporalio.worker.Worker,
        next: Callable[[temporalio.worker.Worker], Awaitable[None]],
    ) -> None:
        """Register missing search attributes, then run; the vendor's library is imported meanwhile."""
        if is_beside(worker):
            return await next(worker)
        warming = None
        if self._warm_up is not None:
            warming = threading.Thread(target=self._warm_up, name="holdfast-warm-up", daemon=True)
            warming.start()
        self._insides.clients[worker.client.namespace] = worker.client
        self.search_attributes = await register(worker.client)
        runner = worker.config(active_config=True).get("unsandboxed_workflow_runner")
        if isinstance(runner, ForgetfulRunner):
            runner.serve(worker)
        self._running += 1
        parts, serves = self._parts, self._parts.served_by
        try:
            async with beside(worker, parts.queues.all(), serves, self._interceptors, _THROTTLE):
                await super().run_worker(worker, next)
        finally:
            self._running -= 1
            if not self._running:
                await self._mcp.close()
            if self.settings.telemetry == "otel":
                from holdfast.worker import telemetry

                await telemetry.flush()
            threads = worker.config(active_config=True).get("activity_executor")
            if isinstance(threads, _Threads):
                threads.shutdown(wait=False, cancel_futures=True)
            if warming is not None:
                await _end_of(warming)
            gc.collect()  # likewise with a worker that is collected too late (temporalio/sdk-python#300)

    def _may_search(self) -> bool:
        return self.search_attributes


async def _end_of(importing: threading.Thread) -> None:
    """Let an import end: a process that exits while a thread imports native parts is aborted.

    At interpreter exit, no executor takes work any more; so this looks now and then.
    """
    for _ in range(int(_IMPORT_SECONDS / _LOOK_SECONDS)):
        if not importing.is_alive():
            return
        await asyncio.sleep(_LOOK_SECONDS)


class _Threads(ThreadPoolExecutor):
    """The threads of one worker that brought none of its own."""


class _Parts:
    """Everything that one worker is made of."""

    def __init__(
        self,
        registry: Registry,
        settings: Settings,
        complete: Complete,
        search_attributes: Callable[[], bool],
        secrets: SecretResolver | None,
    ) -> None:
        engine = PolicyEngine.of(registry.policy_engine)
        scrub = Scrubber.of_environment([*settings.known_secrets, *mcp_access.secrets(registry.servers.values())])
        rated = (settings.endpoints, settings.model_calls_per_second)
        self.queues = Queues(*rated, registry.specs, registry.servers)
        self.mcp = McpPool(registry.servers.values(), scrub)
        cache = TranscriptCache(settings.transcript_cache_bytes)
        loops = ToolLoops()
        past = PastActivities(recall, cache)
        agents = AgentActivities(
            registry.agents,
            registry.specs,
            cache,
            search_attributes=search_attributes,
            tool_output_max_chars=settings.tool_output_max_chars,
            sanitize_tool_output=settings.sanitize_tool_output,
            tool_queues=settings.remote_tool_queues,
            continue_after=(settings.continue_after_events, settings.continue_after_bytes),
            past=past.past,
            policy=engine,
            guardrails=registry.guardrail_specs,
            mcp=self.mcp,
            queues=self.queues,
        )
        checks = CheckActivities(engine, registry.guardrails, cache, scrub, loops)
        threads = ThreadActivities(
            past.past,
            ended,
            cache,
            served=_served,
            task_queue=settings.thread_task_queue,
            continue_after=(settings.continue_after_events, settings.continue_after_bytes),
        )
        breakers = Breakers(settings.breaker_failures, settings.breaker_seconds)
        model = ModelActivities(complete, cache, scrub, breakers)
        compaction = CompactionActivities(complete, cache, scrub, breakers)
        insides = Insides(registry.tools, cache, scrub, secrets or of_environment(settings.tool_secrets))
        self.guard = Guard(wire.ACTIVITIES, registry.tools, insides, registry.servers)
        self.activities: list[Callable[..., Any]] = [
            agents.load,
            agents.catalog,
            model.call,
            past.restore,
            compaction.compact,
            checks.policy,
            checks.guardrail,
            threads.enter,
            threads.read,
            threads.collect,
        ]
        self._by_name: dict[str, Callable[..., Any]] = {
            wire.MODEL_CALL: model.call,
            wire.CONTEXT_COMPACT: compaction.compact,
            **{name: activity_of(tool, scrub, loops) for name, tool in registry.tools.items()},
        }
        if registry.servers:
            self._by_name[MCP] = McpActivities(self.mcp, cache, scrub).call
        self.activities += [each for name, each in self._by_name.items() if name not in wire.ACTIVITIES]

    def served_by(self, queue: Queue) -> list[Callable[..., Any]]:
        """Return the activities that a queue beside the worker's own is for."""
        return [self._by_name[name] for name in queue.activities]


def _watching(settings: Settings, parts: _Parts) -> list[Interceptor]:
    if settings.telemetry != "otel":
        return []
    from holdfast.worker import telemetry

    return [telemetry.interceptor(lambda: parts.guard.cache.agent(run_key(activity.info())))]


async def _served(client: Client, task_queue: str) -> bool:
    return bool(await pollers(client, task_queue))


def _litellm(settings: Settings) -> Complete:
    from holdfast.activities._litellm import LiteLLM

    return LiteLLM(settings.endpoints, Responses(settings.response_cache_bytes)).complete


def _with_pydantic(converter: DataConverter | None) -> DataConverter:
    """Use pydantic's payload converter, and keep the codec of a converter that is there already."""
    if converter is None or converter == DataConverter.default:
        return tolerant(pydantic_data_converter)
    if converter.payload_converter_class is DataConverter.default.payload_converter_class:
        ours = pydantic_data_converter.payload_converter_class
        return tolerant(dataclasses.replace(converter, payload_converter_class=ours))
    return tolerant(converter)


def _with_passthrough(runner: WorkflowRunner | None) -> WorkflowRunner:
    """Share our own modules and pydantic with the sandbox: they hold no state, and loading them anew costs each run."""
    if isinstance(runner, SandboxedWorkflowRunner):
        shared = runner.restrictions.with_passthrough_modules(
            "holdfast", "pydantic", "pydantic_core", "annotated_types"
        )
        return dataclasses.replace(runner, restrictions=shared)
    return runner or SandboxedWorkflowRunner()
