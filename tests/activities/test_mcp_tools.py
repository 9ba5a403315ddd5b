"""What a run takes of an MCP server's listing, and how servers are told of; without any server."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest
from pydantic import ValidationError

from holdfast import Agent, DefinitionError, McpServer, McpTools, Settings
from holdfast.activities import mcp_access
from holdfast.activities._mcp import Listed
from holdfast.activities.mcp_tools import choose, spec_of_listed, tool_name
from holdfast.mcp import server_of
from holdfast.worker.discovery import Registry
from holdfast.workflows.admission import arguments_digest

ROOM = 100_000


def _listed(name: str = "find", **more: Any) -> Listed:
    return Listed(**{"name": name, "description": "Find.", "schema": {"type": "object"}, **more})


@pytest.mark.parametrize(
    ("hints", "effect"), [({}, "once"), ({"idempotent": True}, "idempotent"), ({"read_only": True}, "pure")]
)
def test_a_tool_is_repeatable_only_where_its_server_or_the_agent_says_so(hints: dict[str, Any], effect: str) -> None:
    assert spec_of_listed(_listed(**hints), McpTools(server="crm")).effect == effect
    assert spec_of_listed(_listed(**hints), McpTools(server="crm", effect="pure")).effect == "pure"


def test_a_name_that_had_to_be_changed_stays_one_of_its_own() -> None:
    assert tool_name("crm", "find") == "crm__find"
    names = {tool_name("crm", each) for each in ("a.b", "a/b", "a_b", "n" * 90, "n" * 91)}
    assert len(names) == 5
    assert all(len(each) <= 64 for each in names)


def test_a_fingerprint_changes_with_whatever_the_model_reads() -> None:
    prints = {
        _listed().fingerprint,
        _listed(description="Find!").fingerprint,
        _listed(schema={"type": "object", "properties": {"a": {}}}).fingerprint,
    }
    assert len(prints) == 3
    assert arguments_digest("t", {}, "one") != arguments_digest("t", {}, "two") != arguments_digest("t", {})


def test_what_there_is_no_room_for_is_told() -> None:
    found = {f"t{each}": _listed(f"t{each}") for each in range(130)}
    specs, missing = choose(McpTools(server="crm"), found, {"crm__t0"}, ROOM)
    assert len(specs) == 128
    assert missing.startswith("2 of its tools are not available: crm__t0 (another tool has this name), t129")
    assert choose(McpTools(server="crm", allow=("t1",)), found, (), ROOM)[1] == ""
    assert choose(McpTools(server="crm"), found, (), 100)[0] == []


def test_an_agents_json_can_name_a_server_and_never_bring_one() -> None:
    brought = McpServer(name="crm", command="crm-mcp", env={"KEY": "k"})
    agent = Agent(name="a", model="m", mcp_servers=[brought])
    assert agent.wire()["mcp_servers"] == [{"server": "crm"}]
    for server in ({"name": "crm", "command": "rm"}, {"server": {"name": "crm", "command": "rm"}}):
        given = {"name": "a", "model": "m", "mcp_servers": [server]}
        with pytest.raises(ValidationError):
            Agent.model_validate(given)
        with pytest.raises(ValidationError):
            Agent.model_validate_json(json.dumps(given))


def test_what_a_run_found_does_not_change_the_revision() -> None:
    agent = Agent(name="a", model="m", mcp_servers=["crm"])
    specs, _ = choose(agent.mcp_tools[0], {"find": _listed()}, (), ROOM)
    listed = agent.model_copy(update={"tools": tuple(specs)})
    assert listed.revision == agent.revision
    assert listed.unlisted().wire() == agent.wire()


@pytest.mark.parametrize("given", [{"name": "model", "command": "x"}, {"name": "a"}, {"name": "a.b", "command": "x"}])
def test_a_server_that_is_told_of_wrongly_is_refused_without_its_values(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as caught:
        McpServer.model_validate({**given, "env": {"KEY": "sk-very-secret"}})
    assert "sk-very-secret" not in str(caught.value)


def test_settings_tell_of_servers_by_name() -> None:
    os.environ["HOLDFAST_MCP_SERVERS"] = '{"crm": {"url": "http://localhost/mcp", "headers": {"X-Key": "canary-0123"}}}'
    settings = Settings()
    assert settings.mcp_servers["crm"].name == "crm"
    assert "canary-0123" in dict(settings.known_secrets).values()


def test_a_variable_that_the_worker_lacks_is_named() -> None:
    server = McpServer(name="crm", command="x", env={"KEY": "Bearer ${NOT_THERE_AT_ALL}"})
    with pytest.raises(DefinitionError, match="NOT_THERE_AT_ALL"):
        mcp_access.environment(server)


def test_two_servers_of_one_name_and_a_server_that_nobody_told_of_are_refused() -> None:
    one, other = McpServer(name="crm", command="x"), McpServer(name="crm", command="y")
    with pytest.raises(DefinitionError, match="two different MCP servers"):
        Registry.of([Agent(name="a", model="m", mcp_servers=[one])], (), [other])
    with pytest.raises(DefinitionError, match="'crm'"):
        Registry.of([Agent(name="a", model="m", mcp_servers=["crm"])]).check_servers()


def test_an_activity_type_tells_its_server() -> None:
    assert server_of("crm.find.it") == "crm"
    assert server_of("find") is server_of(".find") is server_of("c rm.find") is None
