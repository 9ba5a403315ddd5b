"""No key is left anywhere: not in history, not in the server's database, not in the worker's logs."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import temporalio.client
from temporalio.client import WorkflowFailureError

from holdfast.client.connect import connect
from holdfast.worker.scripted import ChatRequest, Reply, ScriptedModel, call, fail, say
from holdfast.worker.server import EmbeddedServer

NAMED = "sk-canary-of-a-variable-8cd1f2"
"""A key in an environment variable that an endpoint names."""
GIVEN = "sk-canary-of-the-settings-77ab0e"
"""A key that stands in the settings themselves."""
MARKER = "a-marker-that-must-be-found-5521"

AGENTS = """
import logging, os, time
from holdfast import Agent, ToolContext, tool

KEY = os.environ["SCRIPTED_API_KEY"]

@tool(max_attempts=2)
def raises() -> str:
    raise PermissionError(f"a-marker-that-must-be-found-5521: {KEY} was refused")

@tool
async def returns() -> dict:
    return {"marker": "a-marker-that-must-be-found-5521", KEY: [KEY]}

@tool(timeout_seconds=1, max_attempts=1)
def beats(context: ToolContext) -> str:
    context.heartbeat({"marker": "a-marker-that-must-be-found-5521", "key": KEY})
    time.sleep(2)
    return KEY

@tool
def logs() -> str:
    try:
        raise ValueError(f"caused by {KEY}")
    except ValueError:
        logging.getLogger("mine").exception("a-marker-that-must-be-found-5521 %s", KEY, extra={"with": KEY})
    return "logged"

TOOLS = [raises, returns, beats, logs]
named = Agent(name="named", model="named/test", tools=TOOLS, model_settings={"max_attempts": 2})
given = Agent(name="given", model="given/test", tools=TOOLS, model_settings={"max_attempts": 2, "stream": False})
"""


def script(request: ChatRequest) -> Reply:
    """Echo the caller's key: as an error, in an answer, in a tool's arguments."""
    key = request.headers["authorization"].removeprefix("Bearer ")
    match request.last_text.split()[0]:
        case "refuse":
            return fail(401, message=f"{MARKER}: incorrect key provided: {key}", headers={"x-key": key})
        case "overload":
            return fail(529, body=f"<html>{MARKER} {key}")
        case _ if request.turn:
            return say(f"{MARKER}: your key is {key} " * 5, pace=0.1, reasoning=f"{key}?")
        case _:
            return call(("raises", {}), ("returns", {}), ("beats", {}), ("logs", {}), ("returns", {key: key}), text=key)


@contextmanager
def worker(folder: Path, address: str, model_url: str) -> Iterator[Path]:
    """Run `holdfast worker` in a process of its own; gives the file of its logs."""
    (folder / "agents.py").write_text(AGENTS)
    prices = {"api_base": model_url, "input_cost_per_token": 0, "output_cost_per_token": 0}
    endpoints = {
        "named/*": {"model": "openai/{rest}", "api_key_env": "SCRIPTED_API_KEY", **prices},
        "given/*": {"model": "openai/{rest}", "api_key": GIVEN, **prices},
    }
    settings = {
        "SCRIPTED_API_KEY": NAMED,
        "HOLDFAST_ENDPOINTS": json.dumps(endpoints),
        "HOLDFAST_LOG_FORMAT": "json",
        "HOLDFAST_LOG_LEVEL": "debug",
        "HOLDFAST_GRACE_SECONDS": "1",
        "TEMPORAL_ADDRESS": address,
    }
    logs = folder / "worker.log"
    with logs.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "holdfast.client.cli", "worker", str(folder / "agents.py")],
            env={**os.environ, **settings},
            stdout=output,
            stderr=output,
        )
        try:
            yield logs
        finally:
            process.terminate()
            try:
                process.wait(15)
            finally:
                process.kill()


async def ended(client: temporalio.client.Client, agent: str, message: str) -> bytes:
    """Run to the end and return the whole history as it is stored."""
    request = {"agent": agent, "message": message}
    handle = await client.start_workflow("AgentRun", request, id=f"{agent}-{message}", task_queue="holdfast")
    try:
        await asyncio.wait_for(handle.result(), 30)
    except WorkflowFailureError:
        assert message in ("refuse", "overload")
    else:
        assert message == "tools"
    return b"".join([event.SerializeToString() async for event in handle.fetch_history_events()])


def rows(database: Path) -> bytes:
    """Return every value of every table: in the file itself, pages part long ones."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        connection.text_factory = bytes
        tables = [name.decode() for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type='table'")]
        values = (value for table in tables for row in connection.execute(f'SELECT * FROM "{table}"') for value in row)
        return b"\0".join(value for value in values if isinstance(value, bytes))


async def test_no_key_is_in_history_database_or_logs(tmp_path: Path) -> None:
    places: dict[str, bytes] = {}
    folder = tmp_path / "server"
    with EmbeddedServer.start(folder, port=0, ui_port=None) as server:
        async with ScriptedModel(script) as model:
            with worker(tmp_path, server.address, model.url) as logs:
                client = await connect(server.address)
                wanted = [(agent, each) for agent in ("named", "given") for each in ("refuse", "overload", "tools")]
                histories = await asyncio.gather(*(ended(client, *each) for each in wanted))
                places |= {f"history of {each}": history for each, history in zip(wanted, histories, strict=True)}
            sent = {each.headers["authorization"] for each in model.requests}
    assert sent == {f"Bearer {NAMED}", f"Bearer {GIVEN}"}
    places["logs"] = logs.read_bytes()
    places["rows of the database"] = rows(folder / "temporal.db")
    files = {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert MARKER.encode() in files["temporal.db"]
    for name, content in places.items():
        assert MARKER.encode() in content, f"nothing can be found in the {name}"
    for name, content in {**places, **files}.items():
        for key in (NAMED, GIVEN):
            found = content.find(key.encode())
            assert found < 0, f"{name}: {content[max(0, found - 200) : found + 50]!r}"
