"""Going on after another run's closed link: forks; and links that can't be gone on from."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest
from temporalio import workflow
from temporalio.client import Client, WorkflowExecutionStatus, WorkflowHandle
from temporalio.worker import Worker

from holdfast import RunResult
from tests.support.again import begin, same_everywhere, stopped
from tests.support.plays import AGENTS, calls, done, script
from tests.support.stage import Stage, result, stage, timeline


@pytest.fixture(scope="module")
async def at(address: str) -> AsyncIterator[Stage]:
    async with stage(address, script, AGENTS) as made:
        yield made


async def fork(at: Stage, run_id: str, message: str | None = None, **after: Any) -> WorkflowHandle[Any, Any]:
    """Go on from another run's link, under an id of its own."""
    told = {"after": {"workflow_id": run_id, **after}, "message": message}
    return await at.start("player", run_id=f"fork-{uuid.uuid4().hex[:8]}", **told)


async def test_a_fork_calls_nothing_anew_takes_new_ids_and_leaves_the_original_alone(at: Stage) -> None:
    met = await begin(at, calls("note"), calls("note", number=1), done)
    first = await result(met.run)
    _, before = await timeline(at.client, met.run.id)
    run = await fork(at, met.run.id, run=met.link, step=2)
    ended = await result(run)
    assert (ended.status, ended.run_seq, ended.final_text, ended.steps) == ("completed", 1, first.final_text, 3)
    assert met.play.tools == {"note": 3}
    assert len(met.play.asked) == 5
    assert len({key for _, key, _ in met.play.ran}) == 3
    assert [each.tool_name for each in ended.tool_executions] == ["note"]
    assert ended.usage_aggregate.model_calls == 2
    _, after = await timeline(at.client, met.run.id)
    assert after == before
    await same_everywhere(at, run.id)


async def test_a_fork_takes_a_step_of_any_link(address: str) -> None:
    async with stage(address, script, AGENTS, continue_after_events=20) as at:
        many = [calls("note", number=number) for number in range(8)]
        met = await begin(at, *many, done)
        await met.ended()
        _, events = await timeline(at.client, met.run.id)
        links = {each.data["step"]: each.id.partition("/")[0] for each in events if each.type == "step_started"}
        assert len(set(links.values())) > 2
        for step in (1, 4, 9):
            asked, ran = len(met.play.asked), len(met.play.ran)
            run = await fork(at, met.run.id, run=links[step], step=step)
            ended = await result(run)
            assert (ended.status, ended.steps) == ("completed", 9)
            assert (len(met.play.asked) - asked, len(met.play.ran) - ran) == (10 - step, 9 - step)
            await same_everywhere(at, run.id)
        assert len({key for _, key, _ in met.play.ran}) == len(met.play.ran)


async def test_a_fork_of_a_closed_run_goes_on_with_its_whole_conversation(at: Stage) -> None:
    met = await begin(at, calls("note"), done)
    await met.ended()
    whole = await fork(at, met.run.id, run=met.link, message="and?")
    ended = await result(whole)
    assert (ended.final_text, ended.run_seq, len(met.play.asked)) == ("Done: and?", 1, 3)
    part = await fork(at, met.run.id, run=met.link, length=3)
    assert (await result(part)).final_text == f"Done: {met.play.key}"
    assert [each["role"] for each in met.play.asked[-1].messages] == ["system", "user", "assistant", "tool"]


async def test_an_approval_of_one_run_is_none_of_its_forks(at: Stage) -> None:
    met = await begin(at, calls("pay"), done)
    await met.shown("waiting")
    await met.run.signal("pause")
    await met.shown("paused")
    met.open_id = (await met.run.query("status"))["waiting_for"][0]["id"]
    await met.decide("approve")
    await stopped(met)
    run = await fork(at, met.run.id, run=met.link)
    ended = await result(run)
    assert (ended.status, met.play.ran) == ("completed", [])
    assert str(ended.tool_executions[0].error).startswith("NotCalled")
    await same_everywhere(at, run.id)


# What can't be gone on from


@workflow.defn(name="SomebodyElses", sandboxed=False)
class SomebodyElses:
    @workflow.run
    async def run(self) -> str:
        return "mine"


async def foreign(client: Client, run_id: str) -> str:
    queue = f"test-{uuid.uuid4().hex[:8]}"
    async with Worker(client, task_queue=queue, workflows=[SomebodyElses]):
        run = await client.start_workflow("SomebodyElses", id=run_id, task_queue=queue)
        await run.result()
    return str(run.first_execution_run_id)


async def refused(at: Stage, after: dict[str, Any], run_id: str | None = None) -> RunResult:
    run = await at.start("player", run_id=run_id, after=after, message="go on")
    ended = await result(run, 20)
    assert ended.status == "failed"
    assert (await run.describe()).status == WorkflowExecutionStatus.FAILED
    return ended


async def test_a_link_that_is_not_there_fails_the_run(at: Stage) -> None:
    met = await begin(at, done)
    await met.ended()
    for after in ({"run": str(uuid.uuid4())}, {"run": "nonsense"}, {"run": met.link, "workflow_id": "nobody"}):
        ended = await refused(at, after)
        assert ended.error is not None
        assert (ended.error.type, "no run" in ended.error.message.lower()) == ("RunNotFound", True)


async def test_a_link_that_has_not_ended_fails_the_run(at: Stage) -> None:
    met = await begin(at, calls("hold"), done)
    await met.play.has_run("hold")
    ended = await refused(at, {"run": met.link, "workflow_id": met.run.id})
    assert ended.error is not None
    assert (ended.error.type, "has not ended" in ended.error.message) == ("InputInvalid", True)
    met.play.gate.set()


async def test_somebody_elses_workflow_is_no_run_to_go_on_from(at: Stage) -> None:
    run_id = f"foreign-{uuid.uuid4().hex[:8]}"
    link = await foreign(at.client, run_id)
    for ended in (await refused(at, {"run": link, "workflow_id": run_id}), await refused(at, {"run": link}, run_id)):
        assert ended.error is not None
        assert ended.error.type == "RunNotFound"


@pytest.mark.parametrize(
    ("after", "said"),
    [
        ({"step": 3}, "step 3 was not taken"),
        ({"length": 5}, "there are 4 messages"),
        ({"length": 2}, "part tool calls from their results"),
    ],
)
async def test_a_place_that_is_not_there_fails_the_run(at: Stage, after: dict[str, Any], said: str) -> None:
    met = await begin(at, calls("note"), done)
    await met.ended()
    ended = await refused(at, {"run": met.link, "workflow_id": met.run.id, **after})
    assert ended.error is not None
    assert (ended.error.type, said in ended.error.message) == ("InputInvalid", True), ended.error


async def test_a_run_does_not_take_a_step_of_its_own_anew(at: Stage) -> None:
    met = await begin(at, calls("note"), done)
    await met.ended()
    ended = await refused(at, {"run": met.link, "step": 1}, met.run.id)
    assert ended.error is not None
    assert (ended.error.type, "is for a fork" in ended.error.message) == ("InputInvalid", True)


async def test_a_run_that_was_refused_is_no_dead_end(at: Stage) -> None:
    met = await begin(at, done)
    await met.ended()
    await refused(at, {"run": str(uuid.uuid4())}, met.run.id)
    ended = await refused(at, {"run": (await at.client.get_workflow_handle(met.run.id).describe()).run_id}, met.run.id)
    assert ended.error is not None
    assert ended.error.type == "RunNotFound"
    fine = await at.start("player", run_id=met.run.id, after={"run": met.link}, message="now")
    assert (await result(fine)).final_text == "Done: now"
