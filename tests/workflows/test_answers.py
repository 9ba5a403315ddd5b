"""Structured answers, as the run decides on them: taken, repaired within a bound, failed or degraded."""

from __future__ import annotations

from typing import Any

import pytest

from holdfast import Agent, Limits, ToolSpec
from holdfast.calls import LoadedAgent
from holdfast.failure import Failure
from holdfast.message import Turn
from holdfast.request import UserMessage
from holdfast.run import RunError
from holdfast.workflows.moves import CallModel, Fail, Finish, Move
from holdfast.workflows.state import RunState
from tests.workflows.states import ask, handed_over, roles, settle, turn

SCHEMA: dict[str, Any] = {"type": "object", "required": ["score"]}


def fresh(retries: int = 2, failure: Failure | None = None, **limits: Any) -> RunState:
    agent = Agent(
        name="judge",
        model="m",
        tools=[ToolSpec(name="add")],
        output_schema=SCHEMA,
        output_retries=retries,
        failure=failure or Failure(),
        limits=Limits(**limits),
    )
    return RunState.begin(LoadedAgent(agent=agent, revision=agent.revision, prompts=("Judge",)))


def answer(step: int, text: str, error: str | None = None) -> Turn:
    return turn(step, text=text).model_copy(update={"output_error": error})


def play(state: RunState, *answers: tuple[str, str | None]) -> Move:
    """Let the model answer so, one after the other, and return what comes after that."""
    for text, error in answers:
        state.record(answer(ask(state).step, text, error))
    return state.next_move()


def last_said(state: RunState) -> str:
    """Ask the model, and return what it is told last."""
    ask(state)
    return str(state.transcript.messages[-1].content)


BAD = ("seven", "it is no JSON")
GOOD = ('{"score": 7}', None)


def test_an_answer_that_fits_is_taken_and_its_json_is_the_output() -> None:
    state = fresh()
    assert play(state, GOOD) == Finish("completed", '{"score": 7}')
    assert state.answers.output('{"score": 7}') == {"score": 7}


@pytest.mark.parametrize("retries", [1, 2, 10])
def test_an_answer_may_be_repaired_as_often_as_the_agent_says(retries: int) -> None:
    state = fresh(retries)
    assert play(state, *[BAD] * retries, GOOD) == Finish("completed", '{"score": 7}')
    assert roles(state) == "u" + "au" * retries + "a"
    assert (state.steps, state.answers.repairs) == (retries + 1, 0)


@pytest.mark.parametrize("retries", [0, 1, 3])
def test_an_answer_that_never_fits_fails_the_run(retries: int) -> None:
    state = fresh(retries)
    move = play(state, *[BAD] * (retries + 1))
    assert isinstance(move, Fail)
    assert move.error.type == "OutputInvalid"
    assert move.error.message.endswith("it is no JSON")
    assert (f"after {retries} repair" in move.error.message) is (retries > 0)
    assert state.steps == retries + 1


def test_or_ends_it_degraded_without_an_output_where_the_agent_says_so() -> None:
    state = fresh(1, Failure(output="degrade"))
    assert play(state, BAD, ("eight", "it is no JSON")) == Finish("degraded", "eight")
    assert state.answers.output("eight") is None


def test_the_model_is_told_what_is_wrong_and_its_answer_stays_in_the_transcript() -> None:
    state = fresh()
    state.record(answer(ask(state).step, *BAD))
    assert "it is no JSON" in last_said(state)
    assert [each.content for each in state.transcript.messages[:2]] == ["Judge", "seven"]


def test_the_repair_is_pushed_so_that_no_worker_need_ask_for_it() -> None:
    state = fresh()
    state.record(answer(ask(state).step, *BAD))
    (pushed,) = ask(state).pushed
    assert (pushed.index, pushed.message["role"]) == (2, "user")


def test_a_turn_with_tool_calls_is_no_answer() -> None:
    state = fresh()
    call = ask(state)
    state.record(turn(call.step, "add", text="let me see"))
    settle(state)
    assert play(state, GOOD) == Finish("completed", '{"score": 7}')
    assert state.answers.repairs == 0


def test_the_closing_call_is_the_last_whatever_it_says() -> None:
    state = fresh(max_steps=2)
    assert play(state, BAD, BAD) == Finish("degraded", "seven")
    assert state.answers.output("seven") is None
    fits = fresh(max_steps=2)
    assert play(fits, BAD, GOOD) == Finish("degraded", '{"score": 7}')
    assert fits.answers.output('{"score": 7}') == {"score": 7}


def test_a_message_takes_the_place_of_a_repair_and_the_repairs_begin_anew() -> None:
    state = fresh(1)
    state.record(answer(ask(state).step, *BAD))
    ask(state)
    state.record(answer(2, *BAD))
    state.receive(UserMessage(text="as a number, please"))
    assert last_said(state) == "as a number, please"
    assert state.answers.repairs == 0
    state.record(answer(3, *BAD))
    assert isinstance(state.next_move(), CallModel)


@pytest.mark.parametrize("bad", [1, 2])
def test_repairs_are_counted_over_links(bad: int) -> None:
    state = fresh(2)
    for _ in range(bad):
        state.record(answer(ask(state).step, *BAD))
    following = handed_over(state)
    assert following.answers == state.answers
    assert play(following, *[BAD] * (2 - bad), GOOD) == Finish("completed", '{"score": 7}')
    late = handed_over(following)
    assert late.next_move() == Finish("completed", '{"score": 7}')
    assert late.answers.output('{"score": 7}') == {"score": 7}


def test_a_link_that_goes_on_before_a_repair_says_it_once() -> None:
    state = fresh(2)
    state.record(answer(ask(state).step, *BAD))
    state.read_inbox_to_go_on()
    following = handed_over(state)
    ask(following)
    assert roles(following) == "uau"
    assert following.answers.repairs == 1


def test_text_that_nobody_checked_is_no_answer() -> None:
    """An agent that has got an output_schema since, say, or a fork that ends at an answer."""
    state = fresh(1)
    state.record(answer(ask(state).step, *GOOD))
    state.answers.fits = False
    assert last_said(state).startswith("Answer again")


def test_a_text_run_takes_any_text() -> None:
    agent = Agent(name="writer", model="m")
    state = RunState.begin(LoadedAgent(agent=agent, revision=agent.revision, prompts=("Write",)))
    state.record(turn(ask(state).step, text="A text."))
    assert state.next_move() == Finish("completed", "A text.")
    assert state.answers.output("A text.") == "A text."


def test_the_failure_says_what_is_wrong() -> None:
    move = play(fresh(0), BAD)
    told = "the answer does not fit the output_schema: it is no JSON"
    assert move == Fail(RunError(type="OutputInvalid", message=told))
