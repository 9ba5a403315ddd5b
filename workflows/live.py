"""A run while it lives: what its handlers and its loop share, and what it shows of itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from temporalio import workflow

from holdfast.bounds import CHILD_TEXT_MAX_BYTES, RESULT_TEXT_MAX_BYTES, cut, cut_json, is_small, json_size, to_json
from holdfast.calls import RunContext
from holdfast.carried import Carried
from holdfast.request import RunRequest
from holdfast.run import TERMINAL, RunResult, Status
from holdfast.threads import TurnGiven
from holdfast.workflows import details, options, shown
from holdfast.workflows.clock import Clock
from holdfast.workflows.handover import carry
from holdfast.workflows.hands import Hands, How
from holdfast.workflows.state import RunState

_STOP_SECONDS = 0.7
"""How long a tool has to end once the run is interrupted; then the run ends without it."""
_CHILDREN_STOP_SECONDS = 10.0
"""How long subagents have, which may have tools and subagents to stop themselves."""


class Live:
    """State, hands and clock of one link of a run."""

    def __init__(self) -> None:
        self.state: RunState | None = None
        self.request: RunRequest | None = None
        self.status: Status = "running"
        self.hands = Hands()
        self.interrupted_by = ""
        """A limit's name, or the reason that somebody gave."""
        self.turn_given: TurnGiven | None = None
        """What the run's thread has said, once it is its turn."""
        self.entered = False
        """Whether the thread may know of the run, and not that it is about to end."""
        self.signals = 0
        self.updates = 0
        self._early: list[Callable[[RunState], object]] = []
        """What was said before the agent was loaded."""
        self._waiting: str | None = None
        self._leaving: asyncio.Task[None] | None = None
        self._clock: Clock | None = None
        self._began = (0, 0)
        self.crowded = False
        """Whether this link holds so much that the run should continue as new.

        Looked at when something has come, never in a condition: of an update that was refused nothing is left in
        history, so that a replay would find the condition true at another place.
        """

    def begin(self, state: RunState, carried: Carried | None) -> None:
        """Go live with a state, and with all that was said meanwhile."""
        info = workflow.info()
        self.state = state
        self._began = (info.get_current_history_length(), info.get_current_history_size())
        started_at = carried.started_at if carried else info.start_time.timestamp()
        self._clock = Clock(state.limits, started_at, carried.active_seconds if carried else 0.0)
        if self.request is not None and self.request.append_message is not None:
            state.receive(self.request.append_message)
        early, self._early = self._early, []
        for say in early:
            say(state)
        if self.hands.stopped:
            return
        self._clock.turn(True, workflow.time())
        if state.loaded.search_attributes:
            thread = self.request.thread_id if self.request else None
            workflow.upsert_search_attributes(
                [*shown.first(state, thread), *shown.changed(state, "running", (), self._waiting)]
            )
        self.refresh()

    def tell(self, say: Callable[[RunState], object]) -> None:
        """Say something to the state, once there is one."""
        if self.state is None:
            self._early.append(say)
        else:
            say(self.state)
            self.refresh()

    def interrupt(self, reason: str) -> None:
        """Stop at once, keeping what was said; a run that is being cancelled stays cancelled."""
        if self.hands.stopped is None:
            self.interrupted_by = cut(reason)
            self._stop("interrupted")

    def _stop(self, how: How) -> None:
        self.hands.stop(how)
        if self.hands.may_leave or self.hands.has_children:
            self._leaving = asyncio.create_task(self._leave())

    async def _leave(self) -> None:
        if self.hands.may_leave:
            await workflow.sleep(_STOP_SECONDS, summary="stop")
            self.hands.leave()
        if self.hands.has_children:
            await workflow.sleep(_CHILDREN_STOP_SECONDS, summary="stop subagents")
            self.hands.leave_children()

    def handed_on(self) -> Carried:
        """Return what the next link is handed."""
        assert self.state is not None
        assert self._clock is not None
        info = workflow.info()
        active = self._clock.active(workflow.time())
        left = self.context().metadata is None or (self.request is not None and not is_small(self.request.metadata))
        clock = {"started_at": self._clock.started_at, "active_seconds": active}
        return carry(self.state, info.run_id, metadata_left=left, **clock)

    def context(self) -> RunContext:
        """Say what a tool's call may know of the run; ValueError before its agent is loaded."""
        state, request = self.state, self.request
        if state is None or request is None:
            raise ValueError("the agent is not loaded yet")
        metadata: dict[str, Any] | None = request.metadata or state.context
        if not metadata and request.carried is not None and request.carried.metadata_left:
            metadata = None
        family = state.family
        return RunContext(agent=family.agent.name, agent_depth=family.depth, agent_path=family.path, metadata=metadata)

    async def watch_clock(self) -> None:
        """Interrupt the run when its time is up."""
        clock = self._clock
        assert clock is not None
        while not self.hands.stopped:
            known, ran = clock.next_limit(workflow.time()), clock.runs
            if known is None and clock.limits.max_active_seconds is None:
                return

            def changed(ran: bool = ran) -> bool:
                return clock.runs != ran or self.hands.stopped is not None

            try:
                seconds, limit = known or (None, "")
                if seconds is not None and seconds <= 0:
                    self.interrupt(limit)
                    return
                await workflow.wait_condition(changed, timeout=seconds, timeout_summary=limit or None)
            except TimeoutError:
                continue  # and look whether the time is up

    def refresh(self) -> None:
        """Show the status where it has changed, and let the clock stand still while the run waits or is paused."""
        state = self.state
        if state is None or self.status in TERMINAL or self.hands.stopped:
            return
        if state.family.tolerance.fatal is not None:
            self._stop("failed")
            return
        for call_id in state.family.losers:
            self.hands.interrupt_child(call_id, state.family.lost[call_id])
        info = workflow.info()
        self.crowded = options.is_crowded(info, state.loaded, self._began, self.signals, self.updates)
        kinds = [str(slot.waits) for slot in state.waiting]
        if state.awaits_thread is not None:
            kinds.append("thread")
        if state.models.resting is not None:
            kinds.append("model")
        status: Status = "running"
        if not self.hands.busy or (state.paused is not None and not self.hands.acts):
            status = "paused" if state.paused is not None else "waiting" if kinds else "running"
        if self._clock is not None:
            self._clock.turn(status == "running", workflow.time())
        if status != self.status or shown.waiting(kinds) != self._waiting:
            self.show(status, kinds)

    def show(self, status: Status, kinds: list[str] | None = None) -> None:
        """Say the status in search attributes, and on the run's page in the UI."""
        state, self.status = self.state, status
        if state is None:
            if shown.written(workflow.info()):  # then it is registered, which only a loaded agent tells otherwise
                workflow.upsert_search_attributes(shown.ended_early(workflow.info(), status))
            return
        self.draw()
        if state.loaded.search_attributes:
            workflow.upsert_search_attributes(shown.changed(state, status, kinds or (), self._waiting))
        self._waiting = shown.waiting(kinds or ())

    def draw(self) -> None:
        """Draw the run's page in the UI anew."""
        if self.state is not None:
            workflow.set_current_details(details.page(self.state, self.status))

    def result(self, status: Status, **fields: Any) -> RunResult:
        """Return what the run leaves; its texts are cut where they would not fit into it."""
        state, request = self.state, self.request
        child = request is not None and request.lineage is not None
        most = CHILD_TEXT_MAX_BYTES if child else RESULT_TEXT_MAX_BYTES
        fields |= {name: cut_json(each, most) for name, each in fields.items() if isinstance(each, str)}
        if child and json_size(fields.get("output")) > most:
            fields["output"] = cut_json(to_json(fields["output"]), most)
        known: dict[str, Any] = {"run_id": workflow.info().workflow_id}
        if request is not None:
            known["thread_id"] = request.thread_id
            known["agent"] = request.agent if isinstance(request.agent, str) else request.agent.name
        if state is None and request is not None and request.carried is not None:
            known.update(request.carried.summary())
        if state is not None:
            known.update(state.summary())
            if status == "interrupted":
                known["state_snapshot"] = {**known["state_snapshot"], "interrupted_by": self.interrupted_by}
        return RunResult(status=status, **known, **fields)
