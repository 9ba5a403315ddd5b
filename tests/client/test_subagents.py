"""Subagents as callers see them: what they wait for, listings, and the command line."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest

from holdfast import Client
from holdfast.worker.scripted import ChatRequest, Reply, call, say
from tests.support.processes import holdfast, serving
from tests.support.terminal import Terminal

AGENTS = '''
from holdfast import Agent, tool

@tool(requires_approval=True)
def pay(amount: int, to: str) -> str:
    """Pay."""
    return f"paid {amount} to {to}"

clerk = Agent(name="clerk", model="scripted-model", tools=[pay])
desk = Agent(name="desk", model="scripted-model", subagents=["clerk"])
'''


def _script(request: ChatRequest) -> Reply:
    done = [str(each["content"]) for each in request.messages if each["role"] == "tool"]
    if done:
        return say(f"heard: {done[-1]}")
    if request.tool_names == ["clerk"]:
        return call(("clerk", {"message": request.last_text}))
    return call(("pay", {"amount": 5, "to": "Bob"}))


@pytest.fixture(scope="module")
def env(address: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A worker process, and the environment in which commands find it."""
    with serving(AGENTS, _script, address=address, folder=tmp_path_factory.mktemp("subagents")) as told:
        yield told


@pytest.fixture
def client(env: dict[str, str]) -> Iterator[Client]:
    with Client(env["TEMPORAL_ADDRESS"], task_queue=env["HOLDFAST_TASK_QUEUE"]) as made:
        yield made


def test_what_a_subagent_waits_for_is_found_and_answered_through_its_caller(
    env: dict[str, str], client: Client
) -> None:
    run = client.runs.create("desk", message="Pay Bob.")
    deadline = time.monotonic() + 30
    while not (found := client.runs.waiting_for(run.id)):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    [wanted] = found
    child = wanted["run_id"]
    assert (wanted["kind"], wanted["tool_name"], child.startswith(f"{run.id}:")) == ("approval", "pay", True)
    assert client.runs.status(run.id).status == "running"
    assert (client.runs.status(child).status, client.runs.status(child).parent_id) == ("waiting", run.id)
    assert child in holdfast("runs", "waiting", run.id, env=env).stdout
    told = holdfast("runs", "approve", run.id, "--json", env=env)
    assert json.loads(told.stdout) == {"run_id": child, "call_id": wanted["id"], "decision": "approve"}
    ended = client.runs.wait(run.id, timeout=30)
    assert "paid 5 to Bob" in ended.final_text
    lines = holdfast("runs", "show", run.id, "--tree", env=env).stdout.splitlines()
    indented = [line for line in lines if line[11:16] == "     "]
    assert any("approval_requested" in line for line in indented)
    assert not any("approval_requested" in line for line in lines if line not in indented)
    deadline = time.monotonic() + 30
    while [each.id for each in client.runs.list(parent_id=run.id)] != [child]:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    listed = holdfast("runs", "list", "--agent", "clerk", "--no-subagents", "--json", env=env).stdout
    assert child not in listed
    assert run.id in {each.id for each in client.runs.list(subagents=False)}


def test_whoever_watches_a_run_interactively_is_asked_for_its_subagents_as_well(env: dict[str, str]) -> None:
    terminal = Terminal("run", "desk", "-m", "Pay Bob.", "--interactive", env=env)
    terminal.expect("approval wanted: pay")
    terminal.expect("dit its arguments: ")
    terminal.type("y")
    terminal.expect("completed · 2 steps")
    assert terminal.close() == 0
    assert "paid 5 to Bob" in terminal.shown
