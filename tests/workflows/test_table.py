"""The table of states and actions, cell by cell on the real server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import WorkflowUpdateFailedError
from temporalio.service import RPCError, RPCStatusCode

from holdfast.client.timeline import Timeline
from tests.support.plays import AGENTS, script, until
from tests.support.scenes import LINKS_STEPS, SOON, Scene, scene
from tests.support.stage import Stage, stage, timeline
from tests.workflows.table import CALL, CELLS, CLOSED, END, OPEN, markdown, outcome

ROOT = Path(__file__).parents[2]
Cell = tuple[str, str]
AHEAD = 8
"""Cells that are under way at once."""
STOP_SECONDS = 3.0
"""For a stop while others are under way; alone it takes less than a second."""

ACT: dict[str, Callable[[Scene], Awaitable[Any]]] = {
    "pause": lambda at: at.run.signal("pause", {"reason": "lunch"}),
    "resume": lambda at: at.run.signal("resume"),
    "interrupt": lambda at: at.run.signal("interrupt", {"reason": "enough"}),
    "cancel": lambda at: at.run.cancel(),
    "append": lambda at: at.run.signal("append_message", {"text": "also", "id": "m1"}),
    "approve": lambda at: at.decide("approve"),
    "deny": lambda at: at.decide("deny"),
    "answer": lambda at: at.answer(),
    "query": lambda at: at.run.query("status"),
    "describe": lambda at: at.runs.status(at.run.id),
    "again": lambda at: at.start(),
    "again-append": lambda at: at.start(
        start_signal="append_message", start_signal_args=[{"text": "also", "id": "m1"}]
    ),
}
NEEDS_WORKER = ("approve", "deny", "answer", "query")


class Table:
    """Plays cells: the next ones are under way already while one is awaited."""

    def __init__(self, cells: list[Cell], at: Stage, rolling: Stage) -> None:
        self.cells = cells
        self.at = at
        self.rolling = rolling
        self.under_way: dict[Cell, asyncio.Task[None]] = {}

    async def play(self, cell: Cell) -> None:
        """Play one cell to its end."""
        first = self.cells.index(cell)
        for each in self.cells[first : first + AHEAD]:
            if each not in self.under_way:
                at = self.rolling if each[0] == "rolling" else self.at
                self.under_way[each] = asyncio.create_task(play(at, *each))
        await self.under_way[cell]


@pytest.fixture(scope="module")
async def table(request: pytest.FixtureRequest, address: str) -> AsyncIterator[Table]:
    items = [item for item in request.session.items if isinstance(item, pytest.Function)]
    cells = [item.callspec.params for item in items if item.originalname == test_cell.__name__]
    async with (
        stage(address, script, AGENTS) as at,
        stage(address, script, AGENTS, continue_after_events=20) as rolling,
    ):
        made = Table([(str(each["state"]), str(each["action"])) for each in cells], at, rolling)
        yield made
        for task in made.under_way.values():
            task.cancel()
        await asyncio.gather(*made.under_way.values(), return_exceptions=True)


@pytest.mark.parametrize(("state", "action"), CELLS, ids=["/".join(cell) for cell in CELLS])
async def test_cell(table: Table, state: str, action: str) -> None:
    await table.play((state, action))


def test_the_documented_table_is_the_one_that_is_tested() -> None:
    assert markdown() in (ROOT / "docs" / "runs.md").read_text()


@pytest.mark.parametrize("action", ["interrupt", "cancel"])
@pytest.mark.parametrize("state", ["streaming", "silent"])
async def test_a_stop_closes_the_models_socket_within_a_second(address: str, state: str, action: str) -> None:
    async with stage(address, script, AGENTS) as at, scene(at, state) as met:
        assert at.model.aborted == 0
        began = time.monotonic()
        await ACT[action](met)
        await until(lambda: at.model.aborted == 1)
        assert at.model.aborted_at[0] - began < 1
        await met.ended()
        assert time.monotonic() - began < 1.5


async def play(stage: Stage, state: str, action: str) -> None:
    """Bring a run into a state, act, let it end, and see whether all is as the table says."""
    word = outcome(state, action)
    async with scene(stage, state, 30.0 if word in ("interrupted", "cancelled") else SOON) as at:
        if state in CLOSED:
            await _after_the_end(at, action, word)
            return
        await _act(at, action, word)
        match word:
            case "held":
                await _see_it_held(at)
            case "interrupted" | "cancelled":
                began = time.monotonic()
                if at.serve is not None:
                    await at.release()
                await at.ended()
                assert time.monotonic() - began < STOP_SECONDS
            case _:
                await at.release()
                await at.finish()
        await at.ended()
        await (_check_links if state == "rolling" else _check)(at, word)


async def _act(at: Scene, action: str, word: str) -> None:
    """Act, and see that the answer is the one that the table says."""
    acting = asyncio.ensure_future(ACT[action](at))
    if action in NEEDS_WORKER and at.serve is not None:
        await at.release()
    try:
        answer = await acting
    except WorkflowUpdateFailedError as error:
        kind = "AnswerRefused" if action == "answer" else "DecisionRefused"
        assert (word, getattr(error.cause, "type", None)) == ("refused", kind)
        return
    assert word != "refused"
    at.taken = word.partition(",")[0] in ("approved", "denied", "answered", "wakes")
    if action == "query":
        assert answer["status"] == ("running" if word == "later" else word)
        waits = {"paused-approval": "approval", "resting": "timer", "parked": "model"}
        kinds = [waits.get(at.state, at.state)] if at.state in (*waits, "approval", "answer") else []
        assert [each["kind"] for each in answer["waiting_for"]] == kinds
    if action == "describe":
        assert answer.status == word
    if word == "joined":
        assert (await at.run.describe()).run_id == at.link or at.state == "rolling"


async def _see_it_held(at: Scene) -> None:
    """See that what is under way ends, that nothing else begins, and that people are still heard."""
    if OPEN[at.state].ends:  # what is under way is seen to its end first
        assert (await at.runs.status(at.run.id)).status == OPEN[at.state].shown
    await at.release()
    await at.shown("paused")
    assert (await at.run.query("status"))["status"] == "paused"
    assert not (await at.run.describe()).raw_description.pending_activities
    await at.run.signal("resume")
    await at.finish()


def told(state: str, word: str) -> list[str]:
    """Return the events that the timeline of a cell must tell, in order."""
    at = OPEN[state]
    match word:
        case "held":
            return [*at.before, "paused", *at.ends, "resumed", *at.rest]
        case "interrupted" | "cancelled":
            end = {"interrupted": "run_interrupted", "cancelled": "task_cancelled"}[word]
            return [*at.before, *at.aborted, end]
        case "heard":
            return [*at.before, "user_added_message", *at.ends, *at.rest]
        case "denied":
            return [*at.before, "approval_resolved", *END]
        case "denied, held":
            return [*at.before, "approval_resolved", "resumed", *END]
        case "approved, held":
            return [*at.before, "approval_resolved", "resumed", *CALL, *END]
        case _:
            return [*at.before, *at.ends, *at.rest]


async def _check(at: Scene, word: str) -> None:
    state = OPEN[at.state]
    folded, events = await timeline(at.at.client, at.run.id)
    found, expected = [event.type for event in events], told(at.state, word)
    if at.state == "loading" and word in ("interrupted", "cancelled"):  # the load may have ended by then
        found = [each for each in found if each != "declared_functions"]
    assert found == expected
    stopped = word in ("interrupted", "cancelled")
    again = 0 if stopped else 1
    built_in = expected.count("tool_called") if at.state == "resting" else 0
    assert len(at.play.asked) == expected.count("model_called") + again * (state.retried == "model")
    assert len(at.play.ran) == expected.count("tool_called") - built_in + again * (state.retried == "flaky")
    assert len(set(at.play.ran)) == len(at.play.ran)
    last = "also" if word in ("heard", "wakes") else "wake" if at.state == "resting" else at.play.key
    await _ends_as(at, folded, word if stopped else "completed", state.partial if stopped else f"Done: {last}")


async def _check_links(at: Scene, word: str) -> None:
    """See to a run of many links: it goes through the same, wherever the action met it."""
    folded, events = await timeline(at.at.client, at.run.id)
    found = [event.type for event in events]
    assert found.count("run_started") == 1
    assert len(set(at.play.ran)) == len(at.play.ran)
    if word in ("interrupted", "cancelled"):
        assert found[-1] == {"interrupted": "run_interrupted", "cancelled": "task_cancelled"}[word]
        assert len(at.play.asked) <= found.count("model_called")
        assert folded.state is None or folded.state.steps >= 2
        await _ends_as(at, folded, word, "")
        return
    assert found.count("run_continued") >= 3
    assert (len(at.play.asked), len(at.play.ran)) == (LINKS_STEPS + 1, LINKS_STEPS)
    assert (found.count("model_called"), found.count("tool_completed")) == (LINKS_STEPS + 1, LINKS_STEPS)
    assert found.count("user_added_message") == (word == "heard")
    assert (found.count("paused"), found.count("resumed")) == ((1, 1) if word == "held" else (0, 0))
    if word == "held":
        meanwhile = found[found.index("paused") : found.index("resumed")]
        assert not {"step_started", "tool_called"} & set(meanwhile)
    await _ends_as(at, folded, "completed", f"Done: {'also' if word == 'heard' else at.play.key}")


async def _after_the_end(at: Scene, action: str, word: str) -> None:
    _, before = await timeline(at.at.client, at.run.id)
    link, asked = (await at.run.describe()).run_id, len(at.play.asked)
    if action.startswith("again"):
        await _start_again(at, action, word)
        return
    if word == "gone":
        with pytest.raises(RPCError) as gone:
            await ACT[action](at)
        assert gone.value.status == RPCStatusCode.NOT_FOUND
    else:
        await _act(at, action, word)
    folded, after = await timeline(at.at.client, at.run.id)
    assert after == before
    assert ((await at.run.describe()).run_id, len(at.play.asked)) == (link, asked)
    status = "failed" if at.state == "terminated" else at.state
    await _ends_as(at, folded, status, None)


async def _start_again(at: Scene, action: str, word: str) -> None:
    asked, stopped = len(at.play.asked), at.state in ("cancelled", "interrupted", "terminated")
    at.play.gate.set()
    await ACT[action](at)
    await at.ended()
    folded, events = await timeline(at.at.client, at.run.id)
    link = (await at.run.describe()).run_id
    assert link != at.link
    expected = ["run_started", *["user_added_message"] * word.endswith("heard"), "declared_functions"]
    expected += CALL if stopped else ()
    expected += ["run_completed"] if word == "repeated" else END
    assert [event.type for event in events if event.id.startswith(link)] == expected
    assert len(at.play.asked) == asked + expected.count("model_called")
    if stopped:  # what was aborted is called again, under the same key
        (first, second) = at.play.ran
        assert first == second
    text = "As far as I know." if at.state == "degraded" else f"Done: {at.play.key}"
    await _ends_as(at, folded, "completed", "Done: also" if word.endswith("heard") else text, run_seq=2)


async def _ends_as(at: Scene, folded: Timeline, status: str, text: str | None, run_seq: int = 1) -> None:
    """See that the run's end, its transcript and what the client tells of it are the same."""
    run = await at.runs.get(at.run.id)
    assert folded.result is not None
    assert run.result == folded.result
    assert (run.status, folded.result.status, folded.result.run_seq) == (status, status, run_seq)
    assert (await at.runs.status(at.run.id)).status == status
    if text is not None:
        assert run.final_text.startswith(text)
        assert bool(run.final_text) == bool(text)
    if folded.state is None:  # a link that was stopped before it had begun has no transcript of its own
        return
    messages: list[dict[str, Any]] = []
    start: int | None = 0
    while start is not None:
        page = await at.run.query("transcript", {"start": start})
        messages += page["messages"]
        start = page.get("next")
    told = [message.wire() for message in folded.messages]
    if status in ("cancelled", "interrupted"):
        if not messages:  # it was stopped as its load ended: history has the load, and the run never began
            return
        # The SDK drops a result that comes with the word to stop; history has it, and a later start counts it.
        assert all(each["role"] == "tool" for each in told[len(messages) :])
        told = told[: len(messages)]
    assert told == messages
