"""What a worker holds of its runs: fed by what ran there, it is the run's own transcript, or known not to be."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast import Agent, Message, ToolSpec
from holdfast.activities.transcripts import Held, TranscriptCache
from holdfast.carried import Outcome, Reference
from holdfast.message import Transcript, tool_content, tool_message, tool_text, user_message
from holdfast.request import UserMessage
from holdfast.workflows.moves import CallModel, CallTools
from holdfast.workflows.state import RunState
from tests.workflows.states import fresh, turn

CHARS = 60
KEY = ("run", "link")
OUTPUTS = st.none() | st.integers() | st.text(max_size=90) | st.lists(st.text(max_size=30), max_size=4)
OUTCOMES = st.builds(Outcome, output=OUTPUTS) | st.builds(
    Outcome, error_type=st.just("ValueError"), error=st.text(max_size=20)
)


def held_of(state: RunState) -> Held:
    """Hold a whole transcript."""
    held = Held()
    for message in state.transcript.messages:
        held.append(message.wire())
    return held


def reference(*messages: Message) -> Reference:
    transcript = Transcript()
    for message in messages:
        transcript.append(message)
    return Reference(length=len(transcript), digest=transcript.digest())


@settings(deadline=None)
@given(st.data())
def test_what_ran_here_and_what_was_pushed_make_the_runs_own_transcript(data: st.DataObject) -> None:
    state = fresh(prompts=("one", "two"), chars=CHARS, max_tool_calls=12, max_steps=8)
    cache = TranscriptCache()
    for _ in range(30):
        move = state.next_move()
        if isinstance(move, CallModel):
            held = cache.held(KEY)
            held.advance(move.call.transcript, {each.index: each.message for each in move.call.pushed}, CHARS)
            assert held.matches(move.call.transcript)
            assert held.messages == [message.wire() for message in state.transcript.messages]
            named = [] if move.call.closing else data.draw(st.lists(st.sampled_from(["add", "nope"]), max_size=4))
            answer = turn(move.call.step, *named, text="…", dropped=data.draw(st.integers(0, 1)))
            held.append(answer.message.wire())
            cache.count(KEY)
            state.record(answer)
            for text in data.draw(st.lists(st.text(min_size=1, max_size=9), max_size=2)):
                state.receive(UserMessage(text=text))
        elif isinstance(move, CallTools):
            for slot in data.draw(st.permutations(move.turn.open)):
                outcome = data.draw(OUTCOMES)
                if outcome.error is None:
                    cache.feed_output(KEY, slot.call.id, outcome.output)
                state.settle(slot.call.id, outcome)
        else:
            break
    assert cache.held(KEY).outputs == {}


def test_a_holder_that_lacks_an_output_stops_there_and_says_so() -> None:
    state = fresh()
    call = state.next_move()
    assert isinstance(call, CallModel)
    held = Held()
    held.append(user_message("Hello").wire())
    asked = turn(1, "add", "add")
    held.append(asked.message.wire())
    held.keep(asked.message.tool_calls[1].id, "second")
    first, second = (tool_message(each.id, text) for each, text in zip(asked.message.tool_calls, "ab", strict=True))
    wanted = reference(user_message("Hello"), asked.message, first, second)
    held.advance(wanted, {}, CHARS)
    assert len(held.messages) == 2
    assert not held.matches(wanted)
    assert held.outputs == {asked.message.tool_calls[1].id: "second"}


def test_a_transcript_that_differs_anywhere_does_not_match() -> None:
    held = Held()
    for text in ("one", "two", "three"):
        held.append(user_message(text).wire())
    assert held.matches(reference(*map(user_message, ("one", "two", "three"))))
    assert held.matches(reference(*map(user_message, ("one", "two"))))
    assert held.matches(Reference(length=0, digest=""))
    for other in (("one", "TWO", "three"), ("ONE", "two", "three"), ("one", "two", "THREE")):
        assert not held.matches(reference(*map(user_message, other)))
    assert not held.matches(reference(*map(user_message, ("one", "two", "three", "four"))))


def test_a_wrong_output_fed_by_an_attempt_that_did_not_count_is_told() -> None:
    asked = turn(1, "add")
    call = asked.message.tool_calls[0].id
    held = Held()
    held.append(user_message("Hello").wire())
    held.append(asked.message.wire())
    held.keep(call, "from an attempt that the server had given up")
    wanted = reference(user_message("Hello"), asked.message, tool_message(call, "what counted"))
    held.advance(wanted, {}, CHARS)
    assert len(held.messages) == 3
    assert not held.matches(wanted)


@given(st.integers(0, 8))
def test_cut_to_forgets_what_came_later_and_goes_on_from_there(length: int) -> None:
    texts = [f"message {index}" for index in range(5)]
    held = Held()
    for text in texts:
        held.append(user_message(text).wire())
    held.keep("call", "output")
    held.cut_to(length)
    kept = texts[:length]
    assert [each["content"] for each in held.messages] == kept
    assert held.outputs == {"call": "output"}
    held.append(user_message("another").wire())
    assert held.matches(reference(*map(user_message, [*kept, "another"])))


def test_after_a_cut_the_calls_that_wait_for_outputs_are_known_again() -> None:
    asked = turn(1, "add")
    call = asked.message.tool_calls[0].id
    held = Held()
    for message in (user_message("Hello"), asked.message, tool_message(call, "1"), turn(2, text="done").message):
        held.append(message.wire())
    held.cut_to(2)
    held.keep(call, "1")
    wanted = reference(user_message("Hello"), asked.message, tool_message(call, "1"))
    held.advance(wanted, {}, CHARS)
    assert held.matches(wanted)


def test_the_size_of_what_is_held_is_exact_whatever_happens_to_it() -> None:
    def sound(held: Held) -> None:
        again = Held()
        for message in held.messages:
            again.append(message)
        assert held.size == again.size + sum(len(text.encode()) for text in held.outputs.values())

    asked = turn(1, "add", "add")
    one, two = (call.id for call in asked.message.tool_calls)
    held = Held()
    held.append(user_message("Grüße").wire())
    held.append(asked.message.wire())
    held.keep(one, "é" * 100)
    held.keep(one, "é" * 50)
    held.keep(two, "x" * 70)
    sound(held)
    held.advance(Reference(length=4, digest="?"), {}, CHARS)
    assert len(held.messages) == 4
    sound(held)
    held.keep(one, "late")
    held.cut_to(1)
    sound(held)
    held.clear()
    assert held.size == len("late")


def test_the_least_recently_used_runs_go_first_and_the_bytes_stay_bounded() -> None:
    cache = TranscriptCache(max_bytes=10_000)

    def used(name: str, size: int) -> None:
        cache.held((name, "1")).append(user_message("é" * (size // 2)).wire())
        cache.count((name, "1"))

    def known(name: str) -> bool:
        return bool(cache.held((name, "1")).messages)

    for name in ("a", "b", "c"):
        used(name, 3000)
    cache.held(("a", "1"))
    used("d", 3000)
    assert known("a")
    assert known("c")
    assert known("d")
    assert not known("b")
    used("e", 20_000)
    assert known("e")
    assert not any(map(known, "abcd"))


def test_outputs_count_towards_the_bound_as_messages_do() -> None:
    cache = TranscriptCache(max_bytes=1000)
    cache.feed_output(("a", "1"), "call", "x" * 600)
    cache.feed_output(("b", "1"), "call", "x" * 600)
    assert cache.held(("a", "1")).outputs == {}
    assert cache.held(("b", "1")).outputs == {"call": "x" * 600}


def test_a_run_forgotten_during_its_model_call_is_no_error_and_does_not_count() -> None:
    cache = TranscriptCache(max_bytes=1000)
    held = cache.held(("slow", "1"))
    cache.feed_output(("busy", "1"), "call", "x" * 900)
    cache.feed_output(("busier", "1"), "call", "x" * 900)
    held.append(user_message("the answer, at last").wire())
    cache.count(("slow", "1"))
    assert cache.held(("slow", "1")) is not held


def test_many_small_runs_are_bounded_in_number() -> None:
    cache = TranscriptCache()
    for index in range(10_050):
        cache.held((f"run-{index}", "1"))
    cache.count(("run-10049", "1"))
    assert len(cache._runs) == 10_000
    assert ("run-0", "1") not in cache._runs


def test_two_links_of_one_run_are_held_apart() -> None:
    cache = TranscriptCache()
    agent = Agent(name="demo", model="m", tools=[ToolSpec(name="add")])
    cache.held(("run", "1")).agent = agent
    assert cache.agent(("run", "1")) is agent
    assert cache.agent(("run", "2")) is None
    assert ("run", "2") not in cache._runs


@pytest.mark.parametrize(
    ("output", "text"),
    [("plain", "plain"), ("", ""), (None, "null"), (3, "3"), ({"a": [1, "é"]}, '{"a":[1,"é"]}'), (True, "true")],
)
def test_a_text_is_shown_as_it_is_and_other_json_compactly(output: Any, text: str) -> None:
    assert tool_text(output) == text
    assert tool_content(output, CHARS) == text
