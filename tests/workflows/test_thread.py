"""Threads on the real server: runs take turns and share a conversation, whatever becomes of them."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator

import pytest
from temporalio.client import WorkflowFailureError

from holdfast import AsyncClient
from tests.support.stage import Stage, result, stage, timeline
from tests.support.threads import AGENTS, idle, is_waiting, question, script, seen, start, status, until, well_formed


@pytest.fixture
async def at(address: str) -> AsyncIterator[Stage]:
    async with stage(address, script, AGENTS) as made:
        yield made


@pytest.fixture
def thread() -> str:
    return f"t-{uuid.uuid4().hex[:10]}"


async def test_a_run_sees_what_the_runs_of_its_thread_said_before_it(at: Stage, thread: str) -> None:
    adds = 'call(("add", {"left": 1, "right": 2}))'
    assert (await result(await start(at, thread, adds, 'say("It is 3.")'))).status == "completed"
    run = await start(at, thread, adds, 'say("Again 3.")')
    ended = await result(run)
    assert (ended.final_text, ended.thread_id) == ("Again 3.", thread)
    asked = at.model.requests[-1].messages[1:]
    assert [each["role"] for each in asked] == ["user", "assistant", "tool", "assistant", "user", "assistant", "tool"]
    assert asked[3]["content"] == "It is 3."
    ids = [each["tool_call_id"] for each in asked if each["role"] == "tool"]
    assert len(set(ids)) == 2
    folded, events = await timeline(at.client, run.id)
    assert [message.role for message in folded.messages] == [*(each["role"] for each in asked), "assistant"]
    assert "tool_called" not in [event.type for event in events if "thread" in event.message]
    assert [message.wire() for message in folded.messages] == await idle(at, thread)
    alone = await at.run("plain", message='do:say("Alone.")')
    assert (alone.final_text, len(seen(at))) == ("Alone.", 1)


async def test_runs_of_one_thread_are_taken_in_order_and_each_sees_all_earlier_ones(at: Stage, thread: str) -> None:
    runs = []
    for number in range(5):
        runs.append(await start(at, thread, 'call(("rest", {"seconds": 0.1}))', f'say("answer {number}")'))
        if number == 0:
            await until(lambda: runs[0].query("status"), lambda told: told["step"] > 0)
        else:
            await is_waiting(runs[-1])
    ended = await asyncio.gather(*(result(run) for run in runs))
    assert [each.final_text for each in ended] == [f"answer {number}" for number in range(5)]
    memory = await idle(at, thread)
    said = [each["content"] for each in memory if str(each.get("content")).startswith("answer")]
    assert said == [f"answer {number}" for number in range(5)]
    assert well_formed(memory)
    assert len([text for text in seen(at) if text.startswith("answer")]) == 4


async def test_five_runs_started_at_once_all_see_all_earlier_ones(at: Stage, thread: str) -> None:
    runs = await asyncio.gather(*(start(at, thread, f'say("answer {number}")') for number in range(5)))
    await asyncio.gather(*(result(run) for run in runs))
    memory = await idle(at, thread)
    assert sorted(each["content"] for each in memory if each["role"] == "assistant") == [
        f"answer {number}" for number in range(5)
    ]
    lengths = sorted(len(each.body["messages"]) for each in at.model.requests)
    assert lengths == [2, 4, 6, 8, 10], "the instructions, the memory, and one's own message"


async def test_a_failed_run_leaves_what_was_said_and_the_next_one_goes_on(at: Stage, thread: str) -> None:
    assert (await result(await start(at, thread, 'fail(401, message="no such key")'))).status == "failed"
    assert (await result(await start(at, thread, 'say("Better.")'))).final_text == "Better."
    assert [each["role"] for each in await idle(at, thread)] == ["user", "user", "assistant"]


@pytest.mark.parametrize("how", ["cancel", "interrupt", "terminate"])
async def test_a_run_that_is_stopped_in_mid_tool_leaves_whole_turns_only(at: Stage, thread: str, how: str) -> None:
    adds = 'call(("add", {"left": 1, "right": 2}))'
    run = await start(at, thread, adds, 'call(("add", {"left": 1, "right": 3}), ("rest", {"seconds": 30}))')
    await until(lambda: run.query("status"), lambda told: told["step"] == 2)
    following = await start(at, thread, 'say("And on.")')
    await is_waiting(following)
    match how:
        case "cancel":
            await run.cancel()
        case "interrupt":
            await run.signal("interrupt")
        case "terminate":
            await run.terminate()
    assert (await result(following)).final_text == "And on."
    memory = await idle(at, thread)
    assert [each["role"] for each in memory] == ["user", "assistant", "tool", "user", "assistant"]
    assert well_formed(memory)


async def test_a_run_that_ended_long_ago_without_leaving_is_noticed_when_the_next_one_comes(
    at: Stage, thread: str
) -> None:
    run = await start(at, thread, 'call(("add", {"left": 1, "right": 2}))', 'call(("rest", {"seconds": 30}))')
    await until(lambda: run.query("status"), lambda told: told["step"] == 2)
    await run.terminate()
    await asyncio.sleep(0.5)
    assert (await result(await start(at, thread, 'say("And on.")'))).final_text == "And on."
    assert [each["role"] for each in await idle(at, thread)] == ["user", "assistant", "tool", "user", "assistant"]


async def test_a_waiting_run_tells_what_it_waits_for_and_ends_at_once_when_it_is_told_to(
    at: Stage, thread: str
) -> None:
    holder = await start(at, thread, 'call(("ask_user", {"question": "?"}))', 'say("Done.")')
    await question(holder)
    interrupted, cancelled = [await start(at, thread, 'say("Never.")') for _ in range(2)]
    hasty = await start(at, thread, 'say("Never.")', name="hasty")
    for run in (interrupted, cancelled, hasty):
        (told,) = (await is_waiting(run))["waiting_for"]
        assert (told["kind"], told["id"]) == ("thread", thread)
    await interrupted.signal("interrupt", {"reason": "enough"})
    assert (await result(interrupted)).status == "interrupted"
    await cancelled.cancel()
    with pytest.raises(WorkflowFailureError):
        await cancelled.result()
    assert (await result(hasty)).state_snapshot["interrupted_by"] == "deadline_seconds"
    await holder.execute_update("answer", {"question_id": await question(holder), "text": "yes"})
    assert (await result(holder)).status == "completed"
    assert "Never." not in str(await idle(at, thread))
    assert (await AsyncClient(temporal=at.client).runs.get(hasty.id)).status == "interrupted"


async def test_a_waiting_run_takes_messages_and_pauses(at: Stage, thread: str) -> None:
    holder = await start(at, thread, 'call(("ask_user", {"question": "?"}))', 'say("Done.")')
    await question(holder)
    run = await start(at, thread, 'say("Heard.")')
    await is_waiting(run)
    await run.signal("append_message", {"text": "one more thing", "id": "m1"})
    await run.signal("pause")
    await status(run, lambda told: told["status"] == "paused")
    await holder.execute_update("answer", {"question_id": await question(holder), "text": "yes"})
    await result(holder)
    hits = at.model.hits
    await asyncio.sleep(0.7)
    assert at.model.hits == hits
    await run.signal("resume")
    assert (await result(run)).final_text == "Heard."
    assert seen(at)[-1] == "one more thing"
    folded, _ = await timeline(at.client, run.id)
    assert [each.wire() for each in folded.messages] == await idle(at, thread)


async def test_bad_words_to_a_thread_are_dropped_and_it_goes_on(at: Stage, thread: str) -> None:
    await result(await start(at, thread, 'say("First.")'))
    handle = at.client.get_workflow_handle(f"thread:{thread}")
    for name in ("enter", "leave"):
        for given in ((), (5,), ({},), ({"run_id": "", "first_link": "x", "link": "x"},), ({"run_id": "y"}, 7)):
            await handle.signal(name, args=list(given))
    ghost = {"run_id": f"ghost-{uuid.uuid4().hex}", "first_link": "a", "link": "a"}
    await handle.signal("enter", ghost)
    await handle.signal("leave", ghost | {"first_link": "b"})
    assert (await result(await start(at, thread, 'say("Second.")'))).final_text == "Second."
    assert len(await idle(at, thread)) == 4


async def test_a_thread_that_is_deleted_while_a_run_works_does_not_fail_it(at: Stage, thread: str) -> None:
    run = await start(at, thread, 'call(("rest", {"seconds": 0.5}))', 'say("Done.")')
    await until(lambda: run.query("status"), lambda told: told["step"] == 1)
    await at.client.get_workflow_handle(f"thread:{thread}").terminate()
    assert (await result(run)).final_text == "Done."
