"""What a tool returns, made fit to record: JSON, bounded, without secrets."""

from __future__ import annotations

from typing import Any

from pydantic_core import PydanticSerializationError, to_jsonable_python
from temporalio.exceptions import ApplicationError

from holdfast.activities.secrets import Scrubber
from holdfast.bounds import TOOL_OUTPUT_RECORDED_BYTES, check_depth, cut, cut_json, json_size, to_json


def recordable(value: Any, scrub: Scrubber) -> Any:
    """Return a tool's result as JSON data of at most 64 KB; what is larger becomes the beginning of its JSON text.

    Raises a non-retryable ApplicationError for what no JSON can hold (NaN, infinity, an object without a JSON form):
    the tool has done its work, so doing it again would not help.
    """
    try:
        plain = _plain(value)
        check_depth(plain)
        try:
            text = to_json(plain)
        except UnicodeEncodeError:
            plain = _replace_surrogates(plain)
            text = to_json(plain)
    except (PydanticSerializationError, ValueError, TypeError, RecursionError) as error:
        raise ApplicationError(
            f"the tool ran, but its result can't be recorded as JSON: {cut(scrub.text(str(error)), 500)}",
            type="ToolResultInvalid",
            non_retryable=True,
        ) from None
    if len(text.encode()) <= TOOL_OUTPUT_RECORDED_BYTES:
        clean = scrub.json(plain)
        if json_size(clean) <= TOOL_OUTPUT_RECORDED_BYTES:
            return clean
    whole = plain if isinstance(plain, str) else text
    return cut_json(scrub.text(whole), TOOL_OUTPUT_RECORDED_BYTES)


def _plain(value: Any) -> Any:
    try:
        plain = to_jsonable_python(value, inf_nan_mode="constants", bytes_mode="base64")
    except UnicodeEncodeError:  # a lone surrogate in a key
        value = _replace_surrogates(value)
        plain = to_jsonable_python(value, inf_nan_mode="constants", bytes_mode="base64")
    return plain


def _replace_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode(errors="replace").decode()
    if isinstance(value, dict):
        return {_replace_surrogates(key): _replace_surrogates(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_replace_surrogates(each) for each in value]
    return value
