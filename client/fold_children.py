"""Subagents in a run's history: when their runs began, and how they ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from temporalio.api.enums.v1 import EventType as Kind
from temporalio.api.history.v1 import HistoryEvent

from holdfast import wire
from holdfast.bounds import one_line, pairs, summary
from holdfast.client.fold_activities import ActivityFold
from holdfast.client.spans import Span
from holdfast.ids import step_of_call
from holdfast.message import tool_text
from holdfast.run import RunResult
from holdfast.workflows import delegated
from holdfast.workflows.family import answer_of, error_of
from holdfast.workflows.subagents import ended_badly, ended_by_force, ended_well


@dataclass
class ChildSpan:
    """One subagent's run, from the event that began it."""

    initiated: HistoryEvent
    call_id: str
    told: dict[str, Any]
    """What each of its events says."""
    stopped: bool = False
    """Whether the run has told it to stop: how it ends then is no outcome."""


class ChildFold(ActivityFold):
    """Folds the beginnings and ends of subagents' runs."""

    def _begin_link(self) -> None:
        super()._begin_link()
        self._runs: dict[int, ChildSpan] = {}

    async def _of_child(self, event: HistoryEvent) -> bool:
        """Take an event of a subagent's; False for one of anything else."""
        match event.event_type:
            case Kind.EVENT_TYPE_START_CHILD_WORKFLOW_EXECUTION_INITIATED:
                await self._child_begins(event)
            case Kind.EVENT_TYPE_CHILD_WORKFLOW_EXECUTION_STARTED:
                begun = event.child_workflow_execution_started_event_attributes
                self._child_has_link(begun.initiated_event_id, begun.workflow_execution.run_id)
            case Kind.EVENT_TYPE_START_CHILD_WORKFLOW_EXECUTION_FAILED:
                self._child_refused(event.start_child_workflow_execution_failed_event_attributes.initiated_event_id)
            case Kind.EVENT_TYPE_SIGNAL_EXTERNAL_WORKFLOW_EXECUTION_INITIATED:
                told = event.signal_external_workflow_execution_initiated_event_attributes
                if told.signal_name == wire.INTERRUPT:
                    self._child_told(told.workflow_execution.workflow_id)
            case Kind.EVENT_TYPE_REQUEST_CANCEL_EXTERNAL_WORKFLOW_EXECUTION_INITIATED:
                asked = event.request_cancel_external_workflow_execution_initiated_event_attributes
                self._child_told(asked.workflow_execution.workflow_id)
            case _:
                return await self._child_closes(event)
        return True

    async def _child_closes(self, event: HistoryEvent) -> bool:
        match event.event_type:
            case Kind.EVENT_TYPE_CHILD_WORKFLOW_EXECUTION_COMPLETED:
                done = event.child_workflow_execution_completed_event_attributes
                self._child_ended(done.initiated_event_id, ended_well(await self._first(done.result)))
            case Kind.EVENT_TYPE_CHILD_WORKFLOW_EXECUTION_FAILED:
                failed = event.child_workflow_execution_failed_event_attributes
                cause = await self._converter.decode_failure(failed.failure)
                self._child_ended(failed.initiated_event_id, ended_badly(cause))
            case Kind.EVENT_TYPE_CHILD_WORKFLOW_EXECUTION_CANCELED:
                cancelled = event.child_workflow_execution_canceled_event_attributes
                self._child_ended(cancelled.initiated_event_id, RunResult(status="cancelled"))
            case Kind.EVENT_TYPE_CHILD_WORKFLOW_EXECUTION_TIMED_OUT:
                late = event.child_workflow_execution_timed_out_event_attributes
                self._child_ended(late.initiated_event_id, ended_by_force("Timeout"))
            case Kind.EVENT_TYPE_CHILD_WORKFLOW_EXECUTION_TERMINATED:
                killed = event.child_workflow_execution_terminated_event_attributes
                self._child_ended(killed.initiated_event_id, ended_by_force("Terminated"))
            case _:
                return False
        return True

    async def _child_begins(self, event: HistoryEvent) -> None:
        begun = event.start_child_workflow_execution_initiated_event_attributes
        if self.state is None or begun.workflow_type.name != wire.AGENT_RUN:
            return
        request = await self._first(begun.input)
        lineage = request.get("lineage", {})
        call_id, path = str(lineage.get("call_id")), str(lineage.get("path", ""))
        turn = self.state.turn
        slot = turn.slots.get(call_id) if turn is not None else None
        name = path.rpartition("/")[2]
        told = {"agent_name": name, "run_id": begun.workflow_id, "call_id": call_id}
        told |= {"tool_name": slot.call.name if slot else name, "agent_depth": lineage.get("depth"), "agent_path": path}
        self._runs[event.event_id] = ChildSpan(event, call_id, told)
        if slot is not None:
            self.state.family.began(call_id, begun.workflow_id)
        asked = {each: request[each] for each in ("message", "input", "after") if each in request}
        said = request.get("message") or pairs(request.get("input") or {}) or "goes on"
        data = told | {"step": step_of_call(call_id), **asked}
        self._tell(("subagent_started", f"{name} {summary(said)}", data))

    def _child_has_link(self, initiated_id: int, link: str) -> None:
        run = self._runs.get(initiated_id)
        if run is not None and self.state is not None and run.call_id in self.state.family.children:
            self.state.family.children[run.call_id].link = link

    def _child_refused(self, initiated_id: int) -> None:
        run = self._runs.pop(initiated_id, None)
        if run is not None and self.state is not None:
            why = "its id is still taken by its earlier start"
            data = run.told | {"status": "failed", "error": why, "error_type": "SubagentBusy"}
            self._tell(("subagent_completed", f"{run.told['agent_name']}: {why}", data))
            delegated.refused(self.state, run.call_id)
            self._tell_turn()

    def _child_told(self, run_id: str) -> None:
        for run in self._runs.values():
            run.stopped = run.stopped or run.told["run_id"] == run_id

    def _child_ended(self, initiated_id: int, result: RunResult) -> None:
        run = self._runs.pop(initiated_id, None)
        if run is None or self.state is None:
            return
        span, success = Span(run.initiated), result.status in ("completed", "degraded")
        took = span.milliseconds(self._line.event)
        data = run.told | {"status": result.status, "steps": result.steps, "cost_usd": result.cost_usd}
        data |= {"latency_ms": took, "usage": result.usage_aggregate.model_dump()}
        if success:
            data["output"] = answer_of(result)
            said = tool_text(data["output"])
        else:
            error = error_of(result)
            data |= {"error": error.message, "error_type": error.type}
            said = f"{error.type}: {error.message}"
        news = f"{run.told['agent_name']} {result.status}: {one_line(said)}"
        self._tell(("subagent_completed", news, data), span)
        delegated.ended(self.state, run.call_id, result, took, stopped=run.stopped)
        self._tell_turn()
