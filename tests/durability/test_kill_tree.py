"""kill -9 of the worker of a run with subagents: at work in both of them, and after both have answered."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

from holdfast.ids import child_run_id
from holdfast.worker.scripted import ChatRequest, Reply, call, hang, say
from tests.durability.agent import AGENT, LEAD, RACE
from tests.durability.theatre import Nursery, Theatre, theatre, until
from tests.support.stage import result, timeline


def _tree(asked: Counter[str]) -> Callable[[ChatRequest], Reply]:
    """Two subagents with two steps of two tools each; the caller's last answer is held once."""

    def script(request: ChatRequest) -> Reply:
        first = next(str(each["content"]) for each in request.messages if each["role"] == "user")
        asked[f"{first} {request.turn}"] += 1
        if first == "lead" and request.turn == 0:
            return call((AGENT.name, {"message": "left"}), (AGENT.name, {"message": "right"}))
        if first == "lead":
            return hang() if asked["lead 1"] == 1 else say("Both are done.")
        if request.turn == 2:
            return say(f"The {first} one is done.")
        seconds = 0.1 if request.turn == 0 else 1.0
        step = request.turn + 1
        return call(("weigh", {"step": step, "seconds": seconds}), ("fetch", {"step": step, "seconds": seconds}))

    return script


async def test_a_worker_killed_in_the_middle_of_a_tree_repeats_only_what_was_under_way(
    address: str, hatchery: Nursery, tmp_path: Path
) -> None:
    asked: Counter[str] = Counter()
    async with theatre(address, hatchery, tmp_path, _tree(asked)) as at:
        await at.start("lead", LEAD.name)
        await until(lambda: _at_work(at) == 4)
        await at.kill()
        await until(lambda: asked["lead 1"] == 1)
        await at.kill()
        ended = await result(at.handle)
        assert (ended.status, ended.final_text) == ("completed", "Both are done.")
        assert asked == Counter(
            {"lead 0": 1, "lead 1": 2} | {f"{side} {turn}": 1 for side in ("left", "right") for turn in range(3)}
        )
        begun = Counter((line["run_id"], line["call_id"]) for line in at.lines())
        assert sorted(begun.values()) == [1, 1, 1, 1, 2, 2, 2, 2]
        assert {line["key"] for line in at.lines()} == {f"{run}:{call_id}" for run, call_id in begun}
        assert {run for run, _ in begun} == {each.run_id for each in ended.subagent_executions}
        calls = [each.tool_call_id for each in ended.subagent_executions]
        assert {child_run_id(at.run_id, each) for each in calls} == {run for run, _ in begun}
        assert ended.usage_aggregate.model_calls == 8
        folded, _ = await timeline(at.client, at.run_id)
        assert folded.result == ended


async def test_a_worker_killed_in_the_middle_of_a_join_leaves_one_winner(
    address: str, hatchery: Nursery, tmp_path: Path
) -> None:
    asked: Counter[str] = Counter()
    tree = _tree(asked)

    def script(request: ChatRequest) -> Reply:
        if str(request.messages[-1]["content"]) == "right":
            asked["right 0"] += 1
            return hang()
        return tree(request)

    asked["lead 1"] = 1  # its last answer is not held
    async with theatre(address, hatchery, tmp_path, script) as at:
        await at.start("lead", RACE.name)
        await until(lambda: _at_work(at) == 2)
        await at.kill()
        ended = await result(at.handle)
        assert (ended.status, ended.final_text) == ("completed", "Both are done.")
        assert asked == {"lead 0": 1, "lead 1": 2, "left 0": 1, "left 1": 1, "left 2": 1, "right 0": 2}
        assert [(each.status, each.output) for each in ended.subagent_executions] == [
            ("completed", "The left one is done."),
            ("interrupted", None),
        ]
        assert [each.success for each in ended.tool_executions if each.agent_depth == 0] == [True, False]
        folded, _ = await timeline(at.client, at.run_id)
        assert folded.result == ended


def _at_work(at: Theatre) -> int:
    """Count the calls of the second steps that the worker of now has begun."""
    last = [line for line in at.lines() if line["pid"] == at.pid]
    done = {(line["run_id"], line["call_id"]) for line in at.lines("end")}
    return len([line for line in last if (line["run_id"], line["call_id"]) not in done and line["call_id"] > "002"])
