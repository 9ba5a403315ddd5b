"""Threads on the real server: runs share a conversation, whatever becomes of them."""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.workflowservice.v1 import DeleteWorkflowExecutionRequest
from temporalio.client import WorkflowFailureError, WorkflowHandle, WorkflowQueryFailedError, WorkflowUpdateFailedError
from temporalio.service import RPCError

from holdfast import Agent, AsyncClient, Compaction, Limits, ask_user, tool
from holdfast.worker.build import make_worker
from holdfast.worker.plugin import HoldfastPlugin
from holdfast.worker.scripted import ChatRequest, Reply, call, fail, say
from tests.support.stage import DEADLINE, MODEL, Stage, result, stage, timeline


@tool
def add(left: int, right: int) -> int:
    """Add two numbers."""
    return left + right


@tool
async def rest(seconds: float) -> str:
    """Take a while."""
    await asyncio.sleep(seconds)
    return "rested"


TOOLS = (add, rest, ask_user)
AGENTS = [
    Agent(name="plain", model=MODEL, tools=TOOLS),
    Agent(name="hasty", model=MODEL, tools=TOOLS, limits=Limits(deadline_seconds=1.5)),
    Agent(name="long", model=MODEL, tools=TOOLS, limits=Limits(max_steps=1000, max_model_calls=1000)),
    Agent(name="brief", model=MODEL, tools=TOOLS, compaction=Compaction(at_tokens=600, keep_tokens=50)),
]


def script(request: ChatRequest) -> Reply:
    """Do what the last first message says: the run's own lines, one for each turn since then."""
    if any("summar" in str(each.get("content")).lower() for each in request.messages if each["role"] == "system"):
        return fail(401, message="no such key") if "poison" in str(request.messages) else say("They talked.")
    asked = [index for index, each in enumerate(request.messages) if str(each.get("content")).startswith("do:")]
    lines = str(request.messages[asked[-1]]["content"])[3:].splitlines()
    turn = sum(each["role"] == "assistant" for each in request.messages[asked[-1] :])
    reply: Reply = eval(lines[min(turn, len(lines) - 1)], {"call": call, "say": say, "fail": fail, "turn": turn})
    return reply


@pytest.fixture
async def at(address: str) -> AsyncIterator[Stage]:
    async with stage(address, script, AGENTS) as made:
        yield made


@pytest.fixture
def thread() -> str:
    return f"t-{uuid.uuid4().hex[:10]}"


async def start(at: Stage, thread: str, *lines: str, name: str = "plain", **request: Any) -> WorkflowHandle[Any, Any]:
    return await at.start(name, message="do:" + "\n".join(lines), thread_id=thread, **request)


async def until(asks: Callable[[], Any], wanted: Callable[[Any], bool]) -> Any:
    async with asyncio.timeout(DEADLINE):
        while True:
            try:
                found = await asks()
                if wanted(found):
                    return found
            except (RPCError, WorkflowQueryFailedError):
                pass
            await asyncio.sleep(0.02)


async def status(run: WorkflowHandle[Any, Any], wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    found: dict[str, Any] = await until(lambda: run.query("status"), wanted)
    return found


async def is_waiting(run: WorkflowHandle[Any, Any]) -> dict[str, Any]:
    return await status(run, lambda told: bool(told["waiting_for"]) and told["status"] == "waiting")


async def question(run: WorkflowHandle[Any, Any]) -> str:
    """Wait until a run asks somebody, and return the question's id."""
    told = await status(run, lambda told: any(each["kind"] == "answer" for each in told["waiting_for"]))
    return str(told["waiting_for"][-1]["id"])


async def idle(at: Stage, thread: str) -> list[dict[str, Any]]:
    """Wait until nobody has the thread's turn, and return what it remembers."""
    handle = at.client.get_workflow_handle(f"thread:{thread}")
    await until(lambda: handle.query("status"), lambda told: told["holder"] is None and not told["queue"])
    found = await until(lambda: handle.query("transcript"), lambda page: True)
    return list(found["messages"])


def well_formed(messages: list[dict[str, Any]]) -> bool:
    open_calls: list[str] = []
    for each in messages:
        if each["role"] == "tool":
            open_calls.remove(each["tool_call_id"])
        elif open_calls:
            return False
        open_calls += [call["id"] for call in each.get("tool_calls", ())]
    return not open_calls


def seen(at: Stage, number: int = -1) -> list[str]:
    """Return the texts of what the model was last asked with."""
    return [str(each.get("content")) for each in at.model.requests[number].body["messages"]]


async def test_a_run_sees_what_the_runs_of_its_thread_said_before_it(at: Stage, thread: str) -> None:
    adds = 'call(("add", {"left": 1, "right": 2}))'
    assert (await result(await start(at, thread, adds, 'say("It is 3.")'))).status == "completed"
    run = await start(at, thread, adds, 'say("Again 3.")')
    ended = await result(run)
    assert (ended.final_text, ended.thread_id) == ("Again 3.", thread)
    asked = at.model.requests[-1].body["messages"]
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
    assert lengths == [1, 3, 5, 7, 9]


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
        links = [each async for each in at.client.list_workflows(f"WorkflowId = 'thread:{thread}'")]
        assert (await handle.query("status"))["runs"] == 25
        assert len(links) != 1 or (await handle.describe()).raw_description.workflow_execution_info.first_run_id


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


async def test_a_thread_that_is_deleted_while_a_run_works_does_not_fail_it(at: Stage, thread: str) -> None:
    run = await start(at, thread, 'call(("rest", {"seconds": 0.5}))', 'say("Done.")')
    await until(lambda: run.query("status"), lambda told: told["step"] == 1)
    await at.client.get_workflow_handle(f"thread:{thread}").terminate()
    assert (await result(run)).final_text == "Done."
