"""Messages under fire: none lost, none doubled, however many, and while the run continues as new."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from temporalio.client import WorkflowHandle
from temporalio.service import RPCError, RPCStatusCode

from holdfast import Agent, Limits, ask_user, tool
from holdfast.worker.scripted import ChatRequest, Reply, call, say
from tests.support.stage import MODEL, result, stage, timeline

SENDERS = 4


@tool
async def rest(seconds: float) -> str:
    """Take a while."""
    await asyncio.sleep(seconds)
    return "rested"


AGENT = Agent(
    name="under-fire",
    model=MODEL,
    tools=[rest, ask_user],
    compaction=None,
    limits=Limits(max_steps=10_000, max_model_calls=10_000, max_tool_calls=10_000),
)


async def send(run: WorkflowHandle[Any, Any], sender: int, number: int, pause: float) -> list[str]:
    """Send so many messages, each seventh of them twice; a send that was refused for the crowd is repeated."""
    sent = []
    for index in range(number):
        text = f"message {sender}-{index}"
        sent.append(text)
        await asyncio.sleep(pause)
        for _ in range(1 + (index % 7 == 0)):
            while True:
                try:
                    await run.signal("append_message", {"text": text, "id": f"{sender}-{index}"})
                    break
                except RPCError as error:
                    if error.status != RPCStatusCode.RESOURCE_EXHAUSTED:
                        raise
                    await asyncio.sleep(0.2)
    return sent


async def fire(run: WorkflowHandle[Any, Any], number: int, pause: float = 0.0) -> list[str]:
    """Send from several senders at once."""
    volleys = await asyncio.gather(*(send(run, sender, number // SENDERS, pause) for sender in range(SENDERS)))
    return [text for volley in volleys for text in volley]


async def test_10_000_messages_to_one_run_are_each_seen_once(address: str) -> None:
    def script(request: ChatRequest) -> Reply:
        return call(("ask_user", {"question": "Ready?"})) if request.number == 1 else say("Read.")

    async with stage(address, script, [AGENT]) as at:
        run = await at.start("under-fire", message="Go")
        async with asyncio.timeout(300):
            while not (waits := (await run.query("status"))["waiting_for"]):
                await asyncio.sleep(0.05)
            sent = await fire(run, 10_000)
            await run.execute_update("answer", {"question_id": waits[0]["id"], "text": "yes"})
            ended = await result(run, 200)
        assert ended.status == "completed"
        folded, events = await timeline(at.client, run.id)
        seen = Counter(each.content for each in folded.messages if each.role == "user")
        assert seen == Counter([*sent, "Go"])
        assert [event.type for event in events].count("run_continued") >= 2
        asked = [each["content"] for each in at.model.requests[-1].body["messages"] if each["role"] == "user"]
        assert Counter(asked) == seen
        print(f"{len(sent)} messages, each seen once, over {[e.type for e in events].count('run_continued') + 1} links")


async def test_messages_under_continuous_continue_as_new_are_each_seen_once(address: str) -> None:
    done = False

    def script(request: ChatRequest) -> Reply:
        return say("Read.") if done else call(("rest", {"seconds": 0.01}))

    async with stage(address, script, [AGENT], continue_after_events=20) as at:
        run = await at.start("under-fire", message="Go")
        async with asyncio.timeout(120):
            sent = await fire(run, 1_200, pause=0.03)
            done = True
            ended = await result(run, 100)
        assert ended.status == "completed"
        folded, events = await timeline(at.client, run.id)
        assert Counter(each.content for each in folded.messages if each.role == "user") == Counter([*sent, "Go"])
        links = [event.type for event in events].count("run_continued") + 1
        assert links > 10
        print(f"{len(sent)} messages, each seen once, over {links} links")
