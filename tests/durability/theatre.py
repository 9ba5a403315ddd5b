"""What the kill tests share: a nursery of workers, the script, and a book of what ran how often."""

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
from temporalio.api.enums.v1 import PendingActivityState
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import WorkflowHandle

from holdfast import wire
from holdfast.client.connect import connect
from holdfast.envelope import without_envelope
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
    _hatching: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def hatch(self, options: Mapping[str, str]) -> int:
        """Have a worker ready to poll, and return its pid."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        async with self._hatching:
            self.process.stdin.write(json.dumps(options).encode() + b"\n")
            line = await asyncio.wait_for(self.process.stdout.readline(), DEADLINE)
        assert line.startswith(b"ready "), f"a worker died at birth ({line!r}): see the nursery's log"
        return int(line.split()[1])


@asynccontextmanager
async def nursery(log: Path) -> AsyncIterator[Nursery]:
    """Open a nursery; what its workers log goes to a file."""
    with log.open("ab") as file:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.durability.worker_main", "--nursery"),
            cwd=ROOT,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=file,
        )
    try:
        yield Nursery(process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        await asyncio.wait_for(process.wait(), DEADLINE)


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


class Theatre:
    """A task queue with its workers, its model, its journal and its one run."""

    def __init__(
        self, client: temporalio.client.Client, address: str, model: ScriptedModel, nursery: Nursery, journal: Path
    ) -> None:
        self.client = client
        self.model = model
        self.task_queue = f"durable-{uuid.uuid4().hex[:12]}"
        self.run_id = f"run-of-{self.task_queue}"
        self.pid = 0
        """The worker that polls now."""
        self.seen = 0
        """The last event in history at the last kill."""
        self.recoveries: list[float] = []
        """Seconds from each kill until the next worker had started an activity of the run, or ended it."""
        self.works: list[float] = []
        """Seconds from each kill until its model was asked, or its tool begun."""
        self.settled: list[dict[str, int]] = []
        """For each kill: what was recorded by then, and how often it had run."""
        self._journal = journal / f"{self.task_queue}.jsonl"
        self._nursery = nursery
        self._options = {
            "address": address,
            "task_queue": self.task_queue,
            "model_url": model.url,
            "journal": str(self._journal),
        }
        self._standby = asyncio.create_task(nursery.hatch(self._options))

    @property
    def handle(self) -> WorkflowHandle[Any, Any]:
        return self.client.get_workflow_handle(self.run_id)

    async def start(self, message: str = "Go", agent: str | dict[str, Any] = AGENT.name) -> None:
        """Start a worker and the run, with the workflow task timeout that the product's client sets."""
        await self.replace_worker()
        await self._standby
        await self.client.start_workflow(
            wire.AGENT_RUN,
            {"agent": agent, "message": message},
            id=self.run_id,
            task_queue=self.task_queue,
            task_timeout=timedelta(seconds=4),
        )

    async def replace_worker(self) -> None:
        """Let the worker that stands by poll, and hatch another one."""
        self.pid = await self._standby
        os.kill(self.pid, signal.SIGUSR1)
        self._standby = asyncio.create_task(self._nursery.hatch(self._options))

    async def leave(self) -> None:
        """Kill what is left of the workers."""
        for pid in {self.pid, await self._standby} - {0}:
            os.kill(pid, signal.SIGKILL)

    def lines(self, phase: str = "begin") -> list[dict[str, Any]]:
        """Return the journal's lines of one phase."""
        if not self._journal.exists():
            return []
        lines = [json.loads(line) for line in self._journal.read_text().splitlines()]
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

    def working(self, turn: int) -> bool:
        """Say whether the worker of now has begun both tool calls of this turn."""
        begun = [step_of_call(line["call_id"]) for line in self.lines() if line["pid"] == self.pid]
        return begun.count(turn + 1) == 2

    async def kill(self) -> None:
        """Kill the worker, note what history holds, and time how long the next worker takes to work."""
        await self._standby
        began = time.monotonic()
        os.kill(self.pid, signal.SIGKILL)
        await until(lambda: not _lives(self.pid), pause=0.001)
        names, self.seen, closed = await recorded(self.handle)
        counts = self.counts()
        self.settled.append({name: counts[name] for name in names})
        await self.replace_worker()
        if closed:
            return
        closing = asyncio.create_task(result(self.handle, DEADLINE))
        while not (closing.done() or self.worked(self.pid) or await self._has_an_activity()):
            assert time.monotonic() < began + DEADLINE, "it never moved again"
            await asyncio.sleep(0.02)
        self.recoveries.append(time.monotonic() - began)
        await until(lambda: closing.done() or self.worked(self.pid))
        self.works.append(time.monotonic() - began)
        closing.cancel()

    async def _has_an_activity(self) -> bool:
        """Say whether the worker of now has started an activity of the run."""
        described = await self.handle.describe()
        pid = f"{self.pid}@"
        return any(
            each.state == PendingActivityState.PENDING_ACTIVITY_STATE_STARTED
            and str(each.last_worker_identity).startswith(pid)
            for each in described.raw_description.pending_activities
        )

    async def finish(self) -> list[dict[str, Any]]:
        """Wait for the run to complete, and return its transcript, comparable with that of another run."""
        ended = await result(self.handle, DEADLINE)
        assert ended.status == "completed", ended
        folded, _ = await timeline(self.client, self.run_id)
        return comparable([message.wire() for message in folded.messages])

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
        for what, seconds in (("activity started again", self.recoveries), ("model or tool at work", self.works)):
            if seconds:
                figures = f"min {min(seconds):.2f} median {statistics.median(seconds):.2f} max {max(seconds):.2f} s"
                print(f"{title}: {len(seconds)} kills; {what} after {figures}")


async def recorded(handle: WorkflowHandle[Any, Any]) -> tuple[list[str], int, bool]:
    """Return the calls whose results are in history, named as in `counts`; its last event; and whether it ended."""
    names: dict[int, str] = {}
    done: list[str] = []
    turns, last, closed = 0, 0, False
    async for event in handle.fetch_history_events():
        last = event.event_id
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
    return [name for name in done if name], last, closed


async def live(handle: WorkflowHandle[Any, Any]) -> AsyncIterator[HistoryEvent]:
    """Yield history as it grows."""
    async for event in handle.fetch_history_events(wait_new_event=True):
        yield event


@asynccontextmanager
async def theatre(address: str, nursery: Nursery, folder: Path, script: Script) -> AsyncIterator[Theatre]:
    """Open a theatre of its own task queue."""
    async with ScriptedModel(script) as model:
        at = Theatre(await connect(address), address, model, nursery, folder)
        try:
            yield at
        finally:
            await at.leave()


async def undisturbed(address: str, nursery: Nursery, folder: Path, script: Script) -> list[dict[str, Any]]:
    """Return the transcript of a run that nobody disturbs."""
    async with theatre(address, nursery, folder, script) as calm:
        await calm.start()
        transcript = await calm.finish()
        assert set(calm.counts().values()) == {1}
        return transcript


def comparable(transcript: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Leave out what each run has of its own: the marks of its envelopes, and so all call ids but the first ones."""
    numbers: dict[str, str] = {}
    for message in transcript:
        for asked in message.get("tool_calls", ()):
            asked["id"] = numbers.setdefault(asked["id"], f"call {len(numbers) + 1}")
        if message["role"] == "tool":
            message["tool_call_id"] = numbers[message["tool_call_id"]]
            message["content"] = without_envelope(message["content"])
    return transcript


def tool_counts(counts: Mapping[str, int]) -> list[int]:
    """Return the counts of the tool calls alone, in the order of their call ids: by step, then by place."""
    return [counts[name] for name in sorted(counts) if not name.startswith("turn ")]


def turn_counts(counts: Mapping[str, int]) -> list[int]:
    """Return the counts of the model calls alone, in the order of the turns."""
    return [counts[f"turn {turn}"] for turn in range(STEPS)]
