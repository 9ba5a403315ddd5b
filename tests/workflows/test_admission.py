"""Admission: which of a turn's tool calls are made, as tables."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast import Interaction, Limits, ToolCall, ToolSpec
from holdfast.workflows.admission import Admitted, Refused, admit
from holdfast.workflows.turn import Turn

TOOLS = {name: ToolSpec(name=name) for name in ("add", "look")}


def asked(*named: str, arguments: str = "{}") -> tuple[ToolCall, ...]:
    return tuple(ToolCall.of(f"id{index}", name, arguments) for index, name in enumerate(named))


def verdicts(named: list[str], made: int = 0, **limits: Any) -> str:
    """Write a turn's decisions as one word: + made, ? unknown tool, ! limit, ~ bad arguments."""
    signs = {"ToolUnknown": "?", "LimitReached": "!", "ToolArgumentsInvalid": "~"}
    decisions = admit(asked(*named), TOOLS, Limits(**limits), made)
    return "".join("+" if isinstance(each, Admitted) else signs[each.type] for each in decisions)


@pytest.mark.parametrize(
    ("named", "made", "limits", "expected"),
    [
        ([], 0, {}, ""),
        (["add"], 0, {}, "+"),
        (["add", "look", "add"], 0, {}, "+++"),
        (["add"] * 3, 0, {"max_tool_calls": 2}, "++!"),
        (["add"] * 3, 1, {"max_tool_calls": 2}, "+!!"),
        (["add"] * 3, 2, {"max_tool_calls": 2}, "!!!"),
        (["add"] * 3, 9, {"max_tool_calls": 2}, "!!!"),
        (["add"], 0, {"max_tool_calls": 0}, "!"),
        (["nope", "add"], 0, {"max_tool_calls": 0}, "?!"),
        (["nope", "add", "add"], 0, {"max_tool_calls": 1}, "?+!"),
        (["add"] * 4, 0, {"max_tool_calls_per_turn": 2}, "++!!"),
        (["nope", "add", "add"], 0, {"max_tool_calls_per_turn": 2}, "?+!"),
        (["add"] * 4, 498, {"max_tool_calls_per_turn": 3}, "++!!"),
        (["add"] * 34, 0, {}, "+" * 32 + "!!"),
    ],
)
def test_exactly_as_many_calls_are_made_as_the_limits_allow(
    named: list[str], made: int, limits: dict[str, int], expected: str
) -> None:
    assert verdicts(named, made, **limits) == expected


def test_decisions_keep_the_order_of_the_calls() -> None:
    calls = asked("look", "nope", "add")
    assert [each.call for each in admit(calls, TOOLS, Limits(), 0)] == list(calls)


def test_an_admitted_call_carries_its_tool_and_its_parsed_arguments() -> None:
    (decision,) = admit(asked("add", arguments='{"a": 1, "b": [true, null, "é"]}'), TOOLS, Limits(), 0)
    assert decision == Admitted(decision.call, TOOLS["add"], {"a": 1, "b": [True, None, "é"]})


def test_no_arguments_at_all_are_an_empty_object() -> None:
    (decision,) = admit(asked("add", arguments=""), TOOLS, Limits(), 0)
    assert isinstance(decision, Admitted)
    assert decision.arguments == {}


@pytest.mark.parametrize(
    "arguments",
    [
        "{",
        "nonsense",
        "[]",
        "null",
        '"text"',
        "3",
        '{"a": NaN}',
        '{"a": 1e999}',
        '{"a": "\\ud800"}',
        '{"a": ' + "[" * 100_000,
        '{"a": ' + "[" * 3000 + "]" * 3000 + "}",
        '{"a": ' + "9" * 10_000 + "}",
        "{}{}",
    ],
    ids=lambda text: text[:20],
)
def test_arguments_that_are_no_json_object_are_told_to_the_model(arguments: str) -> None:
    (decision,) = admit(asked("add", arguments=arguments), TOOLS, Limits(), 0)
    assert isinstance(decision, Refused)
    assert decision.type == "ToolArgumentsInvalid"
    assert "add" in decision.message
    assert len(decision.message.encode()) < 1000


def test_an_unknown_tool_is_told_with_those_that_there_are() -> None:
    (decision,) = admit(asked("ad"), TOOLS, Limits(), 0)
    assert decision == Refused(decision.call, "ToolUnknown", "there is no tool named 'ad'; there are: add, look")
    (alone,) = admit(asked("ad"), {}, Limits(), 0)
    assert isinstance(alone, Refused)
    assert alone.message.endswith("there are: none")


def test_what_the_model_hears_of_a_refusal_is_bounded_at_4_kilobytes() -> None:
    many = {f"{index:03d}{'x' * 61}": ToolSpec(name=f"{index:03d}{'x' * 61}") for index in range(500)}
    (decision,) = admit(asked("y" * 100_000), many, Limits(), 0)
    assert isinstance(decision, Refused)
    assert len(decision.message.encode()) <= 4096
    slot = Turn([decision], Interaction(), now=0.0).slots["id0"]
    assert slot.outcome is not None
    assert (slot.outcome.error_type, slot.outcome.error, slot.outcome.output) == ("ToolUnknown", decision.message, None)


NAMED = st.lists(st.sampled_from(["add", "look", "nope"]), max_size=40)


@given(NAMED, st.integers(0, 50), st.integers(0, 50), st.integers(1, 32), st.text(max_size=10))
def test_no_limit_is_ever_passed(named: list[str], made: int, most: int, turn: int, arguments: str) -> None:
    limits = Limits(max_tool_calls=most, max_tool_calls_per_turn=turn)
    calls = asked(*named, arguments=json.dumps({"x": arguments}))
    decisions = admit(calls, TOOLS, limits, made)
    admitted = [each for each in decisions if isinstance(each, Admitted)]
    assert [each.call for each in decisions] == list(calls)
    assert len(admitted) <= min(turn, max(0, most - made))
    known: list[Any] = [each for each in named[:turn] if each in TOOLS]
    assert len(admitted) == min(len(known), max(0, most - made))
