"""The tools of MCP servers as a run takes them: named, bounded, fingerprinted; chosen when the run begins."""

from __future__ import annotations

import asyncio
import hashlib
import re
import unicodedata
from collections.abc import Collection, Mapping
from typing import Any

from holdfast.activities._mcp import Listed
from holdfast.activities.mcp_pool import McpPool, Unreachable
from holdfast.agent import Agent
from holdfast.bounds import (
    MCP_DESCRIPTION_MAX_BYTES,
    MCP_SCHEMA_MAX_BYTES,
    MCP_TOOLS_MAX,
    REQUEST_MAX_BYTES,
    cut,
    json_size,
    one_line,
)
from holdfast.errors import DefinitionError
from holdfast.mcp import McpTools
from holdfast.tools import Effect, ToolSpec

_LIST_SECONDS = 50.0
"""All servers together: `agent.load` may take 60 s."""
_ROOM_BYTES = REQUEST_MAX_BYTES - 8 * 1024
_NAME_MAX = 64
_ORIGINAL_MAX = 128
_KEPT = "\n\t"
_TEXTS = ("title", "description")


def check_servers(agent: Agent, known: Collection[str]) -> None:
    """Raise DefinitionError where an agent names an MCP server that this worker has not."""
    missing = [each.name for each in agent.mcp_tools if each.name not in known]
    if missing:
        raise DefinitionError(f"agent {agent.name!r}: no MCP server named {', '.join(map(repr, missing))}")


async def with_listed(agent: Agent, pool: McpPool) -> Agent:
    """Return a resolved agent with the tools that its servers list now; what it lacks is said in `missing`."""
    if not agent.mcp_servers:
        return agent
    asked = agent.mcp_tools
    lists = await asyncio.gather(*(_listed(pool, each.name) for each in asked))
    specs, entries = list(agent.tools), []
    taken, room = set(agent.function_names), _ROOM_BYTES - json_size(agent.wire())
    for each, found in zip(asked, lists, strict=True):
        if isinstance(found, str):
            missing = f"its tools are not available: {found}"
        else:
            chosen, missing = choose(each, found, taken, room)
            room -= sum(json_size(spec.wire()) + 1 for spec in chosen)
            taken |= {spec.name for spec in chosen}
            specs += chosen
        entries.append(each.model_copy(update={"server": each.name, "missing": cut(missing, 1000)}))
    return agent.model_copy(update={"tools": tuple(specs), "mcp_servers": tuple(entries)})


async def _listed(pool: McpPool, server: str) -> dict[str, Listed] | str:
    try:
        async with asyncio.timeout(_LIST_SECONDS):
            return await pool.tools(server, fresh=True)
    except TimeoutError:
        return "it did not answer in time"
    except Unreachable as error:
        return one_line(plain(str(error)), 300)


def choose(
    wanted: McpTools, found: Mapping[str, Listed], taken: Collection[str], room: int
) -> tuple[list[ToolSpec], str]:
    """Return the tools that an agent gets of one server, at most 128 and `room` bytes, and what it does not."""
    specs: list[ToolSpec] = []
    left_out: list[str] = []
    names = set(taken)
    for listed in (each for each in found.values() if wanted.allows(each.name)):
        try:
            spec = spec_of_listed(listed, wanted)
            size = json_size(spec.wire()) + 1
        except ValueError as error:
            left_out.append(f"{one_line(plain(listed.name), 40)} ({one_line(str(error), 80)})")
            continue
        if spec.name in names:
            left_out.append(f"{spec.name} (another tool has this name)")
        elif len(specs) == MCP_TOOLS_MAX or size > room:
            left_out.append(f"{one_line(listed.name, 40)} (there is no room for more tools)")
        else:
            specs.append(spec)
            names.add(spec.name)
            room -= size
    if not left_out:
        return specs, ""
    more = f", and {len(left_out) - 5} more" if len(left_out) > 5 else ""
    return specs, f"{len(left_out)} of its tools are not available: {', '.join(left_out[:5])}{more}"


def spec_of_listed(listed: Listed, wanted: McpTools) -> ToolSpec:
    """Return a listed tool as a ToolSpec; ValueError for one that can't be called, or not be recorded."""
    server, tool = wanted.name, listed.name
    if not tool or len(tool) > _ORIGINAL_MAX or plain(tool) != tool or not tool.isprintable():
        raise ValueError("its name is unfit")
    fingerprint = listed.fingerprint
    schema = _described_plainly(listed.schema)
    if schema.get("type", "object") != "object":
        raise ValueError("its arguments are no object")
    schema = {**schema, "type": "object", "properties": schema.get("properties") or {}}
    if json_size(schema) > MCP_SCHEMA_MAX_BYTES:
        raise ValueError("its schema is too large")
    told: Effect = "pure" if listed.read_only else "idempotent" if listed.idempotent else "once"
    return ToolSpec(
        name=tool_name(server, tool),
        description=cut(plain(listed.description), MCP_DESCRIPTION_MAX_BYTES),
        parameters=schema,
        timeout_seconds=wanted.timeout_seconds,
        effect=wanted.effect or told,
        max_attempts=wanted.max_attempts,
        requires_approval=wanted.asks(tool),
        activity=f"{server}.{tool}",
        mcp_server=server,
        fingerprint=fingerprint,
    )


def tool_name(server: str, tool: str) -> str:
    """Return the name by which a model calls a server's tool: `server__tool`, made fit for every provider."""
    whole = f"{server}__{tool}"
    fit = re.sub(r"[^a-zA-Z0-9_-]", "_", whole)
    if fit == whole and len(fit) <= _NAME_MAX:
        return fit
    digest = hashlib.sha256(whole.encode()).hexdigest()[:8]
    return f"{fit[: _NAME_MAX - 9]}_{digest}"


def note(agent: Agent) -> str:
    """Return what the model is told of tools that it would otherwise look for; empty where nothing is missing."""
    lines = [f"MCP server {each.name}: {each.missing}." for each in agent.mcp_tools if each.missing]
    return "\n".join(lines)


def plain(text: str) -> str:
    """Return a text without control, format and surrogate characters, which can hide what it says from a person."""
    return "".join(
        char if char in _KEPT or unicodedata.category(char) not in ("Cc", "Cf", "Cs") else "\N{REPLACEMENT CHARACTER}"
        for char in text
    )


def _described_plainly(schema: Any) -> Any:
    """Make a schema's own texts plain; data in it, which arguments may have to equal, stays."""
    if isinstance(schema, dict):
        return {
            name: plain(each) if name in _TEXTS and isinstance(each, str) else _described_plainly(each)
            for name, each in schema.items()
        }
    if isinstance(schema, list):
        return [_described_plainly(each) for each in schema]
    return schema
