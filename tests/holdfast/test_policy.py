"""Policy rules: which of them speaks of a call, as tables; and what is refused when a rule is made."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from holdfast import Agent, InputInvalid
from holdfast.bounds import to_json
from holdfast.conditions import PATTERN_TEXT_MAX_CHARS, Condition, values_at
from holdfast.errors import field_errors
from holdfast.policy import AskedCall, Match, Policy, PolicyRule

CALL = AskedCall(
    tool="crm_delete",
    arguments={"id": 7, "who": {"country": "FR", "tags": ["vip", "eu"]}, "items": [{"price": 5}, {"price": 500}]},
    agent="desk",
    context={"tenant": "acme", "user": {"role": "clerk"}},
)


def deny(**match: Any) -> PolicyRule:
    return PolicyRule.model_validate({"id": "r", "action": "deny", "match": match})


def allow(**match: Any) -> PolicyRule:
    return PolicyRule.model_validate({"id": "r", "action": "allow", "match": match})


@pytest.mark.parametrize(
    ("match", "matches"),
    [
        ({}, True),
        ({"tool": "crm_delete"}, True),
        ({"tool": "crm_*"}, True),
        ({"tool": "crm_?elete"}, True),
        ({"tool": "crm_[a-d]elete"}, True),
        ({"tool": "crm_[!a-d]elete"}, False),
        ({"tool": "crm"}, False),
        ({"tool": "CRM_*"}, False),
        ({"agent": "desk"}, True),
        ({"agent": "d*"}, True),
        ({"agent": "shop"}, False),
        ({"tool": "crm_*", "agent": "shop"}, False),
        ({"arguments": {"id": 7}}, True),
        ({"arguments": {"id": 8}}, False),
        ({"arguments": {"who.country": "FR"}}, True),
        ({"arguments": {"who.country": "fr"}}, False),
        ({"arguments": {"who.country": {"one_of": ["DE", "FR"]}}}, True),
        ({"arguments": {"who.city": {"exists": False}}}, True),
        ({"arguments": {"who.city": {"exists": True}}}, False),
        ({"arguments": {"who.country.code": "FR"}}, False),
        ({"arguments": {"nobody": {"pattern": "*"}}}, False),
        ({"arguments": {"id": 7, "who.country": "DE"}}, False),
        ({"context": {"tenant": "acme"}}, True),
        ({"context": {"tenant": "other"}}, False),
        ({"context": {"user.role": {"one_of": ["clerk", "guest"]}}}, True),
        ({"context": {"user.level": {"below": 3}}}, False),
        ({"context": {"user.level": {"exists": False}}}, True),
        ({"arguments": {"id": 7}, "context": {"tenant": "other"}}, False),
    ],
)
@pytest.mark.parametrize("rule", [allow, deny], ids=["allow", "deny"])
def test_a_rule_speaks_of_a_call_where_all_of_it_fits(rule: Any, match: dict[str, Any], matches: bool) -> None:
    assert rule(**match).matches(CALL) is matches


VALUES: list[Any] = [
    0,
    1,
    1.0,
    5,
    150,
    150.0,
    True,
    False,
    None,
    "1",
    "150",
    " 150 ",
    "1e3",
    "yes",
    "no",
    "",
    "x",
    [],
    {},
]
NUMBERS: dict[str, float] = {"1": 1, "150": 150, " 150 ": 150, "1e3": 1000}


def truly(value: Any) -> float | None:
    """Return the number that a value is, to everybody."""
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def perhaps(value: Any) -> float | None:
    """Return the number that some tool may take a value for."""
    return NUMBERS.get(value) if isinstance(value, str) else value if isinstance(value, int | float) else None


@pytest.mark.parametrize("value", VALUES, ids=repr)
@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        ({"above": 100}, lambda number: number > 100),
        ({"at_least": 150}, lambda number: number >= 150),
        ({"below": 5}, lambda number: number < 5),
        ({"at_most": 5}, lambda number: number <= 5),
        ({"above": 0, "below": 150}, lambda number: 0 < number < 150),
    ],
    ids=["above", "at least", "below", "at most", "between"],
)
def test_a_number_is_compared_exactly_to_allow_and_as_any_tool_may_read_it_to_deny(
    condition: dict[str, Any], holds: Any, value: Any
) -> None:
    call = AskedCall(tool="pay", arguments={"amount": value})
    sure, possible = truly(value), perhaps(value)
    assert allow(arguments={"amount": condition}).matches(call) is (sure is not None and holds(sure))
    assert deny(arguments={"amount": condition}).matches(call) is (possible is None or holds(possible))


@pytest.mark.parametrize("value", VALUES, ids=repr)
@pytest.mark.parametrize("wanted", [0, 1, 150, True, False, "1", "150", "x", ""], ids=repr)
def test_equality_knows_true_from_1_to_allow_and_what_a_tool_may_confuse_to_deny(wanted: Any, value: Any) -> None:
    call = AskedCall(tool="pay", arguments={"amount": value})
    same = to_json(wanted) == to_json(value) or (truly(wanted) is not None and truly(wanted) == truly(value))
    assert allow(arguments={"amount": {"equals": wanted}}).matches(call) is same
    assert allow(arguments={"amount": {"one_of": [wanted]}}).matches(call) is same
    denied = deny(arguments={"amount": {"equals": wanted}}).matches(call)
    assert denied or not same
    if perhaps(wanted) is not None and perhaps(wanted) == perhaps(value):
        assert denied


@pytest.mark.parametrize(
    ("wanted", "value"),
    [(True, "yes"), (True, "TRUE"), (True, 1), (False, "off"), (False, 0), (150, "1.5e2"), ("150", 150), (1, True)],
)
def test_a_deny_is_not_evaded_by_another_way_of_writing(wanted: Any, value: Any) -> None:
    assert deny(arguments={"x": wanted}).matches(AskedCall(tool="t", arguments={"x": value}))
    assert not allow(arguments={"x": wanted}).matches(AskedCall(tool="t", arguments={"x": value}))


@pytest.mark.parametrize("value", ["nan", "NaN", "-nan", "1,000", "1 000", "ten", "9" * 500, None, {"a": 1}, [], [[]]])
def test_what_cannot_be_compared_is_never_below_a_bound_that_denies(value: Any) -> None:
    call = AskedCall(tool="pay", arguments={"amount": value})
    assert deny(arguments={"amount": {"above": 100}}).matches(call)
    assert deny(arguments={"amount": {"below": 0}}).matches(call)
    assert not allow(arguments={"amount": {"above": 100}}).matches(call)


@pytest.mark.parametrize(
    ("name", "wanted", "denied", "allowed"),
    [
        ("items.price", {"above": 100}, True, False),
        ("items.price", {"above": 1}, True, True),
        ("items.price", {"above": 1000}, False, False),
        ("items.0.price", {"below": 100}, True, True),
        ("items.1.price", {"below": 100}, False, False),
        ("items.2.price", {"exists": False}, True, True),
        ("items.price", {"exists": True}, True, True),
        ("items.name", {"exists": False}, True, True),
        ("who.tags", "vip", True, False),
        ("who.tags", {"one_of": ["vip", "eu", "us"]}, True, True),
        ("who.tags", {"equals": ["vip", "eu"]}, True, True),
        ("who.tags.0", "vip", True, True),
        ("mixed.a", 1, True, False),
        ("mixed.a", {"exists": False}, True, False),
        ("dotted.name", 1, True, True),
        ("both.name", 1, True, False),
    ],
)
def test_of_several_values_one_is_enough_to_deny_and_all_are_wanted_to_allow(
    name: str, wanted: Any, denied: bool, allowed: bool
) -> None:
    more = {"mixed": [{"a": 1}, {}], "dotted.name": 1, "both": {"name": 2}, "both.name": 1}
    call = AskedCall(tool="t", arguments={**CALL.arguments, **more})
    assert deny(arguments={name: wanted}).matches(call) is denied
    assert allow(arguments={name: wanted}).matches(call) is allowed


def test_null_is_a_value_that_exists() -> None:
    call = AskedCall(tool="t", arguments={"x": None})
    assert deny(arguments={"x": None}).matches(call)
    assert deny(arguments={"x": {"exists": True}}).matches(call)
    assert not deny(arguments={"x": {"exists": False}}).matches(call)
    assert not deny(arguments={"x": None}).matches(AskedCall(tool="t"))


def test_a_text_too_long_to_be_matched_fits_a_deny_and_no_allow() -> None:
    call = AskedCall(tool="t", arguments={"path": "/home/" + "a" * PATTERN_TEXT_MAX_CHARS})
    assert deny(arguments={"path": {"pattern": "/etc/*"}}).matches(call)
    assert not allow(arguments={"path": {"pattern": "/home/*"}}).matches(call)


def test_a_pattern_takes_a_short_time_whatever_the_model_writes() -> None:
    call = AskedCall(tool="t", arguments={"x": "a" * PATTERN_TEXT_MAX_CHARS})
    assert not deny(arguments={"x": {"pattern": "*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*b"}}).matches(call)


BROKEN: dict[str, Any] = {
    "no id": {"action": "deny"},
    "an empty id": {"id": "", "action": "deny"},
    "no action": {"id": "r"},
    "an unknown action": {"id": "r", "action": "forbid"},
    "an unknown field": {"id": "r", "action": "deny", "tool": "x"},
    "an unknown field of match": {"id": "r", "action": "deny", "match": {"tools": "x"}},
    "an unknown condition": {"id": "r", "action": "deny", "match": {"arguments": {"x": {"more_than": 3}}}},
    "an empty condition": {"id": "r", "action": "deny", "match": {"arguments": {"x": {}}}},
    "a bound that is text": {"id": "r", "action": "deny", "match": {"arguments": {"x": {"above": "3"}}}},
    "a bound that is true": {"id": "r", "action": "deny", "match": {"arguments": {"x": {"above": True}}}},
    "a bound that is NaN": {"id": "r", "action": "deny", "match": {"arguments": {"x": {"above": float("nan")}}}},
    "a bound that is infinite": {"id": "r", "action": "deny", "match": {"arguments": {"x": {"below": float("inf")}}}},
    "a value that is NaN": {"id": "r", "action": "deny", "match": {"arguments": {"x": float("nan")}}},
    "equality with null": {"id": "r", "action": "deny", "match": {"arguments": {"x": {"equals": None}}}},
    "one of nothing": {"id": "r", "action": "deny", "match": {"arguments": {"x": {"one_of": []}}}},
    "absent and more": {"id": "r", "action": "deny", "match": {"arguments": {"x": {"exists": False, "above": 1}}}},
    "an open bracket": {"id": "r", "action": "deny", "match": {"tool": "crm_["}},
    "an empty pattern": {"id": "r", "action": "deny", "match": {"tool": ""}},
    "a long pattern": {"id": "r", "action": "deny", "match": {"tool": "x" * 201}},
    "an empty name": {"id": "r", "action": "deny", "match": {"arguments": {"": 1}}},
    "a name with an empty part": {"id": "r", "action": "deny", "match": {"context": {"user..role": 1}}},
    "a priority that is text": {"id": "r", "action": "deny", "priority": "1"},
    "a priority that is half": {"id": "r", "action": "deny", "priority": 1.5},
    "a question without asking": {"id": "r", "action": "deny", "question": "Why?"},
    "an answer without asking": {"id": "r", "action": "request_approval", "into": "x"},
}


@pytest.mark.parametrize("rule", BROKEN.values(), ids=list(BROKEN))
def test_a_broken_rule_is_refused_when_it_is_made(rule: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Policy.model_validate({"rules": [rule]})
    with pytest.raises(ValidationError):
        Agent.model_validate({"name": "a", "model": "m", "policy": {"rules": [rule]}})


def test_two_rules_of_one_id_are_refused_with_the_id() -> None:
    rule = {"id": "twice", "action": "deny"}
    with pytest.raises(ValidationError) as caught:
        Policy.model_validate({"rules": [rule, {**rule, "action": "allow"}]})
    assert "twice" in str(InputInvalid(field_errors(caught.value)))


def test_the_highest_priority_counts_then_the_first_id() -> None:
    rules = [
        PolicyRule(id="b", action="deny"),
        PolicyRule(id="a", action="allow"),
        PolicyRule(id="z", action="request_approval", priority=5, match=Match(tool="pay")),
        PolicyRule(id="y", action="deny", priority=-5),
    ]
    policy = Policy(rules=tuple(rules))
    assert [rule.id for rule in policy.rules] == ["z", "a", "b", "y"]
    for tool, counts in (("pay", "z"), ("look", "a")):
        found = policy.first(AskedCall(tool=tool))
        assert found is not None
        assert found.id == counts
    assert Policy().first(CALL) is None


RULES = st.lists(
    st.builds(
        PolicyRule,
        id=st.sampled_from("abcdefgh"),
        action=st.sampled_from(["allow", "deny", "request_approval", "request_user_input"]),
        priority=st.integers(-2, 2),
        match=st.builds(
            Match,
            tool=st.sampled_from(["*", "crm_*", "pay"]),
            arguments=st.dictionaries(
                st.sampled_from(["id", "who.country"]), st.sampled_from([7, 8, "FR"]), max_size=1
            ),
        ),
    ),
    unique_by=lambda rule: rule.id,
    max_size=6,
)


@given(RULES, st.randoms(use_true_random=False))
def test_the_order_in_which_rules_stand_never_matters(rules: list[PolicyRule], shuffling: Any) -> None:
    policy = Policy(rules=tuple(rules))
    shuffled = list(rules)
    shuffling.shuffle(shuffled)
    other = Policy(rules=tuple(shuffled))
    assert other == policy
    assert other.first(CALL) == policy.first(CALL)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "a.b"]), inner, max_size=3),
    max_leaves=8,
)
CONDITIONS = st.builds(
    lambda given: Condition.model_validate(given),
    st.fixed_dictionaries({"one_of": st.lists(JSON, min_size=1, max_size=2)})
    | st.fixed_dictionaries({"above": st.integers(-9, 9)})
    | st.fixed_dictionaries({"pattern": st.sampled_from(["*", "a*", "?"])})
    | st.fixed_dictionaries({"exists": st.booleans()}),
)


@given(CONDITIONS, st.dictionaries(st.sampled_from(["a", "b"]), JSON), st.sampled_from(["a", "a.b", "b.0.a"]))
def test_whatever_an_allow_speaks_of_a_deny_of_the_same_words_speaks_of(
    condition: Condition, arguments: dict[str, Any], name: str
) -> None:
    values = values_at(name, arguments)
    if condition.holds(values, restricting=False):
        assert condition.holds(values, restricting=True)


@given(CONDITIONS, st.dictionaries(st.sampled_from(["a", "b"]), JSON))
def test_a_policy_reads_back_from_its_wire_form_as_it_was(condition: Condition, arguments: dict[str, Any]) -> None:
    policy = Policy(rules=(PolicyRule(id="r", action="deny", match=Match(arguments={"a": condition})),))
    again = Policy.model_validate(json.loads(to_json(policy.wire())))
    assert again == policy
    assert Policy.model_validate(json.loads(policy.model_dump_json())) == policy  # as LoadedAgent is recorded
    call = AskedCall(tool="t", arguments=arguments)
    assert again.first(call) == policy.first(call)


def test_plain_values_and_conditions_of_the_same_meaning_give_one_revision() -> None:
    forms: list[Any] = [{"x": 5}, {"x": {"equals": 5}}, {"x": Condition(equals=5)}]
    made = [Agent(name="a", model="m", policy=Policy(rules=(deny(arguments=form),))) for form in forms]
    assert all(one.revision == other.revision for one, other in itertools.combinations(made, 2))


def test_of_the_metadata_only_what_rules_name_is_kept() -> None:
    rules = (deny(context={"tenant": "x", "user.role": "y"}),)
    metadata: dict[str, Any] = {"tenant": "acme", "user": {"role": "clerk"}, "user.role": 1, "notes": "long"}
    kept = Policy(rules=rules).context_of(metadata)
    assert kept == {"tenant": "acme", "user": {"role": "clerk"}, "user.role": 1}
