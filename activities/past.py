"""What a closed link has left: read from its history, and recorded in the next one piece by piece."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from temporalio import activity
from temporalio.client import Client
from temporalio.exceptions import ApplicationError

from holdfast import wire
from holdfast.activities.failures import failure
from holdfast.activities.keys import run_key
from holdfast.activities.transcripts import Held, TranscriptCache
from holdfast.bounds import RESTORE_MAX_BYTES, cut, json_size
from holdfast.calls import LoadedAgent, Restore, Restored
from holdfast.carried import Asking, Carried, Counts, OpenTurn, Outcome, Reviewed, Settled
from holdfast.content import Content
from holdfast.errors import HoldfastError, InputInvalid, RunNotFound, ServerUnavailable
from holdfast.message import Message
from holdfast.request import After, RunRequest

_MOST_BYTES = 16 * 1024 * 1024
_KEPT_BY_A_FORK = (
    "link",
    "inbox",
    "context_tokens",
    "goal",
    "sources",
    "context",
    "review",
    "answer_fits",
    "answer_error",
)


@dataclass(frozen=True)
class Past:
    """How a run stood at the end of a link, or before one of its steps."""

    loaded: LoadedAgent | None
    """None for a run that ended before it had begun: then `request` is what to begin with."""
    messages: list[dict[str, Any]]
    """The transcript in wire form, then the messages that the model had not seen."""
    carried: Carried
    request: RunRequest | None = None

    @cached_property
    def size(self) -> int:
        """Bytes of its messages, its agent and the rest, in wire form."""
        parts = [each.wire() for each in (self.loaded, self.carried, self.request) if each is not None]
        return json_size([*parts, *self.messages])

    @property
    def unread(self) -> tuple[Content, ...]:
        """The contents of the messages that the model had not seen."""
        return tuple(
            Message.recorded(each).content or "" for each in self.messages[len(self.messages) - self.carried.inbox :]
        )


Recall = Callable[[Client, str, str, int | None], Awaitable[Past]]
"""Reads a link's history: workflow id, Temporal's run id, and the step before which to stop; HoldfastError."""


_Key = tuple[str, After]


class PastActivities:
    """Closed links, as far as this process has read them: the latest used, 16 MB in all, and at least one."""

    def __init__(self, recall: Recall, cache: TranscriptCache, *, most_bytes: int = _MOST_BYTES) -> None:
        self._recall = recall
        self._cache = cache
        self._most_bytes = most_bytes
        self._read: OrderedDict[_Key, Past] = OrderedDict()
        self._reading: dict[_Key, asyncio.Task[Past]] = {}

    @activity.defn(name=wire.TRANSCRIPT_RESTORE)
    async def restore(self, call: Restore) -> dict[str, Any]:
        """Return the messages from `start` on, at most 256 KB of them; returns Restored's wire form."""
        info = activity.info()
        own = info.workflow_id or ""
        held = self._held(call, own)
        if held is not None:
            messages, carried = held.messages, None
        else:
            past = await self.past(call.after)
            messages, carried = past.messages, past.carried
            if past.request is not None:  # it begins only now: what it was sent follows its first messages
                messages, carried = [], carried.model_copy(update={"inbox": 0})
            if call.transcript is not None:
                carried = None
                _check(messages, call)
        piece, following = piece_of(messages, call.start)
        self._feed(call, piece, unread=carried.inbox if carried else call.inbox, total=len(messages))
        return Restored(
            messages=tuple(piece),
            next=following,
            carried=carried if call.start == 0 else None,
        ).wire()

    async def past(self, after: After, own: str | None = None) -> Past:
        """Return what a closed link leaves to a run, to this one by default; many callers at once read it once.

        ApplicationError for a link that is gone, open, no run's, or of another version.
        """
        own = own or activity.info().workflow_id or ""
        key = (own, after)
        if key in self._read:
            self._read.move_to_end(key)
            return self._read[key]
        if key not in self._reading:
            reading = asyncio.create_task(self._found(activity.client(), own, after))
            reading.add_done_callback(lambda done: self._keep(key, done))
            self._reading[key] = reading
        return await asyncio.shield(self._reading[key])  # a caller that is cancelled takes it from nobody else

    async def _found(self, client: Client, own: str, after: After) -> Past:
        workflow_id = after.workflow_id or own
        try:
            if workflow_id == own and after.step is not None:
                raise InputInvalid({"after.step": "is for a fork: a run does not take its own steps anew"})
            return going_on(await self._recall(client, workflow_id, after.run, after.step), after, own)
        except RunNotFound:
            told = f"no run {workflow_id!r} has the link {after.run}: its history is gone, or never was"
            raise ApplicationError(cut(told), type="RunNotFound", non_retryable=True) from None
        except HoldfastError as error:
            passing = isinstance(error, ServerUnavailable)
            raise ApplicationError(cut(str(error)), type=type(error).__name__, non_retryable=not passing) from None

    def _keep(self, key: _Key, done: asyncio.Task[Past]) -> None:
        del self._reading[key]
        if done.cancelled() or done.exception() is not None:
            return
        self._read[key] = done.result()
        while len(self._read) > 1 and sum(past.size for past in self._read.values()) > self._most_bytes:
            self._read.popitem(last=False)

    def _held(self, call: Restore, own: str) -> Held | None:
        """Return what this process holds of the link before, if that is the whole."""
        if call.transcript is None or call.inbox or call.after.workflow_id not in (None, own):
            return None
        held = self._cache.held((own, call.after.run))
        pushed = {each.index: each.message for each in call.pushed}
        held.advance(call.transcript, pushed, call.tool_output_max_chars, call.boundary)
        whole = held.matches(call.transcript) and len(held.messages) == call.transcript.length
        return held if whole else None

    def _feed(self, call: Restore, piece: list[dict[str, Any]], *, unread: int, total: int) -> None:
        """Hold the new link's beginning, so that its first model call need not ask for it."""
        key = run_key(activity.info())
        held = self._cache.held(key)
        if len(held.messages) == call.start:
            for message in piece[: max(0, total - unread - call.start)]:
                held.append(message)
            self._cache.count(key)


def piece_of(messages: Sequence[dict[str, Any]], start: int) -> tuple[list[dict[str, Any]], int | None]:
    """Return the messages from `start` on, at most 256 KB of them, and where to go on; None at the end."""
    piece: list[dict[str, Any]] = []
    size = 0
    for message in messages[start:]:
        size += json_size(message) + 1
        if piece and size > RESTORE_MAX_BYTES:
            break
        piece.append(message)
    end = start + len(piece)
    return piece, end if end < len(messages) else None


def going_on(past: Past, after: After, own: str) -> Past:
    """Return what a run begins with that goes on after a closed link: its own next seq, or a fork of another run."""
    past = past if after.length is None else _shortened(past, after.length)
    carried = past.carried
    if after.workflow_id in (None, own):
        anew: dict[str, Any] = {"run_seq": carried.run_seq + 1, "base": carried.counts, "limit_reached": None}
        anew |= {"paused": None, "started_at": 0.0, "active_seconds": 0.0, "repairs": 0, "tolerated": {}}
        anew["review"] = carried.review.model_copy(update={"rewrites": 0, "final_rewrites": 0})
        anew |= {"models": Asking(answered=carried.models.answered), "given_up": False}
        rests = tuple(each for each in carried.turn.awaited if each.waits == "timer")  # people are asked afresh
        anew["turn"] = carried.turn.model_copy(update={"awaited": rests})
        return replace(past, carried=carried.model_copy(update=anew))
    steps = Counts(steps=carried.counts.steps)
    kept = {name: getattr(carried, name) for name in _KEPT_BY_A_FORK}
    turn = OpenTurn(settled=(*carried.turn.settled, *_left_open(past)), dropped=carried.turn.dropped)
    return replace(past, carried=Carried(**kept, turn=turn, counts=steps, base=steps))


def _left_open(past: Past) -> list[Settled]:
    """Settle the calls that had not ended: a fork must not make them a second time, under keys of its own."""
    told = Outcome(error_type="NotCalled", error="it had not ended in the run that this one was forked from")
    ended = {each.call_id for each in past.carried.turn.settled}
    for message in reversed(past.messages):
        if message["role"] == "assistant":
            open_calls = [call["id"] for call in message.get("tool_calls", ()) if call["id"] not in ended]
            return [Settled(call_id=call_id, outcome=told) for call_id in open_calls]
        ended |= {message.get("tool_call_id")}
    return []


def _shortened(past: Past, length: int) -> Past:
    """Keep so many messages; InputInvalid where there are fewer, or where calls would be parted from their results."""
    if length > len(past.messages):
        raise InputInvalid({"after.length": f"is {length}, but there are {len(past.messages)} messages"})
    read = len(past.messages) - past.carried.inbox
    if length >= read:
        fewer = past.carried.model_copy(update={"inbox": length - read})
        return replace(past, messages=past.messages[:length], carried=fewer)
    if past.messages[length]["role"] == "tool":
        raise InputInvalid({"after.length": f"{length} messages would part tool calls from their results"})
    told: dict[str, Any] = {"answer_fits": False, "answer_error": None}
    told |= {"inbox": 0, "turn": OpenTurn(), "children": (), "context_tokens": 0}
    told["review"] = Reviewed(unheard=_last_heard(past.messages[:length]))
    told["own_from"] = min(length, past.carried.own_from)
    told["handed_over"] = min(length, past.carried.handed_over)
    return replace(past, messages=past.messages[:length], carried=past.carried.model_copy(update=told))


def _last_heard(messages: Sequence[dict[str, Any]]) -> int:
    """Return how many messages of people stand at the end: guardrails may not have seen them."""
    others = (index for index, each in enumerate(reversed(messages)) if each["role"] != "user")
    return next(others, len(messages))


def _check(messages: list[dict[str, Any]], call: Restore) -> None:
    assert call.transcript is not None
    again = Held()
    for message in messages[: call.transcript.length]:
        again.append(message)
    if not again.matches(call.transcript) or len(messages) != call.transcript.length + call.inbox:
        raise failure("TranscriptMismatch", "the closed link's history does not give its transcript", retryable=True)


def refuse_open(run_id: str) -> InputInvalid:
    """Make the error of a link that has not ended."""
    return InputInvalid({"after": f"the link of run {run_id!r} has not ended"})
