"""`Runner`: client, in-process worker and, where no server answers, an embedded one; for scripts and notebooks."""

from __future__ import annotations

import asyncio
import atexit
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

import temporalio.client

from holdfast.activities.answer import Complete
from holdfast.agent import Agent
from holdfast.client.connect import connect, connect_embedded, is_named
from holdfast.client.portal import Portal
from holdfast.client.runs import AsyncClient
from holdfast.client.threads import Compaction as ThreadCompaction
from holdfast.client.views import RunSummary
from holdfast.content import Said
from holdfast.errors import InputInvalid, ServerUnavailable
from holdfast.hooks import PolicyEngine
from holdfast.mcp import McpServer
from holdfast.policy import Policy
from holdfast.run import RunResult
from holdfast.secrets import SecretResolver
from holdfast.tools import Tool
from holdfast.worker import logs
from holdfast.worker.config import RunnerConfig
from holdfast.worker.handles import RunHandle, RunStream, result_of
from holdfast.worker.hosting import THREADS, Brought, Hosting, queue_of_script
from holdfast.worker.server import EmbeddedServer, find_binary
from holdfast.worker.settings import Settings, read_settings


class Runner:
    """Runs agents in this process, durably: the Temporal server keeps what happened, and this process does the work.

    Server and worker start with the first run. The server is that of the TEMPORAL_* environment or of localhost:7233;
    where none is named and none answers, one is started (or shared) in the folder `.holdfast`. A failed run is a
    result, never an exception. `config` is what all of its runs have in common; `tools` and `mcp_servers` are those
    that agents name as text. `telemetry` says where to tell what happens: "console" or "json" lines on stderr, or
    "otel", OpenTelemetry. `close()`, or the end of the process, stops everything.

    A run outlives its process: it goes on when the same script is started again, since the task queue is named after
    the script's path (in a notebook, the folder) and its tools. `task_queue` is a queue of your own name for all of
    this runner's agents instead.
    """

    def __init__(
        self,
        *,
        address: str | None = None,
        namespace: str | None = None,
        tools: Iterable[Tool[..., Any]] = (),
        mcp_servers: Iterable[McpServer] = (),
        settings: Settings | None = None,
        config: RunnerConfig | None = None,
        complete: Complete | None = None,
        task_queue: str | None = None,
        policy_engine: Policy | PolicyEngine | None = None,
        secrets: SecretResolver | None = None,
        telemetry: Literal["console", "json", "otel"] | None = None,
    ) -> None:
        self._where = (address, namespace)
        self._tools: tuple[Brought, ...] = (*tools, *mcp_servers)
        self._config = config or RunnerConfig()
        self._settings = _with_config(settings or read_settings(), self._config, telemetry)
        self._task_queue = task_queue
        self._portal = Portal()
        self._closed = False
        if self._settings.telemetry in ("console", "json"):
            logs.tell(self._settings.telemetry, self._settings.log_level, self._settings.known_secrets)
        self._hosting = Hosting(self._portal, self._settings, complete, policy_engine, secrets)
        self._hosted = _Hosted()
        atexit.register(self.close)

    def run_sync(self, agent: Agent, user_message: Said | None = None, **options: Any) -> RunResult:
        """Run to the end and return the result; options are those of `run_handle`."""
        return self._opened().call(self._run(agent, user_message, options))

    async def run(self, agent: Agent, user_message: Said | None = None, **options: Any) -> RunResult:
        """Run to the end and return the result; options are those of `run_handle`."""
        return await self._opened().bridge(self._run(agent, user_message, options))

    def run_stream(self, agent: Agent, user_message: Said | None = None, **options: Any) -> RunStream:
        """Run, and yield events as they happen: `async for event in runner.run_stream(agent, user_message="…")`."""
        return RunStream(partial(self.run_handle, agent, user_message, **options))

    async def run_handle(
        self,
        agent: Agent,
        user_message: Said | None = None,
        *,
        input: Mapping[str, Any] | None = None,
        thread_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        run_id: str | None = None,
        idempotency_key: str | None = None,
        priority: int | None = None,
        fairness_key: str | None = None,
        fairness_weight: float | None = None,
    ) -> RunHandle:
        """Start a run and return its handle."""
        portal = self._opened()
        options = {
            "input": input,
            "thread_id": thread_id,
            "metadata": metadata,
            "run_id": run_id,
            "idempotency_key": idempotency_key,
            "priority": priority,
            "fairness_key": fairness_key,
            "fairness_weight": fairness_weight,
        }
        client, run = await portal.bridge(self._create(agent, user_message, options))
        return RunHandle(portal, client, run)

    async def resume(self, agent: Agent, *, run_id: str, thread_id: str | None = None) -> RunResult:
        """Take up a run that was interrupted, cancelled or failed, and return its result; nothing is done again.

        A live run is waited for; one that has completed or degraded has its result already, and no call is made.
        `thread_id` guards against a mistaken run: InputInvalid where the run belongs to another. RunNotFound for an
        unknown run.
        """
        return await self._opened().bridge(self._resume(agent, run_id, thread_id))

    async def compact_thread(
        self, thread_id: str, *, model: str | None = None, keep_tokens: int = 0
    ) -> ThreadCompaction:
        """Have a model (that of the thread's last run, unless one is named) summarise what is old in a thread.

        HoldfastError, which says why, where nothing was done; ThreadNotFound for an unknown thread.
        """
        return await self._opened().bridge(self._compact_thread(thread_id, model, keep_tokens))

    def close(self) -> None:
        """Stop the worker, then the server unless others use it; running activities get their grace.

        Runs that have not ended wait on the server for the same script. Closing twice does nothing.
        """
        atexit.unregister(self.close)
        if self._closed:
            return
        self._closed = True
        try:
            self._portal.call(self._stop())
        finally:
            self._portal.close()
            if self._hosted.server is not None:
                self._hosted.server.stop()

    def _opened(self) -> Portal:
        if self._closed:
            raise RuntimeError("this Runner is closed: make another one")
        return self._portal

    def __enter__(self) -> Runner:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def _run(self, agent: Agent, user_message: Said | None, options: Mapping[str, Any]) -> RunResult:
        client, run = await self._create(agent, user_message, options)
        return await result_of(client, run.id)

    async def _create(
        self, agent: Agent, user_message: Said | None, options: Mapping[str, Any]
    ) -> tuple[AsyncClient, RunSummary]:
        client = await self._serve(agent)
        if options.get("thread_id") is not None:
            await self._serve_threads()
        mode = self._config.interaction_mode
        return client, await client.runs.create(agent=agent, message=user_message, interaction_mode=mode, **options)

    async def _resume(self, agent: Agent, run_id: str, thread_id: str | None) -> RunResult:
        client = await self._serve(agent)
        if thread_id is not None:
            known = (await client.runs.get(run_id)).thread_id
            if known != thread_id:
                of = "no thread" if known is None else f"thread {known!r}"
                raise InputInvalid({"thread_id": f"run {run_id!r} belongs to {of}, not {thread_id!r}"})
        if (thread_id or (await client.runs.status(run_id)).thread_id) is not None:
            await self._serve_threads()
        await client.runs.resume_run(run_id, agent=agent)
        return await result_of(client, run_id)

    async def _compact_thread(self, thread_id: str, model: str | None, keep_tokens: int) -> ThreadCompaction:
        temporal = await self._serve_threads()
        return await AsyncClient(temporal=temporal).threads.compact(thread_id, model, keep_tokens=keep_tokens)

    async def _serve_threads(self) -> temporalio.client.Client:
        async with self._hosted.starting:
            temporal = self._hosted.temporal = self._hosted.temporal or await self._connect()
            await self._hosting.serve_threads(temporal, self._settings.thread_task_queue or THREADS)
            return temporal

    async def _serve(self, agent: Agent) -> AsyncClient:
        """Return a client whose task queue is polled by a worker with this agent's tools."""
        async with self._hosted.starting:
            self._hosted.temporal = self._hosted.temporal or await self._connect()
            tools = _once(*self._tools, *agent.functions, *agent.guards, *agent.held_servers)
            queue = self._task_queue or queue_of_script(tools)
            await self._hosting.serve(self._hosted.temporal, queue, tools)
            return AsyncClient(temporal=self._hosted.temporal, task_queue=queue)

    async def _connect(self) -> temporalio.client.Client:
        try:
            return await connect(*self._where)
        except ServerUnavailable:
            if is_named(self._where[0]):
                raise
        binary = find_binary(self._settings.temporal_bin)
        folder: Path = self._settings.folder
        self._hosted.server = await asyncio.to_thread(EmbeddedServer.start, folder, binary=binary)
        return await connect_embedded(self._hosted.server.address)

    async def _stop(self) -> None:
        await self._hosting.stop()
        self._hosted.temporal = None


def _once(*brought: Brought) -> tuple[Brought, ...]:
    """Leave out what is there twice."""
    return tuple(each for place, each in enumerate(brought) if each not in brought[:place])


class _Hosted:
    """What a runner has started."""

    def __init__(self) -> None:
        self.starting = asyncio.Lock()
        self.temporal: temporalio.client.Client | None = None
        self.server: EmbeddedServer | None = None


def _with_config(settings: Settings, config: RunnerConfig, telemetry: str | None) -> Settings:
    told: dict[str, Any] = {"thread_task_queue": settings.thread_task_queue or THREADS}
    if telemetry not in (None, "console", "json", "otel"):
        raise InputInvalid({"telemetry": f"is {telemetry!r}, not one of 'console', 'json', 'otel' and None"})
    if telemetry is not None:
        told["telemetry"] = telemetry
    for name in ("tool_output_max_chars", "sanitize_tool_output"):
        if getattr(config, name) is not None:
            told[name] = getattr(config, name)
    return settings.model_copy(update=told)
