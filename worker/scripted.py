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
import re
import runpy
import signal
import socket
import struct
import sys
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self, TypedDict, Unpack, cast

from aiohttp import web

Json = dict[str, Any]


@dataclass(frozen=True)
class ChatRequest:
    """One request for a completion, as it arrived."""

    number: int
    """1 for the first request that this server saw."""
    at: float
    """Arrival, on time.monotonic()."""
    body: Json
    headers: Mapping[str, str]
    """Names in lower case."""

    @property
    def model(self) -> str:
        return str(self.body.get("model", ""))

    @property
    def stream(self) -> bool:
        return bool(self.body.get("stream"))

    @property
    def messages(self) -> list[Json]:
        return cast("list[Json]", self.body.get("messages") or [])

    @property
    def tools(self) -> list[Json]:
        return cast("list[Json]", self.body.get("tools") or [])

    @cached_property
    def tool_names(self) -> list[str]:
        return [tool["function"]["name"] for tool in self.tools]

    @cached_property
    def turn(self) -> int:
        """Assistant messages so far: 0 on the first turn, and the same again when a turn is retried."""
        return sum(message["role"] == "assistant" for message in self.messages)

    @cached_property
    def tool_results(self) -> dict[str, str]:
        """Content by tool call id; of a repeated id, the last."""
        return {m["tool_call_id"]: _text(m) for m in self.messages if m["role"] == "tool"}

    @cached_property
    def last_text(self) -> str:
        """Content of the last user message, or the empty string."""
        return next((_text(m) for m in reversed(self.messages) if m["role"] == "user"), "")


@dataclass(frozen=True)
class ToolCallSpec:
    """One tool call to ask for."""

    name: str
    arguments: Mapping[str, Any] | str
    """A mapping is dumped as JSON; a string is sent verbatim, valid or not."""
    id: str | None = None
    """By default unique in this server: `call_<request number>_<index>`."""

    @property
    def arguments_text(self) -> str:
        return self.arguments if isinstance(self.arguments, str) else json.dumps(self.arguments)


class AnswerOptions(TypedDict, total=False):
    """What `say` and `call` take besides; see the fields of Reply."""

    usage: Mapping[str, Any] | None
    reasoning: str | None
    finish_reason: str | None
    delay: float
    pace: float


@dataclass(frozen=True)
class Reply:
    """What the server does with a request; made by `say`, `call`, `fail` and the functions beside them."""

    kind: Literal["answer", "fail", "reset", "hang", "truncate", "empty", "garbage"]
    text: str | None = None
    calls: tuple[ToolCallSpec, ...] = ()
    usage: Mapping[str, Any] | None = None
    """Laid over the estimate of 4 characters a token."""
    reasoning: str | None = None
    """Sent as `reasoning_content`."""
    finish_reason: str | None = None
    """By default `tool_calls` where there are calls, else `stop`."""
    status: int = 200
    headers: Mapping[str, str] | None = None
    body: Any = None
    """Of an error: a string is sent verbatim, anything else as JSON."""
    clean: bool = False
    """A truncated body ends as if it were whole, instead of breaking the connection."""
    delay: float = 0.0
    """Seconds before the first byte."""
    pace: float = 0.0
    """Seconds between the chunks of a stream, which then hold about three words each."""


Script = Callable[[ChatRequest], Reply | Awaitable[Reply]]


def say(text: str, **options: Unpack[AnswerOptions]) -> Reply:
    """Answer in text."""
    return Reply("answer", text, **options)


def call(
    *calls: tuple[str, Mapping[str, Any] | str] | ToolCallSpec,
    text: str | None = None,
    ids: Sequence[str] | None = None,
    **options: Unpack[AnswerOptions],
) -> Reply:
    """Ask for tool calls; `ids`, one for each call, may repeat on purpose."""
    specs = tuple(one if isinstance(one, ToolCallSpec) else ToolCallSpec(*one) for one in calls)
    if ids is not None:
        specs = tuple(replace(spec, id=id_) for spec, id_ in zip(specs, ids, strict=True))
    return Reply("answer", text, specs, **options)


def fail(
    status: int,
    *,
    message: str = "the script asked for this failure",
    code: str | None = None,
    headers: Mapping[str, str] | None = None,
    body: Any = None,
    delay: float = 0.0,
) -> Reply:
    """Answer with an HTTP error, in OpenAI's error JSON unless `body` says otherwise."""
    kind = "requests" if status == 429 else "server_error" if status >= 500 else "invalid_request_error"
    if body is None:
        body = {"error": {"message": message, "type": kind, "param": None, "code": code}}
    return Reply("fail", status=status, headers=headers, body=body, delay=delay)


def reset(*, delay: float = 0.0) -> Reply:
    """Drop the TCP connection with RST before any byte of an answer."""
    return Reply("reset", delay=delay)


def hang() -> Reply:
    """Never answer: wait until the client goes away or the server stops."""
    return Reply("hang")


def truncate(answer: str | Reply, *, clean: bool = False) -> Reply:
    """Break off: a stream after all of `answer` but without a finish, a plain body half-way."""
    return replace(say(answer) if isinstance(answer, str) else answer, kind="truncate", clean=clean)


def empty() -> Reply:
    """Answer 200 with no choices."""
    return Reply("empty")


def garbage() -> Reply:
    """Answer 200 with a body that is no JSON."""
    return Reply("garbage")


def _text(message: Mapping[str, Any]) -> str:
    content = message.get("content") or ""
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


def _dump(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _event(value: Json) -> bytes:
    return b"data: " + _dump(value) + b"\n\n"


def _choice(name: str, part: Json, finish_reason: str | None) -> Json:
    return {"choices": [{"index": 0, name: part, "finish_reason": finish_reason}]}


def _usage(request: ChatRequest, reply: Reply) -> Json:
    functions = [made["function"] for m in request.messages for made in m.get("tool_calls") or ()]
    prompt = sum(len(_text(m)) for m in request.messages)
    prompt += sum(len(function["name"]) + len(function["arguments"]) for function in functions)
    answer = len(reply.text or "") + len(reply.reasoning or "")
    answer += sum(len(spec.name) + len(spec.arguments_text) for spec in reply.calls)
    usage = {"prompt_tokens": -(-prompt // 4), "completion_tokens": -(-answer // 4), **(reply.usage or {})}
    return {"total_tokens": usage["prompt_tokens"] + usage["completion_tokens"], **usage}


def _envelope(request: ChatRequest, kind: str) -> Json:
    head = {"id": f"chatcmpl-{request.number}", "object": kind, "created": int(time.time())}
    return {**head, "model": request.model, "choices": []}


def _finish(reply: Reply) -> str:
    return reply.finish_reason or ("tool_calls" if reply.calls else "stop")


def _tool_call(request: ChatRequest, index: int, spec: ToolCallSpec, arguments: str) -> Json:
    id_ = f"call_{request.number}_{index}" if spec.id is None else spec.id
    return {"id": id_, "type": "function", "function": {"name": spec.name, "arguments": arguments}}


def _completion(request: ChatRequest, reply: Reply) -> bytes:
    """Return the body of a plain answer."""
    whole = _envelope(request, "chat.completion") | {"usage": _usage(request, reply)}
    message: Json = {"role": "assistant", "content": reply.text}
    if reply.reasoning is not None:
        message["reasoning_content"] = reply.reasoning
    if reply.calls:
        made = [_tool_call(request, i, spec, spec.arguments_text) for i, spec in enumerate(reply.calls)]
        message["tool_calls"] = made
    if reply.kind != "empty":
        whole |= _choice("message", message, _finish(reply))
    body = b"<html>this is no JSON" if reply.kind == "garbage" else _dump(whole)
    return body[: len(body) // 2] if reply.kind == "truncate" else body


def _pieces(text: str | None, atom: str, paced: bool) -> list[str]:
    """Cut text between atoms: three to a piece when paced, else at most four pieces."""
    atoms = re.findall(atom, text or "", re.DOTALL)
    size = 3 if paced else max(3, -(-len(atoms) // 4))
    return ["".join(atoms[start : start + size]) for start in range(0, len(atoms), size)]


def _deltas(request: ChatRequest, reply: Reply) -> Iterator[Json]:
    words, paced = r"\S+\s*|\s+", reply.pace > 0
    yield {"role": "assistant", "content": None if reply.text is None else ""}
    for piece in _pieces(reply.reasoning, words, paced):
        yield {"reasoning_content": piece}
    for piece in _pieces(reply.text, words, paced):
        yield {"content": piece}
    for index, spec in enumerate(reply.calls):
        yield {"tool_calls": [{"index": index, **_tool_call(request, index, spec, "")}]}
        for piece in _pieces(spec.arguments_text, r".{1,8}", paced):
            yield {"tool_calls": [{"index": index, "function": {"arguments": piece}}]}


def _events(request: ChatRequest, reply: Reply) -> Iterator[bytes]:
    """Yield a streamed answer's server-sent events; a truncated one lacks its finish and all after it."""
    if reply.kind == "garbage":
        yield b"data: {this is no JSON\n\n"
        return
    chunk = _envelope(request, "chat.completion.chunk")
    if reply.kind == "empty":
        yield _event(chunk)
    else:
        for delta in _deltas(request, reply):
            yield _event(chunk | _choice("delta", delta, None))
    if reply.kind == "truncate":
        return
    if reply.kind == "answer":
        yield _event(chunk | _choice("delta", {}, _finish(reply)))
    if (request.body.get("stream_options") or {}).get("include_usage"):
        yield _event(chunk | {"usage": _usage(request, reply)})
    yield b"data: [DONE]\n\n"


def _parts(request: ChatRequest, reply: Reply) -> list[bytes]:
    """Return what to write, one part at a time when paced, else all at once."""
    if reply.kind == "fail":
        return [reply.body.encode() if isinstance(reply.body, str) else _dump(reply.body)]
    if not request.stream:
        return [_completion(request, reply)]
    return list(_events(request, reply)) if reply.pace else [b"".join(_events(request, reply))]


async def _send(http: web.Request, request: ChatRequest, reply: Reply) -> web.StreamResponse:
    if reply.kind == "hang":
        await asyncio.Event().wait()
    if reply.kind == "reset":
        _abort(http)
        return web.Response()
    parts, breaks = _parts(request, reply), reply.kind == "truncate" and not reply.clean
    streams = request.stream and reply.kind != "fail"
    headers = {"Content-Type": "text/event-stream" if streams else "application/json"}
    response = web.StreamResponse(status=reply.status, headers=headers | dict(reply.headers or {}))
    if len(parts) == 1 and not breaks:
        response.content_length = len(parts[0])
    await response.prepare(http)
    for index, part in enumerate(parts):
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
