"""The MCP servers of one worker: one connection each, opened on first use and shared by all runs."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, TypeVar

from holdfast.activities import _mcp
from holdfast.activities._mcp import Answered, Connection, Listed, Lost
from holdfast.activities.log import get_logger
from holdfast.activities.secrets import Scrubber
from holdfast.mcp import McpServer

_log = get_logger("holdfast.mcp")
_FRESH_SECONDS = 5.0
"""How old a listing may be that a call is checked against."""
_STOP_SECONDS = 8.0
"""The package closes stdin, waits 2 s, terminates, waits 2 s, and kills."""
T = TypeVar("T")
Check = Callable[[Listed | None], None]


class Unreachable(Exception):
    """The server could not be reached, or does not list its tools: nothing was called."""


class McpPool:
    """Each server's connection lives in a task of its own; who uses it while it breaks gets Lost."""

    def __init__(self, servers: Iterable[McpServer], scrub: Scrubber) -> None:
        self._servers = {each.name: each for each in servers}
        self._scrub = scrub
        self._sessions: dict[str, _Session] = {}

    @property
    def names(self) -> frozenset[str]:
        """The servers that there are."""
        return frozenset(self._servers)

    async def tools(self, server: str, *, fresh: bool = False) -> dict[str, Listed]:
        """Return a server's tools by name, as it lists them: now, or (unless `fresh`) at most 5 s ago.

        Raises Unreachable, after a connection that has gone stale was opened anew once.
        """
        return (await self._ready(server, fresh=fresh)).listed

    async def call(
        self, server: str, tool: str, arguments: dict[str, Any], *, key: str, check: Check, fresh: bool = False
    ) -> Answered:
        """Call a tool over the connection by which it was listed; Lost, Rejected, Unreachable.

        `check` is given what the server lists (see `tools`), and raises where the tool must not be called.
        """
        session = await self._ready(server, fresh=fresh)
        check(session.listed.get(tool))
        try:
            return await session.use(session.connection.call(tool, arguments, key))
        except Lost:
            self._drop(session)
            raise

    async def close(self) -> None:
        """Close all connections, and end the programs."""
        sessions, self._sessions = list(self._sessions.values()), {}
        await asyncio.gather(*(session.close() for session in sessions))

    async def _ready(self, name: str, *, fresh: bool = False) -> _Session:
        """Return a session whose listing is young enough."""
        for attempt in (1, 2):
            known = self._sessions.get(name)
            session = known or self._open(name)
            try:
                async with asyncio.timeout(session.server.start_timeout_seconds):
                    await session.look(fresh=fresh)
                return session
            except Exception as error:  # noqa: BLE001 - whatever it is, the server is out of reach
                if not isinstance(error, TimeoutError) or session.users == 0:  # else it may just be busy
                    self._drop(session)
                if known is None or attempt == 2:
                    raise Unreachable(self._scrub.text(_mcp.reason(error))) from None
        raise AssertionError("unreachable")

    def _open(self, name: str) -> _Session:
        session = self._sessions[name] = _Session(self._servers[name], self._scrub)
        session.task.add_done_callback(lambda _: self._forget(session))
        return session

    def _drop(self, session: _Session) -> None:
        self._forget(session)
        session.abandon()

    def _forget(self, session: _Session) -> None:
        if self._sessions.get(session.server.name) is session:
            del self._sessions[session.server.name]


class _Session:
    """One connection, opened and closed by the same task, as the package's cancel scopes want it."""

    def __init__(self, server: McpServer, scrub: Scrubber) -> None:
        loop = asyncio.get_running_loop()
        self.server = server
        self.users = 0
        self.listed: dict[str, Listed] = {}
        self._scrub = scrub
        self._listed_at: float | None = None
        self._used_at = loop.time()
        self._clock = loop.time
        self._looking = asyncio.Lock()
        self._closing = asyncio.Event()
        self._up: asyncio.Future[Connection] = loop.create_future()
        self.task = loop.create_task(self._keep(), name=f"holdfast-mcp-{server.name}")

    @property
    def connection(self) -> Connection:
        """The open connection."""
        return self._up.result()

    async def look(self, *, fresh: bool) -> None:
        """See that it is up, and that its listing is young enough; many callers at once ask the server once."""
        asked_at = self._clock()
        connection = await asyncio.shield(self._up)
        async with self._looking:
            newest = asked_at if fresh else self._clock() - _FRESH_SECONDS
            if self._listed_at is None or self._listed_at < newest:
                began = self._clock()
                found = await self.use(connection.tools())
                self.listed = {}
                for each in found:
                    self.listed.setdefault(each.name, each)
                self._listed_at = began

    async def use(self, work: Coroutine[Any, Any, T]) -> T:
        """Do something over the connection; Lost as soon as it has ended."""
        doing = asyncio.create_task(work)
        self.users += 1
        try:
            await asyncio.wait({doing, self.task}, return_when=asyncio.FIRST_COMPLETED)
            if not doing.done():
                raise Lost("the connection was closed")
            return doing.result()
        finally:
            self.users -= 1
            self._used_at = self._clock()
            if not doing.done():
                doing.cancel()
                await asyncio.wait([doing], timeout=1)

    def abandon(self) -> None:
        """Close it without waiting; at once where it is not even up."""
        self._closing.set()
        if not self._up.done():
            self.task.cancel()

    async def close(self) -> None:
        """Close it, and wait until that is done."""
        self.abandon()
        await asyncio.wait([self.task], timeout=_STOP_SECONDS)
        if not self.task.done():
            self.task.cancel()

    def _changed(self) -> None:
        self._listed_at = None

    def _said(self, line: str) -> None:
        _log.info("mcp.stderr", server=self.server.name, line=self._scrub.text(line))

    async def _keep(self) -> None:
        try:
            await asyncio.to_thread(_mcp.load)
            async with _mcp.connected(self.server, self._changed, self._said) as connection:
                _log.info("mcp.connected", server=self.server.name)
                self._up.set_result(connection)
                await self._until_idle()
            _log.info("mcp.closed", server=self.server.name)
        except asyncio.CancelledError:
            self._fail(Lost("it was closed"))
            raise
        except Exception as error:  # noqa: BLE001 - whoever waits is told, and all of it ends here
            _log.warning("mcp.lost", server=self.server.name, cause=self._scrub.text(_mcp.reason(error)))
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        if not self._up.done():
            self._up.set_exception(error)
            self._up.exception()  # somebody may have stopped waiting

    async def _until_idle(self) -> None:
        while not self._closing.is_set():
            left = self._used_at + self.server.idle_seconds - self._clock()
            if left <= 0 and not self.users:
                return
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), max(left, 1.0))
