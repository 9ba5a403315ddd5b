"""Records tests/histories anew, on a real server with a scripted model: `python -m tests.record_histories [NAME …]`.

History recorded by a released version is never recorded anew: runs with such a history may be alive somewhere.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import Client, WorkflowFailureError, WorkflowHistory
from temporalio.worker import Worker

from holdfast import Settings, wire
from holdfast.activities.model import warm_up
from holdfast.client.connect import connect
from holdfast.client.history import read
from holdfast.worker.build import make_worker
from holdfast.worker.plugin import HoldfastPlugin
from holdfast.worker.scripted import ScriptedModel
from holdfast.worker.server import EmbeddedServer
from tests.support.life_shapes import ALL_TOOLS, SHAPES_OF_ALL
from tests.support.shapes import Play, Shape
from tests.support.stage import endpoints
from tests.support.thread_shapes import THREAD_SHAPES

HISTORIES = Path(__file__).parent / "histories"
THREADS = HISTORIES / "threads"
"""Those of threads themselves; all others are of runs."""
_SHAPES = SHAPES_OF_ALL | THREAD_SHAPES
SOMEBODY = "worker@host"
SECONDS = 60.0
_AT_ONCE = 6


class _Killable:
    """A worker in a process of its own, fit to be killed."""

    def __init__(self, address: str, name: str, model_url: str) -> None:
        self._command = (sys.executable, "-m", __spec__.name, "--worker", address, name, model_url)
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> None:
        self._process = await asyncio.create_subprocess_exec(*self._command)

    async def __aexit__(self, *_: object) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        await self._process.wait()

    async def replace(self) -> None:
        """Kill it, and start another."""
        await self.__aexit__()
        await self.__aenter__()


async def record(name: str, shape: Shape, address: str) -> dict[str, str]:
    """Play one shape, and return its links as scrubbed JSON: the last under its name, earlier ones numbered from 1."""
    client = await connect(address)
    async with ScriptedModel(shape.script) as model:
        killable = _Killable(address, name, model.url)
        play = Play(name, shape.agent, client, model, killable.replace)
        await shape.before(play)
        async with killable if shape.killed else _worker(client, name, model.url):
            try:
                async with asyncio.timeout(SECONDS):
                    await shape.during(play)
                    await play.run.result()
            except WorkflowFailureError as error:
                print(f"{name}: {type(error.cause).__name__}: {error.cause}")
            except TimeoutError:
                raise TimeoutError(f"{name} did not end: {await play.run.describe()}") from None
    links = await (_links_of_thread if name in THREAD_SHAPES else _links)(client, play.name)
    texts = [_text(name, WorkflowHistory(play.name, events)) for events in links]
    return {(name if number == len(texts) else f"{name}.{number}"): text for number, text in enumerate(texts, 1)}


async def _links(client: Client, run_id: str) -> list[list[HistoryEvent]]:
    links: dict[str, list[HistoryEvent]] = {}
    async for line in read(client, run_id):
        links.setdefault(line.link, []).append(line.event)
    return list(links.values())


async def _links_of_thread(client: Client, workflow_id: str) -> list[list[HistoryEvent]]:
    links: list[list[HistoryEvent]] = []
    link: str | None = None
    while link or not links:
        history = await client.get_workflow_handle(workflow_id, run_id=link).fetch_history()
        links.insert(0, list(history.events))
        link = history.events[0].workflow_execution_started_event_attributes.continued_execution_run_id
    return links


def _text(name: str, history: WorkflowHistory) -> str:
    scrubbed: Any = _scrub(json.loads(history.to_json()))
    _check(name, scrubbed)
    return json.dumps(scrubbed, indent=1, ensure_ascii=False) + "\n"


def _scrub(value: Any) -> Any:
    """Take out what names this machine: process ids, hosts, the paths in stack traces."""
    if isinstance(value, list):
        return [_scrub(each) for each in value]
    if not isinstance(value, dict):
        return value
    if value.get("kind") == "TASK_QUEUE_KIND_STICKY":
        value = {**value, "name": f"{SOMEBODY}-sticky"}
    return {key: SOMEBODY if key == "identity" else _scrub(each) for key, each in value.items() if key != "stackTrace"}


def _check(name: str, history: Any) -> None:
    """Refuse to write what names this machine all the same."""
    text = json.dumps(history) + "".join(_payloads(history))
    for told in (socket.gethostname(), str(Path.cwd()), str(Path.home()), sys.prefix):
        assert len(told) < 4 or told not in text, f"{name} holds {told}"


def _payloads(value: Any) -> list[str]:
    if isinstance(value, list):
        return [text for each in value for text in _payloads(each)]
    if not isinstance(value, dict):
        return []
    own = [base64.b64decode(value["data"]).decode(errors="replace")] if isinstance(value.get("data"), str) else []
    return own + _payloads(list(value.values()))


def _worker(client: Client, name: str, model_url: str) -> Worker:
    shape = _SHAPES[name]
    settings = Settings(
        task_queue=name,
        endpoints=endpoints(model_url),
        grace_seconds=1,
        continue_after_events=shape.continue_after_events,
        **shape.settings,
    )
    return make_worker(client, HoldfastPlugin([shape.agent], ALL_TOOLS, settings, policy_engine=shape.policy_engine))


@asynccontextmanager
async def _server(attributes: dict[str, str]) -> AsyncIterator[str]:
    server = await asyncio.to_thread(EmbeddedServer.start, None, port=0, ui_port=None, search_attributes=attributes)
    try:
        yield server.address
    finally:
        await asyncio.to_thread(server.stop)


async def _record_all(names: list[str]) -> None:
    wrong = {"AgentName": "Int"}  # registered with another type: a worker then does without all of them
    gate = asyncio.Semaphore(_AT_ONCE)
    THREADS.mkdir(parents=True, exist_ok=True)
    warm_up()
    async with _server(wire.SEARCH_ATTRIBUTES) as searchable, _server(wrong) as unsearchable:

        async def write(name: str) -> None:
            shape, folder = _SHAPES[name], THREADS if name in THREAD_SHAPES else HISTORIES
            async with gate:
                links = await record(name, shape, searchable if shape.searchable else unsearchable)
            for old in folder.glob(f"{name}.*json"):
                old.unlink()
            for link, text in links.items():
                (folder / f"{link}.json").write_text(text)
                print(f"{link}: {len(text):,} characters")

        async with asyncio.TaskGroup() as group:
            for name in names:
                group.create_task(write(name))


async def _serve(address: str, name: str, model_url: str) -> None:
    warm_up()
    await _worker(await connect(address), name, model_url).run()


def main(arguments: list[str]) -> None:
    """Record all shapes, or those named; with `--worker`, serve one of them until killed."""
    for name in [name for name in os.environ if name.startswith(("TEMPORAL_", "HOLDFAST_"))]:
        del os.environ[name]
    if arguments[:1] == ["--worker"]:
        asyncio.run(_serve(*arguments[1:]))
    else:
        asyncio.run(_record_all(arguments or list(_SHAPES)))


if __name__ == "__main__":
    main(sys.argv[1:])
