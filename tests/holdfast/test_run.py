"""Requests and messages as they come over the wire: everything that is wrong is told, by field."""

from __future__ import annotations

from typing import Any

import pytest

from holdfast import Agent, InputInvalid, RunRequest, RunResult
from holdfast.request import UserMessage
from holdfast.run import TERMINAL, RunError


def refused(given: Any) -> dict[str, str]:
    with pytest.raises(InputInvalid) as caught:
        RunRequest.read(given)
    assert len(str(caught.value)) < 3000
    return caught.value.errors


def test_a_request_needs_an_agent_only() -> None:
    request = RunRequest.read({"agent": "demo"})
    assert request == RunRequest(agent="demo")
    assert request.wire() == {"agent": "demo"}


def test_an_agent_may_stand_inline() -> None:
    request = RunRequest.read({"agent": {"name": "demo", "model": "m", "limits": {"max_steps": 2}}})
    assert isinstance(request.agent, Agent)
    assert request.agent.limits.max_steps == 2
    assert RunRequest.read(request.wire()) == request


def test_all_that_is_wrong_is_told_at_once_by_field() -> None:
    errors = refused(
        {
            "agent": 3,
            "input": {"text": "x" * 300_000},
            "message": "y" * 300_000,
            "metadata": {"x": float("nan")},
            "thread_id": "../x",
            "revision": "",
            "massage": "typing error",
        }
    )
    assert set(errors) == {"agent", "input", "message", "metadata", "thread_id", "revision", "massage"}
    assert "262,144" in errors["input"]
    assert "262,144" in errors["message"]
    assert "JSON" in errors["metadata"]


@pytest.mark.parametrize("given", [None, [], "demo", 3, True, [{"agent": "demo"}]], ids=repr)
def test_what_is_not_one_object_is_refused_with_an_example(given: Any) -> None:
    assert '{"agent": "demo"' in refused(given)["request"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("agent", None),
        ("agent", ""),
        ("agent", ["demo"]),
        ("agent", "../demo"),
        ("agent", "x" * 1001),
        ("input", "text"),
        ("input", ["x"]),
        ("message", {"text": "x"}),
        ("message", "\ud800"),
        ("thread_id", 3),
        ("thread_id", "a\nb"),
        ("revision", "x" * 1001),
        ("metadata", "x"),
        ("colour", "red"),
    ],
)
def test_a_wrong_field_is_told_by_its_name(field: str, value: Any) -> None:
    errors = refused({"agent": "demo", field: value})
    assert {each.partition(".")[0] for each in errors} == {field}


def test_a_message_of_three_megabytes_is_refused_with_both_sizes() -> None:
    errors = refused({"agent": "demo", "message": "x" * 3_000_000})
    assert errors == {"message": "has 3,000,000 bytes; at most 262,144 are taken"}


def test_bytes_count_and_not_characters() -> None:
    assert RunRequest.read({"agent": "demo", "message": "é" * 131_072}).message
    assert set(refused({"agent": "demo", "message": "é" * 131_073})) == {"message"}


def test_an_input_as_deep_as_a_well_is_refused_and_not_a_crash() -> None:
    deep: Any = {}
    for _ in range(5000):
        deep = {"x": deep}
    assert {each.partition(".")[0] for each in refused({"agent": "demo", "input": deep})} == {"input"}


def test_everything_wrong_with_an_inline_agent_is_told() -> None:
    told = refused({"agent": {"modle": "m", "limits": {"max_steps": 0}, "tools": [{"name": "two words"}]}})["agent"]
    for name in ("name: Field required", "model: Field required", "modle", "limits.max_steps", "tools.0"):
        assert name in told


def test_an_inline_agent_over_its_size_is_refused() -> None:
    assert "larger than" in refused({"agent": {"name": "a", "model": "m", "goal": "x" * 300_000}})["agent"]


def test_an_error_does_not_repeat_the_value_that_is_wrong() -> None:
    assert "sk-secret" not in str(refused({"agent": "demo", "message": ["sk-secret"], "api_key": "sk-secret"}))


def test_a_user_message_is_a_text_with_or_without_an_id() -> None:
    assert UserMessage.read({"text": "hello"}) == UserMessage(text="hello")
    assert UserMessage.read({"text": "hello", "id": "m-1"}).id == "m-1"


@pytest.mark.parametrize(
    ("given", "fields"),
    [
        (None, {"value"}),
        ("hello", {"value"}),
        ([], {"value"}),
        ({}, {"text"}),
        ({"text": ""}, {"text"}),
        ({"text": 3}, {"text"}),
        ({"text": "x" * 262_145}, {"text"}),
        ({"text": "\ud800"}, {"text"}),
        ({"text": "hello", "id": ""}, {"id"}),
        ({"text": "hello", "id": 7}, {"id"}),
        ({"text": "", "id": "a\nb", "role": "system"}, {"text", "id", "role"}),
    ],
    ids=lambda given: repr(sorted(given) if isinstance(given, set) else given)[:40],
)
def test_what_is_no_user_message_is_told_by_field(given: Any, fields: set[str]) -> None:
    with pytest.raises(InputInvalid) as caught:
        UserMessage.read(given)
    assert set(caught.value.errors) == fields


def test_a_result_comes_back_from_json_and_its_state_is_its_status() -> None:
    result = RunResult(status="failed", error=RunError(type="Timeout", message="late"), final_text="late")
    assert RunResult.model_validate(result.model_dump(mode="json")) == result
    assert result.state == "failed"
    assert {"completed", "degraded", "failed", "cancelled", "interrupted"} == TERMINAL
