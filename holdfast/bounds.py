"""Every size that Holdfast promises, in one place (bytes are of UTF-8; JSON is compact)."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Reversible
from typing import Any, TypeVar

T = TypeVar("T")

REQUEST_MAX_BYTES = 256 * 1024
"""A run's input, its metadata, an inline agent or a user message: refused beyond it."""
TURN_MAX_BYTES = 256 * 1024
"""One answer of a model, its tool calls included: the rest is dropped and counted."""
TURN_MAX_TOOL_CALLS = 32
"""Tool calls of one answer that are kept; the model is told how many were dropped."""
TOOL_OUTPUT_RECORDED_BYTES = 64 * 1024
"""One tool's output in history: cut beyond it, with a note of its size."""
TOOL_OUTPUT_MAX_CHARS = 12_000
"""One tool's output as the model sees it, note included (a worker's setting; this is its default)."""
OUTPUT_ERROR_MAX_BYTES = 2 * 1024
"""What is wrong with a structured answer, as the model is told."""
ERROR_MAX_BYTES = 4 * 1024
"""An error's text, wherever it is recorded."""
PREVIEW_MAX_BYTES = 1024
"""One tool output inside a run's result."""
PREVIEWS_MAX_BYTES = 128 * 1024
"""All tool outputs inside a run's result together; the latest are kept."""
RESULT_TEXT_MAX_BYTES = 256 * 1024
"""The JSON form of the last text inside a run's result, which only control characters can bring beyond it."""
EXECUTIONS_MAX = 2_000
"""Tool executions inside a run's result; the latest are kept, and `state_snapshot` counts them all."""
PAGE_MAX_BYTES = 1024 * 1024
"""One answer to the `transcript` query."""
PUSH_MAX_BYTES = 4 * 1024
"""Messages that a model call carries in its own input, because no activity can have fed them."""
RESTORE_MAX_BYTES = 256 * 1024
"""One piece of a transcript that is restored from a closed link."""
CONTINUE_AFTER_EVENTS = 10_000
CONTINUE_AFTER_BYTES = 8 * 1024 * 1024
"""Events and bytes of one link of a run, after which it continues as new."""
REPEATED_MAX_BYTES = 16 * 1024
"""A run's input, and its metadata, where each link repeats them; larger ones stand in the first link only."""
CONTEXT_MAX_BYTES = 16 * 1024
"""What policies may know of a run's metadata: each link hands it on."""
CARRIED_EXECUTIONS_MAX = 100
CARRIED_EXECUTIONS_BYTES = 32 * 1024
"""Tool executions that a link hands to the next one; the latest are kept."""
SOURCES_MAX = 200
SOURCES_MAX_BYTES = 64 * 1024
"""Sources inside a run's result; the latest are kept."""
SOURCE_URL_MAX_BYTES = 2 * 1024
SOURCE_TITLE_MAX_CHARS = 300
CARRIED_SOURCES_BYTES = 16 * 1024
"""Sources that a link hands to the next one; the latest are kept."""
CARRIED_OUTCOMES_BYTES = 512 * 1024
"""Outcomes of an open turn's calls that a link hands to the next one, in all; of each the same part."""
EDITED_MAX_BYTES = 512 * 1024
"""Arguments that people approve the calls of one turn with, in all: they are scheduled, and carried, together."""
SUBAGENTS_MAX = 500
SUBAGENTS_BYTES = 128 * 1024
"""Subagents' runs inside a run's result; the latest are kept."""
CHILD_TEXT_MAX_BYTES = 64 * 1024
"""The answer inside a subagent's result, which stands in its caller's history as well: cut beyond it."""
CHILD_STARTS_MAX_BYTES = 1024 * 1024
"""Requests of subagents that are started at once: a server takes 4 MB of one workflow task's commands."""
CARRIED_IDS_MAX = 10_000
"""Message ids that a run remembers, to count a repeated one once."""
HEARTBEAT_TAIL_BYTES = 2 * 1024
"""The end of a streamed text that a heartbeat shows."""
DEPTH_MAX = 128
"""Levels of nesting of JSON data: Temporal's pydantic converter reads 200 back, and ours wrap a value in a few."""
CHARS_PER_TOKEN = 4
"""Where tokens are estimated, since nobody tells them."""
SUMMARY_MAX_BYTES = 16 * 1024
"""What stands for the compacted part of a transcript; never more than half of that part."""
COMPACTION_MAX_CHARS = 400_000
"""The text that a model is asked to summarise; long messages of it are cut."""
MCP_TOOLS_MAX = 128
"""Tools that a run takes from one MCP server."""
MCP_DESCRIPTION_MAX_BYTES = 4 * 1024
"""What one of them says of itself: cut beyond it."""
MCP_SCHEMA_MAX_BYTES = 32 * 1024
"""The JSON schema of its arguments: a tool with a larger one is left out."""
RUN_ID_MAX_BYTES = 255
THREAD_ID_MAX_BYTES = 248
"""A thread's workflow id is `thread:` and its id."""
THREAD_QUEUE_MAX = 1_000
"""Runs that wait for their turn in one thread; a further one asks again, later."""
KEY_MAX_BYTES = 1024


def to_json(value: Any) -> str:
    """Write JSON data compactly; ValueError for NaN, infinity and lone surrogates, which no reader could read back."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    text.encode()
    return text


def canonical_json(value: Any) -> str:
    """Write JSON data in one form only, fit for hashing: keys sorted, no spaces."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False, sort_keys=True)


def check_depth(value: Any) -> None:
    """Raise ValueError for JSON data that is nested too deep to be read back."""
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > DEPTH_MAX:
            raise ValueError(f"it is nested more than {DEPTH_MAX} levels deep")
        level = [
            inner
            for each in level
            if isinstance(each, dict | list | tuple)
            for inner in (each.values() if isinstance(each, dict) else each)
        ]


def json_size(value: Any) -> int:
    """Say how many bytes a JSON value takes in history."""
    return len(to_json(value).encode())


def is_small(value: Any) -> bool:
    """Say whether each link of a run may repeat a value; what is larger stands in the first link only."""
    return json_size(value) <= REPEATED_MAX_BYTES


def latest(values: Reversible[T], max_bytes: int, size: Callable[[T], int]) -> tuple[T, ...]:
    """Return the last values, in their order, as many as take at most max_bytes together."""
    chosen: list[T] = []
    for each in reversed(values):
        max_bytes -= size(each)
        if max_bytes < 0:
            break
        chosen.append(each)
    return tuple(reversed(chosen))


def cut(text: str, max_bytes: int = ERROR_MAX_BYTES) -> str:
    """Shorten a text to max_bytes, the note of its whole size included; characters are never split."""
    if len(text) <= max_bytes // 4:
        return text
    encoded = text.encode(errors="replace")
    if len(encoded) <= max_bytes:
        return text
    note = f"… [cut: {len(encoded):,} bytes in all]"
    kept = encoded[: max(0, max_bytes - len(note.encode()))].decode(errors="ignore")
    return kept + note if kept else note.encode()[:max_bytes].decode(errors="ignore")


def cut_json(text: str, max_bytes: int) -> str:
    """Shorten a text so that its JSON form, quotes and escapes included, takes at most max_bytes."""
    kept, room = text, max_bytes
    while json_size(kept) > max_bytes:
        kept, room = cut(text, room), room * 3 // 4
    return kept


def cut_chars(text: str, max_chars: int) -> str:
    """Shorten a text to max_chars, the note of what is missing included."""
    if len(text) <= max_chars:
        return text
    note = f"\n… [cut: the first {{kept:,}} of {len(text):,} characters]"
    kept = max(0, max_chars - len(note) - 6)
    return (text[:kept] + note.format(kept=kept))[:max_chars]


def one_line(text: str, max_chars: int = 120) -> str:
    """Put a text on one line of at most max_chars, for summaries and tables."""
    line = " ".join(text[: max_chars * 4].split())
    return line if len(line) <= max_chars else line[: max_chars - 1] + "…"


def summary(text: str) -> str:
    """Make a label for Temporal's timeline: one printable line, well under the 400 bytes that the server takes."""
    line = one_line("".join(char if char.isprintable() else " " for char in text[:400]), 100)
    while len(json.dumps(line, ensure_ascii=False).encode()) > 300:
        line = line[: len(line) * 2 // 3]
    return line


def pairs(values: Mapping[str, Any]) -> str:
    """Write arguments as a person would: `number=42 kind=b`."""
    return " ".join(f"{name}={each if isinstance(each, str) else to_json(each)}" for name, each in values.items())
