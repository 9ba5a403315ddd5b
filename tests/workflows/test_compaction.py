"""What is compacted, and when: whole turns, the oldest ones, and never for little."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from holdfast import Compaction, Message
from holdfast.ids import call_id
from holdfast.message import SUMMARY_HEADING, ToolCall, is_summary, tool_message, user_message
from holdfast.workflows.compaction import Span, compacted, plan, tokens_of

SUMMARY = "What was said and found so far."


def text(tokens: int) -> str:
    """A text of so many tokens, by estimate."""
    return "word" * tokens


def turn(step: int, *results: int, said: int = 0) -> list[Message]:
    """An assistant message of so many tokens, and its tools' results of so many tokens each."""
    calls = tuple(ToolCall.of(call_id(step, index, "look", "{}"), "look", "{}") for index in range(len(results)))
    answer = Message(role="assistant", content=text(said) or None, tool_calls=calls)
    return [answer, *(tool_message(call.id, text(size)) for call, size in zip(calls, results, strict=True))]


@st.composite
def transcripts(draw: st.DrawFn) -> list[Message]:
    """Prompts, then whole turns, after each of which people may have said something."""
    sizes = st.integers(0, 400)
    messages = [user_message(text(draw(sizes))) for _ in range(draw(st.integers(1, 3)))]
    for step in range(1, 1 + draw(st.integers(0, 12))):
        messages += turn(step, *draw(st.lists(sizes, max_size=4)), said=draw(sizes))
        messages += [user_message(text(draw(sizes))) for _ in range(draw(st.integers(0, 1)))]
    return messages


compactions = st.builds(Compaction, at_tokens=st.integers(500, 4000), keep_tokens=st.integers(0, 10_000))


def well_formed(messages: Sequence[Message]) -> bool:
    """Say whether every tool message answers a call of the assistant message before it, and every call is answered."""
    open_calls: list[str] = []
    for message in messages:
        if message.role == "tool":
            if message.tool_call_id not in open_calls:
                return False
            open_calls.remove(message.tool_call_id)
        elif open_calls:
            return False
        open_calls += [call.id for call in message.tool_calls]
    return not open_calls


def last_turn(messages: Sequence[Message]) -> list[Message]:
    """Return the last assistant message and all that follows it."""
    start = max(index for index, message in enumerate(messages) if message.role == "assistant")
    return list(messages[start:])


def opening(messages: Sequence[Message]) -> list[Message]:
    """Return what stands before the first assistant message."""
    first = next(index for index, message in enumerate(messages) if message.role == "assistant")
    return list(messages[:first])


@given(transcripts(), compactions)
def test_whole_turns_go_and_the_goal_and_the_last_turn_stay(messages: list[Message], compaction: Compaction) -> None:
    span = plan(messages, compaction)
    if span is None:
        return
    shorter = compacted(messages, span, SUMMARY)
    assert well_formed(messages)
    assert well_formed(messages[span.start : span.stop])
    assert well_formed(shorter)
    assert last_turn(shorter) == last_turn(messages)
    assert tokens_of(shorter) < tokens_of(messages)
    assert [is_summary(each) for each in shorter].count(True) == 1
    goal = opening(messages)
    if tokens_of(goal) <= compaction.at_tokens // 2:
        assert shorter[: len(goal)] == goal


@given(transcripts(), compactions, st.integers(0, 5000))
def test_planning_again_and_again_ends_however_long_the_summaries(
    messages: list[Message], compaction: Compaction, size: int
) -> None:
    rounds = 0
    while (span := plan(messages, compaction)) is not None:
        messages = compacted(messages, span, text(size))
        assert well_formed(messages)
        rounds += 1
        assert rounds < 100


@given(transcripts(), compactions, st.integers(0, 5000))
def test_a_long_run_is_compacted_as_often_as_it_grows_by_a_sixteenth_at_most(
    messages: list[Message], compaction: Compaction, size: int
) -> None:
    said: list[Message] = []
    rounds = 0
    for message in messages:
        said.append(message)
        if well_formed(said) and (span := plan(said, compaction)) is not None:
            said = compacted(said, span, text(size))
            rounds += 1
    assert rounds * (compaction.at_tokens // 16) <= tokens_of(messages)


def test_the_latest_turns_stay_as_far_as_keep_tokens_go() -> None:
    messages = [user_message("Go"), *(each for step in range(1, 11) for each in turn(step, 100))]
    assert plan(messages, Compaction(at_tokens=1000, keep_tokens=330)) == Span(1, 15)
    assert plan(messages, Compaction(at_tokens=1000, keep_tokens=0)) == Span(1, 19)


def test_a_keep_that_would_leave_nothing_to_summarise_is_bounded_by_half() -> None:
    messages = [user_message("Go"), *(each for step in range(1, 11) for each in turn(step, 98))]
    span = plan(messages, Compaction(at_tokens=1000, keep_tokens=1_000_000))
    assert span == Span(1, 13)
    assert tokens_of(compacted(messages, span, SUMMARY)) < 500


def test_a_dense_text_that_the_estimate_makes_too_little_of_is_compacted_as_well() -> None:
    """The provider counted more than 100,000 tokens: it is asked to be compacted, whatever the estimate."""
    messages = [user_message("去"), *(each for step in range(1, 27) for each in turn(step, 1000))]
    span = plan(messages, Compaction())
    assert span is not None
    assert tokens_of(messages[span.start : span.stop]) > tokens_of(messages) // 2 - 1000


def test_a_goal_of_half_the_room_is_summarised_too() -> None:
    large, small = user_message(text(600)), user_message("Go")
    turns = [*turn(1, 50), *turn(2, 50), *turn(3, 50)]
    compaction = Compaction(at_tokens=1000, keep_tokens=100)
    assert plan([large, small, *turns], compaction) == Span(0, 6)
    assert plan([small, small, *turns], compaction) == Span(2, 6)


def test_an_earlier_summary_is_summarised_again_and_is_no_goal() -> None:
    compaction = Compaction(at_tokens=500, keep_tokens=0)
    messages = [user_message("Go"), *turn(1, 300), *turn(2, 20)]
    first = plan(messages, compaction)
    assert first == Span(1, 3)
    messages = [*compacted(messages, first, "earlier"), *turn(3, 300), *turn(4, 20)]
    assert messages[1].content == f"{SUMMARY_HEADING}\n\nearlier"
    again = plan(messages, compaction)
    assert again == Span(1, 6)
    assert [each.content for each in compacted(messages, again, "later")[:2]] == ["Go", f"{SUMMARY_HEADING}\n\nlater"]


def test_an_earlier_summary_alone_is_not_worth_another() -> None:
    messages = compacted([user_message("Go"), *turn(1, 300)], Span(1, 3), text(4000)) + turn(2, 300)
    assert plan(messages, Compaction(at_tokens=500, keep_tokens=0)) is None


def test_one_turn_is_never_compacted_however_large() -> None:
    messages = [user_message("Go"), *turn(1, 5000, 5000), user_message("Well?")]
    assert plan(messages, Compaction(at_tokens=500)) is None
    assert plan(messages[:1], Compaction(at_tokens=500)) is None
    assert plan([], Compaction(at_tokens=500)) is None


def test_tokens_are_of_texts_thinking_and_calls() -> None:
    call = ToolCall.of("000000000", "look", '{"at": "it"}')
    message = Message(role="assistant", content="a" * 40, reasoning_content="b" * 24, tool_calls=(call,))
    assert tokens_of([message, tool_message(call.id, "c" * 40)]) == (40 + 24 + 4 + 12 + 40) // 4
