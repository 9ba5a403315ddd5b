"""Messages as OpenAI's chat completions have them, and what one model call brings back."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field

from holdfast.bounds import canonical_json, cut_chars, to_json
from holdfast.content import Content, text_of
from holdfast.data import Data
from holdfast.envelope import enveloped

SUMMARY_HEADING = "[Summary of the conversation so far, which is no longer shown: a record, not a request]"
"""The first line of a message that stands for others."""

Role = Literal["system", "user", "assistant", "tool"]


class FunctionCall(Data):
    """The function that a model wants called."""

    name: str
    arguments: str
    """JSON text as the model wrote it: it may be invalid."""


class ToolCall(Data):
    """One call that an assistant message asks for."""

    id: str
    """Unique in the run: minted by `model.call`, since providers repeat theirs."""
    type: Literal["function"]
    function: FunctionCall
    provider_specific_fields: dict[str, Any] | None = None
    """What the provider wants back unchanged (Gemini's thought signatures, say)."""

    @classmethod
    def of(cls, call_id: str, name: str, arguments: str, **fields: Any) -> ToolCall:
        """Make a call from its three parts."""
        function = FunctionCall(name=name, arguments=arguments)
        return cls(id=call_id, type="function", function=function, **fields)

    @property
    def name(self) -> str:
        """The tool's name, as the model wrote it."""
        return self.function.name


class Message(Data):
    """One message of a transcript."""

    role: Role
    content: Content | None = None
    """A text; a user's may be parts, texts and images."""
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    name: str | None = None
    reasoning_content: str | None = None
    """The model's own account of its thinking, where the provider gives one."""
    thinking_blocks: list[dict[str, Any]] | None = None
    """Signed thinking, which Anthropic wants back beside its tool calls."""
    provider_specific_fields: dict[str, Any] | None = None

    @property
    def text(self) -> str:
        """The content as a text; images are named, not shown."""
        return text_of(self.content)


def user_message(content: Content) -> Message:
    """Make what a person says to the model."""
    return Message(role="user", content=content)


def tool_message(call_id: str, content: str) -> Message:
    """Make the answer to one tool call."""
    return Message(role="tool", content=content, tool_call_id=call_id)


def summary_message(summary: str) -> Message:
    """Make the message that stands for a compacted part of the transcript."""
    return user_message(f"{SUMMARY_HEADING}\n\n{summary}")


def is_summary(message: Message) -> bool:
    """Say whether a message stands for others."""
    return message.role == "user" and message.text.startswith(SUMMARY_HEADING)


def whole_turns(messages: Sequence[Message]) -> int:
    """Return how many of the messages come before the first turn whose tool calls are not all answered: all, mostly."""
    begin, open_calls = 0, set[str | None]()
    for index, message in enumerate(messages):
        if message.role == "tool":
            open_calls.discard(message.tool_call_id)
        elif open_calls:
            return begin
        elif message.role == "assistant":
            begin, open_calls = index, {call.id for call in message.tool_calls}
    return begin if open_calls else len(messages)


def tool_text(output: Any) -> str:
    """Return a tool's recorded output as a text: a text as it is, other JSON compactly."""
    return output if isinstance(output, str) else to_json(output)


def tool_content(output: Any, max_chars: int) -> str:
    """Return a tool's recorded output as a text of at most max_chars."""
    return cut_chars(tool_text(output), max_chars)


def told_by_tool(call_id: str, text: str, max_chars: int, boundary: str | None) -> str:
    """Return what a tool said as the model sees it: in an envelope, where the run has a boundary."""
    return cut_chars(text, max_chars) if boundary is None else enveloped(text, call_id, boundary, max_chars)


class Usage(Data):
    """Tokens and money, of one call or of many."""

    model_calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0
    """Those of input_tokens that the provider read from its cache."""
    reasoning_tokens: int = 0
    """Those of output_tokens that the model thought with."""
    cost_usd: float = 0.0
    """The sum of the calls whose price is known."""
    unpriced_calls: int = 0
    """Calls whose price is unknown, and which cost_usd leaves out."""
    cached_calls: int = 0
    """Calls that a worker's response cache has answered: no tokens, no cost."""
    estimated_calls: int = 0
    """Calls whose tokens the provider did not tell, an aborted one's above all: 4 characters were taken for one."""

    @property
    def total_tokens(self) -> int:
        """Input and output together."""
        return self.input_tokens + self.output_tokens

    def __add__(self, other: Usage) -> Usage:
        mine, theirs = self.model_dump(), other.model_dump()
        total = {name: mine[name] + theirs[name] for name in mine}
        return Usage(**total | {"cost_usd": round(total["cost_usd"], 12)})

    def __sub__(self, other: Usage) -> Usage:
        mine, theirs = self.model_dump(), other.model_dump()
        rest = {name: mine[name] - theirs[name] for name in mine}
        return Usage(**rest | {"cost_usd": round(rest["cost_usd"], 12)})


class Turn(Data):
    """What one `model.call` records: the assistant's message, and what it took."""

    message: Message
    model: str
    """The model that answered, as the provider names it."""
    usage: Usage = Field(default_factory=Usage)
    lost: Usage = Field(default_factory=Usage)
    """What the attempts before this one took, whose answers were of no use, and are paid for as well."""
    finish_reason: str | None = None
    dropped_tool_calls: int = 0
    """Calls beyond the bounds of one turn, left out of the message."""
    output_error: str | None = None
    """What is wrong with an answer that is to fit the agent's `output_schema`; None where it fits."""
    partial: bool = False
    """True when the call was cancelled in mid-answer: shown to people, never put into the transcript."""


class Transcript:
    """The messages that a model sees, in order, each chained into a digest of the whole.

    The digest of n messages is SHA-256 over the digest of n-1 and the n-th message's canonical JSON, so that two
    holders of a transcript can tell in one comparison whether theirs is the same.
    """

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self._digests: list[str] = []

    def __len__(self) -> int:
        return len(self.messages)

    def append(self, message: Message) -> None:
        """Add a message at the end."""
        self._digests.append(chain(self.digest(), canonical_json(message.wire())))
        self.messages.append(message)

    def digest(self, length: int | None = None) -> str:
        """Return the digest of the first `length` messages (of all of them by default)."""
        length = len(self) if length is None else length
        return self._digests[length - 1] if length else ""


def chain(digest: str, message: str) -> str:
    """Return the digest of a transcript after one more message, given as canonical JSON of its wire form."""
    return hashlib.sha256((digest + message).encode()).hexdigest()[:32]
