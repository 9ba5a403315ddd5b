"""The small parts of a run, each by itself: the open calls of a turn, clocks, message ids, executions."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast import Interaction, Limits, ToolCall, ToolSpec
from holdfast.bounds import (
    CARRIED_EXECUTIONS_BYTES,
    CARRIED_EXECUTIONS_MAX,
    CARRIED_IDS_MAX,
    EXECUTIONS_MAX,
    PREVIEWS_MAX_BYTES,
    json_size,
)
from holdfast.carried import OpenTurn, Outcome
from holdfast.request import Answer, Decision
from holdfast.workflows.admission import admit
from holdfast.workflows.clock import Clock
from holdfast.workflows.executions import Executions
from holdfast.workflows.seen import SeenIds
from holdfast.workflows.turn import RESTED, WOKEN, NotAwaited, Turn
from holdfast.workflows.waiting import waiting_for
from tests.workflows.states import ARGUMENTS, WAITING_TOOLS

NOW = 1_000.0
TOOLS = {spec.name: spec for spec in (*WAITING_TOOLS, ToolSpec(name="refund", requires_approval=True))}


def opened(*named: str, now: float = NOW, **interaction: Any) -> Turn:
    """Open a turn whose call ids are the tools' names."""
    calls = tuple(ToolCall.of(name, name, ARGUMENTS.get(name, '{"amount": 1}')) for name in named)
    settings = Interaction(**interaction)
    return Turn(admit(calls, TOOLS, Limits(), 0, settings), settings, now)


def approve(call_id: str, **fields: Any) -> Decision:
    return Decision(call_id=call_id, decision="approve", **fields)


# A turn's calls


def test_each_call_waits_for_its_own() -> None:
    turn = opened("add", "pay", "ask_user", "sleep", "nope", timeout_seconds=30)
    waits = {name: (slot.waits, slot.until) for name, slot in turn.slots.items()}
    assert waits == {
        "add": (None, None),
        "pay": ("approval", NOW + 30),
        "ask_user": ("answer", NOW + 30),
        "sleep": ("timer", NOW + 60),
        "nope": (None, None),
    }
    assert [slot.call.id for slot in turn.open] == ["add", "pay", "ask_user", "sleep"]
    assert [slot.call.id for slot in turn.waiting] == ["pay", "ask_user", "sleep"]


def test_a_decision_counts_once_and_only_for_what_waits_for_one() -> None:
    turn = opened("add", "pay", "ask_user", "nope")
    for call_id in ("add", "ask_user", "nope", "unknown"):
        with pytest.raises(NotAwaited):
            turn.decide(approve(call_id))
    turn.decide(approve("pay"))
    turn.decide(approve("pay"))
    for other in (Decision(call_id="pay", decision="deny"), approve("pay", arguments={"amount": 2})):
        with pytest.raises(NotAwaited):
            turn.decide(other)
    assert turn.slots["pay"].granted
    assert turn.slots["pay"].outcome is None


def test_a_decision_is_bound_to_the_tool_and_its_arguments() -> None:
    turn, other = opened("pay"), opened("refund")
    digest = turn.slots["pay"].digest
    assert digest != other.slots["refund"].digest
    with pytest.raises(NotAwaited, match="other arguments"):
        turn.decide(approve("pay", digest=other.slots["refund"].digest))
    turn.decide(approve("pay", digest=digest, arguments={"amount": 2}))
    assert turn.slots["pay"].arguments == {"amount": 2}
    assert turn.slots["pay"].digest == digest


def test_a_denial_says_why() -> None:
    turn = opened("pay", "refund")
    turn.decide(Decision(call_id="pay", decision="deny", reason="too much"))
    turn.decide(Decision(call_id="refund", decision="deny"))
    assert turn.done
    told = [slot.outcome for slot in turn.slots.values()]
    assert told == [
        Outcome(error_type="ApprovalDenied", error="it was not approved: too much"),
        Outcome(error_type="ApprovalDenied", error="it was not approved"),
    ]
    assert not any(slot.made for slot in turn.slots.values())
    turn.decide(Decision(call_id="pay", decision="deny", reason="too much"))
    for other in (approve("pay"), Decision(call_id="pay", decision="deny"), approve("refund")):
        with pytest.raises(NotAwaited):
            turn.decide(other)
    assert [slot.outcome for slot in turn.slots.values()] == told


def test_a_question_is_answered_once() -> None:
    turn = opened("ask_user", "pay")
    for other in ("pay", "unknown"):
        with pytest.raises(NotAwaited):
            turn.answer(Answer(question_id=other, text="yes"))
    for _ in range(2):
        turn.answer(Answer(question_id="ask_user", text="yes"))
    with pytest.raises(NotAwaited):
        turn.answer(Answer(question_id="ask_user", text="no"))
    assert turn.slots["ask_user"].outcome == Outcome(output="yes")


@pytest.mark.parametrize(
    ("name", "fallback", "outcome"),
    [
        ("sleep", "deny", "None"),
        ("ask_user", "deny", "NoAnswer"),
        ("pay", "deny", "ApprovalDenied"),
        ("pay", "approve", "granted"),
    ],
)
def test_a_wait_whose_time_has_come_falls_back(name: str, fallback: str, outcome: str) -> None:
    turn = opened(name, fallback=fallback, timeout_seconds=30)
    slot = turn.slots[name]
    turn.expire(name)
    assert slot.waits is None
    assert (str(slot.outcome.error_type) if slot.outcome else "granted") == outcome
    before = (slot.outcome, slot.granted)
    turn.expire(name)
    assert (slot.outcome, slot.granted) == before


def test_a_message_ends_rests_and_nothing_else() -> None:
    turn = opened("sleep", "pay", "ask_user")
    turn.wake()
    assert [slot.call.id for slot in turn.waiting] == ["pay", "ask_user"]
    assert turn.slots["sleep"].outcome == Outcome(output=WOKEN)
    turn.expire("sleep")
    assert turn.slots["sleep"].outcome == Outcome(output=WOKEN)


def test_the_first_outcome_counts() -> None:
    turn = opened("add")
    turn.slots["add"].settle(Outcome(output=1), made=True)
    turn.slots["add"].settle(Outcome(output=2), made=False)
    assert (turn.slots["add"].outcome, turn.slots["add"].made) == (Outcome(output=1), True)


def test_what_is_handed_on_is_taken_over_whenever_that_is() -> None:
    turn = opened("add", "pay", "refund", "ask_user", "sleep", timeout_seconds=30)
    turn.slots["add"].settle(Outcome(output=1), made=True)
    turn.decide(approve("pay", arguments={"amount": 2}))
    following = opened("add", "pay", "refund", "ask_user", "sleep", now=NOW + 500, timeout_seconds=30)
    following.take_over(OpenTurn.model_validate_json(turn.handed_on(0, 12_000).model_dump_json()))
    for call_id, slot in turn.slots.items():
        again = following.slots[call_id]
        assert (again.waits, again.outcome, again.made) == (slot.waits, slot.outcome, slot.made)
        assert (again.granted, again.edited) == (slot.granted, slot.edited)
    assert [waiting_for(slot) for slot in following.waiting] == [waiting_for(slot) for slot in turn.waiting]


def test_what_is_handed_on_of_other_calls_is_ignored() -> None:
    turn = opened("add", "pay")
    turn.decide(approve("pay"))
    turn.slots["add"].settle(Outcome(output=1), made=True)
    other = opened("look", "refund")
    other.take_over(turn.handed_on(0, 12_000))
    assert other.slots == opened("look", "refund").slots


def test_an_approval_is_no_outcome_for_a_tool_that_needs_none_any_more() -> None:
    turn = opened("pay")
    turn.decide(approve("pay"))
    headless = opened("pay", mode="headless")
    headless.take_over(turn.handed_on(0, 12_000))
    assert headless.done
    assert not headless.slots["pay"].granted


def test_a_rest_says_that_its_time_has_come() -> None:
    turn = opened("sleep")
    turn.expire("sleep")
    assert turn.slots["sleep"].outcome == Outcome(output=RESTED)


# Clocks


def test_active_time_stands_still_while_the_clock_does() -> None:
    clock = Clock(Limits(max_active_seconds=10), started_at=NOW)
    assert clock.active(NOW + 5) == 0
    clock.turn(True, NOW)
    clock.turn(False, NOW + 4)
    assert (clock.active(NOW + 100), clock.next_limit(NOW + 100)) == (4, None)
    clock.turn(True, NOW + 100)
    assert clock.next_limit(NOW + 101) == (5, "max_active_seconds")


def test_the_deadline_never_stands_still_and_the_nearer_limit_is_told() -> None:
    clock = Clock(Limits(max_active_seconds=10, deadline_seconds=20), NOW)
    assert clock.next_limit(NOW + 5) == (15, "deadline_seconds")
    clock.turn(True, NOW + 5)
    assert clock.next_limit(NOW + 5) == (10, "max_active_seconds")
    assert clock.next_limit(NOW + 12) == (3, "max_active_seconds")
    clock.turn(False, NOW + 12)
    assert clock.next_limit(NOW + 25) == (-5, "deadline_seconds")
    assert Clock(Limits(), NOW).next_limit(NOW + 1e9) is None


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 100)), max_size=20))
def test_a_clock_goes_on_in_the_next_link_where_it_was(turns: list[tuple[bool, int]]) -> None:
    limits = Limits(max_active_seconds=50, deadline_seconds=500)
    one = two = Clock(limits, NOW)
    now, active, was = NOW, 0, False
    for runs, seconds in turns:
        now, active = now + seconds, active + seconds * was
        one.turn(runs, now)
        two = Clock(limits, two.started_at, two.active(now))
        two.turn(runs, now)
        assert one.active(now) == two.active(now) == active
        assert one.next_limit(now) == two.next_limit(now)
        was = runs


def test_time_that_goes_backwards_takes_no_active_time_back() -> None:
    clock = Clock(Limits(), NOW)
    clock.turn(True, NOW)
    assert clock.active(NOW - 5) == 0


# Message ids


@given(st.lists(st.sampled_from([f"m{number}" for number in range(9)]), max_size=40), st.integers(0, 40))
def test_an_id_is_taken_once_in_whatever_link(ids: list[str], cut: int) -> None:
    seen, known = SeenIds(), set[str]()
    for index, each in enumerate(ids):
        if index == cut:
            seen = SeenIds(seen.packed())
        assert seen.take(each) == (each not in known)
        known.add(each)


def test_the_latest_ids_are_kept_in_a_bounded_text() -> None:
    seen = SeenIds()
    for number in range(CARRIED_IDS_MAX + 10):
        assert seen.take(f"message {number}")
    assert len(seen.packed()) == CARRIED_IDS_MAX * 8
    assert not seen.take("message 10")
    assert seen.take("message 9")


# Executions


def executed(number: int, output: Any = "ok", executions: Executions | None = None) -> Executions:
    executions = executions or Executions()
    for index in range(number):
        executions.add(ToolCall.of(f"c{index}", "add", "{}"), Outcome(output=output), "demo")
    return executions


def test_the_latest_executions_are_kept_with_the_latest_previews() -> None:
    kept = executed(EXECUTIONS_MAX + 5, "x" * 1000).all()
    assert len(kept) == EXECUTIONS_MAX
    assert (kept[0].tool_call_id, kept[-1].tool_call_id) == ("c5", f"c{EXECUTIONS_MAX + 4}")
    assert (kept[0].output, kept[-1].output) == (None, "x" * 1000)
    assert sum(json_size([each.output, each.error]) for each in kept if each.output) <= PREVIEWS_MAX_BYTES


@pytest.mark.parametrize(("number", "output"), [(3, "ok"), (500, "ok"), (500, "x" * 1000)])
def test_what_the_next_link_is_handed_is_bounded_and_the_latest(number: int, output: str) -> None:
    executions = executed(number, output)
    latest = executions.latest()
    assert latest == executions.all()[-len(latest) :]
    assert len(latest) <= CARRIED_EXECUTIONS_MAX
    assert json_size([each.wire() for each in latest]) <= CARRIED_EXECUTIONS_BYTES + 2 * len(latest)
    assert Executions(latest).all() == latest


def test_executions_that_were_handed_over_make_room_like_any_others() -> None:
    executions = executed(EXECUTIONS_MAX * 2, "y" * 1000, Executions(executed(100, "x" * 1000).all()))
    assert len(executions) == EXECUTIONS_MAX
    shown = [each for each in executions if each.output is not None]
    assert sum(json_size([each.output, each.error]) for each in shown) <= PREVIEWS_MAX_BYTES
    assert shown == list(executions)[-len(shown) :]
