"""What Temporal's server answers, as a caller sees it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
import uuid
from collections.abc import AsyncIterator, Awaitable
from typing import Any

import pytest
from temporalio.service import RPCError, RPCStatusCode

from holdfast import AsyncClient, HoldfastError, RunNotFound, ServerUnavailable
from holdfast.client.rpc import translate
from holdfast.worker.server import EmbeddedServer
from tests.support.processes import HOLDFAST, holdfast


async def _all(events: AsyncIterator[Any]) -> list[Any]:
    return [event async for event in events]


async def test_a_namespace_that_is_not_there_is_named_by_every_call(address: str) -> None:
    client = AsyncClient(address, "nowhere")
    calls: list[Awaitable[Any]] = [
        client.runs.create("any", message="Hello"),
        client.runs.status("any"),
        client.runs.get("any"),
        client.runs.wait("any"),
        client.runs.append_message("any", "Hello"),
        client.runs.cancel("any"),
        client.runs.list(),
        client.agents.list(),
        _all(client.runs.stream_events("any")),
    ]
    for call in calls:
        with pytest.raises(HoldfastError, match=f"there is no namespace 'nowhere' at {address}"):
            await call
    done = holdfast("--namespace", "nowhere", "runs", "list", env={"TEMPORAL_ADDRESS": address})
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)


async def test_a_server_that_dies_ends_every_call_that_is_under_way_and_every_later_one() -> None:
    server = await asyncio.to_thread(EmbeddedServer.start, None, port=0, ui_port=None)
    try:
        client = AsyncClient(server.address, task_queue=uuid.uuid4().hex)
        run = await client.runs.create("any", message="Hello")
        command = [*HOLDFAST, "--address", server.address, "runs", "watch", run.id]
        watch = await asyncio.to_thread(
            subprocess.Popen, command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert watch.stdout is not None
        assert "run_started" in await asyncio.to_thread(watch.stdout.readline)
        events = client.runs.stream_events(run.id)
        await anext(events)
        waiting = asyncio.create_task(client.runs.wait(run.id))
        await asyncio.sleep(0.2)
        os.kill(server.pid, signal.SIGKILL)
        began = time.monotonic()
        calls: list[Awaitable[Any]] = [
            waiting,
            _all(events),
            client.runs.create("any", message="Hello"),
            client.runs.status(run.id),
            client.runs.append_message(run.id, "Hello"),
            client.runs.cancel(run.id),
            client.runs.list(),
            client.agents.list(),
        ]
        for error in await asyncio.gather(*calls, return_exceptions=True):
            assert isinstance(error, ServerUnavailable), repr(error)
            assert server.address in str(error)
        _, said = await asyncio.to_thread(watch.communicate, timeout=30)
        assert time.monotonic() - began < 30
        assert (watch.returncode, len(said.splitlines())) == (2, 1), said
        assert "no Temporal server answers" in said
        later = [AsyncClient(server.address).runs.status(run.id), client.runs.get(run.id)]
        for error in await asyncio.gather(*later, return_exceptions=True):
            assert isinstance(error, ServerUnavailable), repr(error)
    finally:
        server.stop()


@pytest.mark.parametrize(
    ("status", "said", "kind", "told"),
    [
        (RPCStatusCode.UNAVAILABLE, "tcp connect error", ServerUnavailable, "tcp connect error"),
        (RPCStatusCode.DEADLINE_EXCEEDED, "late", ServerUnavailable, "holdfast dev"),
        (RPCStatusCode.CANCELLED, "Timeout expired", ServerUnavailable, "Timeout expired"),
        (RPCStatusCode.PERMISSION_DENIED, "Request unauthorized.", HoldfastError, "Request unauthorized."),
        (RPCStatusCode.UNAUTHENTICATED, "no key", HoldfastError, "no key"),
        (RPCStatusCode.NOT_FOUND, "Namespace there is not found.", HoldfastError, "no namespace 'there' at here"),
        (RPCStatusCode.NOT_FOUND, "workflow not found for ID: Namespace there", RunNotFound, "r-1"),
        (RPCStatusCode.INVALID_ARGUMENT, "WorkflowId is too long", RunNotFound, "r-1"),
        (RPCStatusCode.RESOURCE_EXHAUSTED, "slow down", RPCError, "slow down"),
    ],
)
def test_each_answer_of_the_server_is_told_as_what_it_means(
    status: RPCStatusCode, said: str, kind: type[Exception], told: str
) -> None:
    error = translate(RPCError(said, status, b""), "here", "there", "r-1")
    assert type(error) is kind
    assert told in str(error)
