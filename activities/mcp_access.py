"""What a worker hands to an MCP server: environment and headers, with the worker's own variables filled in."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable

from holdfast.activities.secrets import names_secret
from holdfast.errors import DefinitionError
from holdfast.mcp import McpServer

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


def environment(server: McpServer) -> dict[str, str]:
    """Return the variables that a server's program gets; DefinitionError for one that the worker lacks."""
    return _filled(server)


def headers(server: McpServer) -> dict[str, str]:
    """Return the headers that go with every request; DefinitionError for a variable that the worker lacks."""
    return _filled(server)


def secrets(servers: Iterable[McpServer]) -> list[tuple[str, str]]:
    """Return what must be recorded nowhere, with a name for each: headers, variables filled in, telling names."""
    found: list[tuple[str, str]] = []
    for server in servers:
        for name, value in server.values.items():
            text, label = _known(value), f"{server.name} {name}"
            if server.url is not None:
                found += [(label, each) for each in (text, text.partition(" ")[2]) if each]
            elif names_secret(name) or _VARIABLE.search(value):
                found.append((label, text))
            found += [(variable, os.environ.get(variable, "")) for variable in _VARIABLE.findall(value)]
    return found


def _known(value: str) -> str:
    return _VARIABLE.sub(lambda found: os.environ.get(found[1], ""), value)


def _filled(server: McpServer) -> dict[str, str]:
    for value in server.values.values():
        for name in _VARIABLE.findall(value):
            if name not in os.environ:
                raise DefinitionError(f"MCP server {server.name!r}: the worker has no environment variable {name}")
    return {name: _known(value) for name, value in server.values.items()}
