"""The one file that knows the `mcp` package: opens a connection, lists a server's tools, calls one."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TextIO, cast

from holdfast.activities import mcp_access
from holdfast.activities.failures import text_of
from holdfast.bounds import canonical_json, check_depth, cut
from holdfast.mcp import McpServer

if TYPE_CHECKING:
    from mcp import Client
    from mcp_types import RequestParamsMeta

_PAGES_MAX = 100
_LISTED_MAX = 2_000
"""Tools of a server that are looked at; a longer list is taken for an endless one."""
_LINES_MAX = 500
_LINE_MAX_BYTES = 1_000
"""Of what a server's program writes to stderr while it lives: the rest is dropped."""
_CONNECT_SECONDS = 30.0
_IDEMPOTENCY_KEY = "holdfast/idempotency-key"


class Lost(Exception):
    """The connection broke, or its server died, in the middle of a request."""


class Rejected(Exception):
    """The server answered a request with an error of the protocol."""

    def __init__(self, message: str, *, passing: bool) -> None:
        super().__init__(message)
        self.passing = passing
        """Whether the same request may go better later."""


@dataclass(frozen=True)
class Listed:
    """One tool as its server describes it."""

    name: str
    description: str
    schema: dict[str, Any]
    read_only: bool = False
    idempotent: bool = False

    @property
    def fingerprint(self) -> str:
        """The hash of all that a model reads of it: 32 hex digits; ValueError for what no JSON can hold."""
        check_depth(self.schema)
        text = canonical_json([self.name, self.description, self.schema])
        return hashlib.sha256(text.encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Answered:
    """What a tool returned: JSON data, or the text of its own error."""

    value: Any
    failed: bool = False


class Connection:
    """An open connection to one server; many calls may use it at once."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def tools(self) -> list[Listed]:
        """Return the tools that the server has now, at most 2,000."""
        from mcp_types import PaginatedRequestParams

        found: list[Listed] = []
        cursor: str | None = None
        for _ in range(_PAGES_MAX):
            with _translated():
                page = await self._client.session.list_tools(params=PaginatedRequestParams(cursor=cursor))
            for tool in page.tools:
                hints = tool.annotations
                found.append(
                    Listed(
                        name=tool.name,
                        description=tool.description or "",
                        schema=tool.input_schema,
                        read_only=bool(hints and hints.read_only_hint),
                        idempotent=bool(hints and hints.idempotent_hint),
                    )
                )
            cursor = page.next_cursor
            if cursor is None or len(found) >= _LISTED_MAX:
                break
        return found[:_LISTED_MAX]

    async def call(self, tool: str, arguments: dict[str, Any], key: str) -> Answered:
        """Call a tool and return what it answers; Lost and Rejected where it does not."""
        with _translated():
            told = cast("RequestParamsMeta", {_IDEMPOTENCY_KEY: key})
            result = await self._client.call_tool(tool, arguments, meta=told)
        text = "\n".join(_text(block) for block in result.content)
        if result.is_error:
            return Answered(text or "the tool failed, and did not say why", failed=True)
        if result.structured_content in (None, {"result": text}):  # many servers wrap a text so
            return Answered(text)
        if all(block.type == "text" for block in result.content):
            return Answered(result.structured_content)  # of which the texts are another form
        return Answered({"structured_content": result.structured_content, "content": text})


@contextlib.asynccontextmanager
async def connected(
    server: McpServer, changed: Callable[[], None], log: Callable[[str], None]
) -> AsyncIterator[Connection]:
    """Open a connection, and close it; both in the same task. `changed` is called when the server has other tools.

    Nothing that a server may ask of a client is offered: no sampling, no elicitation, no roots.
    """
    import mcp_types
    from mcp import Client, StdioServerParameters
    from mcp.client.stdio import stdio_client
    from mcp.client.streamable_http import streamable_http_client

    async def heard(message: Any) -> None:
        if isinstance(message, mcp_types.ToolListChangedNotification):
            changed()

    async with contextlib.AsyncExitStack() as stack:
        if server.command is not None:
            stderr = stack.enter_context(_lines_to(log))
            program = StdioServerParameters(
                command=server.command,
                args=list(server.args),
                env=mcp_access.environment(server),
                cwd=server.cwd,
                encoding_error_handler="replace",
            )
            transport = stdio_client(program, errlog=stderr)
        else:
            import httpx2

            timeout = httpx2.Timeout(_CONNECT_SECONDS, read=None)  # an activity's own bounds end a slow call
            http = httpx2.AsyncClient(headers=mcp_access.headers(server), timeout=timeout)
            transport = streamable_http_client(server.url or "", http_client=await stack.enter_async_context(http))
        client = Client(transport, message_handler=heard, cache=None)
        yield Connection(await stack.enter_async_context(client))


def reason(error: BaseException) -> str:
    """Say in one line why a connection could not be opened or kept."""
    if isinstance(error, BaseExceptionGroup) and error.exceptions:
        return reason(error.exceptions[0])
    if isinstance(error, TimeoutError):
        return "it did not answer in time"
    return cut(" ".join((text_of(error) or type(error).__name__).split()), 500)


def load() -> None:
    """Import the package, which takes a second, ahead of the first connection."""
    import mcp.client.client
    import mcp.client.stdio  # noqa: F401


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    from mcp import MCPError
    from mcp_types import CONNECTION_CLOSED, INTERNAL_ERROR

    try:
        yield
    except MCPError as error:
        if error.code == CONNECTION_CLOSED or error.message == "Session terminated":
            raise Lost(error.message) from None
        raise Rejected(error.message, passing=error.code == INTERNAL_ERROR) from None


def _text(block: Any) -> str:
    """Return a part of a result as text: pictures and the like are named, not shown."""
    match block.type:
        case "text":
            return str(block.text)
        case "image" | "audio":
            return f"[{block.type} of {len(block.data) * 3 // 4:,} bytes, {block.mime_type}: not shown]"
        case "resource_link":
            return f"[resource {block.name}: {block.uri}]"
        case _ if hasattr(block.resource, "text"):
            return str(block.resource.text)
        case _:
            return f"[resource {block.resource.uri}, {len(block.resource.blob) * 3 // 4:,} bytes: not shown]"


@contextlib.contextmanager
def _lines_to(log: Callable[[str], None]) -> Iterator[TextIO]:
    """Give a file that a program may write its stderr to; the lines go to the log, 500 at most."""
    read, write = os.pipe()
    os.set_blocking(read, False)
    loop, left, buffer = asyncio.get_running_loop(), _LINES_MAX, b""

    def ready() -> None:
        nonlocal left, buffer
        chunk = os.read(read, 65_536)
        if not chunk:
            loop.remove_reader(read)
        *lines, buffer = (buffer + chunk).split(b"\n")
        buffer = buffer[:_LINE_MAX_BYTES]
        for line in _some(lines, left):
            left -= 1
            log(cut(line[: _LINE_MAX_BYTES * 2].decode(errors="replace"), _LINE_MAX_BYTES))

    loop.add_reader(read, ready)
    try:
        with os.fdopen(write, "w") as file:
            yield file
    finally:
        loop.remove_reader(read)
        os.close(read)


def _some(lines: Iterable[bytes], left: int) -> list[bytes]:
    return [line for line in lines if line.strip()][:left]
