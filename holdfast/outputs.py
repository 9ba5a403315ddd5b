"""Structured answers: the JSON in what a model said, and how it is told what is wrong with it."""

from __future__ import annotations

import json
from typing import Any, NoReturn

from holdfast.bounds import check_depth, to_json

_FENCE = "```"


def read_json(text: str) -> Any:
    """Return the JSON value that a text is, or that its one fenced block holds; ValueError says what is wrong.

    What one process reads, every other reads the same: no NaN, no infinity, no lone surrogate, at most 128 levels.
    """
    text = text.strip()
    if not text:
        raise ValueError("there is no text")
    try:
        value = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        inside = _fenced(text)
        if inside is None:
            raise ValueError(f"it is no JSON: {_reason(error)}") from None
        try:
            value = json.loads(inside, parse_constant=_no_constant)
        except (ValueError, RecursionError) as inner:
            raise ValueError(f"its fenced block is no JSON: {_reason(inner)}") from None
    check_depth(value)
    to_json(value)
    return value


def repair_note(error: str | None) -> str:
    """Word what the model is told of an answer that does not fit."""
    wrong = f"That answer does not fit: {error}\n\n" if error else ""
    return f"{wrong}Answer again with the whole JSON only, so that it fits the JSON schema."


def _fenced(text: str) -> str | None:
    """Return what stands between the first fence and the last, without the language's name."""
    begin, end = text.find(_FENCE), text.rfind(_FENCE)
    if begin == end:
        return None
    name, line, rest = text[begin + len(_FENCE) : end].partition("\n")
    return rest if line and name.strip().isalnum() else name + line + rest


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _reason(error: BaseException) -> str:
    return "it is nested too deep" if isinstance(error, RecursionError) else str(error)[:200]
