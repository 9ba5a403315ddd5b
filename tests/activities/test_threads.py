"""`thread.enter`: a thread that nobody serves is told, once and clearly."""

from __future__ import annotations

import dataclasses
import uuid

import pytest
from temporalio.client import Client
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from holdfast.activities.past import Past
from holdfast.activities.threads import ThreadActivities
from holdfast.activities.transcripts import TranscriptCache
from holdfast.client.connect import connect
from holdfast.request import After
from holdfast.threads import Enter, Entering, Visit


async def _no_past(after: After, own: str) -> Past:
    raise AssertionError(f"nobody asked for {after} of {own}")


async def _never(client: Client, visit: Visit) -> str | None:
    return None


def _activities(*polled: str) -> ThreadActivities:
    async def served(client: Client, task_queue: str) -> bool:
        return task_queue in polled

    return ThreadActivities(_no_past, _never, TranscriptCache(0), served=served)


async def test_a_thread_that_lives_where_nobody_polls_is_an_error_that_says_what_to_start(address: str) -> None:
    client = await connect(address)
    thread, queue = f"t-{uuid.uuid4().hex[:8]}", f"lost-{uuid.uuid4().hex[:8]}"
    handle = await client.start_workflow("AgentThread", id=f"thread:{thread}", task_queue=queue)
    environment = ActivityEnvironment(client=client)
    environment.info = dataclasses.replace(environment.info, task_queue="mine")
    asked = Enter(thread_id=thread, visit=Entering(run_id="run", first_link="a", link="a"))
    with pytest.raises(ApplicationError, match=f"HOLDFAST_TASK_QUEUE={queue} holdfast worker") as told:
        await environment.run(_activities().enter, asked)
    assert (told.value.type, told.value.non_retryable) == ("NoWorker", False)
    await environment.run(_activities(queue).enter, asked)
    await environment.run(_activities().enter, asked.model_copy(update={"again": True}))
    await handle.terminate()


async def test_a_thread_of_the_runs_own_queue_is_served_by_whoever_runs_it(address: str) -> None:
    client = await connect(address)
    environment = ActivityEnvironment(client=client)
    environment.info = dataclasses.replace(environment.info, task_queue=f"mine-{uuid.uuid4().hex[:8]}")
    thread = f"t-{uuid.uuid4().hex[:8]}"
    asked = Enter(thread_id=thread, visit=Entering(run_id="run", first_link="a", link="a"))
    await environment.run(_activities().enter, asked)
    await client.get_workflow_handle(f"thread:{thread}").terminate()
