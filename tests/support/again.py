"""What the tests of restarts and forks share: runs that go on after a closed link."""

from __future__ import annotations

from typing import Any

from temporalio.client import WorkflowHandle

from holdfast.envelope import without_envelope
from tests.support.plays import Line, Play
from tests.support.scenes import Scene
from tests.support.stage import Stage, timeline


async def begin(at: Stage, *lines: Line, agent: str = "player") -> Scene:
    play = Play(lines)
    run = await at.start(agent, run_id=play.key, message=play.key)
    return Scene(at, "", play, run, link=str(run.first_execution_run_id))


async def again(met: Scene, agent: str = "player", **request: Any) -> WorkflowHandle[Any, Any]:
    """Start the run again after its last link."""
    after = {"run": (await met.at.client.get_workflow_handle(met.run.id).describe()).run_id}
    met.play.gate.set()
    return await met.at.start(agent, run_id=met.run.id, after=after, **request)


async def tell(met: Scene, text: str, message_id: str) -> WorkflowHandle[Any, Any]:
    """Send a message to a run that has ended."""
    link = (await met.at.client.get_workflow_handle(met.run.id).describe()).run_id
    return await met.at.client.start_workflow(
        "AgentRun",
        {"agent": "player", "after": {"run": link}},
        id=met.run.id,
        task_queue=met.at.task_queue,
        start_signal="append_message",
        start_signal_args=[{"text": text, "id": message_id}],
    )


async def stopped(met: Scene, how: str = "interrupt") -> None:
    stop = {"cancel": met.run.cancel, "terminate": met.run.terminate}
    await stop.get(how, lambda: met.run.signal("interrupt"))()
    await met.ended()


def told(play: Play) -> list[str]:
    """Return what the model was last sent, as the texts of its messages."""
    return [without_envelope(str(each.get("content"))) for each in play.asked[-1].messages if each["role"] != "system"]


async def same_everywhere(at: Stage, run_id: str) -> list[str]:
    """See that the run's own transcript is the folded one; returns its roles' initials and the types of events."""
    folded, events = await timeline(at.client, run_id)
    page = await at.client.get_workflow_handle(run_id).query("transcript", {"start": 0})
    assert [each.wire() for each in folded.messages] == page["messages"]
    return [event.type for event in events]
