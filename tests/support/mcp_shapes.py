"""Shapes of runs with tools of an MCP server."""

from __future__ import annotations

import tempfile
from pathlib import Path

from holdfast import Agent, McpServer, McpTools
from holdfast.worker.scripted import call, say
from tests.support.mcp import Crm
from tests.support.shapes import Play, Shape, turns
from tests.support.stage import MODEL

_FIND = ("crm__find", {"number": 7})
_REFUND = ("crm__refund", {"number": 7})


def _crm(name: str) -> Crm:
    folder = Path(tempfile.gettempdir()) / f"holdfast-{name}"
    folder.mkdir(exist_ok=True)
    return Crm(folder)


def _agent(name: str) -> Agent:
    tools = McpTools(server=_crm(name).server(), allow=("find", "refund"), requires_approval=("refund",))
    return Agent(name="demo", model=MODEL, mcp_servers=[tools])


async def _decided(play: Play) -> str:
    waits: list[dict[str, str]] = []
    while not waits:
        waits = (await play.run.query("status"))["waiting_for"]
    return waits[0]["id"]


async def _approve_what_changes(play: Play) -> None:
    crm = _crm(play.name)
    crm.tell()
    call_id = await _decided(play)
    crm.tell(descriptions={"refund": "Pay money back, twice."})
    await play.run.execute_update("decide", {"call_id": call_id, "decision": "approve"})


async def _approve_in_another_link(play: Play) -> None:
    call_id = await _decided(play)
    for number in range(20):
        await play.run.signal("append_message", {"text": "more", "id": "a"})
        if number == 10:
            assert await _decided(play) == call_id
    await play.run.execute_update("decide", {"call_id": call_id, "decision": "approve"})


MCP_SHAPES: dict[str, Shape] = {
    "mcp": Shape(turns(call(_FIND), say("It is known.")), _agent("mcp")),
    "mcp-changed": Shape(turns(call(_REFUND), say("Not paid.")), _agent("mcp-changed"), during=_approve_what_changes),
    "mcp-over-links": Shape(
        turns(call(_FIND), call(_REFUND, _FIND), say("Paid.")),
        _agent("mcp-over-links"),
        during=_approve_in_another_link,
        continue_after_events=15,
    ),
    "mcp-out-of-reach": Shape(
        turns(call(_FIND), say("There is no such tool.")),
        Agent(name="demo", model=MODEL, mcp_servers=[McpServer(name="crm", command="/nothing/here")]),
    ),
}
