"""kill -9 of the Temporal server: what it acknowledged is kept, and runs go on when it is back."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
from temporalio.service import RPCError

from holdfast import wire
from holdfast.run import RunResult
from holdfast.worker.scripted import ChatRequest, Reply, call, say
from holdfast.worker.server import EmbeddedServer, answers
from tests.durability.theatre import (
    STEPS,
    TOOL_STEPS,
    Nursery,
    Theatre,
    steps,
    theatre,
    tool_counts,
    turn_counts,
    undisturbed,
    until,
)
from tests.support.stage import timeline

TURN = 2
"""The turn in whose calls the server dies."""
BACK_SECONDS = 60


class Server:
    """A server with a file, that can be killed and comes back at its port."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._uses = [EmbeddedServer.start(folder, port=0, ui_port=None)]
        self.address = self._uses[0].address

    async def kill_and_restart(self, pause: float = 0) -> float:
        """SIGKILL the server, start it again after a pause, and return how many seconds it was away."""
        began = time.monotonic()
        os.kill(self._uses[-1].pid, signal.SIGKILL)
        await until(lambda: not answers(self.address))
        await asyncio.sleep(pause)
        port = int(self.address.rpartition(":")[2])
        self._uses.append(await asyncio.to_thread(EmbeddedServer.start, self._folder, port=port, ui_port=None))
        assert self._uses[-1].address == self.address
        return time.monotonic() - began

    def stop(self) -> None:
        for use in self._uses:
            use.stop()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A server of the test's own."""
    started = Server(tmp_path / "server")
    yield started
    started.stop()


async def _end(at: Theatre) -> RunResult:
    """Wait for the run's end; a server that is just back may not answer yet."""
    deadline = time.monotonic() + BACK_SECONDS
    while True:
        try:
            return RunResult.model_validate(await asyncio.wait_for(at.handle.result(), BACK_SECONDS))
        except RPCError:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.1)


@pytest.mark.parametrize(("inside", "pause"), [("model call", 0), ("tool calls", 0), ("tool calls", 4)])
async def test_a_run_goes_on_after_kill_9_of_the_server(
    server: Server, hatchery: Nursery, tmp_path: Path, inside: str, pause: float
) -> None:
    answer = steps(lambda turn: (1, 1) if (turn, inside) == (TURN, "tool calls") else (0, 0))

    async def slow(request: ChatRequest) -> Reply:
        if request.turn == TURN and inside == "model call":
            await asyncio.sleep(1)
        return answer(request)

    expected = await undisturbed(server.address, hatchery, tmp_path, answer)
    async with theatre(server.address, hatchery, tmp_path, slow) as at:
        await at.start()
        await until(lambda: at.asking(TURN) if inside == "model call" else at.working(TURN))
        before = at.counts()
        away = await server.kill_and_restart(pause)
        assert (await _end(at)).status == "completed"
        assert await at.finish() == expected
        print(f"server killed inside {inside}: away {away:.2f} s; ran {dict(at.counts())}")
        at.check()
        in_flight = {f"turn {TURN}"} if inside == "model call" else set(sorted(before)[2 * TURN : 2 * TURN + 2])
        twice = {name for name, count in at.counts().items() if count > 1}
        assert twice <= in_flight
        assert max(at.counts().values()) <= 2
        assert len(turn_counts(at.counts())) == STEPS
        assert len(tool_counts(at.counts())) == 2 * TOOL_STEPS


async def test_every_acknowledged_message_is_in_the_transcript_once_after_two_kills_of_the_server(
    server: Server, hatchery: Nursery, tmp_path: Path
) -> None:
    over = asyncio.Event()

    async def work_until_all_is_said(request: ChatRequest) -> Reply:
        await asyncio.sleep(0.05)
        if over.is_set():
            return say("All is said.")
        return call(("weigh", {"step": request.turn, "seconds": 0}))

    async with theatre(server.address, hatchery, tmp_path, work_until_all_is_said) as at:
        await at.start()
        async with _senders(at, 4) as (acknowledged, again):
            for _ in range(2):
                await asyncio.sleep(1)
                before = len(acknowledged)
                away = await server.kill_and_restart()
                print(f"server away {away:.2f} s; {before} messages acknowledged before, {len(again)} sent again")
                await until(partial(_longer, acknowledged, before + 20))
        over.set()
        ended = await _end(at)
        assert ended.status == "completed"
        folded, _ = await timeline(at.client, at.run_id)
        said = [each.content or "" for each in folded.messages if each.role == "user"]
        assert said[0] == "Go"
        assert sorted(said[1:]) == sorted(acknowledged)
        at.check()
        print(f"{len(acknowledged)} messages, {len(again)} sent more than once, {ended.steps} steps")


def _longer(these: list[str], than: int) -> bool:
    return len(these) > than


@asynccontextmanager
async def _senders(at: Theatre, how_many: int) -> AsyncIterator[tuple[list[str], set[str]]]:
    """Send messages under their ids, each until it is acknowledged; at the end wait for those under way."""
    acknowledged: list[str] = []
    again: set[str] = set()
    enough = asyncio.Event()

    async def send(sender: int) -> None:
        number = 0
        while not enough.is_set():
            name, number = f"message {sender}.{number}", number + 1
            while True:
                try:
                    # A short patience: the SDK would otherwise try again by itself until the server is back.
                    async with asyncio.timeout(0.2):
                        await at.handle.signal(wire.APPEND_MESSAGE, {"id": name, "text": name})
                    break
                except (RPCError, TimeoutError):
                    again.add(name)
                    await asyncio.sleep(0.1)
            acknowledged.append(name)
            await asyncio.sleep(0.02)

    async with asyncio.TaskGroup() as group:
        for sender in range(how_many):
            group.create_task(send(sender))
        try:
            yield acknowledged, again
        finally:
            enough.set()
