"""Going on after a closed link: the same run again."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator

import pytest

from holdfast import Agent, Limits
from holdfast.worker.scripted import ChatRequest, Reply, call, fail
from tests.support.again import again, begin, same_everywhere, stopped, tell, told
from tests.support.plays import AGENTS, TOOLS, Line, Play, calls, done, script, until
from tests.support.scenes import Scene, scene
from tests.support.stage import MODEL, Stage, result, stage, timeline

TWICE = Agent(name="twice", model=MODEL, tools=TOOLS, limits=Limits(max_model_calls=2))


@pytest.fixture(scope="module")
async def at(address: str) -> AsyncIterator[Stage]:
    async with stage(address, script, [*AGENTS, TWICE]) as made:
        yield made


def all_of(*names: str) -> Line:
    return lambda play, request: call(*((name, {"key": play.key}) for name in names))


@pytest.mark.parametrize("how", ["interrupt", "cancel", "terminate"])
async def test_what_had_ended_is_kept_what_was_aborted_is_called_again_and_what_must_not_be_is_told(
    at: Stage, how: str
) -> None:
    tools = ("note", "hold", "hold_sync", "hold_once")
    met = await begin(at, all_of(*tools), done)
    await until(lambda: set(tools) <= set(met.play.tools))
    await met.shown("running")
    await settled(met, "note")
    await stopped(met, how)
    ended = await result(await again(met))
    assert (ended.status, ended.run_seq, ended.final_text) == ("completed", 2, f"Done: {met.play.key}")
    assert met.play.tools == {"note": 1, "hold": 2, "hold_sync": 2, "hold_once": 1}
    keys = Counter((name, key) for name, key, _ in met.play.ran)
    assert len(keys) == 4  # what is called again is called under the same key
    assert told(met.play)[2:5] == ["noted 0", "held", "held in a thread"]
    assert told(met.play)[5].startswith("Error (OutcomeUnknown): it was stopped; whether it did its work is unknown")
    assert [each.success for each in ended.tool_executions] == [True, True, True, False]
    assert len(met.play.asked) == 2
    await same_everywhere(at, met.run.id)


async def settled(met: Scene, name: str) -> None:
    """Wait until history has a tool's result."""
    while True:
        _, events = await timeline(met.at.client, met.run.id)
        if any(each.type == "tool_completed" and each.data["tool_name"] == name for each in events):
            return


async def test_a_failed_run_goes_on_from_its_last_recorded_step(at: Stage) -> None:
    def refuses_once(play: Play, request: ChatRequest) -> Reply:
        return fail(400) if len(play.asked) == 2 else done(play, request)

    met = await begin(at, calls("note"), refuses_once)
    assert (await result(met.run)).status == "failed"
    ended = await result(await again(met))
    assert (ended.status, ended.run_seq, ended.steps) == ("completed", 2, 3)
    assert (met.play.tools, len(met.play.asked)) == ({"note": 1}, 3)
    assert [each.tool_name for each in ended.tool_executions] == ["note"]
    await same_everywhere(at, met.run.id)


async def test_a_run_that_never_began_begins_with_what_it_was_first_asked_and_told(at: Stage) -> None:
    async with scene(at, "queued") as met:
        await met.run.signal("append_message", {"text": "one", "id": "m1"})
        await met.run.signal("append_message", {"text": "one again", "id": "m1"})
        await met.run.cancel()
        await met.release()
        await met.ended()
        assert met.play.asked == []
        met.run = await tell(met, "two", "m2")
        await met.run.signal("append_message", {"text": "one once more", "id": "m1"})
        ended = await result(met.run)
        assert (ended.status, ended.final_text, len(met.play.asked)) == ("completed", "Done: two", 1)
        assert told(met.play) == [met.play.key, "one", "two"]
        await same_everywhere(met.at, met.run.id)


async def test_what_a_restart_was_told_before_it_began_is_not_lost(at: Stage) -> None:
    met = await begin(at, done)
    await met.ended()
    async with scene(at, "queued") as unserved:
        last = (await met.run.describe()).run_id
        again = {"agent": "player", "after": {"run": last}, "message": "one"}
        queue = unserved.at.task_queue
        met.run = await at.client.start_workflow("AgentRun", again, id=met.run.id, task_queue=queue)
        await met.run.signal("append_message", {"text": "two", "id": "m2"})
        await met.run.cancel()
        await unserved.release()
        await met.ended()
        met.run = await tell(met, "three", "m3")
        ended = await result(met.run)
    assert (ended.status, ended.final_text, ended.run_seq) == ("completed", "Done: three", 3)
    assert told(met.play) == [met.play.key, f"Done: {met.play.key}", "one", "two", "three"]
    await same_everywhere(at, met.run.id)


async def test_a_run_that_was_stopped_between_two_links_has_lost_nothing(at: Stage) -> None:
    async with scene(at, "between") as met:
        await met.run.signal("append_message", {"text": "also", "id": "m1"})
        await met.run.signal("interrupt", {"reason": "enough"})
        ended = await result(met.run)
        assert (ended.status, ended.steps, ended.state_snapshot["model_calls"]) == ("interrupted", 1, 1)
        await met.release()
        met.run = await at.client.start_workflow(
            "AgentRun",
            {"agent": "player", "after": {"run": (await met.run.describe()).run_id}},
            id=met.run.id,
            task_queue=met.at.task_queue,
        )
        await met.shown("waiting")
        await met.decide("approve")
        ended = await result(met.run)
        assert (ended.status, ended.run_seq, ended.final_text) == ("completed", 2, "Done: also")
        assert (met.play.tools, len(met.play.asked)) == ({"pay": 1}, 2)
        await same_everywhere(at, met.run.id)


async def test_a_message_to_a_closed_run_is_the_next_seq_of_one_conversation(at: Stage) -> None:
    met = await begin(at, calls("note"), done)
    await met.ended()
    ended = await result(await tell(met, "more", "m1"))
    assert (ended.status, ended.run_seq, ended.final_text, ended.steps) == ("completed", 2, "Done: more", 3)
    roles = [each["role"] for each in met.play.asked[-1].messages]
    assert roles == ["system", "user", "assistant", "tool", "assistant", "user"]
    asked = len(met.play.asked)
    for seq in (3, 4):  # an id that an earlier seq has seen: the same answer, and no call
        ended = await result(await tell(met, "more", "m1"))
        assert (ended.status, ended.run_seq, ended.final_text, ended.steps) == ("completed", seq, "Done: more", 3)
    assert len(met.play.asked) == asked
    types = await same_everywhere(at, met.run.id)
    assert types.count("user_added_message") == 1


async def test_messages_that_nobody_had_read_are_read_by_the_next_seq(at: Stage) -> None:
    met = await begin(at, calls("hold"), done)
    await met.play.has_run("hold")
    await met.run.signal("append_message", {"text": "unread", "id": "m1"})
    await stopped(met)
    assert (await result(met.run)).state_snapshot["unread_messages"] == 1
    ended = await result(await again(met, message="and this"))
    assert ended.final_text == "Done: and this"
    assert told(met.play)[2:] == ["held", "unread", "and this"]
    await same_everywhere(at, met.run.id)


async def test_unread_messages_may_be_left_out_and_what_had_ended_is_kept_all_the_same(at: Stage) -> None:
    met = await begin(at, all_of("note", "hold"), done)
    await settled(met, "note")
    await met.play.has_run("hold")
    await met.run.signal("append_message", {"text": "unread", "id": "m1"})
    await stopped(met)
    met.play.gate.set()
    after = {"run": met.link, "length": 2}
    ended = await result(await at.start("player", run_id=met.run.id, after=after))
    assert (ended.final_text, met.play.tools) == (f"Done: {met.play.key}", {"note": 1, "hold": 2})
    await same_everywhere(at, met.run.id)


async def test_limits_count_afresh_in_each_seq(at: Stage) -> None:
    met = await begin(at, calls("note"), calls("note", number=1), calls("note", number=2), done, agent="twice")
    first = await result(met.run)
    assert (first.status, len(met.play.asked)) == ("degraded", 2)
    second = await result(await again(met, agent="twice", message="go on"))
    assert (second.status, second.run_seq, len(met.play.asked)) == ("degraded", 2, 4)
    assert second.state_snapshot["limit_reached"] == "max_model_calls"


async def test_call_ids_and_keys_never_repeat_in_a_run(at: Stage) -> None:
    def notes_then_ends(play: Play, request: ChatRequest) -> Reply:
        return call(("note", {"key": play.key})) if request.messages[-1]["role"] == "user" else done(play, request)

    met = await begin(at, notes_then_ends)
    await met.ended()
    for number in range(3):
        await result(await tell(met, f"more {number}", f"m{number}"))
    keys = [key for _, key, _ in met.play.ran]
    assert len(keys) == len(set(keys)) == 4


async def test_approvals_that_were_open_are_asked_again_and_those_that_were_given_are_kept(at: Stage) -> None:
    def pays(play: Play, request: ChatRequest) -> Reply:
        return call(*(("pay", {"key": play.key, "amount": amount}) for amount in (1, 2, 3)))

    met = await begin(at, pays, done)
    await met.shown("waiting")
    first, second, third = (await met.run.query("status"))["waiting_for"]
    await met.run.signal("pause")
    await met.shown("paused")
    edited = {"call_id": second["id"], "decision": "approve", "arguments": {"key": met.play.key, "amount": 7}}
    await met.run.execute_update("decide", edited)
    await met.run.execute_update("decide", {"call_id": third["id"], "decision": "deny", "reason": "no"})
    await stopped(met)
    assert met.play.ran == []
    met.run = await again(met)
    await met.shown("waiting")
    (left,) = (await met.run.query("status"))["waiting_for"]
    assert (left["id"], left["digest"]) == (first["id"], first["digest"])
    await met.run.execute_update("decide", {"call_id": left["id"], "decision": "approve", "digest": left["digest"]})
    ended = await result(met.run)
    assert sorted(str(each.output) for each in ended.tool_executions) == ["None", "paid 1", "paid 7"]
    assert len(met.play.ran) == 2
    await same_everywhere(at, met.run.id)


async def test_a_run_may_be_stopped_and_started_again_many_times(at: Stage) -> None:
    met = await begin(at, calls("hold"), done)
    for times in range(1, 4):
        await met.play.has_run("hold", times)
        await stopped(met)
        link = (await at.client.get_workflow_handle(met.run.id).describe()).run_id
        if times < 3:
            met.run = await at.start("player", run_id=met.run.id, after={"run": link})
    ended = await result(await again(met))
    assert (ended.status, ended.run_seq, len(met.play.asked)) == ("completed", 4, 2)
    assert len({key for _, key, _ in met.play.ran}) == 1
    await same_everywhere(at, met.run.id)


async def test_a_rest_whose_time_came_while_the_run_was_closed_has_ended(at: Stage) -> None:
    met = await begin(at, lambda play, request: call(("sleep", {"seconds": 1})), done)
    await met.shown("waiting")
    (asked,) = (await met.run.query("status"))["waiting_for"]
    await stopped(met)
    while time.time() < asked["until"]:
        await asyncio.sleep(0.02)
    ended = await result(await again(met))
    assert (ended.status, ended.tool_executions[0].output) == ("completed", "The time has come.")
    await same_everywhere(at, met.run.id)
