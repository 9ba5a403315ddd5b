"""Runs of threads that are started again, forked, reset, or continue as new."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest
from temporalio.client import WorkflowFailureError, WorkflowHandle

from tests.support.processes import temporal
from tests.support.stage import Stage, result, stage, timeline
from tests.support.threads import AGENTS, idle, is_waiting, question, script, seen, start, status, until


@pytest.fixture
async def at(address: str) -> AsyncIterator[Stage]:
    async with stage(address, script, AGENTS) as made:
        yield made


@pytest.fixture
def thread() -> str:
    return f"t-{uuid.uuid4().hex[:10]}"


async def again(at: Stage, run: WorkflowHandle[Any, Any], thread: str, **request: Any) -> WorkflowHandle[Any, Any]:
    """Start a closed run again, as a client does."""
    link = (await run.describe()).run_id
    return await at.start("plain", run_id=run.id, after={"run": link}, thread_id=thread, **request)


@pytest.mark.parametrize("how", ["interrupt", "terminate"])
async def test_a_resumed_run_adds_only_what_is_new(at: Stage, thread: str, how: str) -> None:
    slow = 'call(("rest", {"seconds": 1}))'
    run = await start(at, thread, 'call(("add", {"left": 1, "right": 2}))', slow, 'say("Whole.")')
    await until(lambda: run.query("status"), lambda told: told["step"] == 2)
    await (run.signal("interrupt") if how == "interrupt" else run.terminate())
    with pytest.raises(WorkflowFailureError) if how == "terminate" else _nothing():
        await run.result()
    resumed = await again(at, run, thread)
    ended = await result(resumed)
    assert (ended.status, ended.final_text, ended.run_seq) == ("completed", "Whole.", 2)
    memory = await idle(at, thread)
    assert [each["role"] for each in memory] == ["user", "assistant", "tool", "assistant", "tool", "assistant"]
    folded, _ = await timeline(at.client, run.id)
    assert [each.wire() for each in folded.messages] == memory
    appended = await again(at, run, thread, message='do:say("More.")')
    assert (await result(appended)).final_text == "More."
    assert [each["role"] for each in (await idle(at, thread))[6:]] == ["user", "assistant"]


class _nothing:  # noqa: N801 - it stands where pytest.raises stands
    def __enter__(self) -> None: ...
    def __exit__(self, *_: object) -> None: ...


async def test_a_run_resumed_after_others_had_their_turn_is_put_behind_them(at: Stage, thread: str) -> None:
    run = await start(at, thread, 'call(("rest", {"seconds": 0.5}))', 'say("Late.")')
    await until(lambda: run.query("status"), lambda told: told["step"] == 1)
    await run.signal("interrupt")
    await result(run)
    assert (await result(await start(at, thread, 'say("Between.")'))).status == "completed"
    assert (await result(await again(at, run, thread))).final_text == "Late."
    assert "Between." not in seen(at)
    memory = await idle(at, thread)
    assert [each["role"] for each in memory] == ["user", "user", "assistant", "assistant", "tool", "assistant"]
    assert (await result(await start(at, thread, 'say("End.")'))).final_text == "End."
    assert {"Between.", "Late."} <= set(seen(at))


async def test_a_run_that_was_stopped_while_it_waited_reads_the_memory_once_it_is_resumed(
    at: Stage, thread: str
) -> None:
    holder = await start(at, thread, 'call(("ask_user", {"question": "?"}))', 'say("First.")')
    asked = await question(holder)
    run = await start(at, thread, 'say("Second.")')
    await is_waiting(run)
    await run.signal("append_message", {"text": "and this"})
    await run.signal("interrupt")
    await result(run)
    resumed = await again(at, run, thread)
    await is_waiting(resumed)
    await holder.execute_update("answer", {"question_id": asked, "text": "yes"})
    assert (await result(resumed)).final_text == "Second."
    assert {"First.", "and this"} <= set(seen(at))
    memory = await idle(at, thread)
    assert [each["role"] for each in memory] == ["user", "assistant", "tool", "assistant", "user", "user", "assistant"]
    folded, _ = await timeline(at.client, run.id)
    assert [each.wire() for each in folded.messages] == memory


async def test_a_fork_into_a_new_thread_brings_its_conversation_and_into_its_own_only_what_is_new(
    at: Stage, thread: str
) -> None:
    run = await start(at, thread, 'say("First.")')
    await result(run)
    after = {"run": (await run.describe()).run_id, "workflow_id": run.id}
    other = f"{thread}-b"
    await result(await at.start("plain", message='do:say("Second.")', after=after, thread_id=other))
    assert [each["role"] for each in await idle(at, other)] == ["user", "assistant", "user", "assistant"]
    await result(await start(at, thread, 'say("Third.")'))
    await result(await at.start("plain", message='do:say("Fourth.")', after=after, thread_id=thread))
    assert "Third." not in seen(at)
    texts = [each["content"] for each in await idle(at, thread) if each["role"] == "assistant"]
    assert texts == ["First.", "Third.", "Fourth."]


async def test_a_run_that_continues_as_new_keeps_its_turn(address: str, thread: str) -> None:
    async with stage(address, script, AGENTS, continue_after_events=30) as at:
        await result(await start(at, thread, 'say("First.")'))
        run = await start(
            at, thread, 'call(("add", {"left": 1, "right": 2})) if turn < 12 else say("Twelve.")', name="long"
        )
        await status(run, lambda told: told["step"] > 0)
        following = await start(at, thread, 'say("Third.")')
        assert (await result(run)).steps == 13
        assert (await result(following)).final_text == "Third."
        memory = await idle(at, thread)
        assert [each["role"] for each in memory] == [
            *("user", "assistant", "user"),
            *("assistant", "tool") * 12,
            *("assistant", "user", "assistant"),
        ]
        folded, events = await timeline(at.client, run.id)
        assert [each.type for each in events].count("run_continued") > 1
        assert [each.wire() for each in folded.messages] == memory[:-2]


@pytest.mark.parametrize("paused", [False, True])
async def test_a_run_that_waits_for_its_turn_continues_as_new_and_hears_every_message(
    address: str, thread: str, paused: bool
) -> None:
    async with stage(address, script, AGENTS, continue_after_events=30) as at:
        await result(await start(at, thread, 'say("First.")'))
        holder = await start(at, thread, 'call(("ask_user", {"question": "?"}))', 'say("Second.")')
        asked = await question(holder)
        run = await start(at, thread, 'say("Third.")')
        await is_waiting(run)
        first_link = (await run.describe()).run_id
        behind = await start(at, thread, 'say("Fourth.")')
        await is_waiting(behind)
        if paused:  # then it holds its turn, and has not read the memory
            await run.signal("pause")
            await holder.execute_update("answer", {"question_id": asked, "text": "yes"})
            await status(run, lambda told: told["status"] == "paused" and not told["waiting_for"])
        for number in range(60):
            await run.signal("append_message", {"text": f"message {number}", "id": str(number)})
        await until(run.describe, lambda told: told.run_id != first_link)
        if paused:
            await run.signal("resume")
        else:
            await is_waiting(run)
            await holder.execute_update("answer", {"question_id": asked, "text": "yes"})
        assert (await result(run)).final_text == "Third."
        assert (await result(behind)).final_text == "Fourth."
        texts = seen(at)
        heard = [f"message {number}" for number in range(60)]
        assert [text for text in texts if text.startswith("message")] == heard
        assert texts.index("First.") < texts.index("Second.") < texts.index("message 0") < texts.index("Third.")
        folded, events = await timeline(at.client, run.id)
        assert "run_continued" in [each.type for each in events]
        assert [each.wire() for each in folded.messages] == (await idle(at, thread))[:-2]


async def test_a_run_that_is_reset_while_it_has_its_turn_keeps_it(at: Stage, thread: str) -> None:
    await result(await start(at, thread, 'say("First.")'))
    run = await start(at, thread, 'call(("rest", {"seconds": 2}))', 'say("Second.")')
    await until(lambda: run.query("status"), lambda told: told["step"] == 1)
    words = ("workflow", "reset", "-w", run.id, "--type", "FirstWorkflowTask", "--reason", "test")
    done = await asyncio.to_thread(temporal, at.client.service_client.config.target_host, *words)
    assert done.returncode == 0, done.stderr
    following = await start(at, thread, 'say("Third.")')
    assert (await result(following)).final_text == "Third."
    texts = [each["content"] for each in await idle(at, thread) if each["role"] == "assistant" and each.get("content")]
    assert texts == ["First.", "Second.", "Third."]
