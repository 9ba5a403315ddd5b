"""What litellm knows of a model: whether it takes images, and how it can be held to JSON."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from holdfast.activities.answer import ModelRequest
from holdfast.activities.endpoints import Endpoint
from holdfast.activities.failures import failure
from holdfast.activities.json_mode import mode_of, response_format
from holdfast.content import has_images


def check_images(litellm: ModuleType, model: str, request: ModelRequest) -> None:
    """Refuse images for a model that is known to take none; of one that nobody knows, its server decides."""
    if not has_images(request.messages):
        return
    name, provider, *_ = litellm.get_llm_provider(model)
    if _is_known(litellm, model, name) and not litellm.supports_vision(model=name, custom_llm_provider=provider):
        told = f"{request.model}: this model takes no images, and the conversation holds some"
        raise failure("ModelInputUnsupported", told, retryable=False)


def held_to(litellm: ModuleType, model: str, endpoint: Endpoint, request: ModelRequest) -> dict[str, Any] | None:
    """Return the `response_format` that holds the model to the request's schema, if that is safe."""
    if request.output_schema is None:
        return None
    name, provider, *_ = litellm.get_llm_provider(model)
    params = litellm.get_supported_openai_params(model=name, custom_llm_provider=provider) or ()
    mode = mode_of(
        set_to=endpoint.json_mode,
        provider=provider,
        known=_is_known(litellm, model, name),
        takes_schema=litellm.supports_response_schema(model=name, custom_llm_provider=provider),
        takes_object="response_format" in params,
        beside_tools=bool(request.tools) or any(each.get("tool_calls") for each in request.messages),
    )
    return response_format(mode, request.output_schema)


def _is_known(litellm: ModuleType, model: str, name: str) -> bool:
    return bool({model, name} & litellm.model_cost.keys())
