"""Threads: what passes between a conversation and the runs that share it."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, ValidationError

from holdfast.agent import ModelSettings
from holdfast.bounds import CONTINUE_AFTER_BYTES, CONTINUE_AFTER_EVENTS
from holdfast.carried import Reference
from holdfast.data import Data
from holdfast.errors import InputInvalid, field_errors
from holdfast.message import Usage


class _Said(Data):
    @classmethod
    def read(cls, given: Any) -> Self:
        """Read what came over the wire, another version's too; InputInvalid says what is wrong with it."""
        try:
            return cls.recorded(given)
        except ValidationError as error:
            raise InputInvalid(field_errors(error)) from None


class Visit(_Said):
    """One start of a run, to a thread: all the links that it continues in count as one."""

    run_id: str = Field(min_length=1, max_length=1000)
    first_link: str = Field(min_length=1, max_length=100)
    """Temporal's own run id of the first link of the chain."""
    link: str = Field(min_length=1, max_length=100)
    """The latest link that is known."""

    @property
    def key(self) -> tuple[str, str]:
        """What tells one start of a run from all others."""
        return self.run_id, self.first_link


class Entering(Visit):
    """The one argument of a thread's signal `enter`: the run asks for its turn; asking twice counts once."""

    after: str | None = Field(default=None, max_length=100)
    """The closed link of this same run that it goes on after."""
    continue_after_events: int = Field(default=CONTINUE_AFTER_EVENTS, ge=1)
    continue_after_bytes: int = Field(default=CONTINUE_AFTER_BYTES, ge=1)
    """Events and bytes of one link of the thread, after which it continues as new: the worker's settings."""


class TurnGiven(_Said):
    """The one argument of a run's signal `thread_turn`: it is its turn, and this is what the thread remembers."""

    first_link: str
    memory: Reference


class CompactThread(_Said):
    """The one argument of a thread's update `compact`."""

    model: str | None = Field(default=None, min_length=1, max_length=200)
    """The model that writes the summary; by default that of the last run."""
    keep_tokens: int = Field(default=0, ge=0, le=10_000_000)
    """Tokens of the latest turns that stay as they are, by estimate; the last turn stays in any case."""


class Enter(Data):
    """The one argument of `thread.enter`."""

    thread_id: str
    visit: Entering
    again: bool = False
    """Whether the run has asked before: then it waits for a thread that nobody serves, as for any worker."""


class ReadMemory(Data):
    """The one argument of `thread.read`: which messages of a thread's memory to bring, from `start` on."""

    workflow_id: str
    link: str | None = None
    """A closed link of the thread, for its own next one."""
    start: int = 0
    memory: Reference


class Collect(Data):
    """The one argument of `thread.collect`: what a run adds to its thread, once it has ended."""

    visit: Visit
    start: int = 0
    memory: Reference
    """What the thread remembers so far."""
    wait: bool = False
    """Wait a while for the run's end, which is near."""


class Collected(Data):
    """What `thread.collect` records: at most 256 KB of messages."""

    state: Literal["open", "closed", "gone"]
    """Whether the run is under way, or its history deleted."""
    messages: tuple[dict[str, Any], ...] = ()
    next: int | None = None
    """Where to go on; None at the end."""
    whole: bool = False
    """Whether they stand for the whole memory, which the run has compacted, instead of adding to it."""
    model: str | None = None
    """What the run's agent summarises with."""
    settings: ModelSettings | None = None


class Holding(Data):
    """The run whose turn it is, as a link of the thread hands it to the next one."""

    visit: Visit
    told: bool = False
    left: bool = False


class ThreadCarried(Data):
    """All that a thread's new link needs beside the messages."""

    link: str
    """Temporal's own run id of the link that hands this on."""
    memory: Reference
    queue: tuple[Visit, ...] = ()
    holder: Holding | None = None
    model: str | None = None
    settings: ModelSettings | None = None
    usage: Usage = Usage()
    runs: int = 0
    created_at: float = 0.0
    """Seconds since the epoch."""
    continue_after_events: int = CONTINUE_AFTER_EVENTS
    continue_after_bytes: int = CONTINUE_AFTER_BYTES
