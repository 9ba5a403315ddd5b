"""Reviews: what is checked before what, and the same whether or not a run goes through many links."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast import Agent, Limits, Message, ToolCall, ToolSpec
from holdfast.calls import GuardrailCheck, GuardrailSaid, HookVerdict, LoadedAgent, PolicyCheck
from holdfast.carried import Outcome
from holdfast.guardrails import GuardrailSpec, Stage
from holdfast.ids import call_id
from holdfast.message import Turn
from holdfast.request import UserMessage
from holdfast.run import RunError
from holdfast.workflows import review
from holdfast.workflows.moves import CallModel, CallTools, Review
from holdfast.workflows.state import RunState
from tests.workflows.states import handed_over

TOOLS = (ToolSpec(name="pay"), ToolSpec(name="look"))
STAGES: tuple[Stage, ...] = ("input", "answer", "output")
NOW = 1000.0


def state_of(*stages: Stage, hooks: bool = False, retries: int = 2, **limits: Any) -> RunState:
    """Begin a run with guardrails on these stages."""
    guardrails = [GuardrailSpec(name=f"on_{each}", on=each) for each in stages]
    told: dict[str, Any] = {"guardrails": guardrails, "guardrail_retries": retries, "compaction": None}
    agent = Agent(name="demo", model="m", tools=TOOLS, limits=Limits(**limits), **told)
    return RunState.begin(LoadedAgent(agent=agent, revision="r", prompts=("Hello",), policy_hooks=hooks))


def answer(state: RunState, *names: str, text: str | None = None) -> None:
    """Have the model answer."""
    calls = tuple(ToolCall.of(call_id(state.steps, index, name, "{}"), name, "{}") for index, name in enumerate(names))
    state.record(Turn(message=Message(role="assistant", content=text, tool_calls=calls), model="m"), NOW)


def say(state: RunState, action: Any) -> None:
    """Have a guardrail say what it says of what is to be checked next."""
    move = state.next_move()
    assert isinstance(move, Review)
    assert isinstance(move.check, GuardrailCheck)
    (name,) = move.check.guardrails
    review.guarded(state, move.check, (GuardrailSaid(guardrail=name, action=action, reason="so"),), NOW)


def due(state: RunState) -> str:
    """Write what comes next."""
    move = state.next_move()
    if isinstance(move, Review):
        return move.check.stage if isinstance(move.check, GuardrailCheck) else "hooks"
    names = {"CallModel": "model", "CallTools": "tools", "Finish": "end", "Fail": "failed"}
    return names[type(move).__name__]


def test_everything_is_checked_in_its_turn_and_nothing_before() -> None:
    state, seen = state_of(*STAGES, hooks=True), []
    script = iter([("pay",), ()])
    for _ in range(12):
        seen.append(due(state))
        match seen[-1]:
            case "model":
                answer(state, *next(script), text="Well.")
            case "hooks":
                review.judged(state, (), NOW)
            case "tools":
                assert state.turn is not None
                state.settle(state.turn.open[0].call.id, Outcome(output="ok"))
            case "end":
                break
            case _:
                say(state, "pass")
    assert seen == ["input", "model", "answer", "hooks", "tools", "model", "answer", "output", "end"]


@pytest.mark.parametrize("hooks", [True, False])
def test_no_call_is_open_before_its_checks_have_ended(hooks: bool) -> None:
    state = state_of("answer", hooks=hooks)
    state.next_move()
    answer(state, "pay")
    assert state.turn is None
    say(state, "pass")
    assert (state.turn is None) is hooks
    if hooks:
        assert due(state) == "hooks"
        review.judged(state, (), NOW)
    assert state.turn is not None


def test_a_message_that_comes_during_a_check_waits_for_the_end_of_the_turn() -> None:
    state = state_of("answer")
    state.next_move()
    answer(state, "pay")
    state.receive(UserMessage(text="Wait"))
    state.read_inbox_to_go_on()
    assert [each.role for each in state.transcript.messages] == ["user", "assistant"]
    again = handed_over(state, NOW)
    for each in (state, again):
        assert due(each) == "answer"
        say(each, "rewrite")
        assert due(each) == "model"
        assert [message.role for message in each.transcript.messages] == ["user", "assistant", "tool", "user", "user"]


@pytest.mark.parametrize("retries", [0, 1, 3])
@pytest.mark.parametrize("stage", ["answer", "output"])
def test_the_model_is_asked_again_so_often_in_a_row_and_no_more(stage: Stage, retries: int) -> None:
    state = state_of(stage, retries=retries)
    for _ in range(retries):
        assert due(state) == "model"
        answer(state, text="Boo")
        say(state, "rewrite")
    assert due(state) == "model"
    answer(state, text="Boo")
    say(state, "rewrite")
    assert due(state) == "failed"


def test_the_closing_answer_can_be_blocked_but_not_asked_for_again() -> None:
    state = state_of("answer", max_steps=1)
    assert due(state) == "model"
    answer(state, text="Boo")
    say(state, "rewrite")
    assert due(state) == "failed"
    assert state.review.error is not None
    assert state.review.error.type == "GuardrailBlocked"


def test_hooks_that_cannot_be_asked_refuse_the_calls_that_waited_for_them_alone() -> None:
    state = state_of(hooks=True, max_tool_calls_per_turn=1)
    state.next_move()
    answer(state, "pay", "look", "nope")
    move = state.next_move()
    assert isinstance(move, Review)
    assert isinstance(move.check, PolicyCheck)
    assert len(move.check.calls) == 1
    review.unjudged(state, RunError(type="PolicyFailed", message="away"), NOW)
    told = [str(each.content).partition(":")[0] for each in state.transcript.messages if each.role == "tool"]
    assert told == ["Error (PolicyFailed)", "Error (LimitReached)", "Error (ToolUnknown)"]


ACTIONS = st.sampled_from(["pass", "pass", "pass", "rewrite", "block"])
HOOKS = st.sampled_from([None, None, "allow", "deny"])


def step(state: RunState, data: Any, drawn: list[Any]) -> str:
    """Take one step; what was drawn for one run is taken for the other."""

    def draw(strategy: Any) -> Any:
        if data is not None:
            drawn.append(data.draw(strategy))
            return drawn[-1]
        return drawn.pop(0)

    move = state.next_move()
    match move:
        case CallModel():
            answer(state, *draw(st.lists(st.sampled_from(["pay", "look", "nope"]), max_size=3)), text="Well.")
        case CallTools(turn):
            for slot in turn.open:
                state.settle(slot.call.id, Outcome(output=draw(st.integers(0, 9)), latency_ms=1.0))
        case Review(GuardrailCheck() as check):
            said = GuardrailSaid(guardrail=check.guardrails[0], action=draw(ACTIONS), reason="so")
            review.guarded(state, check, (said,), NOW)
        case Review(PolicyCheck() as check):
            actions = [(each, draw(HOOKS)) for each in check.calls]
            told = [HookVerdict(call_id=each, hook="h", action=action) for each, action in actions if action]
            review.judged(state, tuple(told), NOW)
    return type(move).__name__


@settings(max_examples=150, deadline=None)
@given(st.data(), st.sets(st.sampled_from(STAGES)), st.booleans(), st.integers(0, 2))
def test_a_run_of_many_links_is_checked_as_one_of_a_single_link(
    data: Any, stages: set[Stage], hooks: bool, retries: int
) -> None:
    one, other = (state_of(*sorted(stages), hooks=hooks, retries=retries, max_steps=4) for _ in range(2))
    for _ in range(40):
        drawn: list[Any] = []
        moved = step(one, data, drawn)
        assert step(other, None, drawn) == moved
        assert not drawn
        assert [each.wire() for each in other.transcript.messages] == [each.wire() for each in one.transcript.messages]
        assert other.counts == one.counts
        if moved in ("Finish", "Fail"):
            return
        other = handed_over(other, NOW) if other.review.error is None else other
    raise AssertionError("a run of four steps has not ended")
