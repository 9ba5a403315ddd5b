"""What the model sees of a run, in order, how large it is, and when its oldest turns are to be summarised."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from holdfast.agent import Compaction
from holdfast.bounds import PUSH_MAX_BYTES, cut, json_size
from holdfast.calls import Page
from holdfast.carried import Pushed, Reference
from holdfast.envelope import without_envelope
from holdfast.message import Message, ToolCall, Transcript
from holdfast.workflows import compaction, pages
from holdfast.workflows.compaction import Span

_NEVER = float("inf")


class Conversation:
    """A transcript; which of its messages no activity can have fed to a worker; and its tokens."""

    def __init__(self, tokens: int = 0) -> None:
        self.transcript = Transcript()
        self.context_tokens = tokens
        """Of the last model call, as the provider counts them; 0 where only an estimate is to be had."""
        self._unfed: dict[int, Message] = {}
        self._too_long = False
        """Whether the model has refused the transcript for its length."""
        self._compact_from: float = 0
        """Tokens that must be passed before compaction is tried again, after it has failed."""

    @property
    def messages(self) -> Sequence[Message]:
        """The transcript's messages."""
        return self.transcript.messages

    @property
    def last(self) -> Message | None:
        """The last message, if there is any."""
        return self.transcript.messages[-1] if len(self.transcript) else None

    def append(self, message: Message) -> None:
        """Add a message that an activity has made."""
        self.transcript.append(message)

    def say(self, message: Message) -> None:
        """Add a message that no activity makes, so that the next model call carries it."""
        self._unfed[len(self.transcript)] = message
        self.transcript.append(message)

    def put_before(self, messages: Iterable[Message]) -> int:
        """Put messages before all others, and return how many."""
        own, unfed = self.transcript.messages, self._unfed
        self.transcript = Transcript()
        for message in messages:
            self.append(message)
        before = len(self.transcript)
        for message in own:
            self.append(message)
        self._unfed = {index + before: message for index, message in unfed.items()}
        self.context_tokens = 0 if before else self.context_tokens
        return before

    def unsettled(self) -> tuple[ToolCall, ...]:
        """Return the calls of the last turn that have no result yet."""
        for index in range(len(self.transcript) - 1, -1, -1):
            message = self.messages[index]
            if message.role == "assistant":
                settled = {each.tool_call_id for each in self.messages[index + 1 :]}
                return tuple(call for call in message.tool_calls if call.id not in settled)
        return ()

    def last_text(self, start: int = 0) -> str:
        """Return the last text that the model said, from a message on."""
        said = (each.text for each in reversed(self.messages[start:]) if each.role == "assistant")
        return next((text for text in said if text), "")

    def last_result(self, limit: str | None) -> str:
        """Say something better than nothing, where no model can be asked any more."""
        found = [each.text for each in self.messages if each.role == "tool" and each.content]
        told = f"; the last result was: {cut(without_envelope(found[-1]), 2_000)}" if found else ""
        why = "No model could be asked" if limit is None else f"This run reached {limit}"
        return f"{why} before {'one' if limit is None else 'the model'} gave an answer{told}"

    def reference(self) -> Reference:
        """Return the transcript as length and digest."""
        return Reference(length=len(self.transcript), digest=self.transcript.digest())

    def push(self) -> tuple[Pushed, ...]:
        """Return the messages that no activity can have fed to a worker, if they are few; they are pushed once."""
        unfed, self._unfed = self._unfed, {}
        pushed, room = [], PUSH_MAX_BYTES
        for index, message in sorted(unfed.items()):
            form = message.wire()
            room -= json_size(form)
            if room < 0:  # here and not after the last: there may be thousands, and a workflow task has two seconds
                return ()
            pushed.append(Pushed(index=index, message=form))
        return tuple(pushed)

    def page(self, start: int, stop: int | None) -> Page:
        """Return messages from `start` to `stop`, as many as fit into 1 MB."""
        return pages.page(self.transcript.messages, start, stop)

    # Its length

    def tokens(self) -> int:
        """Return the size of the next model call in tokens: what the last one took, and an estimate of what is new."""
        if not self.context_tokens:
            return compaction.tokens_of(self.messages)
        new = 0
        while new < len(self.transcript) and self.messages[-1 - new].role != "assistant":
            new += 1
        return self.context_tokens + compaction.tokens_of(self.messages[len(self.transcript) - new :])

    def to_summarise(self, settings: Compaction) -> Span | None:
        """Return which messages to summarise before the next model call, if it has come to that."""
        tokens = self.tokens()
        if tokens < max(settings.at_tokens, self._compact_from) and not self._too_long:
            return None
        span = compaction.plan(self.messages, settings)
        if span is None:
            self.not_summarised()
        return span

    def summarise(self, span: Span, summary: str) -> int:
        """Put a summary where the span was, and return by how many messages there are fewer."""
        messages, before = compaction.compacted(self.messages, span, summary), len(self.transcript)
        self.transcript, self._unfed, self._too_long = Transcript(), {}, False
        for message in messages:
            self.append(message)
        self.context_tokens = compaction.tokens_of(messages)
        return before - len(messages)

    def not_summarised(self) -> None:
        """Go on with the whole, and try again once it has grown by a quarter."""
        self._compact_from = self.tokens() * 1.25
        if self._too_long:
            self._too_long, self._compact_from = False, _NEVER

    def shorten(self, settings: Compaction) -> bool:
        """Summarise before the next model call, which was refused for its length; False where that can't help."""
        if self._compact_from != _NEVER:
            self._too_long = compaction.plan(self.messages, settings) is not None
        return self._too_long


def dropped_note(dropped: int) -> str:
    """Word what the model is told of calls that were beyond what one turn may hold."""
    return (
        f"{dropped:,} further tool calls of that turn were not made: they were beyond what one turn may hold. "
        "Ask again for those that are still needed."
    )
