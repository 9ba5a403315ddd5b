"""A run's state, and what to do next: plain data and plain decisions, without Temporal."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from holdfast.agent import Limits
from holdfast.bounds import (
    EXECUTIONS_MAX,
    PAGE_MAX_BYTES,
    PREVIEW_MAX_BYTES,
    PREVIEWS_MAX_BYTES,
    PUSH_MAX_BYTES,
    cut,
    cut_json,
    json_size,
)
from holdfast.calls import LoadedAgent, ModelCall, Page, Pushed
from holdfast.carried import Reference
from holdfast.message import (
    Message,
    ToolCall,
    Transcript,
    Turn,
    Usage,
    tool_content,
    tool_message,
    tool_text,
    user_message,
)
from holdfast.request import UserMessage
from holdfast.run import ToolExecution
from holdfast.tools import ToolSpec
from holdfast.workflows.admission import Admitted, Decision, Refused, admit

_PAGE_FRAME = 64
"""Bytes of a page's JSON around its messages."""


@dataclass(frozen=True)
class ToolOutcome:
    """How one tool call ended: with an output, or with an error that the model is told."""

    output: Any = None
    error_type: str | None = None
    error: str | None = None
    latency_ms: float | None = None


@dataclass(frozen=True)
class CallModel:
    """Next: ask the model."""

    call: ModelCall


@dataclass(frozen=True)
class CallTools:
    """Next: settle the last turn's calls, in their order."""

    decisions: list[Decision]


@dataclass(frozen=True)
class Finish:
    """Next: end the run."""

    status: Literal["completed", "degraded"]
    text: str


Move = CallModel | CallTools | Finish


@dataclass
class RunState:
    """Everything that a run knows between two steps."""

    loaded: LoadedAgent
    transcript: Transcript = field(default_factory=Transcript)
    steps: int = 0
    model_calls: int = 0
    tool_calls: int = 0
    usage: Usage = field(default_factory=Usage)
    limit_reached: str | None = None
    """The first limit whose count was used up."""
    partial_text: str = ""
    """What a cancelled model call had said."""
    inbox: list[UserMessage] = field(default_factory=list)
    executions: list[ToolExecution] = field(default_factory=list)
    _seen: set[str] = field(default_factory=set)
    _unfed: dict[int, Message] = field(default_factory=dict)
    _tools: dict[str, ToolSpec] = field(default_factory=dict)
    _preview_bytes: int = 0
    _blanked: int = 0
    """Executions whose output and error have made room for later ones."""
    _dropped: int = 0

    def __post_init__(self) -> None:
        self._tools = {spec.name: spec for spec in self.loaded.agent.tool_specs}
        for text in self.loaded.prompts:
            self._say(user_message(text))

    @property
    def limits(self) -> Limits:
        """The agent's limits."""
        return self.loaded.agent.limits

    def receive(self, message: UserMessage) -> bool:
        """Take a message for the next step; False for an id that was seen before."""
        if message.id is not None:
            if message.id in self._seen:
                return False
            self._seen.add(message.id)
        self.inbox.append(message)
        return True

    def next_move(self) -> Move:
        """Say what to do: settle the last turn's calls, ask the model, or finish."""
        calls = self.unsettled()
        if calls:
            return CallTools(admit(calls, self._tools, self.limits, self.tool_calls))
        last = self.transcript.messages[-1]
        answered = last.role == "assistant"
        if answered and self.limit_reached:
            return Finish("degraded", self.last_text())
        if answered and not self.inbox:
            return Finish("completed", last.content or "")
        for message in self.inbox:
            self._say(user_message(message.text))
        self.inbox = []
        return CallModel(self._model_call())

    def unsettled(self) -> tuple[ToolCall, ...]:
        """Return the calls of the last turn that have no result yet."""
        for index in range(len(self.transcript) - 1, -1, -1):
            message = self.transcript.messages[index]
            if message.role == "assistant":
                settled = {each.tool_call_id for each in self.transcript.messages[index + 1 :]}
                return tuple(call for call in message.tool_calls if call.id not in settled)
        return ()

    def record(self, turn: Turn) -> None:
        """Take a model's turn into the transcript; a partial one is only shown."""
        self.usage = self.usage + turn.usage
        if turn.partial:
            self.partial_text = turn.message.content or ""
            return
        self.transcript.append(turn.message)
        self._dropped = turn.dropped_tool_calls
        if not turn.message.tool_calls and not self.limit_reached:
            self._tell_dropped()  # with nothing left to settle, the turn would pass for an answer

    def settle(self, decisions: list[Decision], outcomes: list[ToolOutcome]) -> None:
        """Take the results of a turn's calls into the transcript, in the order of the calls."""
        for decision, outcome in zip(decisions, outcomes, strict=True):
            self.tool_calls += isinstance(decision, Admitted)
            self._remember(decision.call, outcome)
            if outcome.error is None:
                content = tool_content(outcome.output, self.loaded.tool_output_max_chars)
                self.transcript.append(tool_message(decision.call.id, content))
            else:
                self._say(tool_message(decision.call.id, f"Error ({outcome.error_type}): {outcome.error}"))
        self._tell_dropped()
        if self.tool_calls >= self.limits.max_tool_calls:
            self.reach("max_tool_calls")

    def page(self, start: int, stop: int | None) -> Page:
        """Return messages from `start` to `stop`, as many as fit into 1 MB."""
        messages: list[dict[str, Any]] = []
        size, stop = _PAGE_FRAME, len(self.transcript) if stop is None else min(max(stop, 0), len(self.transcript))
        for message in self.transcript.messages[start:stop]:
            form = message.wire()
            size += json_size(form) + 1
            if size > PAGE_MAX_BYTES and messages:
                break
            messages.append(form)
        end = start + len(messages)
        return Page(messages=tuple(messages), next=end if end < stop else None)

    def summary(self) -> dict[str, Any]:
        """Return the fields of a RunResult that say what the run did."""
        return {
            "agent": self.loaded.agent.name,
            "revision": self.loaded.revision,
            "steps": self.steps,
            "cost_usd": self.usage.cost_usd,
            "usage_aggregate": self.usage,
            "tool_executions": tuple(self.executions),
            "state_snapshot": {
                "model_calls": self.model_calls,
                "tool_calls": self.tool_calls,
                "messages": len(self.transcript),
                "unread_messages": len(self.inbox),
                "limit_reached": self.limit_reached,
            },
        }

    def last_text(self) -> str:
        """Return the last text that the model said."""
        said = (each.content for each in reversed(self.transcript.messages) if each.role == "assistant")
        return next((text for text in said if text), "")

    def _model_call(self) -> ModelCall:
        self.steps += 1
        self.model_calls += 1
        if self.steps >= self.limits.max_steps:
            self.reach("max_steps")
        if self.model_calls >= self.limits.max_model_calls:
            self.reach("max_model_calls")
        unfed, self._unfed = self._unfed, {}
        pushed = [Pushed(index=index, message=message.wire()) for index, message in sorted(unfed.items())]
        if sum(json_size(each.message) for each in pushed) > PUSH_MAX_BYTES:
            pushed = []
        return ModelCall(
            step=self.steps,
            model=self.loaded.agent.model,
            closing=self.limit_reached,
            tool_output_max_chars=self.loaded.tool_output_max_chars,
            transcript=Reference(length=len(self.transcript), digest=self.transcript.digest()),
            pushed=tuple(pushed),
        )

    def reach(self, limit: str) -> None:
        """Note that a limit's count is used up: the next model call is the closing one."""
        self.limit_reached = self.limit_reached or limit

    def _tell_dropped(self) -> None:
        if self._dropped:
            self._say(user_message(_dropped_note(self._dropped)))
            self._dropped = 0

    def _say(self, message: Message) -> None:
        """Append a message that no activity makes, so that the next model call carries it."""
        self._unfed[len(self.transcript)] = message
        self.transcript.append(message)

    def _remember(self, call: ToolCall, outcome: ToolOutcome) -> None:
        output = outcome.output
        if json_size(output) > PREVIEW_MAX_BYTES:
            output = cut_json(tool_text(output), PREVIEW_MAX_BYTES)
        execution = ToolExecution(
            tool_name=cut(call.name, 128),
            tool_call_id=call.id,
            success=outcome.error is None,
            output=output,
            error=None if outcome.error is None else cut(f"{outcome.error_type}: {outcome.error}", PREVIEW_MAX_BYTES),
            latency_ms=outcome.latency_ms,
            agent_name=self.loaded.agent.name,
            agent_path=self.loaded.agent.name,
        )
        self.executions.append(execution)
        self._preview_bytes += json_size([execution.output, execution.error])
        while self._preview_bytes > PREVIEWS_MAX_BYTES:
            oldest = self.executions[self._blanked]
            self._preview_bytes -= json_size([oldest.output, oldest.error])
            self.executions[self._blanked] = oldest.model_copy(update={"output": None, "error": None})
            self._blanked += 1
        if len(self.executions) > EXECUTIONS_MAX:
            first = self.executions.pop(0)
            self._preview_bytes -= 0 if self._blanked else json_size([first.output, first.error])
            self._blanked = max(0, self._blanked - 1)


def _dropped_note(dropped: int) -> str:
    return (
        f"{dropped:,} further tool calls of that turn were not made: they were beyond what one turn may hold. "
        "Ask again for those that are still needed."
    )


def refusal(decision: Refused) -> ToolOutcome:
    """Return the outcome of a call that was refused."""
    return ToolOutcome(error_type=decision.type, error=decision.message, latency_ms=0.0)
