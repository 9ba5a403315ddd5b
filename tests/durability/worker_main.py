"""A worker process to be killed.

`python -m tests.durability.worker_main --address … --task-queue … --model-url … --journal FILE` serves until SIGTERM.

With `--nursery` it imports everything, and then forks a worker for each line of its stdin, a JSON object of the same
options. Such a worker connects, says `ready PID`, and polls only once it gets SIGUSR1: what a test measures after a
kill is then the engine's time, not Python's. The end of stdin ends the nursery and its workers.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import traceback
from contextlib import suppress
from dataclasses import dataclass

import temporalio.client

from holdfast import Settings
from holdfast.activities import model
from holdfast.client.connect import connect
from holdfast.errors import ServerUnavailable
from holdfast.worker import logs
from holdfast.worker.build import make_worker
from holdfast.worker.plugin import HoldfastPlugin
from tests.durability.agent import AGENT, JOURNAL, LEAD, RACE
from tests.support.stage import endpoints


@dataclass(frozen=True)
class Options:
    """Whom a worker serves."""

    address: str
    task_queue: str
    model_url: str
    journal: str


_OUT = os.dup(1)
os.dup2(2, 1)  # Temporal's core logs to stdout, which is kept for what we say


def _say(word: str) -> None:
    os.write(_OUT, f"{word} {os.getpid()}\n".encode())


async def _connect(address: str) -> temporalio.client.Client:
    """Connect with more patience than the product has: the machine that runs all tests may be busy."""
    for _ in range(5):
        with suppress(ServerUnavailable):
            return await connect(address)
    return await connect(address)


async def _serve(options: Options, standby: bool) -> None:
    os.environ[JOURNAL] = options.journal
    go, leave = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, go.set)
    loop.add_signal_handler(signal.SIGTERM, leave.set)
    # The key tells the scripted model which process asks.
    settings = Settings(
        task_queue=options.task_queue,
        endpoints=endpoints(options.model_url, f"sk-worker-{os.getpid()}"),
        grace_seconds=1,
    )
    client = await _connect(options.address)
    worker = make_worker(client, HoldfastPlugin([AGENT, LEAD, RACE], settings=settings))
    _say("ready")
    if standby:
        await go.wait()
    async with worker:
        await leave.wait()


def _nursery() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps: a killed worker is gone at once
    born: list[int] = []
    while line := sys.stdin.readline():
        child = os.fork()
        if child == 0:
            os.close(0)
            try:
                asyncio.run(_serve(Options(**json.loads(line)), standby=True))
            except BaseException:  # noqa: BLE001 - the fork must end here, whatever happens
                traceback.print_exc()
                _say("died")
            finally:
                sys.stderr.flush()
                os._exit(0)
        born.append(child)
    for child in born:
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)


def main() -> None:
    """Serve until SIGTERM, or hatch workers until stdin ends."""
    logs.configure("json")
    model.warm_up()
    if sys.argv[1:] == ["--nursery"]:
        _nursery()
        return
    parser = argparse.ArgumentParser()
    for name in ("--address", "--task-queue", "--model-url", "--journal"):
        parser.add_argument(name, required=True)
    asyncio.run(_serve(Options(**vars(parser.parse_args())), standby=False))


if __name__ == "__main__":
    main()
