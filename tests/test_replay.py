"""Recorded histories of every shape: today's workflow replays them, and the timeline folds them to what the run had."""

from __future__ import annotations

import itertools
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from temporalio.api.common.v1 import Payload
from temporalio.api.enums.v1 import EventType as Kind
from temporalio.client import WorkflowHistory
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.worker import Replayer
from temporalio.workflow import NondeterminismError

from holdfast import Event, RunResult
from holdfast.client.history import Line
from holdfast.client.timeline import Timeline
from holdfast.event import TERMINAL_EVENTS
from holdfast.worker.plugin import HoldfastPlugin
from tests.record_histories import SOMEBODY
from tests.support.answer_shapes import ANSWER_STATUSES
from tests.support.kin_shapes import KIN_MARKS, KIN_STATUSES
from tests.support.life_shapes import LIFE_SHAPES, SHAPES_OF_ALL
from tests.support.model_shapes import FIRST, MODEL_STATUSES, SECOND
from tests.support.policy_shapes import POLICY_STATUSES
from tests.support.shapes import SHAPES

HISTORIES = Path(__file__).parent / "histories"
LINKS = sorted(path.name.removesuffix(".json") for path in HISTORIES.glob("*.json"))
RECORDED = [name for name in LINKS if "." not in name]
"""The last link of each shape; earlier ones are numbered from 1."""
CHAINS = sorted({name.partition(".")[0] for name in LINKS if "." in name})
SCHEDULING = [name for name in LINKS if '"activityType"' in (HISTORIES / f"{name}.json").read_text()]
UNLOADED = {
    *("agent-unknown", "input-invalid", "request-empty", "request-no-object", "request-of-two"),
    *("cancelled-before-start", "interrupted-before-load"),
}
"""Shapes of runs that never came to have an agent."""
STATUSES = {
    **dict.fromkeys(UNLOADED, "failed"),
    **{name: "cancelled" for name in SHAPES if name.startswith("cancelled-")},
    **dict.fromkeys(("limit-steps", "limit-steps-answered", "limit-model-calls", "limit-tool-calls"), "degraded"),
    **{name: "interrupted" for name in LIFE_SHAPES if name.startswith("interrupted-")},
    "limit-cost": "degraded",
    "interrupted-elsewhere": "interrupted",
    **dict.fromkeys(("model-refused", "model-failed", "model-failed-later", "terminated", "timed-out"), "failed"),
    **ANSWER_STATUSES,
    **KIN_STATUSES,
    **MODEL_STATUSES,
    **POLICY_STATUSES,
}
"""Statuses of the shapes that do not complete."""
MARKS = {
    "worker-killed": [Kind.EVENT_TYPE_ACTIVITY_TASK_TIMED_OUT, Kind.EVENT_TYPE_WORKFLOW_TASK_TIMED_OUT],
    "workflow-task-timed-out": [Kind.EVENT_TYPE_WORKFLOW_TASK_TIMED_OUT],
    "cancelled-in-tools": [Kind.EVENT_TYPE_ACTIVITY_TASK_CANCELED],
    "cancelled-in-model-call": [Kind.EVENT_TYPE_ACTIVITY_TASK_CANCEL_REQUESTED],
    "tool-failed": [Kind.EVENT_TYPE_ACTIVITY_TASK_FAILED],
    "approved": [Kind.EVENT_TYPE_WORKFLOW_EXECUTION_UPDATE_ACCEPTED],
    "approval-timed-out": [Kind.EVENT_TYPE_TIMER_FIRED],
    "answered": [Kind.EVENT_TYPE_WORKFLOW_EXECUTION_UPDATE_ACCEPTED],
    "rested": [Kind.EVENT_TYPE_TIMER_FIRED],
    "woken": [Kind.EVENT_TYPE_TIMER_CANCELED],
    "interrupted-in-tools": [Kind.EVENT_TYPE_ACTIVITY_TASK_CANCELED],
    "interrupted-by-deadline": [Kind.EVENT_TYPE_TIMER_FIRED],
    **{
        name: [Kind.EVENT_TYPE_TIMER_FIRED, Kind.EVENT_TYPE_ACTIVITY_TASK_FAILED]
        for name in ("model-out", "model-out-again", "model-out-too-long", "model-out-paused", "model-out-killed")
    },
    "model-out-over-links.2": [Kind.EVENT_TYPE_TIMER_STARTED, Kind.EVENT_TYPE_TIMER_FIRED],
    "model-failed-continued": [Kind.EVENT_TYPE_TIMER_STARTED],
    "model-out-over-links.1": [Kind.EVENT_TYPE_TIMER_STARTED, Kind.EVENT_TYPE_WORKFLOW_EXECUTION_CONTINUED_AS_NEW],
    **{f"{name}.1": [Kind.EVENT_TYPE_WORKFLOW_EXECUTION_CONTINUED_AS_NEW] for name in CHAINS if "continued" in name},
    **{
        name: [Kind.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED]
        for name in ("message-before-load", "message-during-model-call", "message-during-tool", "message-at-the-end")
    },
    **KIN_MARKS,
}
"""Events without which a history is not what its name says."""
ENDS = {
    "completed": "run_completed",
    "degraded": "run_degraded",
    "failed": "run_failed",
    "cancelled": "task_cancelled",
    "interrupted": "run_interrupted",
}


def recorded(name: str) -> WorkflowHistory:
    """Read a recorded history, under the run id that it was recorded under: those of subagents are made of it."""
    found = WorkflowHistory.from_json(name, (HISTORIES / f"{name}.json").read_text())
    return WorkflowHistory(found.events[0].workflow_execution_started_event_attributes.workflow_id, found.events)


async def replay(history: WorkflowHistory) -> None:
    """Replay with the configuration of our workers."""
    await Replayer(workflows=[], plugins=[HoldfastPlugin()]).replay_workflow(history)


async def fold(*names: str) -> tuple[Timeline, list[Event]]:
    """Fold recorded links, in order, into their timeline."""
    folded, events = Timeline(pydantic_data_converter), []
    for name in names:
        history = recorded(name)
        continued = history.events[-1].event_type == Kind.EVENT_TYPE_WORKFLOW_EXECUTION_CONTINUED_AS_NEW
        for each in history.events:
            line = Line(history.run_id, each, superseded=name != names[-1] and not continued)
            events += await folded.add(line)
    return folded, events


def chain(name: str) -> list[str]:
    """Return the names of a shape's links, in order."""
    return [*sorted(each for each in LINKS if each.startswith(f"{name}.")), name]


def closing(name: str) -> tuple[str, Any]:
    """Return a run's status as its last event has it, and the result that the workflow itself left, if it left one."""
    last = recorded(name).events[-1]
    match last.event_type:
        case Kind.EVENT_TYPE_WORKFLOW_EXECUTION_COMPLETED:
            result = _json(last.workflow_execution_completed_event_attributes.result.payloads[0])
            return result["status"], result
        case Kind.EVENT_TYPE_WORKFLOW_EXECUTION_FAILED:
            failure = last.workflow_execution_failed_event_attributes.failure
            return "failed", _json(failure.application_failure_info.details.payloads[0])
        case Kind.EVENT_TYPE_WORKFLOW_EXECUTION_CANCELED:
            return "cancelled", None
        case Kind.EVENT_TYPE_WORKFLOW_EXECUTION_TERMINATED | Kind.EVENT_TYPE_WORKFLOW_EXECUTION_TIMED_OUT:
            return "failed", None
        case other:
            raise AssertionError(f"{name} ends with event type {other}")


def _json(payload: Payload) -> Any:
    return json.loads(payload.data)


def _without_clocks(result: RunResult) -> dict[str, Any]:
    """Leave out latencies (measured at workflow tasks, and between events), and who ended the run."""
    form = result.model_dump(mode="json", exclude={"tool_executions": {"__all__": {"latency_ms"}}})
    form["state_snapshot"].pop("interrupted_by", None)
    return {name: form[name] for name in ("steps", "cost_usd", "usage_aggregate", "tool_executions", "state_snapshot")}


def test_every_shape_is_recorded_and_nothing_else() -> None:
    assert sorted(SHAPES_OF_ALL) == RECORDED


@pytest.mark.parametrize("name", RECORDED)
async def test_a_history_is_what_its_name_says(name: str) -> None:
    history = recorded(name)
    assert closing(name)[0] == STATUSES.get(name, "completed")
    written = any(each.HasField("upsert_workflow_search_attributes_event_attributes") for each in history.events)
    assert written == (name not in {*UNLOADED, "search-attributes-absent"})


@pytest.mark.parametrize("name", sorted(MARKS))
def test_a_history_holds_the_events_without_which_it_is_not_what_its_name_says(name: str) -> None:
    assert {each.event_type for each in recorded(name).events} >= set(MARKS[name])


@pytest.mark.parametrize(
    ("name", "kind", "data"),
    [
        ("cancelled-in-model-call", "model_completed", {"partial": True}),
        ("model-retried", "model_completed", {"attempt": 2}),
        ("tool-retried", "tool_completed", {"attempt": 2}),
        ("tool-failed", "tool_call_exception", {"attempt": 2, "error_type": "RuntimeError"}),
        ("calls-refused", "tool_call_exception", {"error_type": "ToolUnknown"}),
        ("calls-refused", "tool_call_exception", {"error_type": "ToolArgumentsInvalid"}),
        ("calls-dropped", "model_completed", {"dropped_tool_calls": 8}),
        ("limit-tool-calls", "tool_call_exception", {"error_type": "LimitReached"}),
        ("worker-killed", "tool_call_exception", {"error_type": "WorkerLost"}),
        ("worker-killed", "tool_completed", {"attempt": 2}),
        ("tools-elsewhere", "tool_called", {"tool_name": "charge", "arguments": {"amount": 7}}),
        ("tools-elsewhere", "tool_completed", {"tool_name": "charge", "attempt": 1}),
        ("tools-elsewhere", "tool_call_exception", {"tool_name": "scan", "error_type": "ToolResultInvalid"}),
        ("tools-elsewhere", "tool_call_exception", {"tool_name": "lost", "error_type": "NoWorker"}),
        ("fallen-back", "model_call_exception", {"model": FIRST, "falls_back_to": SECOND, "attempt": 2}),
        ("fallen-back", "model_completed", {"step": 2}),
        ("fallen-back-in-vain", "model_call_exception", {"model": SECOND, "error_type": "ModelUnavailable"}),
        ("model-failed", "model_call_exception", {"attempt": 2, "error_type": "ModelUnavailable"}),
        ("model-out", "model_call_exception", {"error_type": "ModelOut", "attempt": 2, "step": 1}),
        ("model-out-over-links", "run_completed", {"steps": 2}),
        ("budget-refused", "model_call_exception", {"error_type": "BudgetExceeded"}),
        ("structured-killed-in-a-repair", "model_completed", {"attempt": 2, "text": '{"sum": 3}'}),
        ("structured-repaired-over-links", "run_completed", {"output": {"sum": 3}}),
        ("planned", "planning", {"text": "1. Add.\n2. Say it.", "step": 1}),
        ("structured-degraded", "model_completed", {"output_error": "output.sum: 'three' is not of type 'integer'"}),
    ],
)
async def test_a_timeline_tells_of(name: str, kind: str, data: dict[str, Any]) -> None:
    _, events = await fold(name)
    assert any(each.type == kind and each.data.items() >= data.items() for each in events)


@pytest.mark.parametrize("name", LINKS)
def test_a_history_is_small_and_names_no_machine(name: str) -> None:
    text = (HISTORIES / f"{name}.json").read_text()
    assert len(text.encode()) < 100_000
    assert "stackTrace" not in text
    attributes = [each for event in json.loads(text)["events"] for each in event.values() if isinstance(each, dict)]
    assert {each["identity"] for each in attributes if "identity" in each} == {SOMEBODY}


@pytest.mark.parametrize("name", LINKS)
async def test_a_history_replays(name: str) -> None:
    await replay(recorded(name))


@pytest.mark.parametrize("name", SCHEDULING)
async def test_a_history_with_another_activity_does_not_replay(name: str) -> None:
    history = recorded(name)
    scheduled = [each for each in history.events if each.HasField("activity_task_scheduled_event_attributes")]
    scheduled[-1].activity_task_scheduled_event_attributes.activity_type.name = "something.else"
    with pytest.raises(NondeterminismError, match=r"something\.else"):
        await replay(history)


async def test_a_history_whose_tool_call_has_another_id_does_not_replay() -> None:
    history = recorded("tools-in-parallel")
    scheduled = [each for each in history.events if each.HasField("activity_task_scheduled_event_attributes")]
    scheduled[-2].activity_task_scheduled_event_attributes.activity_id = "000000000"
    with pytest.raises(NondeterminismError):
        await replay(history)


async def test_a_history_with_another_answer_of_the_model_does_not_replay() -> None:
    history = recorded("tools-in-parallel")
    for each in history.events:
        for payload in each.activity_task_completed_event_attributes.result.payloads:
            if b'"tool_calls"' in payload.data:
                payload.data = payload.data.replace(b"greet", b"wait")
    with pytest.raises(NondeterminismError):
        await replay(history)


@pytest.mark.parametrize("name", RECORDED)
async def test_a_timeline_ends_with_its_only_terminal_event(name: str) -> None:
    _, events = await fold(name)
    status, _ = closing(name)
    assert [each.type for each in events if each.type in TERMINAL_EVENTS] == [ENDS[status]]
    assert events[-1].type == ENDS[status]
    assert events[0].type == "run_started"


@pytest.mark.parametrize("name", RECORDED)
async def test_a_timelines_ids_are_unique_and_its_times_in_order(name: str) -> None:
    _, events = await fold(name)
    assert len({each.id for each in events}) == len(events)
    told = [each.finished_at or each.created_at for each in events]
    held_back = timedelta(seconds=0.2)  # the server writes what came during a workflow task after it
    assert all(later - earlier > -held_back for earlier, later in itertools.pairwise(told))


@pytest.mark.parametrize("name", RECORDED)
async def test_a_timelines_result_is_the_workflows(name: str) -> None:
    folded, _ = await fold(name)
    status, result = closing(name)
    assert folded.result is not None
    assert folded.result.status == status
    if result is not None:
        assert folded.result == RunResult.model_validate(result)


@pytest.mark.parametrize("name", RECORDED)
async def test_a_timeline_recomputes_steps_cost_and_tool_calls_as_the_workflow_had_them(name: str) -> None:
    folded, _ = await fold(name)
    _, result = closing(name)
    if result is not None and folded.state is not None:
        again = RunResult(status=result["status"], **folded.state.summary())
        assert _without_clocks(again) == _without_clocks(RunResult.model_validate(result))
    assert (folded.state is None) == (name in UNLOADED)


@pytest.mark.parametrize("name", CHAINS)
async def test_a_chain_of_links_reads_straight_through_and_its_last_link_needs_none_before_it(name: str) -> None:
    whole, events = await fold(*chain(name))
    alone, last = await fold(name)
    assert whole.state is not None
    assert alone.state is not None
    assert whole.messages == alone.messages
    assert whole.state.summary() == alone.state.summary()
    assert whole.result == alone.result
    assert len({each.id for each in events}) == len(events)
    assert [each.type for each in events if each.type in TERMINAL_EVENTS] == [ENDS[STATUSES.get(name, "completed")]]
    assert [each.type for each in events].count("run_continued") == len(chain(name)) - 1
    assert [each.id for each in events][-len(last) + 1 :] == [each.id for each in last][1:]


@pytest.mark.parametrize(
    ("name", "calls"),
    [("again-after-interrupt", {"stall": 2, "hold_once": 1, "add": 1}), ("again-after-completion", {"add": 1})],
)
async def test_what_was_done_before_a_run_was_started_again_is_not_done_again(name: str, calls: dict[str, int]) -> None:
    _, events = await fold(*chain(name))
    made = [each.data["tool_name"] for each in events if each.type == "tool_called"]
    assert {tool: made.count(tool) for tool in calls} == calls
