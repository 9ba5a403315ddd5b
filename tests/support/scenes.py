"""Scenes: a run brought into one of the states that the table of states and actions knows."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from temporalio.client import WorkflowFailureError, WorkflowHandle
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.worker import Worker

from holdfast import HoldfastPlugin
from holdfast.client.connect import connect
from holdfast.client.runs import AsyncClient
from holdfast.worker.build import make_worker
from holdfast.worker.scripted import ChatRequest, Reply, call, fail, say
from tests.support.plays import AGENTS, Line, Play, calls, done
from tests.support.stage import DEADLINE, Stage

SOON = 1.5
"""Seconds of a back-off that is waited for."""
LINKS_STEPS = 12


def _streams(play: Play, request: ChatRequest) -> Reply:
    return call(("note", {"key": play.key}), text="word " * 150, pace=0.03)


async def _is_silent(play: Play, request: ChatRequest) -> Reply:
    await play.opened()
    return call(("note", {"key": play.key}))


def _is_busy(play: Play, request: ChatRequest) -> Reply:
    if len(play.asked) == 1:
        return fail(503, headers={"retry-after": f"{play.seconds:g}"})
    return call(("note", {"key": play.key}))


def _is_away(play: Play, request: ChatRequest) -> Reply:
    if len(play.asked) == 1:
        return fail(503, headers={"retry-after": "0.05"})
    return call(("note", {"key": play.key}))


def _refuses_once(play: Play, request: ChatRequest) -> Reply:
    return fail(400, message="what is this?") if len(play.asked) == 2 else done(play, request)


def _goes_far(play: Play, request: ChatRequest) -> Reply:
    if request.turn < LINKS_STEPS:
        return call(("note", {"key": play.key, "number": request.turn}))
    return done(play, request)


LINES: dict[str, tuple[Line, ...]] = {
    "queued": (done,),
    "loading": (done,),
    "streaming": (_streams, done),
    "silent": (_is_silent, done),
    "tool": (calls("hold"), done),
    "thread": (calls("hold_sync"), done),
    "model-backs-off": (_is_busy, done),
    "tool-backs-off": (calls("flaky"), done),
    "approval": (calls("pay"), done),
    "answer": (lambda play, request: call(("ask_user", {"question": "Which?"})), done),
    "resting": (lambda play, request: call(("sleep", {"seconds": 5_000_000})), done),
    "parked": (_is_away, done),
    "paused": (calls("hold"), done),
    "paused-approval": (calls("pay"), done),
    "between": (calls("pay"), done),
    "rolling": (_goes_far,),
    "completed": (done,),
    "degraded": (lambda play, request: say("As far as I know."), done),
    "failed": (calls("note"), _refuses_once),
    "cancelled": (calls("hold"), done),
    "interrupted": (calls("hold"), done),
    "terminated": (calls("hold"), done),
}


@dataclass
class Scene:
    """A run in its state."""

    at: Stage
    state: str
    play: Play
    run: WorkflowHandle[Any, Any]
    link: str = ""
    """Temporal's run id of its link when it came into the state."""
    open_id: str = "none"
    """What `decide` or `answer` would be about."""
    serve: Callable[[], Awaitable[None]] | None = None
    """Starts the worker that the state lacks."""
    taken: bool = field(default=False)
    """Whether a person's part was done by the action itself."""

    @property
    def runs(self) -> Any:
        """The client's view of the runs."""
        return AsyncClient(temporal=self.at.client, task_queue=self.at.task_queue).runs

    async def shown(self, status: str) -> None:
        """Wait until the run's status is what `runs.status` tells."""
        async with asyncio.timeout(DEADLINE):
            while (found := (await self.runs.status(self.run.id)).status) != status:
                assert found not in ("completed", "failed"), found
                await asyncio.sleep(0.02)

    async def pending(self, wanted: Callable[[Any], bool]) -> None:
        """Wait for something about the one activity that is under way."""
        async with asyncio.timeout(DEADLINE):
            while True:
                found = (await self.run.describe()).raw_description.pending_activities
                if len(found) == 1 and wanted(found[0]):
                    return
                await asyncio.sleep(0.02)

    async def start(self, **more: Any) -> None:
        """Start a run under the same id, after the link that the scene began with; an open one is joined."""
        await self.at.client.start_workflow(
            "AgentRun",
            {"agent": "player", "after": {"run": self.link}},
            id=self.run.id,
            task_queue=self.at.task_queue,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            **more,
        )
        self.run = self.at.client.get_workflow_handle(self.run.id)

    async def release(self) -> None:
        """Let what is under way go on to its end."""
        if self.serve is not None:
            serve, self.serve = self.serve, None
            await serve()
        self.play.gate.set()

    async def finish(self) -> None:
        """Do what people must do, so that the run comes to its end."""
        if self.state.startswith("paused"):
            await self.run.signal("resume")
        if ("approval" in self.state or self.state == "between") and not self.taken:
            await self.decide("approve")
        elif self.state == "answer" and not self.taken:
            await self.answer()
        elif self.state == "resting" and not self.taken:
            await self.run.signal("append_message", {"text": "wake", "id": "wake"})

    async def decide(self, decision: str) -> None:
        """Decide what is open, if anything is."""
        await self.run.execute_update("decide", {"call_id": self.open_id, "decision": decision})

    async def answer(self) -> None:
        """Answer what is asked, if anything is."""
        await self.run.execute_update("answer", {"question_id": self.open_id, "text": "this one"})

    async def ended(self) -> None:
        """Wait until the run has closed, in whatever way."""
        try:
            await asyncio.wait_for(self.run.result(), DEADLINE)
        except WorkflowFailureError:
            return


@asynccontextmanager
async def scene(at: Stage, state: str, seconds: float = SOON) -> AsyncIterator[Scene]:
    """Bring a run into a state; a back-off takes so many seconds."""
    play = Play(LINES[state], seconds=seconds)
    async with AsyncExitStack() as stack:
        made: Scene
        if state in ("queued", "loading"):
            made = await _unserved(at, state, play, stack)
        elif state == "between":
            made = await _between(at, play, stack)
        elif state == "parked":
            made = await _parked(at, play, stack)
        else:
            agent = "short" if state == "degraded" else "player"
            made = Scene(at, state, play, await at.start(agent, run_id=play.key, message=play.key))
            await _bring(made)
        made.link = (await made.run.describe()).run_id
        stack.callback(play.gate.set)
        yield made


async def _bring(at: Scene) -> None:
    play, run = at.play, at.run
    match at.state:
        case "streaming":
            await at.pending(lambda each: b"word word word" in each.heartbeat_details.SerializeToString())
        case "silent":
            await play.asked_for(1)
        case "tool" | "thread":
            await play.has_run("hold" if at.state == "tool" else "hold_sync")
        case "model-backs-off" | "tool-backs-off":
            await at.pending(lambda each: each.HasField("last_failure") and each.attempt == 2)
        case "approval" | "answer" | "resting" | "paused-approval":
            await at.shown("waiting")
            at.open_id = (await run.query("status"))["waiting_for"][0]["id"]
            if at.state == "paused-approval":
                await run.signal("pause", {"reason": "lunch"})
                await at.shown("paused")
        case "paused":
            await play.has_run("hold")
            await run.signal("pause", {"reason": "lunch"})
            await at.release()
            await at.shown("paused")
        case "rolling":
            await play.asked_for(3)
        case "cancelled" | "interrupted" | "terminated":
            await play.has_run("hold")
            stop = {"cancelled": run.cancel, "terminated": run.terminate}
            await stop.get(at.state, lambda: run.signal("interrupt", {"reason": "enough"}))()
            await at.ended()
        case _:
            await at.ended()


async def _unserved(at: Stage, state: str, play: Play, stack: AsyncExitStack) -> Scene:
    """Start a run on a task queue that nobody serves, or where nobody runs activities."""
    own = _apart(at)
    runs = AsyncClient(temporal=at.client, task_queue=own.task_queue).runs
    await runs.create("player", run_id=play.key, message=play.key)
    made = Scene(own, state, play, at.client.get_workflow_handle(play.key))
    made.serve = lambda: _serve(own, stack)
    if state == "loading":
        await _serve(own, stack, activities=False)
        await made.pending(lambda each: each.activity_type.name == "agent.load")
    return made


async def _between(at: Stage, play: Play, stack: AsyncExitStack) -> Scene:
    """Let a run continue as new while it waits for approval, and nobody runs the new link's activities."""
    own = _apart(at, continue_after_events=60)
    made = Scene(own, "between", play, await own.start("player", run_id=play.key, message=play.key))
    async with AsyncExitStack() as first:
        await _serve(own, first)
        await made.shown("waiting")
        made.open_id = (await made.run.query("status"))["waiting_for"][0]["id"]
    await _serve(own, stack, activities=False)
    made.serve = lambda: _serve(own, stack)
    made.run = at.client.get_workflow_handle(play.key)
    for _ in range(40):
        await made.run.signal("resume")
    await made.pending(lambda each: each.activity_type.name == "agent.load")
    return made


async def _parked(at: Stage, play: Play, stack: AsyncExitStack) -> Scene:
    """Let a run rest since its model is out, at a worker whose breaker opens with the first failure."""
    own = _apart(at, breaker_failures=1, breaker_seconds=play.seconds)
    await _serve(own, stack)
    made = Scene(own, "parked", play, await own.start("player", run_id=play.key, message=play.key))
    await made.shown("waiting")
    return made


def _apart(at: Stage, **settings: Any) -> Stage:
    """Return a stage whose task queue nobody serves."""
    told = {"task_queue": f"test-{uuid.uuid4().hex[:12]}", **settings}
    return replace(at, settings=at.settings.model_copy(update=told))


async def _serve(at: Stage, stack: AsyncExitStack, *, activities: bool = True) -> None:
    """Serve a stage until the stack closes, with activities or without any."""
    client = await connect(at.client.service_client.config.target_host)
    plugin = HoldfastPlugin(AGENTS, settings=at.settings)
    if activities:
        await stack.enter_async_context(make_worker(client, plugin))
    else:
        await stack.enter_async_context(
            Worker(client, task_queue=at.task_queue, plugins=[plugin], no_remote_activities=True)
        )
