"""Runs that wait, rest or are paused outlive worker and server, and are steered meanwhile."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from holdfast.client.connect import connect
from holdfast.client.runs import AsyncClient
from holdfast.worker.scripted import ChatRequest, Reply, ScriptedModel, call, fail, say
from tests.durability.parked_agent import JOURNAL
from tests.durability.test_kill_server import Server
from tests.support.processes import endpoints, hosting

FILE = str(Path(__file__).with_name("parked_agent.py"))
KINDS = ("approved", "denied", "asked", "resting", "paused", "paused-asked", "forsaken")


def script(request: ChatRequest) -> Reply:
    """Do what the first message names."""
    kind = request.first_text.partition(" ")[0]
    if _is_forsaken(request):
        return fail(503, headers={"Retry-After": "0.05"})
    if request.turn or kind == "paused":
        return say(f"{kind} is done.")
    if kind in ("approved", "denied"):
        return call(("pay", {"invoice": kind}))
    if kind == "resting":
        return call(("sleep", {"seconds": 30_000_000}))
    return call(("ask_user", {"question": "Well?"}))


def _is_forsaken(request: ChatRequest) -> bool:
    return request.first_text.startswith("forsaken")


async def until(claim: Callable[[], Any], seconds: float = 60) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(seconds):
        while not await claim():
            await asyncio.sleep(0.1)


@asynccontextmanager
async def serving(address: str, model: ScriptedModel, folder: Path) -> AsyncIterator[int]:
    """Have a worker process; killed in the end."""
    told = {
        "TEMPORAL_ADDRESS": address,
        "HOLDFAST_ENDPOINTS": endpoints(model.url),
        "HOLDFAST_MAX_CACHED_WORKFLOWS": "2",
        "HOLDFAST_BREAKER_FAILURES": "1",
        "HOLDFAST_BREAKER_SECONDS": "12",
        JOURNAL: str(folder / "journal"),
    }
    entered = hosting("worker", FILE, env=told, log=folder / "worker.log")
    process = await asyncio.to_thread(entered.__enter__)
    try:
        yield process.pid
    finally:
        await asyncio.to_thread(entered.__exit__, None, None, None)


async def test_parked_runs_outlive_kill_9_of_worker_and_server_and_are_steered_meanwhile(tmp_path: Path) -> None:
    server = Server(tmp_path / "server")
    try:
        async with ScriptedModel(script) as model:
            client = AsyncClient(temporal=await connect(server.address))
            runs = client.runs

            async def stand(status: dict[str, str]) -> bool:
                return all([(await runs.status(name)).status == wanted for name, wanted in status.items()])

            parked = {kind: "paused" if kind.startswith("paused") else "waiting" for kind in KINDS}
            async with serving(server.address, model, tmp_path) as pid:
                for kind in KINDS:
                    named = kind if kind == "forsaken" else "parked"
                    await runs.create(named, message=f"{kind} it is", run_id=kind)
                    if kind == "paused":
                        await runs.pause(kind, "before anything")
                await until(lambda: stand({"paused-asked": "waiting"}))
                await runs.pause("paused-asked", "with a question open")
                await until(lambda: stand(parked))
                waits = {kind: await runs.waiting_for(kind) for kind in ("approved", "denied", "asked", "paused-asked")}
                os.kill(pid, signal.SIGKILL)
            for _ in range(2):
                await server.kill_and_restart()
            client = AsyncClient(temporal=await connect(server.address))
            runs = client.runs
            assert await stand(parked), "with no worker up"
            assert {each.id for each in await runs.list(status="waiting")} == {
                "approved",
                "denied",
                "asked",
                "resting",
                "forsaken",
            }
            model.script = lambda request: say("It is back.") if _is_forsaken(request) else script(request)
            for kind in ("paused", "paused-asked", "resting"):
                await runs.append_message(kind, "And this.", id="m")
            await runs.resume("paused")
            async with serving(server.address, model, tmp_path):
                await runs.approve("approved", waits["approved"][0]["id"])
                await runs.deny("denied", waits["denied"][0]["id"], reason="no")
                await runs.answer("asked", waits["asked"][0]["id"], "yes")
                await runs.answer("paused-asked", waits["paused-asked"][0]["id"], "yes")
                assert (await runs.status("paused-asked")).status == "paused"
                await runs.resume("paused-asked")
                ended = {kind: await runs.wait(kind, timeout=60) for kind in KINDS}
            assert {run.status for run in ended.values()} == {"completed"}
            assert [_is_forsaken(request) for request in model.requests].count(True) >= 2
            assert ended["forsaken"].final_text == "It is back."
            assert (tmp_path / "journal").read_text().split()[::2] == ["approved"]
            for kind in ("paused", "paused-asked", "resting"):
                assert [each.content for each in ended[kind].messages].count("And this.") == 1
    finally:
        server.stop()
