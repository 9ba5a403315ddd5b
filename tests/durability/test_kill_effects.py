"""kill -9 in the middle of tools, by their effect: what must not happen twice does not, and a key stays the same."""

from __future__ import annotations

import asyncio
import json
import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from holdfast.client.connect import connect
from holdfast.client.runs import AsyncClient
from holdfast.worker.scripted import ChatRequest, Reply, ScriptedModel, call, say
from tests.durability.agent import JOURNAL
from tests.support.processes import hosting
from tests.support.stage import KEY

TOOLS = ("pay_once", "post_once", "book", "look")
UNKNOWN = "whether it did its work is unknown, and it was not repeated"


def _script(kills: int) -> Callable[[ChatRequest], Reply]:
    return lambda request: say("done") if request.turn else call(*((name, {"kills": kills}) for name in TOOLS))


@pytest.mark.parametrize(
    ("kills", "attempts", "told"),
    [
        (1, {"once": [1], "once_async": [1], "idempotent": [1, 2], "pure": [1]}, "booked at attempt 2"),
        (2, {"once": [1], "once_async": [1], "idempotent": [1, 2, 3], "pure": [1]}, "booked at attempt 3"),
        (3, {"once": [1], "once_async": [1], "idempotent": [1, 2, 3], "pure": [1]}, "WorkerLost"),
    ],
)
async def test_a_tool_whose_worker_is_killed_is_repeated_as_its_effect_and_its_attempts_say(
    address: str, tmp_path: Path, kills: int, attempts: dict[str, list[int]], told: str
) -> None:
    queue, journal = f"test-{uuid.uuid4().hex[:12]}", tmp_path / "journal"
    runs = AsyncClient(temporal=await connect(address), task_queue=queue).runs

    def lines() -> list[dict[str, Any]]:
        return [json.loads(line) for line in journal.read_text().splitlines()] if journal.exists() else []

    async with ScriptedModel(_script(kills)) as model:
        served = {"scripted/*": {"model": "openai/{rest}", "api_base": model.url, "api_key": KEY}}
        env = {"TEMPORAL_ADDRESS": address, "HOLDFAST_TASK_QUEUE": queue, "HOLDFAST_ENDPOINTS": json.dumps(served)}
        env |= {
            JOURNAL: str(journal),
            "PYTHONPATH": os.pathsep.join([str(Path.cwd()), os.environ.get("PYTHONPATH", "")]),
        }
        run = await runs.create("effects", message="Go")
        for number in range(kills + 1):
            with hosting("worker", "tests/durability/effects_agent.py", env=env, log=tmp_path / f"{number}.log"):
                if number == kills:
                    ended = await runs.wait(run.id, timeout=60)
                    break
                async with asyncio.timeout(60):
                    while len(lines()) < len(TOOLS) + number:
                        await asyncio.sleep(0.05)
    assert ended.status == "completed"
    begun = lines()
    assert {name: [each["attempt"] for each in begun if each["tool"] == name] for name in attempts} == attempts
    assert len({each["key"] for each in begun}) == len(TOOLS), "one key for each call, whatever the attempt"
    once, post, booked, looked = model.requests[-1].tool_results.values()
    assert UNKNOWN in once
    assert UNKNOWN in post
    assert told in booked
    assert "WorkerLost" in looked
    assert "unknown" not in looked
