"""Ids: which ones are taken from callers, and how our own are made."""

from __future__ import annotations

import hashlib
import re
import secrets
import string
import unicodedata

from holdfast.bounds import KEY_MAX_BYTES, RUN_ID_MAX_BYTES, THREAD_ID_MAX_BYTES
from holdfast.errors import InputInvalid

_DIGITS = string.digits + string.ascii_lowercase
THREAD_PREFIX = "thread:"
"""What the workflow ids of threads begin with, and no run's may."""
_SLUG = re.compile(r"[^a-z0-9]+")


def check_id(field: str, value: str, max_bytes: int = RUN_ID_MAX_BYTES) -> str:
    """Return a caller's id, or raise InputInvalid: it must be printable, bounded, and no path that climbs."""
    if not isinstance(value, str) or not value:
        raise InputInvalid({field: "must be a text of at least one character"})
    size = len(value.encode(errors="replace"))
    if size > max_bytes:
        raise InputInvalid({field: f"must have at most {max_bytes} bytes, not {size:,}"})
    if value != value.strip() or any(unicodedata.category(char)[0] == "C" for char in value):
        raise InputInvalid({field: "must hold no control characters, and no space at its ends"})
    if any(part in (".", "..") for part in re.split(r"[/\\]", value)):
        raise InputInvalid({field: "must not hold '.' or '..' as a part of a path"})
    return value


def thread_workflow_id(thread_id: str) -> str:
    """Return the id of a thread's workflow, or raise InputInvalid: a thread id has at most 248 bytes."""
    return THREAD_PREFIX + check_id("thread_id", thread_id, THREAD_ID_MAX_BYTES)


def new_run_id(agent_name: str) -> str:
    """Make a run id that a person can tell apart in a list: the agent's name and 12 random hex digits."""
    slug = _SLUG.sub("-", agent_name.lower()).strip("-")[:60] or "run"
    return f"{slug}-{secrets.token_hex(6)}"


def run_id_of_key(key: str) -> str:
    """Return the run id that belongs to an idempotency key: the same key is the same run."""
    check_id("idempotency_key", key, KEY_MAX_BYTES)
    return "key-" + hashlib.sha256(key.encode()).hexdigest()[:32]


def call_id(step: int, index: int, name: str, arguments: str, before: str = "") -> str:
    """Mint the id of one tool call: nine letters and digits, which is what the strictest provider takes.

    Three are the step, one the call's place in its turn (at most 36), five a hash of the tool, its arguments, and the
    digest of what was said before: unique in the run and, but for chance, in its thread; and the same for the same call
    when a lost answer is asked for again.
    """
    digest = int.from_bytes(hashlib.sha256(f"{name}\0{arguments}{before}".encode(errors="replace")).digest()[:6])
    return _base36(step).rjust(3, "0") + _base36(index) + _base36(digest).rjust(5, "0")[-5:]


def child_run_id(run_id: str, call: str) -> str:
    """Return the run id of a subagent: its caller's and the call's, as a hash where that would be no sound id."""
    made = f"{run_id}:{call}"
    try:
        return check_id("run_id", made)
    except InputInvalid:
        return f"subagent-{hashlib.sha256(made.encode(errors='replace')).hexdigest()[:32]}:{call}"


def step_of_call(call: str) -> int | None:
    """Read the step back from a call id; None for an activity id that is none of ours."""
    return int(call[:-6], 36) if re.fullmatch(r"[0-9a-z]{9,}", call) else None


def idempotency_key(run_id: str, call: str) -> str:
    """Return the key that a tool hands on, so that a repeated call is known as the same one."""
    return f"{run_id}:{call}"


def _base36(number: int) -> str:
    digits = ""
    while number:
        number, digit = divmod(number, 36)
        digits = _DIGITS[digit] + digits
    return digits or "0"
