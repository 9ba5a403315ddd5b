"""What a run keeps, pushes and answers is bounded, whatever its tools return."""

from __future__ import annotations

from typing import Any

import pytest

from holdfast import Message
from holdfast.bounds import json_size
from tests.workflows.states import ask, fresh, settle, turn

KILOBYTE = 1024


@pytest.mark.parametrize(("size", "is_pushed"), [(3_900, True), (4_200, False), (200_000, False)])
def test_no_more_than_4_kilobytes_are_pushed(size: int, is_pushed: bool) -> None:
    call = ask(fresh(prompts=("x" * size,)))
    assert bool(call.pushed) is is_pushed
    assert sum(json_size(each.message) for each in call.pushed) <= 4 * KILOBYTE
    assert call.transcript.length == 1


def test_what_the_model_sees_of_an_output_is_cut_at_the_workers_setting() -> None:
    state = fresh(chars=100)
    ask(state)
    state.record(turn(1, "add"))
    settle(state, "x" * 5000)
    content = state.transcript.messages[-1].content or ""
    assert len(content) <= 100
    assert "5,000 characters" in content


@pytest.mark.parametrize(
    "output",
    ["x" * 60_000, "é" * 30_000, "😀" * 9_000, "\x01" * 9_000, '"' * 30_000, {"a": ["\n"] * 9_000}, list(range(9_000))],
    ids=lambda output: repr(output)[:12],
)
def test_a_large_output_becomes_a_preview_of_at_most_one_kilobyte_that_tells_its_size(output: Any) -> None:
    state = fresh()
    ask(state)
    state.record(turn(1, "add"))
    settle(state, output)
    (execution,) = state.executions
    assert json_size(execution.output) <= KILOBYTE
    size = len(output.encode()) if isinstance(output, str) else json_size(output)
    assert f"{size:,} bytes in all" in str(execution.output)


def test_a_small_output_is_its_own_preview() -> None:
    state = fresh()
    ask(state)
    state.record(turn(1, "add", "add"))
    settle(state, {"total": 7}, None)
    assert [each.output for each in state.executions] == [{"total": 7}, None]


def test_previews_take_at_most_128_kilobytes_and_the_latest_are_kept() -> None:
    state = fresh(max_steps=1000, max_model_calls=1000, max_tool_calls=10_000)
    ids = []
    for step in range(1, 21):
        ask(state)
        asked = turn(step, *["add"] * 16)
        ids += [call.id for call in asked.message.tool_calls]
        state.record(asked)
        settle(state, *["x" * 2000] * 16)
    kept = [each.tool_call_id for each in state.executions if each.output is not None]
    assert sum(json_size(each.output) for each in state.executions if each.output) <= 128 * KILOBYTE
    assert 90 < len(kept) < len(ids)
    assert kept == ids[-len(kept) :]
    assert [each.tool_call_id for each in state.executions] == ids, "a call is told even where its output has no room"


def test_the_latest_2000_executions_are_kept_and_all_are_counted() -> None:
    state = fresh(max_steps=1000, max_model_calls=1000, max_tool_calls=10_000)
    ids = []
    for step in range(1, 131):
        ask(state)
        asked = turn(step, *["add"] * 16)
        ids += [call.id for call in asked.message.tool_calls]
        state.record(asked)
        settle(state, *["x" * 200] * 16)
    assert [each.tool_call_id for each in state.executions] == ids[-2000:]
    assert state.summary()["state_snapshot"]["tool_calls"] == len(ids) == 2080
    assert json_size([each.wire() for each in state.executions]) < 1024 * KILOBYTE


def test_2000_calls_of_tools_with_names_of_control_characters_fit_into_a_result() -> None:
    state = fresh(max_steps=1000, max_model_calls=1000)
    for step in range(1, 64):
        ask(state)
        state.record(turn(step, *["\x01" * 200] * 32))
    assert len(state.executions) == 2000
    assert json_size([each.wire() for each in state.executions]) < 1024 * KILOBYTE


@pytest.mark.parametrize("text", ["x", "x" * 1000, "é" * 100_000, '"' * 120_000])
def test_pages_are_at_most_one_megabyte_and_together_the_whole_transcript(text: str) -> None:
    state = fresh()
    for _ in range(40_000 if len(text) == 1 else 3_000_000 // len(text)):
        state.transcript.append(Message(role="user", content=text))
    start: int | None = 0
    read: list[dict[str, Any]] = []
    while start is not None:
        page = state.talk.page(start, None)
        assert json_size(page.wire()) <= KILOBYTE * KILOBYTE
        assert page.messages
        read += page.messages
        start = page.next
    assert read == [message.wire() for message in state.transcript.messages]


@pytest.mark.parametrize(
    ("start", "stop", "expected"),
    [(0, None, 5), (0, 2, 2), (3, 99, 2), (2, 2, 0), (4, 1, 0), (9, None, 0), (0, -1, 0), (0, 0, 0)],
)
def test_a_page_holds_what_was_asked_for(start: int, stop: int | None, expected: int) -> None:
    state = fresh(prompts=tuple("abcde"))
    page = state.talk.page(start, stop)
    assert (len(page.messages), page.next) == (expected, None)
