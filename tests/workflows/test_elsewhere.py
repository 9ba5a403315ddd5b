"""Tools that are activities of somebody else's worker, which has nothing of ours but temporalio."""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from holdfast import Agent, AsyncClient, Source, ToolSpec, tool
from holdfast.worker.scripted import ChatRequest, Reply, call, say
from tests.support.stage import MODEL, Stage, result, stage, timeline

BARE = Path(__file__).parents[1] / "support" / "bare_worker.py"
AMOUNT = {"type": "object", "properties": {"amount": {"type": "number"}}, "required": ["amount"]}


class Bare:
    """The other worker's process, its task queue and its journal."""

    def __init__(self, address: str, folder: Path) -> None:
        self.queue = f"bare-{uuid.uuid4().hex[:12]}"
        self.journal = folder / "journal"
        self._command = (sys.executable, str(BARE), address, self.queue, str(self.journal))
        self._folder = folder
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start it, and wait until it polls."""
        out = asyncio.subprocess.PIPE
        self._process = await asyncio.create_subprocess_exec(*self._command, cwd=self._folder, stdout=out)
        assert self._process.stdout is not None
        assert int(await asyncio.wait_for(self._process.stdout.readline(), 30))

    async def kill(self) -> None:
        """Kill it, without a word."""
        if self._process is not None:
            self._process.kill()
            await self._process.wait()
            self._process = None

    def lines(self, kind: str) -> list[dict[str, Any]]:
        """Return what was begun of one kind."""
        lines = self.journal.read_text().splitlines() if self.journal.exists() else []
        return [each for each in map(json.loads, lines) if each["type"] == kind]

    async def begun(self, times: int = 1) -> None:
        """Wait until so many calls of Billing.Hold have begun."""
        async with asyncio.timeout(20):
            while len(self.lines("Billing.Hold")) < times:
                await asyncio.sleep(0.02)

    def spec(self, name: str, activity: str | None, **more: Any) -> ToolSpec:
        """Describe one of its activities."""
        return ToolSpec(name=name, task_queue=self.queue, activity=activity, **more)


@pytest.fixture
async def bare(address: str, tmp_path: Path) -> AsyncIterator[Bare]:
    worker = Bare(address, tmp_path)
    await worker.start()
    yield worker
    await worker.kill()


def calls(*wanted: tuple[str, dict[str, Any]]) -> Callable[[ChatRequest], Reply]:
    """Ask for these calls, then say done."""
    return lambda request: say("done") if request.turn else call(*wanted)


def user(*specs: ToolSpec) -> Agent:
    return Agent(name="user", model=MODEL, tools=specs)


def told(at: Stage) -> list[str]:
    """Return what the model was told of its calls."""
    return list(at.model.requests[-1].tool_results.values())


async def test_an_activity_of_any_worker_is_a_tool_under_a_name_of_its_own(address: str, bare: Bare) -> None:
    charge = bare.spec("charge", "Billing.Charge", parameters=AMOUNT, description="Charge an amount.")
    async with stage(address, calls(("charge", {"amount": 7})), [user(charge)]) as at:
        ended = await at.run("user", message="Go")
        assert (ended.status, ended.final_text) == ("completed", "done")
        assert json.loads(told(at)[0])["charged"] == 7
        assert ended.sources == (Source(url="https://example.org/tariff", title="Tariff"),)
        (execution,) = ended.tool_executions
        assert (execution.tool_name, execution.success) == ("charge", True)
        (line,) = bare.lines("Billing.Charge")
        assert line["key"] == f"{ended.run_id}:{execution.tool_call_id}"
        assert at.model.requests[0].tools[0]["function"] == charge.model_dump(
            include={"name", "description", "parameters"}
        )
        folded, events = await timeline(at.client, ended.run_id)
        assert [each.data["tool_name"] for each in events if each.type.startswith("tool_c")] == ["charge"] * 2
        assert folded.result == ended


async def test_an_agent_that_a_caller_brings_may_name_a_task_queue_that_the_worker_never_heard_of(
    address: str, bare: Bare
) -> None:
    async with stage(address, calls(("charge", {"amount": 7}))) as at:
        ended = await at.run(user(bare.spec("charge", "Billing.Charge")), message="Go")
        assert (ended.status, ended.tool_executions[0].success) == ("completed", True)


async def test_a_result_that_is_no_json_is_an_error_for_the_model_and_a_huge_one_is_cut(
    address: str, bare: Bare
) -> None:
    kinds = ("bytes", "nan", "deep", "nothing", "large", "failure", "unreadable failure")
    script = calls(*(("odd", {"kind": kind}) for kind in kinds))
    async with stage(address, script, [user(bare.spec("odd", None))]) as at:
        ended = await at.run("user", message="Go")
        assert ended.status == "completed", ended.error
        said = told(at)
        assert [each.startswith("Error (ToolResultInvalid): the tool ran") for each in said[:3]] == [True] * 3
        assert said[3] == "null"
        assert re.search(r"\[cut: the first 1\d,\d\d\d of 1,500,000 characters\]$", said[4])
        assert re.fullmatch(r"Error \(P+… \[cut: 900 bytes in all\]\): out of paper", said[5])
        assert len(said[5]) < 300
        assert said[6] == "Error (Error): out of ink"
        folded, _ = await timeline(at.client, ended.run_id)
        assert folded.result == ended
        assert [each.success for each in ended.tool_executions] == [False, False, False, True, True, False, False]


async def test_a_task_queue_that_nobody_polls_is_an_error_for_the_model_within_its_bound(address: str) -> None:
    nowhere = ToolSpec(name="lost", task_queue="nobody-polls-this", queue_seconds=1, effect="once")
    async with stage(address, calls(("lost", {})), [user(nowhere)]) as at:
        began = time.monotonic()
        ended = await at.run("user", message="Go")
        assert time.monotonic() - began < 20
        assert ended.status == "completed"
        assert told(at) == ["Error (NoWorker): no worker took it from task queue 'nobody-polls-this' within 1 s"]


async def test_a_killed_workers_once_tool_is_told_and_not_repeated_and_an_idempotent_one_gets_the_same_key(
    address: str, bare: Bare
) -> None:
    once = bare.spec("once", "Billing.Hold", effect="once", timeout_seconds=3)
    again = bare.spec("again", "Billing.Hold", heartbeat_seconds=1)
    script = calls(("once", {}), ("again", {"beats": True}))
    async with stage(address, script, [user(once, again)]) as at:
        handle = await at.start("user", message="Go")
        await bare.begun(2)
        await bare.kill()
        await bare.start()
        ended = await result(handle)
        assert ended.status == "completed"
        first, second = (each.tool_call_id for each in ended.tool_executions)
        lines = bare.lines("Billing.Hold")
        assert [each["attempt"] for each in lines if each["key"] == f"{ended.run_id}:{first}"] == [1]
        assert [each["attempt"] for each in lines if each["key"] == f"{ended.run_id}:{second}"] == [1, 2]
        assert len(lines) == 3
        assert "whether it did its work is unknown, and it was not repeated" in told(at)[0]
        assert told(at)[1] == "held at attempt 2"


@pytest.mark.parametrize(("effect", "begun"), [("once", 1), ("idempotent", 2)])
async def test_a_run_is_interrupted_at_once_and_resumed_as_the_tools_effect_says(
    address: str, bare: Bare, effect: Any, begun: int
) -> None:
    spec = bare.spec("hold", "Billing.Hold", effect=effect, timeout_seconds=600)
    async with stage(address, calls(("hold", {})), [user(spec)]) as at:
        client = AsyncClient(temporal=at.client, task_queue=at.task_queue)
        run = await client.runs.create("user", message="Go")
        await bare.begun()
        began = time.monotonic()
        await client.runs.interrupt(run.id)
        assert (await client.runs.wait(run.id, timeout=20)).status == "interrupted"
        assert time.monotonic() - began < 5, "it does not beat, so nobody waits for it"
        await client.runs.resume_run(run.id)
        if effect == "idempotent":  # made anew, and under the same key; this time it is told to hold no longer
            await bare.begun(2)
            await client.runs.interrupt(run.id)
        ended = await client.runs.wait(run.id, timeout=20)
        assert len({each["key"] for each in bare.lines("Billing.Hold")}) == 1
        assert len(bare.lines("Billing.Hold")) == begun
        if effect == "once":
            assert ended.status == "completed"
            assert told(at)[0].startswith("Error (OutcomeUnknown): it was stopped; whether it did its work is unknown")


@tool(requires_approval=True)
def refund(amount: float) -> str:
    """Pay money back."""
    return f"paid {amount}"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (ToolSpec(name="x", task_queue="other", activity="refund"), "another name for this worker's tool 'refund'"),
        (ToolSpec(name="x", activity="cleanup"), "may not call activities of task queue 'test-"),
        (ToolSpec(name="x", task_queue="secret-queue"), "may not call activities of task queue 'secret-queue'"),
        (ToolSpec(name="x"), "no tool named 'x'"),
    ],
)
async def test_an_agent_from_outside_reaches_no_further_than_the_worker_lets_it(
    address: str, spec: ToolSpec, message: str
) -> None:
    async with stage(address, lambda _: say("done"), tools=[refund], remote_tool_queues=("other*",)) as at:
        ended = await at.run(user(spec), message="Go")
        assert (ended.status, at.model.hits) == ("failed", 0)
        assert ended.error is not None
        assert ended.error.type == "DefinitionError"
        assert message in ended.error.message


async def test_the_workers_word_on_a_tool_elsewhere_counts_before_the_callers(address: str, bare: Bare) -> None:
    known = bare.spec("charge", "Billing.Charge", requires_approval=True)
    async with stage(address, calls(("charge", {"amount": 7})), tools=[known], remote_tool_queues=()) as at:
        mine = user(ToolSpec(name="charge", task_queue="mine"))
        ended = await at.run(mine, message="Go", interaction_mode="headless")
        assert told(at)[0].startswith("Error (ApprovalDenied)")
        assert (ended.status, bare.lines("Billing.Charge")) == ("completed", [])


async def test_what_a_tool_elsewhere_returned_is_asked_of_nobody(address: str, bare: Bare) -> None:
    def script(request: ChatRequest) -> Reply:
        return say("done") if request.turn == 3 else call(("charge", {"amount": request.turn}))

    async with stage(address, script, [user(bare.spec("charge", "Billing.Charge"))]) as at:
        ended = await at.run("user", message="Go")
        history = await at.client.get_workflow_handle(ended.run_id).fetch_history()
        inputs = [
            json.loads(each.activity_task_scheduled_event_attributes.input.payloads[0].data)
            for each in history.events
            if each.activity_task_scheduled_event_attributes.activity_type.name == "model.call"
        ]
        assert [len(each.get("pushed", ())) for each in inputs] == [1, 1, 1, 1]
