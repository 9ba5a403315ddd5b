"""The one file that asks litellm: it converts, classifies, and nothing else."""

from __future__ import annotations

import asyncio
import email.utils
import json
import os
import re
import time
from collections.abc import Mapping
from datetime import timedelta
from functools import lru_cache, partial
from types import ModuleType
from typing import Any

from temporalio.exceptions import ApplicationError

from holdfast.activities import _litellm_patches
from holdfast.activities._litellm_models import check_images, held_to
from holdfast.activities._litellm_prices import price_of, priced, usage_of
from holdfast.activities.answer import Answer, ModelRequest, WantedCall
from holdfast.activities.endpoints import Endpoint, find, request_options
from holdfast.activities.failures import failure
from holdfast.activities.prices import estimated, input_tokens, reserve
from holdfast.activities.responses import Responses, key_of
from holdfast.failure import CONTEXT_WINDOW_EXCEEDED, CREDENTIALS_MISSING

_LONGEST_RETRY_AFTER_SECONDS = 3600.0
_LONGEST_ANSWER_CHARS = 8 * 1024 * 1024
_WANT_THEIR_THINKING_BACK = frozenset({"anthropic", "bedrock", "databricks", "gemini", "vertex_ai"})
_THINKING = frozenset({"reasoning_content", "thinking_blocks", "provider_specific_fields"})

_TOO_LONG = re.compile(
    r"context_length_exceeded|exceeds? the context window|maximum context length|prompt is too long", re.IGNORECASE
)
"""What providers and gateways say of a prompt beyond the model's window; litellm knows other phrases."""
_TOO_LONG_STATUS = frozenset({400, 413, 422})

_PREFIXES = re.compile(r"^(litellm\.\w+: )?(\w+(Error|Exception)(: | - ))*")

_BY_STATUS = {
    401: ("ModelUnauthorized", False),
    402: ("ModelPaymentRequired", False),
    403: ("ModelUnauthorized", False),
    404: ("ModelNotFound", False),
    408: ("ModelTimeout", True),
    409: ("ModelUnavailable", True),
    425: ("ModelUnavailable", True),
    429: ("ModelRateLimited", True),
}

ENVIRONMENT = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # prices from the package, not from the network
    "LITELLM_MODE": "PRODUCTION",  # no .env file is read
    "MAX_BASE64_LENGTH_FOR_LOGGING": "0",  # no scan of every message on each call
    "EXPERIMENTAL_OPENAI_BASE_LLM_HTTP_HANDLER": "True",  # a tenth of the CPU in long conversations
    "HF_HUB_OFFLINE": "1",  # no tokenizer is fetched
    "MAX_IMAGE_URL_DOWNLOAD_SIZE_MB": "10",  # of an image that it fetches itself, for providers that take no URL
}


def load() -> ModuleType:
    """Import litellm (2 to 4 seconds, so only workers do it, in a thread) and quieten it."""
    # Each time, since litellm reads some of them on every call: its other OpenAI handler posts a 422 twice.
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    return _imported()


@lru_cache(maxsize=1)
def _imported() -> ModuleType:
    import litellm

    litellm.suppress_debug_info = True
    litellm.modify_params = True  # the closing call is made without tools, which some providers refuse otherwise
    litellm.drop_params = True  # a setting that this model does not take is left out, not an error
    litellm.telemetry = False
    litellm.user_url_validation = True  # an image that it fetches itself is never at a private address
    setattr(litellm, "REPEATED_STREAMING_CHUNK_LIMIT", 10**9)  # noqa: B010 - repetition is no outage, to be paid again
    _litellm_patches.apply(litellm)
    return litellm


class LiteLLM:
    """Asks any model that litellm knows, at the worker's endpoints."""

    def __init__(self, endpoints: Mapping[str, Endpoint], responses: Responses) -> None:
        self._endpoints = endpoints
        self._responses = responses

    async def complete(self, request: ModelRequest, answer: Answer) -> None:
        """Ask once and fill the answer in, or take it from what was kept; hidden retries are off: Temporal retries."""
        answer.asked = False
        litellm = load() if _imported.cache_info().currsize else await asyncio.to_thread(load)
        model, endpoint = find(self._endpoints, request.model)
        _check_credentials(litellm, model, endpoint)
        answer.model, answer.price = model, partial(price_of, litellm, model, endpoint)
        seconds = request.settings.cache_seconds
        try:
            messages = _for_provider(litellm, model, request.messages)
            options = _options(litellm, model, endpoint, request)
            key = None if seconds is None else key_of(model, messages, options)
            if key is not None and seconds is not None and self._responses.recall(key, seconds, answer):
                return
            if request.budget_usd is not None:
                reserve(request, answer.price(input_tokens(request)))
            check_images(litellm, model, request)
            answer.asked = True
            response = await litellm.acompletion(model=model, messages=messages, **options)
            if request.settings.stream:
                told = await _read_stream(response, answer, request.model)
            else:
                told = _read_whole(response, answer)
        except ApplicationError:
            raise
        except Exception as error:  # noqa: BLE001 - the vendor's errors have no common root
            raise classified(error, request.model) from None
        usage = usage_of(told)
        answer.usage = estimated(request, answer) if usage is None else priced(litellm, model, endpoint, usage)
        if key is not None:
            self._responses.keep(key, answer)


def _options(litellm: ModuleType, model: str, endpoint: Endpoint, request: ModelRequest) -> dict[str, Any]:
    """Return all that litellm is told beside the model and the messages."""
    options = {
        **request.settings.request_options(),
        **request_options(endpoint),
        "timeout": request.settings.timeout_seconds,
        "num_retries": 0,
        "max_retries": 0,
        "_skip_mcp_handler": True,
    }
    if request.tools:
        options["tools"] = request.tools
    else:
        options.pop("tool_choice", None)
        options.pop("parallel_tool_calls", None)
    if (shape := held_to(litellm, model, endpoint, request)) is not None:
        options["response_format"] = shape
    if request.settings.stream:
        options.update(stream=True, stream_options={"include_usage": True})
    return options


def _for_provider(litellm: ModuleType, model: str, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Leave a model's thinking out of the messages, except for the providers that want theirs back."""
    provider = litellm.get_llm_provider(model)[1]
    if provider in _WANT_THEIR_THINKING_BACK or all(map(_THINKING.isdisjoint, messages)):
        return messages
    return [{key: value for key, value in each.items() if key not in _THINKING} for each in messages]


async def _read_stream(stream: Any, answer: Answer, model: str) -> Any:
    """Fill the answer in, and return what the provider told of its tokens."""
    usage: Any = None
    size = 0
    try:
        async for chunk in stream:
            usage = getattr(chunk, "usage", None) or usage
            for choice in chunk.choices[:1]:
                size += _add_delta(choice.delta, answer)
                answer.finish_reason = choice.finish_reason or answer.finish_reason
            answer.model = str(chunk.model or answer.model)
            if size > _LONGEST_ANSWER_CHARS:
                raise failure("ModelAnswerTooLong", f"{model}: the answer does not end", retryable=False)
    finally:
        await stream.aclose()
    # litellm makes a finish_reason up where the stream ended without one, but not this.
    if getattr(stream, "received_finish_reason", answer.finish_reason) is None:
        raise failure("ModelAnswerTruncated", f"{model}: the answer broke off", retryable=True)
    return usage or _litellm_patches.usage_of(stream)


def _add_delta(delta: Any, answer: Answer) -> int:
    """Add one piece to the answer, and return how many characters it brought."""
    text = getattr(delta, "content", None) or ""
    reasoning = getattr(delta, "reasoning_content", None) or ""
    size = len(text) + len(reasoning)
    if text:
        answer.text_pieces.append(text)
    if reasoning:
        answer.reasoning_pieces.append(reasoning)
    for block in getattr(delta, "thinking_blocks", None) or ():
        _add_thinking(dict(block), answer.thinking_blocks)
    if fields := _fields(delta):
        answer.provider_specific_fields = {**(answer.provider_specific_fields or {}), **fields}
    for piece in getattr(delta, "tool_calls", None) or ():
        wanted = _call_of(piece, answer)
        wanted.name += piece.function.name or ""
        wanted.arguments += piece.function.arguments or ""
        wanted.provider_specific_fields = _fields(piece) or wanted.provider_specific_fields
        size += len(piece.function.arguments or "")
    return size


def _add_thinking(block: dict[str, Any], blocks: list[dict[str, Any]]) -> None:
    """Put a piece of thinking behind the block that it goes on with: one that no signature has closed."""
    last = blocks[-1] if blocks else {}
    if last.get("type") == block.get("type") == "thinking" and not last.get("signature"):
        told = {name: value for name, value in block.items() if value}
        blocks[-1] = {**last, **told, "thinking": (last.get("thinking") or "") + (block.get("thinking") or "")}
    else:
        blocks.append(block)


def _call_of(piece: Any, answer: Answer) -> WantedCall:
    """Return the call that a piece belongs to: a new id begins a new one, whatever its index."""
    index, call_id = piece.index or 0, getattr(piece, "id", None) or ""
    wanted = answer.open_calls.get(index)
    if wanted is None or (call_id and wanted.id and call_id != wanted.id):
        wanted = WantedCall()
        answer.calls[len(answer.calls)] = answer.open_calls[index] = wanted
    wanted.id = wanted.id or call_id
    return wanted


def _fields(part: Any) -> dict[str, Any] | None:
    """Return what the provider wants back; its thinking has a place of its own, and comes here in pieces."""
    fields = getattr(part, "provider_specific_fields", None) or {}
    return {name: each for name, each in fields.items() if each is not None and name != "thinking_blocks"} or None


def _read_whole(response: Any, answer: Answer) -> Any:
    """Fill the answer in, and return what the provider told of its tokens."""
    for choice in response.choices[:1]:
        message = choice.message
        answer.text_pieces = [message.content or ""]
        answer.reasoning_pieces = [getattr(message, "reasoning_content", None) or ""]
        answer.thinking_blocks = [dict(block) for block in getattr(message, "thinking_blocks", None) or ()]
        answer.provider_specific_fields = _fields(message)
        answer.finish_reason = choice.finish_reason
        for index, call in enumerate(message.tool_calls or ()):
            answer.calls[index] = WantedCall(
                name=call.function.name or "",
                arguments=call.function.arguments or "",
                provider_specific_fields=_fields(call),
            )
    answer.model = str(response.model or answer.model)
    return getattr(response, "usage", None)


@lru_cache(maxsize=256)
def _missing_keys(model: str) -> tuple[str, ...]:
    return tuple(load().validate_environment(model=model).get("missing_keys", ()))


def _check_credentials(litellm: ModuleType, model: str, endpoint: Endpoint) -> None:
    if endpoint.api_key_env and not endpoint.key:
        missing: tuple[str, ...] = (endpoint.api_key_env,)
    elif endpoint.key or endpoint.api_base:
        return
    else:
        missing = tuple(name for name in _missing_keys(model) if not os.environ.get(name))
    if missing:
        names = " or ".join(missing)
        raise failure(
            CREDENTIALS_MISSING,
            f"model {model!r} needs {names} in the worker's environment",
            retryable=False,
        )


def classified(error: Exception, model: str) -> ApplicationError:
    """Give a vendor's error its type and its retry posture, in this one place.

    Retried: 408, 409, 429, 5xx, connections that fail or break, answers that can't be read. Never the other 4xx, since
    the same request would fail the same way. The status decides, since litellm's classes do not follow it.
    """
    litellm = load()
    status = getattr(error, "status_code", None)
    if isinstance(error, litellm.ContextWindowExceededError) or (
        status in _TOO_LONG_STATUS and _TOO_LONG.search(str(getattr(error, "message", "")))
    ):
        name, retryable = CONTEXT_WINDOW_EXCEEDED, False
    elif isinstance(error, litellm.ContentPolicyViolationError):
        name, retryable = "ModelContentRefused", False
    elif isinstance(error, litellm.Timeout):
        name, retryable = "ModelTimeout", True
    elif isinstance(status, int) and 400 <= status < 500:
        name, retryable = _BY_STATUS.get(status, ("ModelRequestInvalid", False))
    else:
        name, retryable = "ModelUnavailable", True
    return failure(name, f"{model}: {_said(error)}", retryable=retryable, delay=_retry_after(error))


def _said(error: Exception) -> str:
    """Return what the provider said: litellm puts its own class names before it, and at times a traceback behind."""
    text = str(getattr(error, "message", None) or error).partition("Traceback (most recent call last)")[0].strip()
    text = _PREFIXES.sub("", text)
    try:
        told = json.loads(text)["error"]["message"]
    except (ValueError, TypeError, LookupError, RecursionError):
        return text
    return told if isinstance(told, str) and told else text


def _retry_after(error: Exception) -> timedelta | None:
    headers = getattr(error, "litellm_response_headers", None) or {}
    value = headers.get("retry-after") if hasattr(headers, "get") else None
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except ValueError:
            return None
    if not 0 < seconds < float("inf"):
        return None
    return timedelta(seconds=min(seconds, _LONGEST_RETRY_AFTER_SECONDS))
