"""Recorded histories of threads themselves: today's workflow replays them, link by link."""

from __future__ import annotations

import json

import pytest
from temporalio.api.enums.v1 import EventType as Kind
from temporalio.client import WorkflowHistory
from temporalio.worker import Replayer
from temporalio.workflow import NondeterminismError

from holdfast.worker.plugin import HoldfastPlugin
from tests.record_histories import SOMEBODY, THREADS
from tests.support.thread_shapes import THREAD_SHAPES

LINKS = sorted(path.name.removesuffix(".json") for path in THREADS.glob("*.json"))
MARKS = {
    "visits": ["thread_turn", "leave"],
    "visits-continued": ["thread.read"],
    "memory-compacted": ["context.compact", "NothingToCompact"],
    "holder-terminated": ["EVENT_TYPE_TIMER_FIRED"],
    "holder-deleted": ["EVENT_TYPE_TIMER_FIRED"],
}
"""Words without which a history is not what its name says."""


def recorded(name: str) -> WorkflowHistory:
    return WorkflowHistory.from_json(f"thread:{name}", (THREADS / f"{name}.json").read_text())


async def replay(history: WorkflowHistory) -> None:
    await Replayer(workflows=[], plugins=[HoldfastPlugin()]).replay_workflow(history)


def told(name: str) -> list[str]:
    """Return the states that `thread.collect` has told, in order."""
    results = [
        json.loads(payload.data)
        for event in recorded(name).events
        for payload in event.activity_task_completed_event_attributes.result.payloads
    ]
    return [str(each["state"]) for each in results if "state" in each]


def test_every_shape_is_recorded_and_nothing_else() -> None:
    assert sorted(THREAD_SHAPES) == [name for name in LINKS if "." not in name]
    assert [name for name in LINKS if name.startswith("visits-continued.")]


@pytest.mark.parametrize("name", sorted(THREAD_SHAPES))
def test_a_history_is_what_its_name_says(name: str) -> None:
    text = (THREADS / f"{name}.json").read_text()
    assert [word for word in MARKS.get(name, []) if word not in text] == []
    assert recorded(name).events[-1].event_type == Kind.EVENT_TYPE_WORKFLOW_EXECUTION_TERMINATED


def test_holders_were_found_closed_gone_and_under_way() -> None:
    assert told("visits") == ["closed"] * 4
    assert "closed" in told("holder-terminated")
    assert "gone" in told("holder-deleted")
    assert told("holder-went-on") == ["open", "closed"]


@pytest.mark.parametrize("name", LINKS)
async def test_a_history_replays(name: str) -> None:
    await replay(recorded(name))


@pytest.mark.parametrize("name", LINKS)
async def test_a_history_with_another_activity_does_not_replay(name: str) -> None:
    history = recorded(name)
    scheduled = [each for each in history.events if each.HasField("activity_task_scheduled_event_attributes")]
    scheduled[-1].activity_task_scheduled_event_attributes.activity_type.name = "something.else"
    with pytest.raises(NondeterminismError, match=r"something\.else"):
        await replay(history)


@pytest.mark.parametrize("name", LINKS)
def test_a_history_is_small_and_names_no_machine(name: str) -> None:
    text = (THREADS / f"{name}.json").read_text()
    assert len(text.encode()) < 100_000
    assert "stackTrace" not in text
    attributes = [each for event in json.loads(text)["events"] for each in event.values() if isinstance(each, dict)]
    assert {each["identity"] for each in attributes if "identity" in each} == {SOMEBODY}
