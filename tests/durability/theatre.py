"""What the kill tests share: a nursery of workers, the script, and the books on what ran how often."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import statistics
import sys
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import temporalio.client
from temporalio.api.enums.v1 import EventType as Kind
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import WorkflowHandle

from holdfast import wire
from holdfast.client.connect import connect
from holdfast.ids import step_of_call
from holdfast.worker.scripted import ChatRequest, Reply, Script, ScriptedModel, call, say
from tests.durability.agent import AGENT
from tests.support.stage import result, timeline

TOOL_STEPS = 4
STEPS = TOOL_STEPS + 1
"""Four steps with two tools each, and the one that answers."""
DEADLINE = 30.0
ROOT = Path(__file__).parents[2]

Seconds = Callable[[int], tuple[float, float]]
"""Turn → how long `weigh` and `fetch` take."""


def steps(seconds: Seconds) -> Callable[[ChatRequest], Reply]:
    """Two tools in each of the first turns, then an answer."""

    def answer(request: ChatRequest) -> Reply:
        turn = request.turn
        if turn >= TOOL_STEPS:
            return say("All is weighed and fetched.")
        weigh, fetch = seconds(turn)
        return call(
            ("weigh", {"step": turn + 1, "seconds": weigh}),
            ("fetch", {"step": turn + 1, "seconds": fetch}),
            text=f"Step {turn + 1} of the plan is to weigh, and to fetch a page.",
        )

    return answer


def asker(request: ChatRequest) -> int:
    """Return the pid of the worker that asks."""
    return int(request.headers["authorization"].rpartition("-")[2])


@dataclass
class Nursery:
    """A process that forks workers which are ready to poll."""

    process: asyncio.subprocess.Process
    log: Path
    standby: asyncio.Task[int]
    alive: set[int] = field(default_factory=set)

    @classmethod
    async def open(cls, address: str, task_queue: str, model_url: str, journal: Path) -> Nursery:
        log = journal.with_suffix(".log")
        with log.open("ab") as file:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.durability.worker_main", "--nursery"),
                *("--address", address, "--task-queue", task_queue, "--model-url", model_url),
                *("--journal", str(journal)),
                cwd=ROOT,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=file,
            )
        nursery = cls(process, log, asyncio.create_task(_hatch(process)))
        await nursery.ready()
        return nursery

    async def ready(self) -> None:
        """Wait until a worker stands by."""
        await asyncio.wait_for(asyncio.shield(self.standby), DEADLINE)

    async def start(self) -> int:
        """Let the worker that stands by poll, hatch the next one, and return the pid."""
        pid = await asyncio.wait_for(self.standby, DEADLINE)
        os.kill(pid, signal.SIGUSR1)
        self.alive.add(pid)
        self.standby = asyncio.create_task(_hatch(self.process))
        return pid

    async def kill(self, pid: int) -> None:
        """SIGKILL, and wait until it is gone."""
        os.kill(pid, signal.SIGKILL)
        self.alive.discard(pid)
        await until(lambda: not _lives(pid), pause=0.001)

    async def close(self) -> None:
        self.standby.cancel()
        assert self.process.stdin is not None
        self.process.stdin.close()
        await asyncio.wait_for(self.process.wait(), DEADLINE)


async def _hatch(process: asyncio.subprocess.Process) -> int:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"\n")
    line = await process.stdout.readline()
    assert line.startswith(b"ready "), "the nursery died: see its log"
    return int(line.split()[1])


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def until(claim: Callable[[], bool], seconds: float = DEADLINE, pause: float = 0.004) -> None:
    """Poll until the claim is true."""
    deadline = time.monotonic() + seconds
    while not claim():
        assert time.monotonic() < deadline, "not in time"
        await asyncio.sleep(pause)


@dataclass
class Theatre:
    """A task queue with its workers, its model, its journal and its one run."""

    client: temporalio.client.Client
    model: ScriptedModel
    nursery: Nursery
    journal: Path
    task_queue: str
    run_id: str = field(default_factory=lambda: f"durable-{uuid.uuid4().hex[:12]}")
    pid: int = 0
    """The worker that polls now."""
    recoveries: list[float] = field(default_factory=list)
    """Seconds from each kill to the first work of the next worker."""
    settled: list[dict[str, int]] = field(default_factory=list)
    """For each kill: what was recorded by then, and how often it had run."""

    @property
    def handle(self) -> WorkflowHandle[Any, Any]:
        return self.client.get_workflow_handle(self.run_id)

    async def start(self) -> None:
        """Start the worker and the run, with the workflow task timeout that the product's client sets."""
        self.pid = await self.nursery.start()
        await self.client.start_workflow(
            wire.AGENT_RUN,
            {"agent": AGENT.name, "message": "Go"},
            id=self.run_id,
            task_queue=self.task_queue,
            task_timeout=timedelta(seconds=4),
        )

    def lines(self, phase: str = "begin") -> list[dict[str, Any]]:
        """Return the journal's lines of one phase."""
        if not self.journal.exists():
            return []
        lines = [json.loads(line) for line in self.journal.read_text().splitlines()]
        return [line for line in lines if line["phase"] == phase]

    def counts(self) -> Counter[str]:
        """Return how often each model call and each tool call ran, by turn and by call id."""
        return Counter(f"turn {each.turn}" for each in self.model.requests) + Counter(
            line["call_id"] for line in self.lines()
        )

    def worked(self, pid: int) -> bool:
        """Say whether this worker has called a model or a tool."""
        return any(asker(each) == pid for each in self.model.requests) or any(
            line["pid"] == pid for line in self.lines()
        )

    def asking(self, turn: int) -> bool:
        """Say whether the worker of now has asked for this turn."""
        return any(each.turn == turn and asker(each) == self.pid for each in self.model.requests)

    def working(self, turn: int) -> int:
        """Return how many tool calls of this turn the worker of now has begun."""
        return sum(line["pid"] == self.pid and step_of_call(line["call_id"]) == turn + 1 for line in self.lines())

    async def kill(self) -> None:
        """Kill the worker, note what history holds, and time how long the next worker takes to work."""
        await self.nursery.ready()
        began = time.monotonic()
        await self.nursery.kill(self.pid)
        names, closed = await recorded(self.handle)
        counts = self.counts()
        self.settled.append({name: counts[name] for name in names})
        self.pid = await self.nursery.start()
        if closed:
            return
        closing = asyncio.create_task(result(self.handle, DEADLINE))
        await until(lambda: self.worked(self.pid) or closing.done())
        self.recoveries.append(time.monotonic() - began)
        closing.cancel()

    async def finish(self) -> list[dict[str, Any]]:
        """Wait for the run to complete, and return its transcript."""
        ended = await result(self.handle, DEADLINE)
        assert ended.status == "completed", ended
        folded, _ = await timeline(self.client, self.run_id)
        return [message.wire() for message in folded.messages]

    def check(self) -> None:
        """What was recorded ran no more; every repetition came under the same key, and asked the model the same."""
        final = self.counts()
        for settled in self.settled:
            assert {name: final[name] for name in settled} == settled
        keys: dict[str, set[str]] = {}
        for line in self.lines():
            keys.setdefault(line["call_id"], set()).add(line["key"])
        assert keys == {call_id: {f"{self.run_id}:{call_id}"} for call_id in keys}
        asked: dict[int, list[Any]] = {}
        for request in self.model.requests:
            asked.setdefault(request.turn, []).append(request.body)
        assert all(body == bodies[0] for bodies in asked.values() for body in bodies)

    def tell(self, title: str) -> None:
        """Print the figures."""
        if self.recoveries:
            low, high = min(self.recoveries), max(self.recoveries)
            middle = statistics.median(self.recoveries)
            print(f"{title}: {len(self.recoveries)} kills, recovery min {low:.2f} median {middle:.2f} max {high:.2f} s")
            print("  ", " ".join(f"{each:.2f}" for each in self.recoveries))


async def recorded(handle: WorkflowHandle[Any, Any]) -> tuple[list[str], bool]:
    """Return the calls whose results are in history, named as `Theatre.counts` names them, and whether the run has closed."""
    names: dict[int, str] = {}
    done: list[str] = []
    turns, closed = 0, False
    async for event in handle.fetch_history_events():
        if event.event_type == Kind.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED:
            scheduled = event.activity_task_scheduled_event_attributes
            names[event.event_id] = scheduled.activity_id
            if scheduled.activity_type.name == wire.MODEL_CALL:
                names[event.event_id], turns = f"turn {turns}", turns + 1
            elif scheduled.activity_type.name == wire.AGENT_LOAD:
                del names[event.event_id]
        elif event.event_type == Kind.EVENT_TYPE_ACTIVITY_TASK_COMPLETED:
            done.append(names.get(event.activity_task_completed_event_attributes.scheduled_event_id, ""))
        elif event.event_type == Kind.EVENT_TYPE_WORKFLOW_EXECUTION_COMPLETED:
            closed = True
    return [name for name in done if name], closed


async def live(handle: WorkflowHandle[Any, Any]) -> AsyncIterator[HistoryEvent]:
    """Yield history as it grows."""
    async for event in handle.fetch_history_events(wait_new_event=True):
        yield event


@asynccontextmanager
async def theatre(address: str, folder: Path, script: Script) -> AsyncIterator[Theatre]:
    """Open a theatre of its own task queue."""
    queue = f"durable-{uuid.uuid4().hex[:12]}"
    journal = folder / f"{queue}.jsonl"
    async with ScriptedModel(script) as model:
        nursery = await Nursery.open(address, queue, model.url, journal)
        try:
            yield Theatre(await connect(address), model, nursery, journal, queue)
        finally:
            await nursery.close()


async def undisturbed(address: str, folder: Path, script: Script) -> list[dict[str, Any]]:
    """Return the transcript of a run that nobody disturbs."""
    async with theatre(address, folder, script) as calm:
        await calm.start()
        transcript = await calm.finish()
        assert set(calm.counts().values()) == {1}
        return transcript


def tool_counts(counts: Mapping[str, int]) -> list[int]:
    """Return the counts of the tool calls alone, in the order of their call ids: by step, then by place."""
    return [counts[name] for name in sorted(counts) if not name.startswith("turn ")]


def turn_counts(counts: Mapping[str, int]) -> list[int]:
    """Return the counts of the model calls alone, in the order of the turns."""
    return [counts[f"turn {turn}"] for turn in range(STEPS)]
