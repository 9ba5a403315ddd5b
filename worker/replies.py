"""What a scripted model is asked, and what its script may reply."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, TypedDict, Unpack, cast

from holdfast.envelope import without_envelope

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
        """Content by tool call id, without its envelope; of a repeated id, the last."""
        told = (each for each in self.messages if each["role"] == "tool")
        return {each["tool_call_id"]: without_envelope(text_of(each)) for each in told}

    @cached_property
    def first_text(self) -> str:
        """Content of the first user message, or the empty string."""
        return next((text_of(m) for m in self.messages if m["role"] == "user"), "")

    @cached_property
    def last_text(self) -> str:
        """Content of the last user message, or the empty string."""
        return next((text_of(m) for m in reversed(self.messages) if m["role"] == "user"), "")


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


def text_of(message: Mapping[str, Any]) -> str:
    content = message.get("content") or ""
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)
