"""What a thread decides, without a server: turns in order, nobody twice, nothing lost."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast import Agent, Compaction, Message, ToolCall
from holdfast.activities.past import Past
from holdfast.activities.threads import said
from holdfast.bounds import THREAD_QUEUE_MAX
from holdfast.calls import LoadedAgent
from holdfast.carried import Carried, Reference
from holdfast.message import Transcript, tool_message, user_message, whole_turns
from holdfast.request import After, RunRequest
from holdfast.threads import Collected, CompactThread, Entering, ThreadCarried, Visit
from holdfast.workflows.handover import carry
from holdfast.workflows.in_thread import join
from holdfast.workflows.thread_state import Gather, Give, Rest, ThreadState
from tests.workflows.states import ask, fresh, roles, settle, turn

AGENT = Agent(name="demo", model="m")
LOADED = LoadedAgent(agent=AGENT, revision=AGENT.revision, prompts=("Hello",))


def entering(name: str, start: int = 1, after: str | None = None) -> Entering:
    return Entering(run_id=name, first_link=f"{name}-{start}", link=f"{name}-{start}", after=after)


def visit(name: str, start: int = 1, link: str | None = None) -> Visit:
    return Visit(run_id=name, first_link=f"{name}-{start}", link=link or f"{name}-{start}")


def assistant(text: str | None = None, *calls: str) -> Message:
    made = tuple(ToolCall.of(call, "f", "{}") for call in calls)
    return Message(role="assistant", content=text, tool_calls=made)


def exchange(text: str) -> list[dict[str, Any]]:
    return [user_message(text).wire(), assistant(f"re {text}").wire()]


def give(state: ThreadState, now: float = 0.0) -> Give:
    move = state.next_move(now)
    assert isinstance(move, Give), move
    state.told(move.turn)
    return move


def end(state: ThreadState, name: str, start: int = 1, now: float = 0.0) -> None:
    state.left(visit(name, start))
    assert isinstance(state.next_move(now), Gather)
    state.collected(Collected(state="closed"), exchange(name))


def reference(messages: list[Message]) -> Reference:
    transcript = Transcript()
    for message in messages:
        transcript.append(message)
    return Reference(length=len(transcript), digest=transcript.digest())


def texts(state: ThreadState) -> list[str | None]:
    return [message.text for message in state.memory.messages]


def test_runs_get_their_turn_in_the_order_in_which_they_came() -> None:
    state = ThreadState()
    assert state.next_move(0) == Rest()
    for name in "abc":
        state.enter(entering(name))
    for name in "abc":
        assert give(state).run_id == name
        assert isinstance(state.next_move(0), Rest)
        end(state, name)
    assert texts(state) == ["a", "re a", "b", "re b", "c", "re c"]
    assert (state.next_move(0), state.runs) == (Rest(), 3)


def test_asking_twice_counts_once_and_the_holder_is_told_again() -> None:
    state = ThreadState()
    for name in "aabab":
        state.enter(entering(name))
    give(state)
    assert [each.run_id for each in state.queue] == ["b"]
    state.enter(entering("a"))
    assert give(state).run_id == "a"
    assert [each.run_id for each in state.queue] == ["b"]


def test_a_run_that_leaves_before_its_turn_is_out_of_the_queue() -> None:
    state = ThreadState()
    for name in "abc":
        state.enter(entering(name))
    give(state)
    state.left(visit("b"))
    state.left(visit("nobody"))
    end(state, "a")
    assert give(state).run_id == "c"


def test_nobody_looks_after_the_holder_while_no_other_run_waits() -> None:
    state = ThreadState()
    state.enter(entering("a"))
    give(state)
    assert state.next_move(1_000_000) == Rest(None)


def test_while_others_wait_the_holder_is_looked_after_ever_more_seldom() -> None:
    state, now, rests = ThreadState(), 100.0, []
    for name in "ab":
        state.enter(entering(name))
    give(state)
    for _ in range(8):
        move = state.next_move(now)
        assert isinstance(move, Rest)
        assert move.seconds is not None
        rests.append(move.seconds)
        now += move.seconds
        assert state.next_move(now) == Gather(visit("a"), wait=False)
        state.not_ended(now)
    assert rests == [2, 2, 4, 8, 16, 32, 60, 60]
    state.left(visit("a", link="a-last"))
    assert state.next_move(now) == Gather(visit("a", link="a-last"), wait=True)


def test_a_run_that_has_left_and_goes_on_keeps_its_turn_and_is_seen_to_at_once_when_it_leaves_again() -> None:
    state = ThreadState()
    state.enter(entering("a"))
    give(state)
    state.left(visit("a"))
    state.to_collect(visit("a"), wait=True)
    state.not_ended(100.0)
    assert (state.leaving, state.next_move(100.0)) == (False, Rest(None))
    state.left(visit("a", link="a-2"))
    assert state.next_move(100.0) == Gather(visit("a", link="a-2"), wait=True)
    state.to_collect(visit("a"), wait=True)
    state.left(visit("a", link="a-3"))
    state.not_ended(120.0)  # what was found before it left once more
    assert (state.leaving, state.next_move(120.0)) == (True, Rest(2.0))
    assert state.next_move(122.0) == Gather(visit("a", link="a-3"), wait=True)


def test_a_run_that_starts_again_has_ended_before_at_the_link_that_it_names() -> None:
    state = ThreadState()
    for name in "ab":
        state.enter(entering(name))
    give(state)
    state.enter(entering("a", 2, after="a-last"))
    assert state.next_move(0) == Gather(visit("a", 1, link="a-last"), wait=True)
    state.enter(entering("b", 2))
    assert [each.first_link for each in state.queue] == ["a-2", "b-2"]


def test_a_run_whom_nobody_can_reach_is_seen_to_at_once() -> None:
    state = ThreadState()
    state.enter(entering("a"))
    move = state.next_move(0)
    assert isinstance(move, Give)
    state.unreachable(move.turn)
    assert isinstance(state.next_move(0), Gather)


def test_a_run_that_cannot_be_collected_is_given_up_at_last() -> None:
    state, now, tries = ThreadState(), 0.0, 0
    for name in "ab":
        state.enter(entering(name))
    give(state)
    state.left(visit("a"))
    while True:
        move = state.next_move(now)
        if isinstance(move, Rest):
            now += move.seconds or 0
            continue
        assert isinstance(move, Gather)
        tries += 1
        if not state.not_collected(now):
            break
    assert (tries, give(state).run_id) == (20, "b")


def test_the_queue_is_bounded() -> None:
    state = ThreadState()
    for number in range(THREAD_QUEUE_MAX):
        assert state.enter(entering(f"r{number}"))
    assert not state.enter(entering("one-more"))
    assert state.enter(entering("r0"))


def test_a_thread_is_handed_on_and_restored_as_it_was() -> None:
    state = ThreadState(created_at=5.0)
    for name in "abc":
        state.enter(entering(name))
    give(state)
    end(state, "a")
    give(state)
    carried = ThreadCarried.recorded(state.carried("link").wire())
    again = ThreadState.going_on(carried)
    again.restored([message.wire() for message in state.memory.messages])
    assert again.carried("link") == carried
    assert again.next_move(0) == state.next_move(0)
    assert texts(again) == texts(state)


def test_a_compaction_beside_the_holder_leaves_what_it_was_given_to_be_read() -> None:
    state = ThreadState()
    for name in "abc":
        state.enter(entering(name))
        give(state)
        end(state, name)
    state.enter(entering("d"))
    given_ = give(state).turn.memory
    assert state.may_be_handed_on
    call = state.to_compact(CompactThread(model="m"))
    assert call is not None
    assert (call.start, call.stop) == (0, 4)
    state.compacted(call, "short", state.usage)
    assert [state.may_be_handed_on] == [False]
    assert len(state.shown_to(given_.digest)) == 6
    assert [each.role for each in state.shown_to(None)] == ["user", "user", "assistant"]
    with pytest.raises(ValueError, match="something else"):
        state.shown_to("0" * 32)
    assert state.to_compact(CompactThread(model="m")) is None


def test_a_thread_without_two_turns_or_a_model_is_not_compacted() -> None:
    state = ThreadState()
    assert state.to_compact(CompactThread(model="m")) is None
    state.restored([*exchange("a"), *exchange("b")])
    assert state.to_compact(CompactThread()) is None
    assert state.to_compact(CompactThread(model="m")) is not None
    assert state.to_compact(CompactThread(model="m", keep_tokens=1_000_000)) is None


# What a run adds


def past(messages: list[Message], **carried: Any) -> Past:
    return Past(LOADED, [message.wire() for message in messages], Carried(link="x", **carried))


MEMORY = [user_message("a"), assistant("b"), user_message("c"), assistant("d")]
OWN = [user_message("e"), assistant("f")]


def test_a_run_adds_what_follows_the_memory_that_it_read() -> None:
    told = past([*MEMORY, *OWN], memory=reference(MEMORY), handed_over=4)
    assert said(told, reference(MEMORY)) == ([message.wire() for message in OWN], False)
    assert said(told, reference(MEMORY[:2])) == ([message.wire() for message in OWN], False)


def test_a_run_that_has_compacted_the_memory_replaces_it_unless_it_has_changed_since() -> None:
    shorter = [user_message("summary"), *OWN]
    told = past(shorter, memory=reference(MEMORY), handed_over=1)
    assert said(told, reference(MEMORY)) == ([message.wire() for message in shorter], True)
    assert said(told, reference(MEMORY[:2])) == ([message.wire() for message in OWN], False)


def test_a_run_that_has_read_nothing_adds_nothing() -> None:
    assert said(past(OWN), reference([])) == ([], False)
    assert said(Past(None, [], Carried(link="x")), reference([])) == ([], False)


def test_messages_that_no_model_has_seen_are_not_added() -> None:
    told = past([*OWN, user_message("unread")], memory=reference([]), inbox=1)
    assert said(told, reference([])) == ([message.wire() for message in OWN], False)


def test_an_unfinished_turn_is_left_out() -> None:
    messages = [*OWN, user_message("g"), assistant(None, "c1", "c2"), tool_message("c1", "x")]
    assert whole_turns(messages) == 3
    assert whole_turns([*messages, tool_message("c2", "y")]) == 6
    assert whole_turns([]) == 0


_TURNS = st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=8)


@given(_TURNS, st.data())
def test_whatever_a_run_had_come_to_what_is_kept_is_well_formed_and_a_beginning(
    turns: list[tuple[int, bool]], data: st.DataObject
) -> None:
    messages: list[Message] = []
    for number, (calls, asked) in enumerate(turns):
        if asked:
            messages.append(user_message(f"u{number}"))
        ids = [f"{number}-{index}" for index in range(calls)]
        messages += [assistant("x", *ids), *(tool_message(each, "y") for each in ids)]
    cut = messages[: data.draw(st.integers(0, len(messages)))]
    kept = cut[: whole_turns(cut)]
    open_calls: set[str | None] = set()
    for message in kept:
        assert message.role == "tool" or not open_calls
        open_calls |= {call.id for call in message.tool_calls}
        open_calls.discard(message.tool_call_id)
    assert not open_calls
    lost = cut[len(kept) :]
    assert not lost or len(lost[0].tool_calls) > len(lost) - 1


_ACTS = st.lists(
    st.tuples(st.sampled_from(["enter", "leave", "again", "step", "compact", "carry", "time"]), st.integers(0, 4)),
    max_size=60,
)


@given(_ACTS)
def test_whatever_comes_one_run_at_a_time_has_its_turn_and_all_that_was_collected_stays(
    acts: list[tuple[str, int]],
) -> None:
    state, now, starts = ThreadState(model="m"), 0.0, dict.fromkeys(range(5), 1)
    collected: list[str] = []
    for act, number in acts:
        name = f"r{number}"
        match act:
            case "enter":
                state.enter(entering(name, starts[number]))
            case "leave":
                state.left(visit(name, starts[number]))
            case "again":
                starts[number] += 1
                state.enter(entering(name, starts[number]))
            case "time":
                now += 10 * number
            case "carry":
                messages = [message.wire() for message in state.memory.messages]
                if state.may_be_handed_on:
                    carried = ThreadCarried.recorded(state.carried("link").wire())
                    state = ThreadState.going_on(carried)
                    state.restored(messages)
            case "compact":
                call = state.to_compact(CompactThread())
                if call is not None:
                    kept = " ".join(str(each.content) for each in state.memory.messages[: call.stop])
                    state.compacted(call, kept, state.usage)
            case "step":
                match state.next_move(now):
                    case Give(_, turn_given):
                        state.told(turn_given)
                    case Gather(asked, wait):
                        if wait:
                            word = f"w{len(collected)}."
                            collected.append(word)
                            state.collected(Collected(state="closed"), exchange(word))
                        else:
                            state.not_ended(now)
                        assert state.holder is None or state.holder.visit == asked
                    case Rest(seconds):
                        assert seconds is None or state.queue or state.holder is not None
        keys = [each.key for each in state.queue]
        if state.holder is not None:
            assert state.holder.visit.key not in keys
        assert len({each.run_id for each in state.queue}) == len(keys)
    remembered = " ".join(str(text) for text in texts(state))
    assert all(word in remembered for word in collected)


# A run in its thread


def test_a_memory_is_put_before_what_the_run_was_asked() -> None:
    state = fresh(prompts=("mine",))
    state.remember(MEMORY, reference(MEMORY))
    assert (roles(state), state.own_from, state.handed_over) == ("uauau", 4, 4)
    (pushed,) = state.talk.push()
    assert (pushed.index, pushed.message["content"]) == (4, "mine")
    assert state.last_text() == ""


def test_a_compaction_of_the_memory_keeps_the_runs_own_part_apart() -> None:
    long = [user_message("a" * 4000), assistant("b" * 4000), user_message("c" * 4000), assistant("d" * 4000)]
    state = fresh(prompts=("mine",), compaction=Compaction(at_tokens=500, keep_tokens=10))
    state.remember(long, reference(long))
    move = state.next_move()
    call = getattr(move, "call")  # noqa: B009 - any move would have one
    assert call.stop <= 4
    state.compacted(call, "short", state.usage)
    assert state.transcript.messages[state.own_from].content == "mine"
    assert state.handed_over == state.own_from
    assert carry(state, "x").memory == reference(long)


@pytest.mark.parametrize(
    ("after", "read", "handed_over"),
    [
        (After(run="x"), reference([]), 4),
        (After(run="x"), None, 0),
        (After(run="x", workflow_id="other"), None, 4),
    ],
)
def test_what_a_run_takes_over_counts_as_handed_over_once_it_has_read_the_memory(
    after: After, read: Reference | None, handed_over: int
) -> None:
    state = fresh(prompts=("mine",))
    state.memory = read
    ask(state)
    state.record(turn(1, "add"))
    settle(state)
    ask(state)
    state.record(turn(2, text="So."))
    join(state, RunRequest(agent="demo", thread_id="t", after=after), "me")
    assert (state.handed_over, state.own_from, state.awaits_thread) == (handed_over, 0, "t")
