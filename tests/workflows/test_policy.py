"""What policies come to: who is asked, what is refused, what a person may give; pure, as tables."""

from __future__ import annotations

import itertools
import json
from typing import Any, Literal

import pytest

from holdfast import Agent, Interaction, Limits, ToolCall, ToolSpec
from holdfast.builtins import BUILTINS
from holdfast.calls import LoadedAgent
from holdfast.carried import Outcome
from holdfast.message import Message
from holdfast.message import Turn as ModelTurn
from holdfast.policy import Action, Policy, PolicyRule
from holdfast.request import Answer, Decision
from holdfast.workflows.admission import Admitted, Refused, admit
from holdfast.workflows.policy import Judge, Judgement, typed
from holdfast.workflows.state import RunState
from holdfast.workflows.turn import NotAwaited, Turn
from tests.workflows.states import handed_over, observable

PIN = {"type": "object", "properties": {"pin": {"type": "string"}, "amount": {"type": "integer"}}}
TOOLS = {
    "pay": ToolSpec(name="pay", parameters=PIN),
    "wire": ToolSpec(name="wire", parameters=PIN, requires_approval=True),
    "ask_user": BUILTINS["ask_user"].spec,
    "sleep": BUILTINS["sleep"].spec,
}
ARGUMENTS = {"ask_user": '{"question": "Which?"}', "sleep": '{"seconds": 60}'}
NOW = 1000.0


def rules(*actions: str, **fields: Any) -> Policy | None:
    return Policy.model_validate(
        {"rules": [{"id": f"r{index}", "action": each, **fields} for index, each in enumerate(actions)]}
    )


def ask(name: str = "pay", arguments: str | None = None) -> ToolCall:
    return ToolCall.of("id0", name, arguments or ARGUMENTS.get(name, "{}"))


def turn_of(
    call: ToolCall,
    worker: Policy | None = None,
    agent: Policy | None = None,
    hook: Judgement | None = None,
    given: dict[str, Any] | None = None,
    **interaction: Any,
) -> Turn:
    """Open a turn of one call."""
    judge = Judge("demo", worker, agent, {}, {"id0": hook} if hook else {})
    told = Interaction(**interaction)
    return Turn(admit((call,), TOOLS, Limits(), 0, told, (), judge, {"id0": given or {}}), told, NOW, judge)


def stands(turn: Turn) -> str:
    """Write where the one call stands: made, what it waits for, or the error that the model is told."""
    slot = turn.slots["id0"]
    if slot.outcome is not None:
        return slot.outcome.error_type or "answered"
    return slot.waits or "made"


# Who says what

SAID: tuple[Action | Literal[""], ...] = ("", "allow", "deny", "request_approval", "request_user_input")


@pytest.mark.parametrize(("worker", "agent", "hook"), list(itertools.product(SAID, repeat=3)))
@pytest.mark.parametrize("tool", ["pay", "wire"])
def test_the_word_that_restrains_most_counts_whoever_says_it(
    tool: str, worker: str, agent: str, hook: Action | Literal[""]
) -> None:
    said: set[str] = {worker, agent, hook}
    spoken = Judgement(hook, "h", "hook") if hook else None
    turn = turn_of(ask(tool), rules(worker) if worker else None, rules(agent) if agent else None, spoken)
    if "deny" in said:
        expected = "PolicyDenied"
    elif "request_user_input" in said:
        expected = "answer"  # first, and an approval after it
    elif "request_approval" in said or (tool == "wire" and worker != "allow"):
        expected = "approval"
    else:
        expected = "made"
    assert stands(turn) == expected


def test_a_tool_under_another_name_is_still_what_its_activity_is() -> None:
    renamed = {"harmless": ToolSpec(name="harmless", activity="refund", task_queue="billing")}
    for action, refused in (("deny", True), ("allow", False)):
        judge = Judge("demo", rules(action, match={"tool": "refund"}))
        (decision,) = admit((ToolCall.of("id0", "harmless", "{}"),), renamed, Limits(), 0, None, (), judge)
        assert isinstance(decision, Refused) is refused
        assert bool(decision.judged.said) is refused


def test_only_the_workers_own_rule_lifts_a_tools_approval() -> None:
    assert stands(turn_of(ask("wire"), agent=rules("allow"))) == "approval"
    assert stands(turn_of(ask("wire"), hook=Judgement("allow", "h", "hook"))) == "approval"
    assert stands(turn_of(ask("wire"), worker=rules("allow"))) == "made"


def test_a_denial_tells_the_model_the_reason_or_else_the_rule() -> None:
    (decision,) = admit((ask(),), TOOLS, Limits(), 0, None, (), Judge("a", rules("deny", reason="too dear")))
    assert isinstance(decision, Refused)
    assert (decision.type, decision.message) == ("PolicyDenied", "too dear")
    (decision,) = admit((ask(),), TOOLS, Limits(), 0, None, (), Judge("a", rules("deny")))
    assert isinstance(decision, Refused)
    assert "'r0'" in decision.message


@pytest.mark.parametrize(
    ("by", "fallback", "expected"),
    [
        ("worker", "approve", "ApprovalDenied"),
        ("worker", "deny", "ApprovalDenied"),
        ("agent", "approve", "made"),
        ("agent", "deny", "ApprovalDenied"),
        ("hook", "approve", "ApprovalDenied"),
        ("hook", "deny", "ApprovalDenied"),
    ],
)
def test_no_agent_approves_in_nobodys_name_what_the_worker_wants_approved(
    by: str, fallback: str, expected: str
) -> None:
    asked: dict[str, Any] = {"hook": Judgement("request_approval", "h", "hook")}
    if by != "hook":
        asked = {by: rules("request_approval")}
    assert stands(turn_of(ask(), **asked, mode="headless", fallback=fallback)) == expected
    late = turn_of(ask(), **asked, fallback=fallback, timeout_seconds=5)
    assert stands(late) == "approval"
    late.expire("id0")
    assert stands(late) == expected
    assert late.slots["id0"].made is False


@pytest.mark.parametrize("fallback", ["approve", "deny"])
@pytest.mark.parametrize("into", [None, "pin"])
def test_a_call_that_lacks_a_persons_input_is_never_made(into: str | None, fallback: str) -> None:
    asked = rules("request_user_input", into=into)
    assert stands(turn_of(ask(), agent=asked, mode="headless", fallback=fallback)) == "NoAnswer"
    late = turn_of(ask(), agent=asked, fallback=fallback, timeout_seconds=5)
    late.expire("id0")
    assert (stands(late), late.slots["id0"].made) == ("NoAnswer", False)


@pytest.mark.parametrize("action", ["request_approval", "request_user_input"])
@pytest.mark.parametrize("name", ["ask_user", "sleep"])
def test_a_question_or_a_rest_needs_no_leave_but_can_be_denied(name: str, action: str) -> None:
    waits = {"ask_user": "answer", "sleep": "timer"}[name]
    assert stands(turn_of(ask(name), agent=rules(action))) == waits
    assert turn_of(ask(name), agent=rules(action)).slots["id0"].asks is None
    assert stands(turn_of(ask(name), agent=rules("deny"))) == "PolicyDenied"


# A person's input


def answered(turn: Turn, text: str) -> None:
    turn.answer(Answer(question_id="id0", text=text))


def test_an_answer_in_place_of_a_call_goes_to_the_model_and_nothing_is_called() -> None:
    turn = turn_of(ask(), agent=rules("request_user_input", question="Really?"))
    slot = turn.slots["id0"]
    assert slot.question == "Really?"
    answered(turn, "No, ask Ada")
    assert turn.done
    assert (slot.outcome, slot.made, slot.is_fed) == (Outcome(output="No, ask Ada"), False, False)
    assert slot.result(999).content == "It was not called. In its place a person says: No, ask Ada"
    answered(turn, "No, ask Ada")  # the caller may not have learnt that it was taken
    with pytest.raises(NotAwaited):
        answered(turn, "Yes")


@pytest.mark.parametrize(
    ("into", "text", "value"),
    [
        ("pin", "0042", "0042"),
        ("amount", "42", 42),
        ("amount", "many", "many"),
        ("note", "7", "7"),
        ("amount", "NaN", "NaN"),
    ],
)
def test_an_answer_goes_into_the_argument_that_waits_for_it(into: str, text: str, value: Any) -> None:
    turn = turn_of(ask(arguments='{"order": 1}'), agent=rules("request_user_input", into=into))
    slot = turn.slots["id0"]
    assert into in slot.question
    answered(turn, text)
    assert stands(turn) == "made"
    assert slot.arguments == {"order": 1, into: value}
    slot.settle(Outcome(output="done"), made=True)
    assert slot.is_fed is False
    assert (
        slot.result(999).content
        == f"done\n\n(called with what a person gave: {json.dumps({into: value}, separators=(',', ':'))})"
    )
    answered(turn, text)


def test_after_the_input_comes_the_approval_of_the_call_with_it() -> None:
    turn = turn_of(ask("wire"), worker=rules("request_approval"), agent=rules("request_user_input", into="pin"))
    slot = turn.slots["id0"]
    before = slot.digest
    with pytest.raises(NotAwaited):
        turn.decide(Decision(call_id="id0", decision="approve"))
    answered(turn, "0042")
    assert stands(turn) == "approval"
    assert slot.digest != before
    with pytest.raises(NotAwaited, match="other arguments"):
        turn.decide(Decision(call_id="id0", decision="approve", digest=before))
    turn.decide(Decision(call_id="id0", decision="approve", digest=slot.digest))
    assert (stands(turn), slot.arguments) == ("made", {"pin": "0042"})


def test_two_policies_may_each_ask_for_an_argument() -> None:
    worker, agent = rules("request_user_input", into="pin"), rules("request_user_input", into="amount")
    turn = turn_of(ask(), worker=worker, agent=agent)
    answered(turn, "0042")
    assert stands(turn) == "answer"
    assert "amount" in turn.slots["id0"].question
    answered(turn, "7")
    assert (stands(turn), turn.slots["id0"].arguments) == ("made", {"pin": "0042", "amount": 7})


DEAR = Policy.model_validate(
    {
        "rules": [
            {"id": "dear", "action": "deny", "reason": "too dear", "match": {"arguments": {"amount": {"above": 100}}}},
            {"id": "ask", "action": "request_user_input", "into": "amount", "priority": -1, "match": {"tool": "pay"}},
        ]
    }
)


def test_what_a_person_gives_or_changes_is_held_against_the_rules_too() -> None:
    turn = turn_of(ask(), agent=DEAR)
    with pytest.raises(NotAwaited, match="too dear"):
        answered(turn, "150")
    assert stands(turn) == "answer"
    answered(turn, "99")
    assert turn.slots["id0"].arguments == {"amount": 99}
    turn = turn_of(ask("wire"), agent=DEAR)
    with pytest.raises(NotAwaited, match="too dear"):
        turn.decide(Decision(call_id="id0", decision="approve", arguments={"amount": 150}))
    assert stands(turn) == "approval"
    turn.decide(Decision(call_id="id0", decision="approve", arguments={"amount": 99}))
    assert stands(turn) == "made"


# In a run


def state_of(policy: Policy | None, metadata: dict[str, Any] | None = None, worker: Policy | None = None) -> RunState:
    agent = Agent(name="demo", model="m", tools=tuple(TOOLS.values()), policy=policy, compaction=None)
    loaded = LoadedAgent(agent=agent, revision="r", prompts=("Hello",), policy=worker)
    return RunState.begin(loaded, metadata=metadata)


def asks(state: RunState, *calls: ToolCall) -> None:
    state.next_move()
    state.record(ModelTurn(message=Message(role="assistant", tool_calls=calls), model="m"), NOW)


def test_the_next_link_knows_what_was_said_given_and_approved() -> None:
    asking = PolicyRule(id="ask", action="request_user_input", into="pin")
    never = PolicyRule.model_validate({"id": "no", "action": "deny", "priority": 1, "match": {"arguments": {"n": 1}}})
    state = state_of(Policy(rules=(asking, never)))
    calls = [ToolCall.of("a", "wire", "{}"), ToolCall.of("b", "pay", "{}"), ToolCall.of("c", "pay", '{"n": 1}')]
    asks(state, *calls)
    state.answer(Answer(question_id="a", text="0042"))
    assert [each["kind"] for each in state.waiting_for()] == ["approval", "answer"]
    again = handed_over(state, NOW)
    assert observable(again) == observable(state)
    for each in (state, again):
        each.decide(Decision(call_id="a", decision="approve"))
        each.answer(Answer(question_id="b", text="17"))
    third = handed_over(again, NOW)
    assert third.turn is not None
    assert {name: slot.arguments for name, slot in third.turn.slots.items() if name != "c"} == {
        "a": {"pin": "0042"},
        "b": {"pin": "17"},
    }
    for each in (state, third):
        each.settle("a", Outcome(output="ok", latency_ms=1.0))
        each.settle("b", Outcome(output="ok", latency_ms=1.0))
    assert [message.wire() for message in third.transcript.messages] == [
        message.wire() for message in state.transcript.messages
    ]
    assert state.counts.tool_calls == 2


def test_the_metadata_that_rules_name_survives_the_next_link_and_no_more() -> None:
    policy = Policy.model_validate({"rules": [{"id": "r", "action": "deny", "match": {"context": {"tenant": "evil"}}}]})
    state = state_of(policy, {"tenant": "evil", "notes": "x" * 100})
    assert state.context == {"tenant": "evil"}
    again = handed_over(state, NOW)
    assert again.context == state.context
    asks(again, ask())
    assert again.turn is None
    assert "PolicyDenied" in str(again.transcript.messages[-1].content)


def test_a_denial_stays_one_though_the_rules_have_changed_meanwhile() -> None:
    state = state_of(None, worker=rules("deny", match={"tool": "pay"}))
    asks(state, ToolCall.of("a", "pay", "{}"), ToolCall.of("b", "wire", "{}"))
    state.loaded = state.loaded.model_copy(update={"policy": None})
    again = handed_over(state, NOW)
    assert again.turn is not None
    outcome = again.turn.slots["a"].outcome
    assert outcome is not None
    assert outcome.error_type == "PolicyDenied"


def test_a_call_approved_before_a_rule_forbade_it_is_not_made() -> None:
    state = state_of(None)
    asks(state, ToolCall.of("a", "wire", "{}"), ToolCall.of("b", "wire", "{}"))
    state.decide(Decision(call_id="a", decision="approve"))
    state.loaded = state.loaded.model_copy(update={"policy": rules("deny")})
    again = handed_over(state, NOW)
    assert again.turn is None
    assert [message.role for message in again.transcript.messages] == ["user", "assistant", "tool", "tool"]


def test_an_admitted_call_says_who_spoke_of_it() -> None:
    (decision,) = admit((ask(),), TOOLS, Limits(), 0, None, (), Judge("a", rules("allow"), rules("request_approval")))
    assert isinstance(decision, Admitted)
    assert [(each.policy, each.action, each.rule) for each in decision.judged.said] == [
        ("worker", "allow", "r0"),
        ("agent", "request_approval", "r0"),
    ]
    assert decision.waits == "approval"


@pytest.mark.parametrize(
    ("text", "becomes"),
    [
        ("[1, 2]", [1, 2]),
        ("[" * 128 + "]" * 128, json.loads("[" * 128 + "]" * 128)),
        *((each, each) for each in ("[" * 129 + "]" * 129, "[" * 900 + "]" * 900, "[NaN]", '["\\ud800"]', "[1", '"x"')),
    ],
    ids=lambda each: str(each)[:12],
)
def test_an_answer_is_read_as_json_only_where_every_link_can_read_it_back(text: str, becomes: Any) -> None:
    spec = ToolSpec(name="sort", parameters={"type": "object", "properties": {"items": {"type": "array"}}})
    assert typed(text, spec, "items") == becomes


@pytest.mark.parametrize("properties", [None, [], "items", {"items": True}])
def test_an_answer_is_a_text_where_somebody_elses_schema_says_nothing(properties: Any) -> None:
    assert typed("[1]", ToolSpec(name="sort", parameters={"properties": properties}), "items") == "[1]"
