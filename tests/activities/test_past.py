"""What a process keeps of closed links: as much as it may hold, each read once."""

from __future__ import annotations

import asyncio

import pytest
from temporalio.client import Client
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from holdfast import HoldfastError
from holdfast.activities.past import Past, PastActivities
from holdfast.activities.transcripts import TranscriptCache
from holdfast.carried import Carried
from holdfast.client.connect import connect
from holdfast.message import user_message
from holdfast.request import After


class Links:
    """Closed links of so many bytes; notes which were read."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.read: list[str] = []

    async def recall(self, client: Client, run_id: str, link: str, step: int | None) -> Past:
        self.read.append(link)
        await asyncio.sleep(0.05)
        if link == "misfit":
            raise HoldfastError("the history is of another version")
        return Past(None, [user_message("x" * self.size).wire()], Carried(link=link))


@pytest.fixture
async def env(address: str) -> ActivityEnvironment:
    return ActivityEnvironment(client=await connect(address))


async def test_pasts_are_kept_by_their_bytes_the_latest_used_and_at_least_one(env: ActivityEnvironment) -> None:
    links = Links(400)
    kept = PastActivities(links.recall, TranscriptCache(), most_bytes=1_100)
    for link in ("a", "b", "a", "c", "a", "b"):
        await env.run(kept.past, After(run=link), "run")
    assert links.read == ["a", "b", "c", "b"]
    links.size, links.read = 9_000, []
    for link in ("d", "d", "e", "e", "d"):
        await env.run(kept.past, After(run=link), "run")
    assert links.read == ["d", "e", "d"]


async def test_callers_at_once_share_one_reading_and_its_error_and_none_takes_it_from_the_others(
    env: ActivityEnvironment,
) -> None:
    links = Links(10)
    kept = PastActivities(links.recall, TranscriptCache())
    first, *others = [asyncio.create_task(env.run(kept.past, After(run="a"), "run")) for _ in range(4)]
    await asyncio.sleep(0.01)
    first.cancel()
    assert [(await each).carried.link for each in others] == ["a"] * 3
    assert first.cancelled()
    assert links.read == ["a"]
    failed = [asyncio.create_task(env.run(kept.past, After(run="misfit"), "run")) for _ in range(2)]
    for each in failed:
        with pytest.raises(ApplicationError, match="of another version") as told:
            await each
        assert told.value.non_retryable
    assert links.read == ["a", "misfit"]
