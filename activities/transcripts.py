"""What this process holds of the runs that it serves, so that history need not carry a conversation twice."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from threading import Lock
from typing import Any

from holdfast.agent import Agent
from holdfast.bounds import canonical_json, json_size
from holdfast.calls import RunContext
from holdfast.carried import Reference
from holdfast.message import chain, told_by_tool, tool_message, tool_text

_MOST_RUNS = 10_000

RunKey = tuple[str, str]
"""Workflow id and Temporal run id: one link of a run's chain."""


class Held:
    """One run's messages in wire form, as far as this process knows them, and tool outputs that have no place yet."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self.outputs: dict[str, str] = {}
        self._agent: Agent | None = None
        self._agent_bytes = 0
        self._context: RunContext | None = None
        self._context_bytes = 0
        self._message_bytes = 0
        self._output_bytes = 0
        self._digests: list[str] = []
        self._unsettled: list[str] = []

    @property
    def size(self) -> int:
        """Bytes of its agent, context, messages and outputs."""
        return self._agent_bytes + self._context_bytes + self._message_bytes + self._output_bytes

    @property
    def reference(self) -> Reference:
        """All of its messages, as length and digest."""
        return Reference(length=len(self.messages), digest=self._digests[-1] if self._digests else "")

    @property
    def agent(self) -> Agent | None:
        """The run's agent, once this process has it."""
        return self._agent

    @agent.setter
    def agent(self, agent: Agent) -> None:
        self._agent = agent
        self._agent_bytes = json_size(agent.wire())

    @property
    def context(self) -> RunContext | None:
        """What the run's tools may know of it, once this process does."""
        return self._context

    @context.setter
    def context(self, context: RunContext) -> None:
        self._context = context
        self._context_bytes = json_size(context.wire())

    def append(self, message: dict[str, Any]) -> None:
        """Add the next message."""
        text = canonical_json(message)
        self._digests.append(chain(self._digests[-1] if self._digests else "", text))
        self.messages.append(message)
        self._message_bytes += len(text.encode())
        if message["role"] == "assistant":
            self._unsettled = [call["id"] for call in message.get("tool_calls", ())]
        elif message["role"] == "tool":
            self._unsettled = self._unsettled[1:]

    def cut_to(self, length: int) -> None:
        """Forget the messages from `length` on."""
        kept = self.messages[:length]
        self.clear()
        for message in kept:
            self.append(message)

    def clear(self) -> None:
        """Forget all messages, but not the agent and the outputs."""
        self.messages, self._digests, self._unsettled, self._message_bytes = [], [], [], 0

    def keep(self, call_id: str, output: str) -> None:
        """Keep a tool's output, until its place is found."""
        self._take(call_id)
        self.outputs[call_id] = output
        self._output_bytes += len(output.encode())

    def _take(self, call_id: str) -> str:
        output = self.outputs.pop(call_id, "")
        self._output_bytes -= len(output.encode())
        return output

    def advance(
        self,
        reference: Reference,
        pushed: Mapping[int, dict[str, Any]],
        max_chars: int,
        boundary: str | None = None,
    ) -> None:
        """Go as far towards a reference as what was pushed and fed allows."""
        while len(self.messages) < reference.length:
            message = pushed.get(len(self.messages))
            if message is None:
                call = self._unsettled[0] if self._unsettled else None
                if call is None or call not in self.outputs:
                    return
                message = tool_message(call, told_by_tool(call, self._take(call), max_chars, boundary)).wire()
            self.append(message)

    def matches(self, reference: Reference) -> bool:
        """Say whether the reference's messages are all here, and the same."""
        if len(self.messages) < reference.length:
            return False
        return not reference.length or self._digests[reference.length - 1] == reference.digest


class TranscriptCache:
    """The runs held by this process: the least recently used go first once they take more than `max_bytes`."""

    def __init__(self, max_bytes: int = 64 * 1024 * 1024) -> None:
        self.max_bytes = max_bytes
        self._runs: OrderedDict[RunKey, Held] = OrderedDict()
        self._counted: dict[RunKey, int] = {}
        self._total = 0
        self._lock = Lock()
        """`agent.load` comes from a thread of its own."""

    def held(self, key: RunKey) -> Held:
        """Return what is held of a run, empty for a new one."""
        with self._lock:
            held = self._runs.setdefault(key, Held())
            self._runs.move_to_end(key)
            return held

    def agent(self, key: RunKey) -> Agent | None:
        """Return a run's agent, if this process holds it."""
        held = self._runs.get(key)
        return held.agent if held is not None else None

    def feed_output(self, key: RunKey, call_id: str, output: Any) -> None:
        """Keep the recorded output of a tool that ran here, until the next model call finds its place."""
        self.held(key).keep(call_id, tool_text(output))
        self.count(key)

    def count(self, key: RunKey) -> None:
        """Take a run's new size into account, and forget the least recently used runs beyond the bound.

        A run that was itself forgotten in the meantime (during a long model call, say) stays forgotten.
        """
        with self._lock:
            if key not in self._runs:
                return
            size = self._runs[key].size
            self._total += size - self._counted.get(key, 0)
            self._counted[key] = size
            while (self._total > self.max_bytes or len(self._runs) > _MOST_RUNS) and len(self._runs) > 1:
                oldest, _ = self._runs.popitem(last=False)
                self._total -= self._counted.pop(oldest, 0)
