"""The ground of the timeline: the run's state as history tells it, and the events made of one line."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

from temporalio.api.common.v1 import Payload, Payloads
from temporalio.api.history.v1 import HistoryEvent
from temporalio.converter import DataConverter

from holdfast.activities.reading import tolerant
from holdfast.agent import Interaction
from holdfast.calls import LoadedAgent
from holdfast.carried import Carried, Reference
from holdfast.client import told
from holdfast.client.history import Line
from holdfast.client.spans import Span, time_of
from holdfast.client.told import Told, TurnTold
from holdfast.event import Event
from holdfast.message import Message
from holdfast.request import RunRequest, UserMessage
from holdfast.run import RunResult
from holdfast.subagents import Lineage
from holdfast.workflows.in_thread import join
from holdfast.workflows.outcomes import Unreadable
from holdfast.workflows.seen import SeenIds
from holdfast.workflows.state import RunState
from holdfast.workflows.turn import NotAwaited

MODEL_RESTS = "model"
"""In place of a call's id: the rest that a run took since no model answered."""


class Fold:
    """Keeps a run's state while its history is read, link by link."""

    def __init__(self, converter: DataConverter) -> None:
        self._converter = tolerant(converter)
        self.request: RunRequest | None = None
        """What the run was first asked for, as far as history still tells."""
        self.started_at: datetime | None = None
        self.closed_at: datetime | None = None
        self.state: RunState | None = None
        self._earlier: list[Message] = []
        self._early_seen = SeenIds()
        """Messages that came before this link had a state to tell, and those of the links before."""
        self.result: RunResult | None = None
        """Set once the run has closed."""
        self.unknown: set[str] = set()
        """Tool calls that may have begun, and whose outcome this link does not tell."""
        self.reading: LoadedAgent | None = None
        """The agent of this link, once it is loaded."""
        self._line = Line("", HistoryEvent())
        self._made: list[Event] = []
        self._run_id = ""
        self.link_request: RunRequest | None = None
        """What this link was started with."""
        self._begin_link()

    def _begin_link(self) -> None:
        self._earlier = self.messages
        seen = self.state.seen if self.state else self._early_seen.packed()
        self.state, self.reading, self.result, self.closed_at = None, None, None, None
        self.unknown = set()
        self._early: list[Callable[[RunState], object]] = []
        self.unread: list[UserMessage] = []
        """Messages that came before this link had a state to tell."""
        self._early_seen = SeenIds(seen)
        self._early_paused = False
        self._open: dict[int, Span] = {}
        self._calls: dict[int, Any] = {}
        self._stopped: set[int] = set()
        """Activities that the run has told to stop: how they end then is no outcome."""
        self._timers: dict[int, str] = {}
        self._expired: list[str] = []
        """Calls, or a model's rest, whose time has come; what came in the same task from outside was heard first."""
        self._task_done = False
        self._restored: list[dict[str, Any]] = []
        self._carried: Carried | None = None
        self._turn: TurnTold | None = None
        self._memory: Reference | None = None
        self._first_link = ""

    @property
    def messages(self) -> list[Message]:
        """The transcript so far; that of the link before, until this one has it."""
        return list(self.state.transcript.messages) if self.state else self._earlier

    def finish_task(self) -> None:
        """End the waits whose time has come, as the workflow did after it had heard what came from outside."""
        expired, self._expired = self._expired, []
        for each in expired:
            if self.state is not None and each == MODEL_RESTS:
                self.state.models.rested()
            elif self.state is not None:
                self.state.expire(each)
        self._tell_turn()

    def _say(self, say: Callable[[RunState], object], news: Told | None = None) -> None:
        """Tell the state, once there is one; the news count where they change something."""
        if self.state is None:
            self._early.append(say)
            if news is not None:
                self._tell(news)
            return
        try:
            changed = say(self.state)
        except NotAwaited:  # it came before the agent was loaded, and was refused then
            return
        if news is not None and changed:
            self._tell(news)
        self._tell_turn()

    def _take_turn(self) -> None:
        """Note that it is the run's turn in its thread; an empty memory is not even read."""
        state = self.state
        if state is None or state.awaits_thread is None or self._memory is None:
            return
        state.awaits_thread = None
        if state.memory is None and not self._memory.length:
            state.remember((), self._memory)

    def _live(self, state: RunState, *, anew: bool = True) -> None:
        self.state = state
        if self.link_request is not None:
            join(state, self.link_request, self._run_id)
            self._take_turn()
        early, self._early = self._early, []
        if state.turn is not None:
            self._turn = TurnTold(state.turn, anew=anew)
            for slot in state.turn.open if anew else ():
                for judgement in slot.decision.judged.said:
                    self._tell(told.judged(slot, judgement))
        for say in early:
            self._say(say)
        self._tell_turn()

    def _interaction(self) -> Interaction:
        assert self.reading is not None
        mode = self.link_request.interaction_mode if self.link_request else None
        settings = self.reading.agent.interaction
        return settings if mode is None else settings.model_copy(update={"mode": mode})

    def _lineage(self) -> Lineage | None:
        return self.link_request.lineage if self.link_request else None

    def _metadata(self) -> dict[str, Any]:
        return self.link_request.metadata if self.link_request else {}

    def _tell_turn(self) -> None:
        if self._turn is not None:
            for news in self._turn.news():
                self._tell(news)

    def _tell(self, news: Told, span: Span | None = None) -> None:
        kind, text, data = news
        now = time_of(self._line.event)
        cursor = f"{self._line.link}/{self._line.event.event_id}.{len(self._made)}"
        start, end = (time_of(span.scheduled), now) if span else (now, None)
        self._made.append(Event(id=cursor, type=kind, message=text, created_at=start, finished_at=end, data=data))

    async def _first(self, payloads: Payloads) -> Any:
        found: Iterable[Payload] = payloads.payloads
        try:
            values = await self._converter.decode(list(found)) if found else []
        except (RuntimeError, KeyError, ValueError) as error:
            return Unreadable(undecodable=str(error)[:200])
        return values[0] if values else None
