"""What threads remember, on the real server: many links, deleted runs, compaction, another worker."""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import AsyncIterator

import pytest
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.workflowservice.v1 import DeleteWorkflowExecutionRequest
from temporalio.client import WorkflowUpdateFailedError
from temporalio.worker import Replayer

from holdfast import AsyncClient
from holdfast.carried import Reference
from holdfast.threads import ThreadCarried
from holdfast.worker.build import make_worker
from holdfast.worker.plugin import HoldfastPlugin
from tests.support.stage import Stage, result, stage, timeline
from tests.support.threads import AGENTS, idle, is_waiting, question, script, seen, start, until


@pytest.fixture
async def at(address: str) -> AsyncIterator[Stage]:
    async with stage(address, script, AGENTS) as made:
        yield made


@pytest.fixture
def thread() -> str:
    return f"t-{uuid.uuid4().hex[:10]}"


async def test_a_thread_continues_as_new_under_fire_and_loses_nothing(address: str, thread: str) -> None:
    async with stage(address, script, AGENTS, continue_after_events=20) as at:
        runs = [await start(at, thread, f'say("answer {number}")') for number in range(25)]
        ended = await asyncio.gather(*(result(run) for run in runs))
        assert {each.status for each in ended} == {"completed"}
        memory = await idle(at, thread)
        said = [each["content"] for each in memory if each["role"] == "assistant"]
        assert sorted(said) == sorted(f"answer {number}" for number in range(25))
        assert len(memory) == 50
        handle = at.client.get_workflow_handle(f"thread:{thread}")
        assert (await handle.query("status"))["runs"] == 25
        latest = await handle.describe()
        assert latest.run_id != latest.raw_description.workflow_execution_info.first_run_id


async def test_a_thread_remembers_runs_that_are_deleted_and_is_idle_without_timers(at: Stage, thread: str) -> None:
    run = await start(at, thread, 'say("Remember me.")')
    await result(run)
    await idle(at, thread)
    await at.client.workflow_service.delete_workflow_execution(
        DeleteWorkflowExecutionRequest(
            namespace=at.client.namespace, workflow_execution=WorkflowExecution(workflow_id=run.id)
        )
    )
    described = await at.client.get_workflow_handle(f"thread:{thread}").describe()
    assert not described.raw_description.pending_activities
    history = await at.client.get_workflow_handle(f"thread:{thread}").fetch_history()
    assert not [each for each in history.events if each.HasField("timer_started_event_attributes")]
    await result(await start(at, thread, 'say("Yes.")'))
    assert "Remember me." in seen(at)


async def test_a_thread_goes_on_without_a_run_whose_history_is_gone(at: Stage, thread: str) -> None:
    run = await start(at, thread, 'call(("rest", {"seconds": 30}))')
    await until(lambda: run.query("status"), lambda told: told["step"] == 1)
    await at.client.workflow_service.delete_workflow_execution(
        DeleteWorkflowExecutionRequest(
            namespace=at.client.namespace, workflow_execution=WorkflowExecution(workflow_id=run.id)
        )
    )
    assert (await result(await start(at, thread, 'say("And on.")'))).final_text == "And on."
    assert len(await idle(at, thread)) == 2


async def test_a_thread_is_compacted_when_somebody_asks_and_refuses_when_there_is_nothing(
    at: Stage, thread: str
) -> None:
    for number in range(3):
        await result(await start(at, thread, f'say("answer {number}")'))
    await idle(at, thread)
    handle = at.client.get_workflow_handle(f"thread:{thread}")
    done = await handle.execute_update("compact", {"model": "scripted/other"})
    assert (done["messages"], done["messages_after"], done["summary"]) == (6, 3, "They talked.")
    memory = await idle(at, thread)
    assert [each["role"] for each in memory] == ["user", "user", "assistant"]
    assert memory[-1]["content"] == "answer 2"
    with pytest.raises(WorkflowUpdateFailedError) as refused:
        await handle.execute_update("compact")
    assert getattr(refused.value.cause, "type", None) == "NothingToCompact"
    for given in (7, {"model": 5}, {"keep_tokens": -1}):
        with pytest.raises(WorkflowUpdateFailedError):
            await handle.execute_update("compact", given)
    for text in ("poison", "and on"):
        await result(await start(at, thread, f'say("{text}")'))
    await idle(at, thread)
    with pytest.raises(WorkflowUpdateFailedError) as failed:
        await handle.execute_update("compact")
    assert getattr(failed.value.cause, "type", None) == "ModelUnauthorized"
    await result(await start(at, thread, 'say("Still here.")'))
    assert "They talked." in str(seen(at))


async def test_a_compaction_does_not_disturb_the_run_that_has_its_turn(at: Stage, thread: str) -> None:
    for number in range(3):
        await result(await start(at, thread, f'say("answer {number}")'))
    run = await start(at, thread, 'call(("ask_user", {"question": "?"}))', 'say("Done.")')
    asked = await question(run)
    await at.client.get_workflow_handle(f"thread:{thread}").execute_update("compact")
    await run.execute_update("answer", {"question_id": asked, "text": "yes"})
    assert (await result(run)).final_text == "Done."
    assert "answer 0" in seen(at)
    memory = await idle(at, thread)
    assert "answer 0" not in str(memory)
    assert [each["role"] for each in memory[-4:]] == ["user", "assistant", "tool", "assistant"]


async def test_a_run_that_compacts_its_context_compacts_the_thread(at: Stage, thread: str) -> None:
    for number in range(4):
        await result(await start(at, thread, f'say("answer {number} {"x" * 800}")', name="brief"))
    await result(await start(at, thread, 'say("End.")', name="brief"))
    memory = await idle(at, thread)
    assert len(memory) < 10
    assert memory[-1]["content"] == "End."
    assert any("They talked." in str(each["content"]) for each in memory)


async def test_runs_and_threads_go_on_when_the_worker_is_another(address: str, thread: str) -> None:
    async with stage(address, script, AGENTS) as at:
        await result(await start(at, thread, 'say("First.")'))
        run = await start(at, thread, 'call(("ask_user", {"question": "?"}))', 'say("Second.")')
        asked = await question(run)
        following = await start(at, thread, 'say("Third.")')
        await is_waiting(following)
    known = at.settings
    async with stage(address, script, AGENTS) as other:
        settings = known.model_copy(update={"endpoints": other.settings.endpoints})
        async with make_worker(other.client, HoldfastPlugin(AGENTS, (), settings)):
            await run.execute_update("answer", {"question_id": asked, "text": "yes"})
            assert (await result(following)).final_text == "Third."
            assert [text for text in seen(other) if re.match("First|Second", text)] == ["First.", "Second."]


async def test_a_memory_of_many_pieces_is_read_collected_and_handed_on_whole(address: str, thread: str) -> None:
    async with stage(address, script, AGENTS, continue_after_bytes=100_000) as at:
        for number in range(4):
            said = f'do:say("answer {number}")\n#{"x" * 200_000}'
            ended = await result(await at.start("endless", message=said, thread_id=thread))
            assert ended.final_text == f"answer {number}"
        assert len("".join(seen(at))) > 800_000
        memory = await idle(at, thread)
        assert [each["content"] for each in memory[1::2]] == [f"answer {number}" for number in range(4)]
        run = (await AsyncClient(temporal=at.client).runs.list(thread_id=thread))[0]
        folded, _ = await timeline(at.client, run.id)
        assert [each.wire() for each in folded.messages] == memory
        found = await AsyncClient(temporal=at.client).threads.get(thread)
        assert [each.wire() for each in found.messages] == memory


async def test_the_histories_of_threads_replay(address: str, thread: str) -> None:
    async with stage(address, script, AGENTS, continue_after_events=20) as at:
        for number in range(4):
            await result(await start(at, thread, f'say("answer {number}")'))
        await at.client.get_workflow_handle(f"thread:{thread}").execute_update("compact")
        await idle(at, thread)
        link: str | None = None
        for _ in range(3):
            handle = at.client.get_workflow_handle(f"thread:{thread}", run_id=link)
            history = await handle.fetch_history()
            await Replayer(workflows=[], plugins=[HoldfastPlugin()]).replay_workflow(history)
            link = history.events[0].workflow_execution_started_event_attributes.continued_execution_run_id
            if not link:
                break


async def test_a_thread_whose_link_before_is_gone_looks_for_it_ever_more_seldom(at: Stage, thread: str) -> None:
    gone = ThreadCarried(link=str(uuid.uuid4()), memory=Reference(length=2, digest="0" * 32))
    handle = await at.client.start_workflow("AgentThread", gone.wire(), id=f"thread:{thread}", task_queue=at.task_queue)

    async def rests() -> list[int]:
        started = [each.timer_started_event_attributes for each in (await handle.fetch_history()).events]
        return [each.start_to_fire_timeout.seconds for each in started if each.timer_id]

    assert await until(rests, lambda found: len(found) == 2) == [10, 20]
    await handle.terminate()
