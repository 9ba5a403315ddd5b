"""A model that answers from a plain Python function, over real HTTP.

ScriptedModel(script) speaks the OpenAI chat-completions API; the script maps a ChatRequest to a Reply:

    say    text                    reset     the connection drops before any byte
    call   tool calls              hang      no answer, until the client or the server leaves
    fail   an HTTP error           truncate  the answer breaks off without a finish
    empty  200, and no choices     garbage   200, and no JSON
"""

from __future__ import annotations

import argparse
import asyncio
import inspect
import json
import runpy
import signal
import socket
import struct
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

from aiohttp import web

from holdfast.worker.completions import parts
from holdfast.worker.replies import (
    AnswerOptions,
    ChatRequest,
    Json,
    Reply,
    Script,
    ToolCallSpec,
    call,
    empty,
    fail,
    garbage,
    hang,
    reset,
    say,
    truncate,
)

__all__ = [
    "AnswerOptions",
    "ChatRequest",
    "Reply",
    "Script",
    "ScriptedModel",
    "ToolCallSpec",
    "call",
    "empty",
    "fail",
    "garbage",
    "hang",
    "main",
    "reset",
    "say",
    "truncate",
]


async def _send(http: web.Request, request: ChatRequest, reply: Reply) -> web.StreamResponse:
    if reply.kind == "hang":
        await asyncio.Event().wait()
    if reply.kind == "reset":
        _abort(http)
        return web.Response()
    pieces, breaks = parts(request, reply), reply.kind == "truncate" and not reply.clean
    streams = request.stream and reply.kind != "fail"
    headers = {"Content-Type": "text/event-stream" if streams else "application/json"}
    response = web.StreamResponse(status=reply.status, headers=headers | dict(reply.headers or {}))
    if len(pieces) == 1 and not breaks:
        response.content_length = len(pieces[0])
    await response.prepare(http)
    for index, part in enumerate(pieces):
        await asyncio.sleep(reply.pace if index else 0)
        await response.write(part)
    # Ended here, not by aiohttp after the handler, so that a client leaving half-way is noticed.
    if not breaks:
        await response.write_eof()
    elif http.transport is not None:
        http.transport.close()
    return response


def _abort(http: web.Request) -> None:
    if http.transport is not None:
        linger_zero = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)
        sock = http.transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_zero)
        http.transport.abort()


class ScriptedModel:
    """Serve a script: `async with` in a running loop, `with` (or start and stop) in a thread of its own."""

    def __init__(self, script: Script, *, host: str = "127.0.0.1", port: int = 0, keep: int = 10_000) -> None:
        self.script = script
        """May be replaced between requests; one that blocks, blocks the server."""
        self.hits = 0
        """Requests that reached the script."""
        self.aborted = 0
        """Requests whose client went away before the answer was complete."""
        self.aborted_at: list[float] = []
        """When each of those was noticed, on time.monotonic()."""
        self._address = (host, port)
        self._url: str | None = None
        self._kept: deque[ChatRequest] = deque(maxlen=keep)
        self._rows: deque[Json] = deque(maxlen=10_000)
        self._runner: web.AppRunner | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """Return the base that clients append `/chat/completions` to; raise RuntimeError when not serving."""
        if self._url is None:
            raise RuntimeError("this model is not being served: enter it, or call start()")
        return self._url

    @property
    def requests(self) -> list[ChatRequest]:
        """Return the last `keep` requests, oldest first."""
        return list(self._kept)

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=2**28)
        app.router.add_post("/v1/chat/completions", self._complete)
        app.router.add_get("/hits", self._report)
        app.router.add_get("/healthz", self._report)
        runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.05)
        await runner.setup()
        try:
            await web.TCPSite(runner, *self._address).start()
        except OSError:
            await runner.cleanup()
            raise
        self._runner = runner
        self._url = f"http://{self._address[0]}:{runner.addresses[0][1]}/v1"
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._url = None
        if self._runner is not None:
            await self._runner.cleanup()

    def start(self) -> Self:
        """Serve from a daemon thread; return once the port is open, raise OSError when it is taken."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="scripted-model", daemon=True)
        self._thread.start()
        try:
            return asyncio.run_coroutine_threadsafe(self.__aenter__(), self._loop).result()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End what `start` began; no-op when nothing runs."""
        if self._loop is None or self._thread is None:
            return
        asyncio.run_coroutine_threadsafe(self.__aexit__(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._loop = self._thread = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.stop()

    async def _complete(self, http: web.Request) -> web.StreamResponse:
        at, body = time.monotonic(), await http.read()
        headers = {name.lower(): value for name, value in http.headers.items()}
        try:
            request = ChatRequest(self.hits + 1, at, json.loads(body), headers)
            row = _row(request)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            problem = {"error": {"message": f"this is no chat request: {error!r}"}}
            return web.json_response(problem, status=400)
        self.hits += 1
        self._kept.append(request)
        self._rows.append(row)
        try:
            reply = await self._ask(request)
            await asyncio.sleep(reply.delay)
            return await _send(http, request, reply)
        except asyncio.CancelledError:
            self._note_abort()
            raise
        except ConnectionError:
            self._note_abort()
            return web.Response()  # raised again, it would be logged as this server's error

    def _note_abort(self) -> None:
        if self._url is not None:  # a server that stops aborts its requests itself
            self.aborted_at.append(time.monotonic())
            self.aborted += 1

    async def _ask(self, request: ChatRequest) -> Reply:
        try:
            reply: object = self.script(request)
            if inspect.isawaitable(reply):
                reply = await reply
        except Exception as error:  # noqa: BLE001 - a script may raise anything; its caller gets it as a 500
            return fail(500, message=f"the script raised {error!r}", code="script_error")
        if not isinstance(reply, Reply):
            return fail(500, message=f"the script returned {reply!r}, which is no Reply", code="script_error")
        return reply

    async def _report(self, http: web.Request) -> web.Response:
        return web.json_response({"hits": self.hits, "aborted": self.aborted, "requests": list(self._rows)})


def _row(request: ChatRequest) -> Json:
    last_role = request.messages[-1]["role"] if request.messages else None
    row = {"number": request.number, "turn": request.turn, "model": request.model, "stream": request.stream}
    return {**row, "messages": len(request.messages), "last_role": last_role}


async def _serve(script: Script, host: str, port: int) -> None:
    leave = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        with suppress(NotImplementedError):
            asyncio.get_running_loop().add_signal_handler(number, leave.set)
    async with ScriptedModel(script, host=host, port=port, keep=0) as model:
        print(model.url, flush=True)
        await leave.wait()


def main(argv: Sequence[str] | None = None) -> None:
    """Serve a script from a file until SIGINT or SIGTERM; the first line of output is the URL."""
    parser = argparse.ArgumentParser(prog="python -m holdfast.worker.scripted", description=main.__doc__)
    parser.add_argument("script", metavar="FILE:FUNCTION")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    options = parser.parse_args(argv)
    path, _, name = options.script.rpartition(":")
    if not Path(path).is_file():
        parser.error(f"there is no file {path!r}")
    script = runpy.run_path(path).get(name)
    if not callable(script):
        parser.error(f"{path} has no function {name!r}")
    asyncio.run(_serve(script, options.host, options.port))


if __name__ == "__main__":
    # The script's file imports this module by its name: both must be one, or no Reply would be a Reply.
    sys.modules["holdfast.worker.scripted"] = sys.modules["__main__"]
    main()
