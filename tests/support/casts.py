"""Casts: runs of several agents, whose models say the lines of their roles, and which write down what was done."""

from __future__ import annotations

import threading
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from holdfast import Agent, Limits, ToolContext, tool
from holdfast.subagents import Join, Subagent
from holdfast.worker.scripted import ChatRequest, Reply, call, hang, say
from tests.support.plays import until

Line = Callable[["Cast", ChatRequest], Reply | Awaitable[Reply]]
CASTS: dict[str, Cast] = {}


@dataclass
class Cast:
    """What each role's model says turn by turn (its last line again and again), and what was done."""

    lines: dict[str, tuple[Line, ...]]
    key: str = field(default_factory=lambda: f"cast-{uuid.uuid4().hex[:12]}")
    """The first message of every run of the cast, and the id of the first of them."""
    gate: threading.Event = field(default_factory=threading.Event)
    asked: Counter[str] = field(default_factory=Counter)
    """How often each role's model was asked."""
    ran: list[tuple[str, str]] = field(default_factory=list)
    """Tool and idempotency key of every call."""

    def __post_init__(self) -> None:
        CASTS[self.key] = self

    async def asked_for(self, role: str, times: int = 1) -> None:
        """Wait until a role's model was asked so often."""
        await until(lambda: self.asked[role] >= times)

    async def has_run(self, name: str, times: int = 1) -> None:
        """Wait until a tool was called so often."""
        await until(lambda: sum(each == name for each, _ in self.ran) >= times)


async def script(request: ChatRequest) -> Reply:
    """Say the role's next line; the cast is told by the first user message."""
    said = next((str(each["content"]) for each in request.messages if each["role"] == "user"), "")
    cast = CASTS[said.partition(" ")[0]]
    cast.asked[request.model] += 1
    lines = cast.lines[request.model]
    reply = lines[min(request.turn, len(lines) - 1)](cast, request)
    return reply if isinstance(reply, Reply) else await reply


def asks(*roles: str, **arguments: Any) -> Line:
    """Make a line that calls subagents."""
    return lambda cast, request: call(*((role, {"message": cast.key, **arguments}) for role in roles))


def uses(*names: str) -> Line:
    """Make a line that calls tools."""
    return lambda cast, request: call(*((name, {"key": cast.key}) for name in names))


def says(text: str) -> Line:
    """Make a line that answers."""
    return lambda cast, request: say(text)


def stays_silent(cast: Cast, request: ChatRequest) -> Reply:
    """Never answer."""
    return hang()


async def waits(cast: Cast, request: ChatRequest) -> Reply:
    """Answer once the gate is open."""
    await until(cast.gate.is_set)
    return say("At last.")


@tool
async def note(key: str, context: ToolContext) -> str:
    """Return at once."""
    CASTS[key].ran.append(("note", context.idempotency_key))
    return "noted"


@tool(timeout_seconds=30)
async def hold(key: str, context: ToolContext) -> str:
    """Wait at the gate."""
    CASTS[key].ran.append(("hold", context.idempotency_key))
    await until(CASTS[key].gate.is_set)
    return "held"


@tool(max_attempts=1)
async def breaks(key: str, context: ToolContext) -> str:
    """Fail."""
    CASTS[key].ran.append(("breaks", context.idempotency_key))
    raise RuntimeError("this part is missing")


@tool(requires_approval=True)
async def pay(key: str, context: ToolContext) -> str:
    """Do what somebody must approve."""
    CASTS[key].ran.append(("pay", context.idempotency_key))
    return "paid"


TOOLS = (note, hold, breaks, pay)


def agent(name: str, *subagents: Agent | Subagent | str, **fields: Any) -> Agent:
    """Make an agent whose model has its own name."""
    return Agent(name=name, model=f"scripted/{name}", tools=TOOLS, subagents=subagents, **fields)


LEAVES = [agent("writer", description="Writes."), agent("checker"), agent("third")]
CALLS = tuple(each.name for each in LEAVES)
AGENTS = [
    *LEAVES,
    agent("lead", *CALLS),
    agent("first", *CALLS, join=Join(mode="any")),
    agent("two", *CALLS, join=Join(mode="quorum", count=2)),
    agent("boss", "lead", *CALLS),
    agent("hasty", Subagent(agent="writer", timeout_seconds=1)),
    agent("poor", *CALLS, limits=Limits(max_cost_usd=1e-3)),
    agent("loop", "loop", limits=Limits(max_subagent_depth=2)),
]
