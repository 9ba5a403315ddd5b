"""Every shape that a run's history can have: a script for its model, and what is done to it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from temporalio.api.enums.v1 import PendingActivityState
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import PollWorkflowTaskQueueRequest
from temporalio.client import Client, WorkflowHandle

from holdfast import Agent, Limits, ToolContext, tool
from holdfast.agent import ModelSettings
from holdfast.bounds import CONTINUE_AFTER_EVENTS
from holdfast.client.runs import AsyncClient
from holdfast.hooks import PolicyEngine
from holdfast.worker.scripted import ChatRequest, Reply, Script, ScriptedModel, call, fail, hang, say
from tests.support.stage import MODEL

HELD_SECONDS = 30
"""How long a tool works that is never to end by itself."""


@tool(effect="pure")
def add(left: int, right: int) -> int:
    """Add two numbers."""
    return left + right


@tool
async def greet(name: str) -> str:
    """Greet somebody."""
    return f"Hello, {name}"


@tool
async def flaky(context: ToolContext) -> str:
    """Fail once."""
    if context.attempt == 1:
        raise ConnectionError("the service answered 503")
    return f"worked at attempt {context.attempt}"


@tool(max_attempts=2)
def broken() -> str:
    """Fail always."""
    raise RuntimeError("this part is missing")


@tool
async def wait(seconds: float) -> str:
    """Wait."""
    await asyncio.sleep(seconds)
    return "waited"


@tool
def hold(context: ToolContext) -> str:
    """Work until told to stop, or until the worker dies; the second attempt is quick."""
    while context.attempt == 1 and not context.cancelled:
        time.sleep(0.05)
    return "done"


@tool(effect="once")
def hold_once(context: ToolContext) -> str:
    """Do what must not be done twice, until told to stop, or until the worker dies."""
    while not context.cancelled:
        time.sleep(0.05)
    return "done"


TOOLS = (add, greet, flaky, broken, wait, hold, hold_once)
AGENT = Agent(name="demo", model=MODEL, instructions="Be brief.", tools=TOOLS)


@dataclass
class Play:
    """One run that is being recorded; its worker polls the task queue of the same name."""

    name: str
    agent: Agent
    client: Client
    model: ScriptedModel
    kill_worker: Callable[[], Awaitable[None]]
    """Kill the worker, and start another."""

    @property
    def run(self) -> WorkflowHandle[Any, Any]:
        """The run."""
        return self.client.get_workflow_handle(self.name)

    async def start(self, *arguments: Any, **options: Any) -> None:
        """Start the run as any SDK would."""
        request = arguments or ({"agent": self.agent.name, "message": "Go"},)
        await self.client.start_workflow("AgentRun", args=request, id=self.name, task_queue=self.name, **options)

    async def say(self, *messages: Any) -> None:
        """Send it messages."""
        for message in messages:
            await self.run.signal("append_message", message)

    async def asked(self, times: int = 1) -> None:
        """Wait until the model has been asked so many times."""
        while self.model.hits < times:
            await asyncio.sleep(0.02)

    async def working(self, *tools: str) -> None:
        """Wait until these tools are at work."""
        started = PendingActivityState.PENDING_ACTIVITY_STATE_STARTED
        while True:
            pending = (await self.run.describe()).raw_description.pending_activities
            if {each.activity_type.name for each in pending if each.state == started} >= set(tools):
                return
            await asyncio.sleep(0.05)


Act = Callable[[Play], Awaitable[None]]


async def _start(play: Play) -> None:
    await play.start()


async def _watch(play: Play) -> None:
    return None


@dataclass(frozen=True)
class Shape:
    """How one history comes about."""

    script: Script
    agent: Agent = AGENT
    before: Act = _start
    """What happens while no worker is up: at the least, the run is started."""
    during: Act = _watch
    """What happens once a worker is up."""
    searchable: bool = True
    """Whether the server has our search attributes."""
    continue_after_events: int = CONTINUE_AFTER_EVENTS
    """When its worker lets it continue as new."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Of its worker, beside that."""
    policy_engine: PolicyEngine | None = None
    """Its worker's."""
    killed: bool = False
    """Whether its worker must be a process of its own."""


def turns(*replies: Reply) -> Script:
    """Answer turn by turn."""
    return lambda request: replies[min(request.turn, len(replies) - 1)]


def _limited(**limits: Any) -> Agent:
    return AGENT.model_copy(update={"limits": Limits(**limits)})


def _patient(attempts: int) -> Agent:
    return AGENT.model_copy(update={"model_settings": ModelSettings(max_attempts=attempts)})


def _first_fails(request: ChatRequest) -> Reply:
    return fail(503) if request.number == 1 else say("Done.")


async def _start_with_message(play: Play) -> None:
    await play.start()
    await play.say({"text": "and be quick", "id": "a"}, {"text": "and be quick", "id": "a"}, {"text": "please"})


async def _message_while_asked(play: Play) -> None:
    await play.asked()
    await play.say({"text": "one more thing", "id": "a"}, {"text": "one more thing", "id": "a"}, {"text": 7}, "nothing")


async def _message_while_working(play: Play) -> None:
    await play.working("wait")
    await play.say({"text": "one more thing"})


async def _cancel_first(play: Play) -> None:
    await play.start()
    await play.run.cancel()


async def _cancel_while_asked(play: Play) -> None:
    await play.asked()
    await asyncio.sleep(0.7)
    await play.run.cancel()


async def _cancel_while_working(play: Play) -> None:
    await play.working("wait", "hold")
    await asyncio.sleep(0.7)  # the tool that is quick shall have ended by itself
    await play.run.cancel()


async def _cancel_while_one_works(play: Play) -> None:
    await play.working("wait")
    await play.run.cancel()


async def _terminate(play: Play) -> None:
    await play.asked()
    await play.run.terminate(reason="no longer wanted")


async def _kill_worker(play: Play) -> None:
    await play.working("hold", "hold_once")
    await play.kill_worker()


async def _drop_workflow_task(play: Play) -> None:
    """Take the first workflow task, as a worker would that dies with it in its hands."""
    await play.start(task_timeout=timedelta(seconds=1))
    queue = TaskQueue(name=play.name)
    request = PollWorkflowTaskQueueRequest(namespace="default", task_queue=queue, identity="dies")
    taken = await play.client.workflow_service.poll_workflow_task_queue(request)
    assert taken.task_token
    await asyncio.sleep(1.2)


async def _start_through_client(play: Play) -> None:
    client = AsyncClient(temporal=play.client, task_queue=play.name)
    await client.runs.create("demo", message="Go", thread_id="t-1", metadata={"who": "us"}, run_id=play.name)


_ADD = ("add", {"left": 1, "right": 2})
_SLOW = " ".join(f"word {number}" for number in range(200))
_STRICT = AGENT.model_copy(update={"input_schema": {"type": "object", "required": ["topic"]}})

SHAPES: dict[str, Shape] = {
    "text-only": Shape(turns(say("Hello.", reasoning="A greeting will do."))),
    "tools-in-parallel": Shape(
        turns(call(_ADD, ("greet", {"name": "Ada"}), _ADD, text="Two things."), call(_ADD), say("3."))
    ),
    "tools-one-at-a-time": Shape(turns(call(_ADD, _ADD, _ADD), say("3.")), _limited(max_parallel_tools=1)),
    "tool-retried": Shape(turns(call(("flaky", {}), _ADD), say("Done."))),
    "tool-failed": Shape(turns(call(("broken", {})), say("It is broken."))),
    "calls-refused": Shape(
        turns(call(("nope", {}), ("add", "{no json"), ("add", "[1]"), ("add", {"left": "x"}), _ADD), say("3."))
    ),
    "every-call-refused": Shape(turns(call(("nope", {})), say("There is no such tool."))),
    "calls-dropped": Shape(turns(call(*[("nope", {"number": each}) for each in range(40)]), say("There is none."))),
    "message-before-load": Shape(turns(say("Done.")), before=_start_with_message),
    "message-during-model-call": Shape(turns(call(_ADD, delay=0.5), say("3.")), during=_message_while_asked),
    "message-during-tool": Shape(turns(call(("wait", {"seconds": 0.7})), say("Done.")), during=_message_while_working),
    "message-at-the-end": Shape(turns(say("Done.", delay=0.5), say("That too.")), during=_message_while_asked),
    "limit-steps": Shape(turns(call(_ADD), say("So far: 3.")), _limited(max_steps=2)),
    "limit-steps-answered": Shape(turns(say("Hello.")), _limited(max_steps=1)),
    "limit-model-calls": Shape(turns(call(_ADD), say("So far: 3.")), _limited(max_model_calls=2)),
    "limit-tool-calls": Shape(turns(call(_ADD, _ADD), say("So far: 3.")), _limited(max_tool_calls=1)),
    "limit-tool-calls-of-a-turn": Shape(turns(call(_ADD, _ADD), say("3.")), _limited(max_tool_calls_per_turn=1)),
    "model-retried": Shape(_first_fails),
    "model-refused": Shape(turns(fail(400, message="this model takes no such thing"))),
    "model-failed": Shape(turns(fail(500)), _patient(2)),
    "model-failed-later": Shape(turns(call(_ADD), fail(400, message="that was too much"))),
    "request-no-object": Shape(turns(hang()), before=lambda play: play.start(42)),
    "request-of-two": Shape(turns(hang()), before=lambda play: play.start({"agent": "demo"}, {"message": "Go"})),
    "request-empty": Shape(turns(hang()), before=lambda play: play.start({"agent": "demo"})),
    "agent-unknown": Shape(turns(hang()), before=lambda play: play.start({"agent": "nobody", "message": "Go"})),
    "input-invalid": Shape(
        turns(hang()), _STRICT, before=lambda play: play.start({"agent": "demo", "input": {"a": 1}})
    ),
    "agent-inline": Shape(
        turns(call(_ADD), say("3.")), before=lambda play: play.start({"agent": AGENT.wire(), "message": "Go"})
    ),
    "started-by-client": Shape(turns(call(_ADD), say("3.")), before=_start_through_client),
    "cancelled-before-start": Shape(turns(hang()), before=_cancel_first),
    "cancelled-in-model-call": Shape(turns(call(_ADD), say(_SLOW, pace=0.1)), during=_cancel_while_asked),
    "cancelled-in-silence": Shape(turns(hang()), during=_cancel_while_asked),
    "cancelled-in-tools": Shape(
        turns(call(("wait", {"seconds": HELD_SECONDS}), ("hold", {}), _ADD)), during=_cancel_while_working
    ),
    "cancelled-with-tools-queued": Shape(
        turns(call(("wait", {"seconds": HELD_SECONDS}), _ADD, ("hold", {}))),
        _limited(max_parallel_tools=1),
        during=_cancel_while_one_works,
    ),
    "terminated": Shape(turns(hang()), during=_terminate),
    "timed-out": Shape(turns(hang()), before=lambda play: play.start(execution_timeout=timedelta(seconds=2))),
    "worker-killed": Shape(
        turns(call(("hold", {}), ("hold_once", {})), say("Done.")), during=_kill_worker, killed=True
    ),
    "workflow-task-timed-out": Shape(turns(call(_ADD), say("3.")), before=_drop_workflow_task),
    "search-attributes-absent": Shape(turns(call(_ADD), say("3.")), searchable=False),
}
