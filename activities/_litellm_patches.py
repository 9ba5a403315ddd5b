"""What litellm does behind a call and we can't have: a second request, and bookkeeping that nobody reads.

These reach into the one minor version that pyproject.toml admits. Each leaves litellm as it is where the place has
moved, and `tests/activities/test_model*.py` hold what they are for.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from types import ModuleType
from typing import Any


def apply(litellm: ModuleType) -> None:
    """Patch this process's litellm, once."""
    from litellm import utils
    from litellm.litellm_core_utils.litellm_logging import Logging
    from litellm.litellm_core_utils.streaming_handler import CustomStreamWrapper
    from litellm.llms.custom_httpx.http_handler import AsyncHTTPHandler

    def is_watched() -> bool:
        """Say whether somebody set litellm's callbacks, and so wants its own accounts of a call."""
        return bool(litellm.callbacks or litellm.success_callback or litellm._async_success_callback)

    # It posts a second time when a connection breaks, num_retries=0 or not: a call could be paid for twice.
    _replace(AsyncHTTPHandler, "single_connection_post_request", lambda _: _post_no_second_time)
    # After the last chunk it builds the whole answer twice more and prices it, for its own logs.
    _replace(CustomStreamWrapper, "_finalize_completed_stream", lambda keep: _ending(keep, is_watched))
    # It prices and logs each answer for callbacks that nobody set.
    _replace(Logging, "response_cost_calculator", lambda keep: _if_watched(keep, is_watched))
    _replace(utils, "_dispatch_success_logging", lambda keep: _if_watched(keep, is_watched))
    # It looks for Gemini's signatures in the id of every call of the conversation; ids that we mint hold none.
    _replace(utils, "_remove_thought_signatures_from_messages", lambda _: lambda messages, *_: messages)


def usage_of(stream: Any) -> Any:
    """Return the usage that the provider reported, if it did so in one chunk."""
    found = [usage for chunk in getattr(stream, "chunks", ()) if (usage := getattr(chunk, "usage", None))]
    return found[0] if len(found) == 1 else None


def _replace(owner: Any, name: str, make: Callable[[Any], Any]) -> None:
    if hasattr(owner, name):
        setattr(owner, name, make(getattr(owner, name)))


async def _post_no_second_time(*_: Any, **__: Any) -> Any:
    """Stand where litellm's hidden retry stood: raise the error that it was about to retry."""
    error = sys.exc_info()[1]
    raise error if error is not None else ConnectionError("the connection broke")


def _ending(finalize: Callable[..., Awaitable[Any]], is_watched: Callable[[], bool]) -> Callable[..., Awaitable[Any]]:
    """End a stream whose usage has arrived; any other ends litellm's own way."""

    async def end(stream: Any, *args: Any, **kwargs: Any) -> Any:
        if stream.sent_last_chunk and usage_of(stream) is not None and not is_watched():
            raise StopAsyncIteration
        return await finalize(stream, *args, **kwargs)

    return end


def _if_watched(keep: Callable[..., Any], is_watched: Callable[[], bool]) -> Callable[..., Any]:
    return lambda *args, **kwargs: keep(*args, **kwargs) if is_watched() else None
