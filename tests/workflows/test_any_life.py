"""Any life at all: runs that are steered at random moments, through many links and restarts, and what always holds."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pytest
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import WorkflowHandle, WorkflowHistory, WorkflowUpdateFailedError
from temporalio.service import RPCError, RPCStatusCode
from temporalio.worker import Replayer

from holdfast.client.history import read
from holdfast.worker.plugin import HoldfastPlugin
from holdfast.worker.scripted import call
from tests.support.plays import AGENTS, Line, Play, done, script
from tests.support.scenes import Scene
from tests.support.stage import DEADLINE, Stage, stage, timeline

LIVES = 24
AT_ONCE = 8


@dataclass
class Life:
    """One run, and a hand that steers it by the dice of its seed."""

    at: Stage
    seed: int
    sent: list[str] = field(default_factory=list)
    restarts: int = 0

    def __post_init__(self) -> None:
        self.dice = random.Random(self.seed)
        self.play = Play((*(self.turn() for _ in range(self.dice.randint(2, 7))), done), seconds=0.1)
        self.play.gate.set()
        self.actions: list[Callable[[], Any]] = [
            lambda: self.run.signal("pause"),
            lambda: self.run.signal("resume"),
            self.tell,
            self.tell,
            self.tell_again,
            self.settle,
            self.settle,
            self.talk_nonsense,
            self.stop,
        ]

    @property
    def run(self) -> WorkflowHandle[Any, Any]:
        return self.at.client.get_workflow_handle(self.play.key)

    def turn(self) -> Line:
        """Make a turn of one to four calls."""
        drawn = self.dice.choices(["note", "hold", "hold_once", "flaky", "pay", "ask_user", "sleep"], k=4)
        made = []
        for number, name in enumerate(drawn[: self.dice.randint(1, 4)]):
            own: dict[str, dict[str, Any]] = {
                "note": {"key": self.play_key, "number": number},
                "ask_user": {"question": f"{number}?"},
                "sleep": {"seconds": self.dice.choice([0.2, 1_000]) + number / 100},
            }
            made.append((name, own.get(name, {"key": self.play_key})))
        return lambda play, request: call(*(_told(play, each) for each in made))

    play_key = ""

    async def tell(self) -> None:
        text = f"message {len(self.sent)}"
        self.sent.append(text)
        await self.run.signal("append_message", {"text": text, "id": text})

    async def tell_again(self) -> None:
        if self.sent:
            text = self.dice.choice(self.sent)
            await self.run.signal("append_message", {"text": text, "id": text})

    async def settle(self) -> None:
        """Decide, answer or leave one of the things that the run waits for."""
        waits = (await self.run.query("status"))["waiting_for"]
        if waits:
            await self.say_to(self.dice.choice(waits), self.dice.choice(["approve", "deny"]))

    async def talk_nonsense(self) -> None:
        """Send an update that is refused: nothing of it is in history, and replays must not miss it."""
        with suppress(WorkflowUpdateFailedError):
            await self.run.execute_update("decide", {"call_id": "nobody", "decision": "deny"})

    async def say_to(self, wanted: dict[str, Any], decision: str) -> None:
        with suppress(WorkflowUpdateFailedError):  # somebody or something was quicker
            if wanted["kind"] == "approval":
                await self.run.execute_update("decide", {"call_id": wanted["id"], "decision": decision})
            elif wanted["kind"] == "answer":
                await self.run.execute_update("answer", {"question_id": wanted["id"], "text": "yes"})

    async def stop(self) -> None:
        if self.restarts < 3 and self.dice.random() < 0.5:
            stop = [self.run.cancel, lambda: self.run.signal("interrupt"), self.run.terminate]
            await self.dice.choice(stop)()

    async def live(self) -> None:
        """Play it to its end: act at random moments, then help it along."""
        await self.runs.create("player", run_id=self.play.key, message=self.play.key)
        for _ in range(self.dice.randint(3, 14)):
            await asyncio.sleep(self.dice.random() * 0.15)
            await self.act(self.dice.choice(self.actions))
        async with asyncio.timeout(DEADLINE):
            while not await self.has_completed():
                await self.act(self.help)
                await asyncio.sleep(0.05)

    async def act(self, action: Callable[[], Any]) -> None:
        sent = len(self.sent)
        try:
            await action()
        except RPCError as error:
            if error.status != RPCStatusCode.NOT_FOUND and "closed before" not in error.message:
                raise
            del self.sent[sent:]
            await self.begin_again()

    async def begin_again(self) -> None:
        """Start a run that was stopped again; leave one that has completed alone."""
        if (await self.runs.status(self.play.key)).status in ("interrupted", "cancelled", "failed"):
            self.restarts += 1
            await self.runs.resume_run(self.play.key)

    @property
    def runs(self) -> Any:
        return Scene(self.at, "", self.play, self.run).runs

    async def help(self) -> None:
        await self.run.signal("resume")
        for wanted in (await self.run.query("status"))["waiting_for"]:
            if wanted["kind"] == "timer" and wanted["arguments"]["seconds"] > 1:
                await self.tell()
            else:
                await self.say_to(wanted, "approve")

    async def has_completed(self) -> bool:
        status = (await self.runs.status(self.play.key)).status
        if status in ("interrupted", "cancelled", "failed"):
            await self.begin_again()
        return bool(status == "completed")

    async def check(self) -> None:
        links: dict[str, list[HistoryEvent]] = {}
        async for line in read(self.at.client, self.play.key):
            links.setdefault(line.link, []).append(line.event)
        for events_of_link in links.values():
            history = WorkflowHistory(self.play.key, events_of_link)
            await Replayer(workflows=[], plugins=[HoldfastPlugin()]).replay_workflow(history)
        folded, events = await timeline(self.at.client, self.play.key)
        told = await self.run.query("transcript", {"start": 0})
        assert [each.wire() for each in folded.messages] == told["messages"]
        said = [each.content for each in folded.messages if each.role == "user"]
        assert Counter(said) == Counter([self.play.key, *self.sent]), (self.seed, events)
        assert folded.result is not None
        assert (folded.result.status, folded.result.run_seq) == ("completed", self.restarts + 1)
        assert [each.tool_call_id for each in folded.result.tool_executions] == [
            each.tool_call_id for each in folded.messages if each.role == "tool"
        ][-len(folded.result.tool_executions) :]
        assert sum(event.type == "run_completed" for event in events) == 1
        assert events[-1].type == "run_completed"
        called = Counter(key for name, key, attempt in self.play.ran if attempt == 1)
        once = Counter(key for name, key, _ in self.play.ran if name == "hold_once")
        assert all(number <= self.restarts + 1 for number in called.values())
        assert all(number == 1 for number in once.values())
        if not self.restarts:
            assert set(called.values()) <= {1}
            assert len(self.play.asked) == sum(event.type == "model_called" for event in events)
        held = False
        for event in events:
            if event.type in ("paused", "resumed", "run_continued"):
                held = event.type == "paused" or (held and event.message == "continues in a new link")
            assert not (held and event.type in ("step_started", "model_called")), event


def _told(play: Play, wanted: tuple[str, dict[str, Any]]) -> tuple[str, dict[str, Any]]:
    name, arguments = wanted
    return name, arguments | ({"key": play.key} if "key" in arguments else {})


@pytest.mark.parametrize("first", range(0, LIVES, AT_ONCE))
async def test_whatever_is_done_to_a_run_nothing_is_lost_nothing_done_twice_and_it_replays(
    address: str, first: int
) -> None:
    async with stage(address, script, AGENTS, continue_after_events=25) as at:
        await at.run("player", message=Play((done,)).key)  # the server then knows the search attributes
        lives = [Life(at, seed) for seed in range(first, first + AT_ONCE)]
        found = await asyncio.gather(*(each.live() for each in lives), return_exceptions=True)
        for life, error in zip(lives, found, strict=True):
            assert error is None, (life.seed, life.play.key, error)
        for life in lives:
            await life.check()
