"""What the hosting commands do: serve runs, develop, set up, check health."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import socket
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import temporalio.client

from holdfast import wire
from holdfast.activities.log import get_logger
from holdfast.client.connect import configured, connect, connect_embedded
from holdfast.client.presence import pollers
from holdfast.errors import HoldfastError, NoWorker
from holdfast.worker import logs
from holdfast.worker.attributes import register
from holdfast.worker.build import Serving, make_worker
from holdfast.worker.discovery import Registry, discover
from holdfast.worker.launch import read_record
from holdfast.worker.plugin import HoldfastPlugin
from holdfast.worker.server import EmbeddedServer, find_binary
from holdfast.worker.settings import Settings, read_settings

_log = get_logger("holdfast.host")


def leave(code: int) -> None:
    """End this process with a code: at once, since native threads of a worker may bring a slow end down.

    See temporalio/sdk-python#300: a process that hosted a worker could die of a signal while the interpreter ended.
    """
    gc.collect()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def serve(sources: list[str], *, address: str | None, namespace: str | None, task_queue: str | None) -> int:
    """Serve runs until told to stop; returns the exit code."""

    def work() -> Coroutine[Any, Any, int]:
        settings = _settings(task_queue)
        return _serve(discover(sources), settings, address, namespace)

    return _reported(work)


def develop(sources: list[str], *, port: int, ui_port: int, task_queue: str | None) -> int:
    """Run server and worker in one until told to stop; returns the exit code."""

    def work() -> Coroutine[Any, Any, int]:
        settings = _settings(task_queue)
        registry = discover(sources)
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that a server which starts is not left behind
        server = EmbeddedServer.start(
            settings.folder,
            port=port,
            ui_port=ui_port,
            binary=find_binary(settings.temporal_bin),
            search_attributes=wire.SEARCH_ATTRIBUTES,
        )
        return _develop(server, registry, settings)

    return _reported(work)


def set_up(*, address: str | None, namespace: str | None, as_json: bool = False) -> int:
    """Register the search attributes; returns 0 once all can be used."""

    async def work() -> int:
        _settings(None)
        client = await connect(address, namespace)
        if not await register(client, usable_within=90):
            return 1
        names = list(wire.SEARCH_ATTRIBUTES)
        said = f"search attributes are registered in namespace {client.namespace!r}: {', '.join(names)}"
        print(json.dumps({"namespace": client.namespace, "search_attributes": names}) if as_json else said)
        return 0

    return _reported(work)


def check_health(
    *, here: bool, address: str | None, namespace: str | None, task_queue: str | None, as_json: bool = False
) -> int:
    """Return 0 if the server answers and a worker (of this very host, with `here`) polls the task queue."""

    async def work() -> int:
        client = await connect(address, namespace)
        queue = task_queue or _settings(None).task_queue
        found = await pollers(client, queue)
        if here:
            found = [identity for identity in found if identity.endswith(f"@{socket.gethostname()}")]
        if not found:
            raise NoWorker(queue)
        said = f"healthy: {len(found)} workers poll task queue {queue!r}"
        print(json.dumps({"healthy": True, "task_queue": queue, "workers": found}) if as_json else said)
        return 0

    return _reported(work)


async def _serve(
    registry: Registry,
    settings: Settings,
    address: str | None,
    namespace: str | None,
    owned: str | None = None,
) -> int:
    stopping = _stop_signals()
    plugin = HoldfastPlugin(
        registry.agents.values(),
        registry.every_tool,
        settings,
        policy_engine=registry.policy_engine,
        mcp_servers=registry.servers.values(),
        guardrails=registry.guardrails.values(),
    )
    client = await (connect(address, namespace) if owned is None else connect_embedded(owned))
    serving = Serving(make_worker(client, plugin))
    told = asyncio.create_task(stopping.wait())
    begun = asyncio.create_task(serving.begun())
    await asyncio.wait([begun, told], return_when=asyncio.FIRST_COMPLETED)
    if begun.done():
        await begun
        _log_start(client, registry, settings, address or configured()["target_host"])
        await asyncio.wait([serving.ended, told], return_when=asyncio.FIRST_COMPLETED)
    told.cancel()
    if not serving.ended.done():
        _log.info("worker.stopping", grace_seconds=settings.grace_seconds)
    await serving.stop()
    _log.info("worker.stopped")
    return 0


def _log_start(client: temporalio.client.Client, registry: Registry, settings: Settings, address: str) -> None:
    record = read_record(settings.folder)
    ui = record.ui_url if record and record.address == address.replace("localhost", "127.0.0.1") else None
    _log.info(
        "worker.started",
        task_queue=settings.task_queue,
        address=address,
        namespace=client.namespace,
        agents=sorted(registry.agents),
        tools=sorted({**registry.tools, **registry.elsewhere}),
        pid=os.getpid(),
        **({"ui": ui} if ui else {}),
    )


async def _develop(server: EmbeddedServer, registry: Registry, settings: Settings) -> int:
    try:
        print(f"Temporal server  {server.address}\nTemporal UI      {server.ui_url}", flush=True)
        if server.address.rpartition(":")[2] != "7233":
            print(f"For clients      export TEMPORAL_ADDRESS={server.address}", flush=True)
        return await _serve(registry, settings, server.address, "default", owned=server.address)
    finally:
        await asyncio.to_thread(server.stop)


def _settings(task_queue: str | None) -> Settings:
    """Read the settings, and let logs go where they say."""
    settings = read_settings(**({"task_queue": task_queue} if task_queue else {}))
    form = settings.telemetry if settings.telemetry in ("console", "json") else settings.log_format
    logs.configure(form, settings.log_level, settings.known_secrets)
    logs.forward_native()
    return settings


def _stop_signals() -> asyncio.Event:
    """Return an event that SIGTERM and SIGINT set; a second one ends the process at once."""
    event = asyncio.Event()

    def stop() -> None:
        if event.is_set():
            os._exit(130)
        event.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    return event


def _reported(work: Callable[[], Coroutine[Any, Any, int]]) -> int:
    """Run to an exit code; what a person can mend is one line on stderr and code 2."""
    try:
        return _loop()(work())
    except HoldfastError as error:
        print(f"holdfast: {error}", file=sys.stderr)
        return 2
    except RuntimeError as error:
        told, status, _ = str(error).partition(": Status {")
        if not status:
            raise
        print(f"holdfast: {told}", file=sys.stderr)  # what Temporal's native part finds wrong: a namespace, say
        return 2
    except KeyboardInterrupt:
        return 130


def _loop() -> Callable[[Coroutine[Any, Any, int]], int]:
    """Return the runner of the fastest event loop at hand (the `fast` extra brings one)."""
    try:
        import uvloop
    except ImportError:
        return asyncio.run
    return uvloop.run
