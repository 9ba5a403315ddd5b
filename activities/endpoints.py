"""Where models are served: the worker's settings, which an agent can neither name nor read."""

from __future__ import annotations

import os
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

from pydantic import ConfigDict, Field, SecretStr

from holdfast.activities.json_mode import JsonMode
from holdfast.data import Data


class Endpoint(Data):
    """How the models of one pattern are reached; what is left out is litellm's to find (OPENAI_API_KEY, say)."""

    model_config = ConfigDict(hide_input_in_errors=True)  # an input may be a key in the wrong place

    model: str | None = None
    """The name to ask litellm for; `{rest}` stands for what the pattern's `*` matched at its end."""
    api_base: str | None = None
    api_key: SecretStr | None = None
    api_key_env: str | None = None
    """The environment variable that holds the key."""
    api_version: str | None = None
    json_mode: JsonMode | None = None
    """How its models are held to JSON where an agent has an `output_schema`, beside tools as well; None leaves it to
    what litellm knows of the model."""
    calls_per_second: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Calls of its models begun a second, over all workers of a task queue; None sets no bound."""
    input_cost_per_token: float | None = Field(default=None, ge=0)
    """US dollars; for models whose price litellm does not know."""
    output_cost_per_token: float | None = Field(default=None, ge=0)

    @property
    def price(self) -> tuple[float, float] | None:
        """US dollars a token of input and of output, where both are known."""
        if self.input_cost_per_token is None or self.output_cost_per_token is None:
            return None
        return self.input_cost_per_token, self.output_cost_per_token

    @property
    def key(self) -> str | None:
        """The key itself."""
        if self.api_key is not None:
            return self.api_key.get_secret_value()
        return os.environ.get(self.api_key_env) if self.api_key_env else None


def find(endpoints: Mapping[str, Endpoint], model: str) -> tuple[str, Endpoint]:
    """Return the name to ask litellm for and its endpoint: the first pattern that matches, else litellm's defaults."""
    for pattern, endpoint in endpoints.items():
        if fnmatchcase(model, pattern):
            rest = model[len(pattern) - 1 :] if pattern.endswith("*") else model
            return (endpoint.model or "{model}").format(rest=rest, model=model), endpoint
    return model, Endpoint()


def request_options(endpoint: Endpoint) -> dict[str, Any]:
    """Return litellm's options for an endpoint."""
    options = {
        "api_base": endpoint.api_base,
        "api_key": endpoint.key,
        "api_version": endpoint.api_version,
    }
    return {name: value for name, value in options.items() if value is not None}
