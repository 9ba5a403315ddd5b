"""Replies in the form of OpenAI's chat completions: whole, or as server-sent events."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from typing import Any

from holdfast.worker.replies import ChatRequest, Json, Reply, ToolCallSpec, text_of


def _dump(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _event(value: Json) -> bytes:
    return b"data: " + _dump(value) + b"\n\n"


def _choice(name: str, part: Json, finish_reason: str | None) -> Json:
    return {"choices": [{"index": 0, name: part, "finish_reason": finish_reason}]}


def _usage(request: ChatRequest, reply: Reply) -> Json:
    functions = [made["function"] for m in request.messages for made in m.get("tool_calls") or ()]
    prompt = sum(len(text_of(m)) for m in request.messages)
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


def parts(request: ChatRequest, reply: Reply) -> list[bytes]:
    """Return what to write, one part at a time when paced, else all at once."""
    if reply.kind == "fail":
        return [reply.body.encode() if isinstance(reply.body, str) else _dump(reply.body)]
    if not request.stream:
        return [_completion(request, reply)]
    return list(_events(request, reply)) if reply.pace else [b"".join(_events(request, reply))]
