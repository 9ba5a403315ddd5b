"""A worker that dies while the model repairs its answer: neither plan nor answer is asked for again."""

from __future__ import annotations

import asyncio
import json
import os
import uuid
from pathlib import Path

from holdfast.client.connect import connect
from holdfast.client.runs import AsyncClient
from holdfast.worker.scripted import ChatRequest, Reply, ScriptedModel, hang, say
from tests.support.processes import hosting
from tests.support.stage import KEY

BAD, GOOD = '{"score": "seven"}', '{"score": 7}'


def _script(request: ChatRequest) -> Reply:
    """Plan, answer wrongly, be silent to the first attempt at the repair, and repair."""
    if request.turn < 2:
        return say(("1. Judge.", BAD)[request.turn])
    return hang() if request.number == 3 else say(GOOD)


async def test_a_worker_killed_in_a_repair_repeats_the_repair_only(address: str, tmp_path: Path) -> None:
    queue = f"test-{uuid.uuid4().hex[:12]}"
    runs = AsyncClient(temporal=await connect(address), task_queue=queue).runs
    async with ScriptedModel(_script) as model:
        told = {"*": {"model": "openai/test", "api_base": model.url, "api_key": KEY}}
        env = {"TEMPORAL_ADDRESS": address, "HOLDFAST_TASK_QUEUE": queue, "HOLDFAST_ENDPOINTS": json.dumps(told)}
        env["PYTHONPATH"] = os.pathsep.join([str(Path.cwd()), os.environ.get("PYTHONPATH", "")])
        command = ("worker", "tests/durability/judge_agent.py")
        started = await runs.create("judge", message="Judge.")
        with hosting(*command, env=env, log=tmp_path / "first.log"):
            async with asyncio.timeout(60):
                while model.hits < 3:
                    await asyncio.sleep(0.05)
        with hosting(*command, env=env, log=tmp_path / "second.log"):
            run = await runs.wait(started.id, timeout=60)
        asked = [request.turn for request in model.requests]
    assert (run.status, run.output, run.steps) == ("completed", {"score": 7}, 3)
    assert asked == [0, 1, 2, 2]
    assert model.requests[2].messages == model.requests[3].messages
    assert [each.data["attempt"] for each in run.logs if each.type == "model_completed"] == [1, 1, 2]
    assert [each.data["text"] for each in run.logs if each.type == "planning"] == ["1. Judge."]
