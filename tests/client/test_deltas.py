"""Live text: what a model says, while it says it."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Iterable
from typing import Any

import pytest

from holdfast import Agent, AsyncClient, Client, Event, InputInvalid, ModelSettings, NoWorker, tool
from holdfast.event import TERMINAL_EVENTS
from holdfast.worker.scripted import ChatRequest, Reply, Script, call, fail, say, truncate
from tests.support.stage import KEY, MODEL, Stage, stage


@tool
def add(left: int, right: int) -> int:
    """Add."""
    return left + right


AGENT = Agent(name="telling", model=MODEL, tools=[add], model_settings=ModelSettings(max_attempts=3))
TEXT = " ".join(f"word {number}\n" if number % 9 == 0 else f"wörd {number}" for number in range(40))
"""As slow as it is told here, it takes about three seconds."""
PACE = 0.1


@pytest.fixture
async def at(address: str) -> AsyncIterator[Stage]:
    async with stage(address, lambda _: say(TEXT, pace=PACE), [AGENT]) as staged:
        yield staged


@pytest.fixture
def client(at: Stage) -> AsyncClient:
    return AsyncClient(temporal=at.client, task_queue=at.task_queue)


async def _started(client: AsyncClient, agent: str | Agent = "telling") -> str:
    name, whole = (None, agent) if isinstance(agent, Agent) else (agent, None)
    return (await client.runs.create(name, agent=whole, message="Tell me")).id


async def _all(client: AsyncClient, run_id: str, after: str | None = None, *, deltas: bool = True) -> list[Event]:
    return [event async for event in client.runs.stream_events(run_id, after=after, deltas=deltas)]


def _deltas(events: Iterable[Event], attempt: int | None = None) -> list[Event]:
    found = [event for event in events if event.type == "text_delta"]
    return found if attempt is None else [event for event in found if event.data["attempt"] == attempt]


def _told(events: Iterable[Event], attempt: int | None = None) -> str:
    """Put deltas together, each of which must go on where the one before it ended."""
    text = ""
    for delta in _deltas(events, attempt):
        assert delta.data["offset"] == len(text)
        text += delta.data["text"]
    return text


def _plain(events: Iterable[Event]) -> list[Event]:
    return [event for event in events if event.type != "text_delta"]


async def test_the_deltas_of_a_text_are_the_text_and_come_while_it_grows(client: AsyncClient) -> None:
    run_id = await _started(client)
    early = []
    async for event in client.runs.stream_events(run_id, deltas=True):
        early.append(event)
        if event.type == "text_delta" and len(_deltas(early)) == 3:
            assert (await client.runs.status(run_id)).status == "running"
    assert _told(early) == TEXT
    assert len(_deltas(early)) > 3
    types = [event.type for event in early]
    assert types[: types.index("text_delta")][-1] == "model_called"
    assert types[types.index("model_completed") - 1] == "text_delta"
    assert _plain(early) == await _all(client, run_id, deltas=False)
    called, delta = early[types.index("model_called")], _deltas(early)[0]
    assert (delta.data["attempt"], delta.data["step"], delta.data["offset"]) == (1, 1, 0)
    assert delta.id == f"{called.id}~1.{len(delta.data['text'])}"
    assert delta.created_at >= called.created_at
    assert "\n" not in delta.message
    assert len({event.id for event in early}) == len(early)


async def test_readers_at_once_are_independent_and_a_late_one_has_the_whole_text(client: AsyncClient) -> None:
    run_id = await _started(client)
    others: list[asyncio.Task[list[Event]]] = []
    seen = []
    async for event in client.runs.stream_events(run_id, deltas=True):
        seen.append(event)
        if event.type == "text_delta" and len(others) < 2:
            others.append(asyncio.create_task(_all(client, run_id)))
            await asyncio.sleep(0.7)  # a slow reader
    for events in [seen, *[await other for other in others], await _all(client, run_id)]:
        assert _told(events) == TEXT
        assert _plain(events) == _plain(seen)


async def test_a_reader_that_reconnects_at_every_event_misses_nothing_and_sees_nothing_twice(
    client: AsyncClient,
) -> None:
    run_id = await _started(client)
    seen: list[Event] = []
    while not seen or seen[-1].type not in TERMINAL_EVENTS:
        async for event in client.runs.stream_events(run_id, after=seen[-1].id if seen else None, deltas=True):
            seen.append(event)
            break
        if seen[-1].type == "text_delta" and len(_deltas(seen)) == 2:
            await client.runs.append_message(run_id, "And now?")
    said = [event for event in _deltas(seen) if event.data["step"] == 1]
    assert len(said) > 3
    assert _told(said) == _told(event for event in _deltas(seen) if event.data["step"] == 2) == TEXT
    types = [event.type for event in seen]
    assert types.index("user_added_message") < types.index("model_completed")
    assert [event.type for event in _plain(seen)] == [event.type for event in await _all(client, run_id, deltas=False)]


async def test_a_cursor_within_a_text_leads_to_its_rest_once_the_run_has_ended(client: AsyncClient) -> None:
    run_id = await _started(client)
    seen = await _all(client, run_id)
    rest = _plain(seen)[next(place for place, each in enumerate(_plain(seen)) if each.type == "model_completed") :]
    for delta in _deltas(seen):
        again = await _all(client, run_id, delta.id)
        end = delta.data["offset"] + len(delta.data["text"])
        assert [event.data["offset"] for event in _deltas(again)] == ([end] if end < len(TEXT) else [])
        assert TEXT[:end] + "".join(event.data["text"] for event in _deltas(again)) == TEXT
        assert again[len(_deltas(again)) :] == rest
        assert await _all(client, run_id, delta.id, deltas=False) == rest
    called = next(event for event in seen if event.type == "model_called")
    for wrong in (f"{seen[0].id}~1.5", f"{rest[0].id}~1.5", f"{called.id}~1", f"{called.id}~1.5.5", f"{called.id}~x.5"):
        with pytest.raises(InputInvalid, match="is not a cursor of run"):
            await _all(client, run_id, wrong)


async def test_a_new_attempt_begins_its_text_anew_and_a_failed_one_is_not_completed(
    client: AsyncClient, at: Stage
) -> None:
    at.model.script = lambda request: (
        truncate(say(f"Never mind. {TEXT}", pace=PACE)) if request.number == 1 else say(TEXT, pace=PACE)
    )
    run_id = await _started(client)
    seen = await _all(client, run_id)
    failed = _told(seen, attempt=1)
    assert 0 < len(failed) < len(f"Never mind. {TEXT}")
    assert f"Never mind. {TEXT}".startswith(failed)
    assert _told(seen, attempt=2) == TEXT
    assert len(_deltas(seen, attempt=2)) > 3
    assert [event.data["attempt"] for event in seen if event.type == "model_completed"] == [2]
    again = await _all(client, run_id, _deltas(seen, attempt=1)[0].id)
    assert [event.data["text"] for event in _deltas(again)] == [TEXT]


async def test_a_reader_that_left_in_a_failed_attempt_comes_back_to_the_next_ones_text(
    client: AsyncClient, at: Stage
) -> None:
    at.model.script = lambda request: (
        truncate(say(TEXT, pace=PACE)) if request.number == 1 else say(f"Again: {TEXT}", pace=PACE)
    )
    run_id = await _started(client)
    async for event in client.runs.stream_events(run_id, deltas=True):
        if event.type == "text_delta":
            break
    while at.model.hits < 2:
        await asyncio.sleep(0.05)
    again = await _all(client, run_id, event.id)
    assert TEXT.startswith(event.data["text"] + "".join(each.data["text"] for each in _deltas(again, attempt=1)))
    assert _told(again, attempt=2) == f"Again: {TEXT}"


async def test_an_attempt_that_said_nothing_is_not_taken_for_the_one_before_it(client: AsyncClient, at: Stage) -> None:
    def script(request: ChatRequest) -> Reply:
        if request.number == 1:
            return truncate(say(TEXT, pace=PACE))
        return fail(503, delay=1.5) if request.number == 2 else say("Done.", delay=1.5)

    at.model.script = script
    seen = await _all(client, await _started(client))
    assert {event.data["attempt"] for event in _deltas(seen)} == {1, 3}
    assert _told(seen, attempt=3) == "Done."


async def test_an_agent_that_does_not_stream_has_each_text_as_one_delta(client: AsyncClient, at: Stage) -> None:
    def script(request: ChatRequest) -> Reply:
        adds = call(("add", {"left": 1, "right": 2}), text="Adding.", delay=0.6)
        return (adds, call(("add", {"left": 1, "right": 2})), say(TEXT, delay=0.6))[request.turn]

    at.model.script = script
    agent = AGENT.model_copy(update={"model_settings": ModelSettings(stream=False)})
    seen = await _all(client, await _started(client, agent))
    assert [(event.data["step"], event.data["offset"], event.data["text"]) for event in _deltas(seen)] == [
        (1, 0, "Adding."),
        (3, 0, TEXT),
    ]
    assert len({event.data["call"] for event in _deltas(seen)}) == 2


async def test_reading_deltas_leaves_nothing_in_history(client: AsyncClient, at: Stage) -> None:
    run_ids = [await _started(client), await _started(client)]
    await asyncio.gather(*[_all(client, run_ids[0]) for _ in range(3)], client.runs.wait(run_ids[1], timeout=30))
    kinds = [
        [event.event_type for event in (await at.client.get_workflow_handle(run_id).fetch_history()).events]
        for run_id in run_ids
    ]
    assert kinds[0] == kinds[1]


_LONG = [f"{number}-{'€öx' * 80}" for number in range(90)]


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(lambda _: say(" ".join(_LONG)), id="at-once"),
        pytest.param(lambda _: say(" ".join(_LONG), pace=0.05), id="faster-than-the-tail"),
        pytest.param(lambda _: say(" ".join(_LONG * 4)), id="longer-than-what-is-recorded"),
        pytest.param(lambda _: say(" ".join(_LONG * 4), pace=0.01), id="longer-than-what-is-recorded-paced"),
        pytest.param(lambda _: say("x" * 5, pace=PACE), id="short"),
    ],
)
async def test_a_fast_model_loses_nothing(client: AsyncClient, at: Stage, script: Script) -> None:
    at.model.script = script
    seen = await _all(client, await _started(client))
    (text,) = [event.data["text"] for event in seen if event.type == "model_completed"]
    assert _told(seen) == text


async def test_a_text_with_a_secret_is_told_as_it_is_recorded(client: AsyncClient, at: Stage) -> None:
    at.model.script = lambda _: say(" ".join(f"sk-{n} {KEY}{KEY} sk- {KEY[: n + 1]}" for n in range(12)), pace=PACE)
    seen = await _all(client, await _started(client))
    (text,) = [event.data["text"] for event in seen if event.type == "model_completed"]
    assert _told(seen) == text
    assert len(_deltas(seen)) > 2
    assert KEY not in text
    assert "[secret " in text


async def test_a_cancelled_run_tells_its_partial_text_whole(client: AsyncClient) -> None:
    run_id = await _started(client)
    seen = []
    async for event in client.runs.stream_events(run_id, deltas=True):
        seen.append(event)
        if event.type == "text_delta" and len(_deltas(seen)) == 2:
            await client.runs.cancel(run_id)
    (partial,) = [event for event in seen if event.type == "model_completed"]
    assert partial.data["partial"]
    assert _told(seen) == partial.data["text"]
    assert 0 < len(partial.data["text"]) < len(TEXT)
    assert seen[-1].type == "task_cancelled"


async def test_a_terminated_run_tells_what_had_been_shown_and_ends_as_for_every_reader(
    client: AsyncClient, at: Stage
) -> None:
    run_id = await _started(client)
    seen = []
    async for event in client.runs.stream_events(run_id, deltas=True):
        seen.append(event)
        if event.type == "text_delta" and len(_deltas(seen)) == 2:
            await at.client.get_workflow_handle(run_id).terminate()
    assert TEXT.startswith(_told(seen))
    assert _plain(seen) == await _all(client, run_id, deltas=False)
    assert [event.type for event in await _all(client, run_id, _deltas(seen)[-1].id)] == ["run_failed"]
    assert await _all(client, run_id, seen[-1].id) == []


async def test_a_heartbeat_shows_two_kilobytes_of_whole_characters(client: AsyncClient, at: Stage) -> None:
    at.model.script = lambda _: say(" ".join(_LONG), pace=0.1)
    run_id = await _started(client)
    shown: list[dict[str, Any]] = []
    async with asyncio.timeout(30):
        while not (await client.runs.status(run_id)).closed:
            pending = (await at.client.get_workflow_handle(run_id).describe()).raw_description.pending_activities
            shown += [json.loads(payload.data) for each in pending for payload in each.heartbeat_details.payloads]
            await asyncio.sleep(0.1)
    told = [each for each in shown if each["offset"] > 0]
    assert len(told) > 3
    for each in told:
        assert " ".join(_LONG)[each["offset"] :].startswith(each["text"])
        assert 2048 - 3 <= len(each["text"].encode()) <= 2048


async def test_a_run_that_nobody_serves_is_told_to_a_reader_of_deltas_too(at: Stage) -> None:
    client = AsyncClient(temporal=at.client, task_queue=f"nobody-{uuid.uuid4().hex[:8]}")
    run_id = await _started(client)
    with pytest.raises(NoWorker, match="holdfast worker"):
        await _all(client, run_id)
    await client.runs.cancel(run_id)


async def test_ordinary_code_reads_deltas_too(client: AsyncClient, at: Stage) -> None:
    run_id = await _started(client)

    def read() -> list[Event]:
        with Client(at.client.service_client.config.target_host, task_queue=at.task_queue) as blocking:
            return list(blocking.runs.stream_events(run_id, deltas=True))

    assert _told(await asyncio.to_thread(read)) == TEXT
