"""What a worker hands to an MCP server: environment and headers, with the worker's own variables filled in."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping

from pydantic import SecretStr

from holdfast.activities.secrets import names_secret
from holdfast.errors import DefinitionError
from holdfast.mcp import McpServer

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


def environment(server: McpServer) -> dict[str, str]:
    """Return the variables that a server's program gets; DefinitionError for one that the worker lacks."""
    return _filled(server, server.env)


def headers(server: McpServer) -> dict[str, str]:
    """Return the headers that go with every request; DefinitionError for a variable that the worker lacks."""
    return _filled(server, server.headers)


def secrets(servers: Iterable[McpServer]) -> list[tuple[str, str]]:
    """Return what must be recorded nowhere, with a name for each: headers, variables filled in, telling names."""
    found: list[tuple[str, str]] = []
    for server in servers:
        for name, value in server.headers.items():
            text = _known(value)
            found += [(f"{server.name} {name}", each) for each in (text, text.partition(" ")[2]) if each]
        for name, value in server.env.items():
            if names_secret(name) or _VARIABLE.search(value.get_secret_value()):
                found.append((f"{server.name} {name}", _known(value)))
        for value in (*server.headers.values(), *server.env.values()):
            for name in _VARIABLE.findall(value.get_secret_value()):
                found.append((name, os.environ.get(name, "")))
    return found


def _known(value: SecretStr) -> str:
    return _VARIABLE.sub(lambda found: os.environ.get(found[1], ""), value.get_secret_value())


def _filled(server: McpServer, values: Mapping[str, SecretStr]) -> dict[str, str]:
    for value in values.values():
        for name in _VARIABLE.findall(value.get_secret_value()):
            if name not in os.environ:
                raise DefinitionError(f"MCP server {server.name!r}: the worker has no environment variable {name}")
    return {name: _known(value) for name, value in values.items()}
