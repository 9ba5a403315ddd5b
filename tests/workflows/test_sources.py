"""The sources of a run: each once, in order, bounded, and nothing that is no link."""

from __future__ import annotations

from typing import Any

import pytest

from holdfast import Agent, tool
from holdfast.bounds import CARRIED_SOURCES_BYTES, SOURCES_MAX_BYTES, json_size
from holdfast.carried import Outcome
from holdfast.run import Source
from holdfast.worker.scripted import ChatRequest, Reply, call, say
from holdfast.workflows.sources import Sources, named_in
from tests.support.stage import MODEL, Stage, stage, timeline
from tests.support.stage import result as ended
from tests.workflows.states import ask, fresh, handed_over, settle, turn


def page(number: int | str, title: str = "") -> dict[str, str]:
    return {"url": f"https://example.org/{number}", "title": title}


def test_a_source_counts_once_with_the_first_title_that_says_anything() -> None:
    sources = Sources()
    sources.add({"sources": [page(1), page(2, "Two"), page(1, "One")]})
    sources.add({"text": "…", "sources": [page(2, "Other"), page(3)]})
    assert sources.all() == (Source(**page(1, "One")), Source(**page(2, "Two")), Source(**page(3)))


@pytest.mark.parametrize(
    "output",
    [
        None,
        "https://example.org",
        [page(1)],
        {"sources": "https://example.org"},
        {"sources": ["https://example.org", None, 7, {}]},
        {"sources": [{"url": 7}, {"url": "javascript:alert(1)"}, {"url": "file:///etc/passwd"}]},
        {"sources": [{"url": "https://example.org/a b"}, {"url": "https://example.org/\u202e"}]},
        {"sources": [{"url": "https://example.org/" + "x" * 2048}]},
    ],
)
def test_what_is_no_link_is_no_source(output: Any) -> None:
    assert list(named_in(output)) == []


def test_a_title_is_one_bounded_line_without_hidden_characters() -> None:
    (source,) = named_in({"sources": [{"url": "https://example.org", "title": "a\n\u202e" + "b" * 9_000}]})
    assert source.title.startswith(r"a \u202ebbb")
    assert len(source.title) == 300
    assert list(named_in({"sources": [{"url": "https://example.org", "title": 7}]})) == [
        Source(url="https://example.org")
    ]


def test_the_latest_200_of_at_most_64_kilobytes_are_kept() -> None:
    sources = Sources()
    sources.add({"sources": [page(number) for number in range(150)]})
    sources.add({"sources": [page(number) for number in range(100, 300)]})
    assert [each.url.rpartition("/")[2] for each in sources.all()] == [str(number) for number in range(100, 300)]
    for number in range(60):
        sources.add({"sources": [page(f"{number}{'x' * 2000}", "t" * 300)]})
    assert json_size([each.wire() for each in sources.all()]) <= SOURCES_MAX_BYTES + len(sources.all()) + 1
    assert sources.all()[-1].url.startswith("https://example.org/59")


def test_a_next_link_gets_the_latest_of_at_most_16_kilobytes_also_those_of_an_open_turn() -> None:
    state = fresh()
    ask(state)
    state.record(turn(1, "add"))
    settle(state, {"sources": [page(f"{number}{'x' * 500}") for number in range(60)]})
    ask(state)
    state.record(turn(2, "add", "look"))
    first, _ = state.turn.slots if state.turn else ("", "")
    state.settle(first, Outcome(output={"sources": [page("last")]}))
    following = handed_over(state)
    kept = following.summary()["sources"]
    assert json_size([each.wire() for each in kept]) <= CARRIED_SOURCES_BYTES + len(kept) + 1
    assert kept == state.summary()["sources"][-len(kept) :]
    assert kept[-1].url == "https://example.org/last"
    settle(following, None, {"sources": [page("last"), page("later")]})
    assert [each.url.rpartition("/")[2] for each in following.summary()["sources"][-2:]] == ["last", "later"]


@tool
def look_up(what: str) -> dict[str, Any]:
    """Look something up."""
    return {"text": f"all about {what}", "sources": [page(what, what.title()), page("common")]}


async def last_link(at: Stage, run_id: str) -> str:
    return (await at.client.get_workflow_handle(run_id).describe()).run_id


async def test_a_runs_result_lists_its_sources_over_many_links_and_its_timeline_has_the_same(address: str) -> None:
    def script(request: ChatRequest) -> Reply:
        return say("done") if request.turn >= 8 else call(("look_up", {"what": f"boat{request.turn}"}))

    agent = Agent(name="reader", model=MODEL, tools=[look_up])
    async with stage(address, script, [agent], continue_after_events=30) as at:
        result = await at.run("reader", message="Go")
        names = ["boat0", "common", *(f"boat{turn}" for turn in range(1, 8))]
        assert [each.url.rpartition("/")[2] for each in result.sources] == names
        assert [each.title for each in result.sources][:3] == ["Boat0", "", "Boat1"]
        folded, _ = await timeline(at.client, result.run_id)
        assert folded.state is not None
        assert folded.state.summary()["sources"] == result.sources
        again = await at.start(
            "reader", result.run_id, message="and?", after={"run": await last_link(at, result.run_id)}
        )
        assert [each.url.rpartition("/")[2] for each in (await ended(again)).sources] == names
