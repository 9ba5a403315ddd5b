"""A `Client` that can't work any more says so; one that nobody holds any more leaves nothing behind."""

from __future__ import annotations

import asyncio
import concurrent.futures
import subprocess
import sys
import threading

import pytest

from holdfast import Client

FORK = """
import os, sys
from holdfast import Client
client = Client(sys.argv[1])
child = os.fork()
if child == 0:
    try:
        client.runs.list(limit=1)
    except RuntimeError as error:
        print(error, flush=True)
    client.close()
    with Client(sys.argv[1]) as another:
        print(len(another.runs.list(limit=1)) <= 1, flush=True)
    os._exit(0)
os.waitpid(child, 0)
print(len(client.runs.list(limit=1)) <= 1)
"""


def test_a_client_that_is_closed_refuses_at_once(address: str) -> None:
    client = Client(address)
    events = client.runs.stream_events("nope")
    client.close()
    with pytest.raises(RuntimeError, match="make a new one"):
        client.runs.list()
    with pytest.raises(RuntimeError, match="make a new one"):
        next(events)
    client.close()


async def test_a_closed_portal_refuses_from_another_loop_too() -> None:
    client = Client()
    client.close()
    with pytest.raises(RuntimeError, match="make a new one"):
        await client._portal.bridge(asyncio.sleep(0))
    assert client._portal._loop.is_closed()


def test_a_client_made_before_a_fork_refuses_in_the_child_where_a_new_one_works_and_works_on_in_the_parent(
    address: str,
) -> None:
    command = [sys.executable, "-c", FORK, address]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    refusal, *worked = done.stdout.splitlines()
    assert "made before a fork: make a new one" in refusal
    assert (done.returncode, worked) == (0, ["True", "True"]), done.stderr


def test_a_client_that_nobody_holds_ends_its_thread(address: str) -> None:
    client = Client(address)
    client.runs.list(limit=1)
    thread = client._portal._thread
    assert thread in threading.enumerate()
    del client
    thread.join(5)
    assert not thread.is_alive()


def test_closing_ends_a_call_that_waits_in_another_thread(address: str) -> None:
    client = Client(address)
    run = client.runs.create("nobody", message="Hello")
    ended: list[BaseException] = []

    def wait() -> None:
        try:
            client.runs.wait(run.id, poll_interval=60)
        except concurrent.futures.CancelledError as error:
            ended.append(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    waiting.join(1)
    client.close()
    waiting.join(5)
    assert len(ended) == 1
    with Client(address) as another:
        another.runs.cancel(run.id)
