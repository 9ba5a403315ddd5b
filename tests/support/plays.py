"""Plays: runs whose model and tools do as their play says, and write down how often they were asked."""

from __future__ import annotations

import asyncio
import threading
import time
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta

from temporalio.exceptions import ApplicationError, CancelledError

from holdfast import Agent, Limits, ToolContext, ask_user, sleep, tool
from holdfast.worker.scripted import ChatRequest, Reply, call, say
from tests.support.stage import DEADLINE, MODEL

Line = Callable[["Play", ChatRequest], Reply | Awaitable[Reply]]
PLAYS: dict[str, Play] = {}


@dataclass
class Play:
    """What one run's model says turn by turn (the last line again and again), and what was done."""

    lines: tuple[Line, ...]
    seconds: float = 30.0
    """What a back-off takes."""
    key: str = field(default_factory=lambda: f"play-{uuid.uuid4().hex[:12]}")
    """The run's first message, and its id; the tools are told it as well."""
    gate: threading.Event = field(default_factory=threading.Event)
    """What waits, waits for this."""
    asked: list[ChatRequest] = field(default_factory=list)
    ran: list[tuple[str, str, int]] = field(default_factory=list)
    """Tool, idempotency key and attempt of every call."""

    def __post_init__(self) -> None:
        PLAYS[self.key] = self

    @property
    def tools(self) -> Counter[str]:
        """How often each tool was called."""
        return Counter(name for name, _, _ in self.ran)

    async def asked_for(self, number: int) -> None:
        """Wait until the model was asked so often."""
        await until(lambda: len(self.asked) >= number)

    async def has_run(self, name: str, times: int = 1) -> None:
        """Wait until a tool was called so often."""
        await until(lambda: self.tools[name] >= times)

    async def opened(self) -> None:
        """Wait at the gate."""
        await until(self.gate.is_set)


async def until(wanted: Callable[[], bool]) -> None:
    """Wait for something to come about in this process."""
    async with asyncio.timeout(DEADLINE):
        while not wanted():
            await asyncio.sleep(0.01)


async def script(request: ChatRequest) -> Reply:
    """Say the play's next line."""
    said = next((str(each["content"]) for each in request.messages if each["role"] == "user"), "")
    play = PLAYS[said]
    play.asked.append(request)
    reply = play.lines[min(request.turn, len(play.lines) - 1)](play, request)
    return reply if isinstance(reply, Reply) else await reply


def done(play: Play, request: ChatRequest) -> Reply:
    """Answer with the last thing that the user said."""
    return say(f"Done: {request.last_text}")


def calls(name: str, **arguments: object) -> Line:
    """Make a line that calls one tool."""
    return lambda play, request: call((name, {"key": play.key, **arguments}))


def _began(key: str, name: str, context: ToolContext) -> Play:
    play = PLAYS[key]
    play.ran.append((name, context.idempotency_key, context.attempt))
    return play


@tool
def note(key: str, context: ToolContext, number: int = 0) -> str:
    """Return at once."""
    _began(key, "note", context)
    return f"noted {number}"


@tool(timeout_seconds=30)
async def hold(key: str, context: ToolContext) -> str:
    """Wait at the gate."""
    await _began(key, "hold", context).opened()
    return "held"


@tool(timeout_seconds=30, effect="once")
async def hold_once(key: str, context: ToolContext) -> str:
    """Wait at the gate, for a work that must not be done twice."""
    await _began(key, "hold_once", context).opened()
    return "held once"


@tool(timeout_seconds=30)
def hold_sync(key: str, context: ToolContext) -> str:
    """Wait at the gate in a thread, and raise when told to stop."""
    play = _began(key, "hold_sync", context)
    deadline = time.monotonic() + DEADLINE
    try:
        while not play.gate.is_set() and time.monotonic() < deadline and not context.cancelled:
            time.sleep(0.01)
    except CancelledError:
        raise RuntimeError("told to stop") from None
    if context.cancelled:
        raise RuntimeError("told to stop")
    return "held in a thread"


@tool(timeout_seconds=30)
def flaky(key: str, context: ToolContext) -> str:
    """Fail at first, and say how long to rest."""
    play = _began(key, "flaky", context)
    if context.attempt == 1:
        raise ApplicationError("not yet", type="NotYet", next_retry_delay=timedelta(seconds=play.seconds))
    return "at last"


@tool(requires_approval=True)
def pay(key: str, context: ToolContext, amount: int = 1) -> str:
    """Do what somebody must approve."""
    _began(key, "pay", context)
    return f"paid {amount}"


TOOLS = (note, hold, hold_once, hold_sync, flaky, pay, ask_user, sleep)
AGENTS = [
    Agent(name="player", model=MODEL, tools=TOOLS),
    Agent(name="short", model=MODEL, tools=TOOLS, limits=Limits(max_model_calls=1)),
]
