"""kill -9 of the worker while a run falls back, closes at a limit, or spends its last money: the same rules hold."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from holdfast import Agent, Limits, RunResult
from holdfast.failure import Failure
from holdfast.worker.scripted import ChatRequest, Reply, call, fail, hang, say
from tests.durability.agent import AGENT
from tests.durability.theatre import Nursery, theatre, until
from tests.support.stage import result

_WEIGH = ("weigh", {"step": 1, "seconds": 0})
_USAGE = {"prompt_tokens": 900, "completion_tokens": 10}


@dataclass(frozen=True)
class Case:
    """Whose call is the first to be silent until its worker is killed, and what the run comes to all the same."""

    killed_in: str
    """Model and turn."""
    agent: dict[str, Any]
    replies: dict[str, Reply]
    """By model and turn."""
    status: str
    text: str
    asked: dict[str, int]
    """How often each was asked, the silent one included."""
    calls: int
    """Model calls that count."""


DOWN = fail(401, message="no longer a customer")
CASES = {
    "in a fallback": Case(
        "second 0",
        {"fallback_models": ("scripted/second",)},
        {"first 0": DOWN, "second 0": call(_WEIGH), "second 1": say("done")},
        "completed",
        "done",
        {"first 0": 1, "second 0": 2, "second 1": 1},
        3,
    ),
    "before a fallback": Case(
        "first 0",
        {"fallback_models": ("scripted/second",)},
        {"first 0": DOWN, "second 0": say("done")},
        "completed",
        "done",
        {"first 0": 2, "second 0": 1},
        2,
    ),
    "in the closing call": Case(
        "second 0",
        {"fallback_models": ("scripted/second", "scripted/third"), "limits": Limits(max_model_calls=2)},
        {"first 0": DOWN, "second 0": say("as far as I know")},
        "degraded",
        "as far as I know",
        {"first 0": 1, "second 0": 2},
        2,
    ),
    "before the money is spent": Case(
        "first 0",
        {"limits": Limits(max_cost_usd=0.001)},
        {"first 0": call(_WEIGH, text="I weigh.", usage=_USAGE)},
        "degraded",
        "I weigh.",
        {"first 0": 2},
        1,
    ),
    "before a failure that is tolerated": Case(
        "first 1",
        {"failure": Failure(model="degrade")},
        {"first 0": call(_WEIGH, text="I weigh."), "first 1": DOWN},
        "degraded",
        "I weigh.",
        {"first 0": 1, "first 1": 2},
        2,
    ),
}


async def test_a_kill_changes_nothing_of_what_a_run_may_do(address: str, hatchery: Nursery, tmp_path: Path) -> None:
    async with asyncio.TaskGroup() as group:
        playing = {name: group.create_task(_play(address, hatchery, tmp_path, case)) for name, case in CASES.items()}
    for name, case in CASES.items():
        ended, asked = playing[name].result()
        assert (ended.status, ended.final_text) == (case.status, case.text), name
        assert asked == case.asked, name
        assert ended.state_snapshot["model_calls"] == case.calls, name


async def _play(address: str, nursery: Nursery, folder: Path, case: Case) -> tuple[RunResult, Counter[str]]:
    asked: Counter[str] = Counter()

    def script(request: ChatRequest) -> Reply:
        name = f"{request.model} {request.turn}"
        asked[name] += 1
        return hang() if name == case.killed_in and asked[name] == 1 else case.replies[name]

    agent = AGENT.model_copy(update={"name": "inline", "model": "scripted/first", **case.agent})
    async with theatre(address, nursery, folder, script) as at:
        await at.start(agent=Agent.model_validate(agent.wire()).wire())
        await until(lambda: asked[case.killed_in] == 1)
        await asyncio.sleep(0.3)
        await at.kill()
        return await result(at.handle), asked
