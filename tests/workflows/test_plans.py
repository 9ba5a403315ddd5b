"""Plans: asked for first, shown, counted, and carried out."""

from __future__ import annotations

from typing import Any

import pytest

from holdfast import Agent, Limits, Message, ToolSpec, tool
from holdfast.calls import LoadedAgent
from holdfast.carried import Reference
from holdfast.client.runs import AsyncClient
from holdfast.message import user_message
from holdfast.worker.scripted import ChatRequest, Reply, call, say
from holdfast.workflows.moves import Finish
from holdfast.workflows.plans import CARRY_OUT, NO_PLAN
from holdfast.workflows.state import RunState
from tests.support.stage import MODEL, stage, timeline
from tests.workflows.states import ask, handed_over, roles, settle, turn

PLAN = "1. Look it up.\n2. Say it."


@tool
def look_up(item: str) -> str:
    """Look something up."""
    return f"{item} is 7"


def planner(**fields: Any) -> Agent:
    """An agent that plans."""
    return Agent.model_validate({"name": "planner", "model": MODEL, "planning": True, "tools": [look_up], **fields})


def fresh(**limits: Any) -> RunState:
    agent = Agent(name="planner", model="m", planning=True, tools=[ToolSpec(name="add")], limits=Limits(**limits))
    return RunState.begin(LoadedAgent(agent=agent, revision=agent.revision, prompts=("Go",)))


def planned(state: RunState, plan: str | None = PLAN) -> None:
    """Let the model make its plan."""
    call = ask(state)
    assert call.planning
    assert state.record(turn(call.step, text=plan)) is None


def test_the_first_call_asks_for_a_plan_and_the_next_to_carry_it_out() -> None:
    state = fresh()
    planned(state)
    following = ask(state)
    assert (following.planning, following.step) == (False, 2)
    assert [each.message["content"] for each in following.pushed] == [CARRY_OUT]
    state.record(turn(2, "add"))
    settle(state)
    assert ask(state).planning is False
    state.record(turn(3, text="7"))
    assert state.next_move() == Finish("completed", "7")
    assert (roles(state), state.steps, state.counts.model_calls) == ("uauata", 3, 3)


def test_a_plan_that_is_none_is_gone_on_without() -> None:
    state = fresh()
    planned(state, None)
    assert not ask(state).planning
    assert state.transcript.messages[-1].content == NO_PLAN


def test_a_plan_that_broke_off_is_made_again() -> None:
    state = fresh()
    state.record(turn(ask(state).step, text="1. Lo").model_copy(update={"partial": True}))
    again = handed_over(state)
    planned(again)
    assert roles(again) == "uau"


def test_a_plan_is_made_once_in_a_run() -> None:
    state = fresh()
    planned(state)
    following = handed_over(state)
    assert not ask(following).planning


def test_what_a_thread_remembers_is_no_plan_of_this_run() -> None:
    state = fresh()
    remembered = [user_message("Before"), Message(role="assistant", content="Indeed.")]
    state.remember(remembered, Reference(length=2, digest=""))
    planned(state)
    assert roles(state) == "uauau"


@pytest.mark.parametrize(("most", "plans"), [(1, False), (2, True)])
def test_a_plan_counts_and_a_run_with_one_call_makes_none(most: int, plans: bool) -> None:
    state = fresh(max_model_calls=most)
    first = ask(state)
    assert (first.planning, first.closing) == (plans, None if plans else "max_model_calls")
    state.record(turn(1, text=PLAN))
    if plans:
        assert ask(state).closing == "max_model_calls"
        state.record(turn(2, text="7"))
    assert state.next_move() == Finish("degraded", "7" if plans else PLAN)
    assert state.counts.model_calls == most


async def test_a_plan_is_asked_for_without_tools_and_shown_as_an_event(address: str) -> None:
    def script(request: ChatRequest) -> Reply:
        if request.turn == 0:
            return call(("look_up", {"item": "it"}), text=PLAN)
        return call(("look_up", {"item": "it"})) if request.turn == 1 else say("7")

    agent = planner(instructions="Be brief.")
    async with stage(address, script, [agent]) as at:
        result = await at.run("planner", message="What is it?")
        _, events = await timeline(at.client, result.run_id)
        first, second, third = at.model.requests
    assert (result.status, result.final_text, result.steps) == ("completed", "7", 3)
    assert (first.tool_names, second.tool_names, third.tool_names) == ([], ["look_up"], ["look_up"])
    assert "numbered plan" in first.last_text
    assert "- look_up: Look something up." in first.last_text
    assert [each["content"] for each in second.messages][1:] == ["What is it?", PLAN, CARRY_OUT]
    assert second.messages[0]["content"].startswith("Be brief.")
    (plan,) = [each for each in events if each.type == "planning"]
    assert plan.data == {"text": PLAN, "step": 1}
    assert [each.data["tool_name"] for each in events if each.type == "tool_called"] == ["look_up"]


async def test_a_structured_run_plans_in_plain_text(address: str) -> None:
    agent = planner(output_schema={"type": "object", "required": ["score"]})
    async with stage(address, lambda request: say('{"score": 7}' if request.turn else PLAN), [agent]) as at:
        result = await at.run("planner", message="Go")
        assert (result.status, result.output, at.model.hits) == ("completed", {"score": 7}, 2)


async def test_a_run_that_goes_on_or_is_forked_keeps_its_plan(address: str) -> None:
    async with stage(address, lambda request: say("7" if request.turn else PLAN), [planner()]) as at:
        runs = AsyncClient(temporal=at.client, task_queue=at.task_queue).runs
        started = await runs.create("planner", message="Go")
        await runs.wait(started.id)
        await runs.append_message(started.id, "And again?")
        assert (await runs.wait(started.id)).steps == 3
        forked = await runs.fork(started.id, at_step=2)
        assert (await runs.wait(forked.id)).final_text == "7"
        assert sum("numbered plan" in request.last_text for request in at.model.requests) == 1
