"""JSON modes of model providers: which one a request may use, and its form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

JsonMode = Literal["schema", "object", "none"]
"""schema: the provider holds the answer to the schema. object: it makes sure that the answer is a JSON object."""


def response_format(mode: JsonMode, schema: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the request's `response_format`; None where the mode can't give what the schema asks for."""
    if mode == "none" or schema.get("type") != "object":
        return None  # both modes make objects and nothing else
    if mode == "object":
        return {"type": "json_object"}
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": dict(schema), "strict": False}}


def mode_of(
    *,
    set_to: JsonMode | None,
    provider: str,
    known: bool,
    takes_schema: bool,
    takes_object: bool,
    beside_tools: bool,
) -> JsonMode:
    """Choose the mode: what the endpoint says, else what litellm knows of the model, else none.

    Many a server that is held to JSON never calls a tool again, so beside tools only those are asked for it that are
    known to do both. A model that nobody knows may stand on a server that refuses what it does not know.
    """
    if set_to is not None:
        return set_to
    if not known or (beside_tools and not (takes_schema and provider in ("openai", "azure"))):
        return "none"
    return "schema" if takes_schema else "object" if takes_object else "none"
