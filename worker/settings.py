"""The worker's settings: HOLDFAST_* environment variables; where Temporal is comes from TEMPORAL_* as everywhere."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from holdfast import wire
from holdfast.activities import mcp_access
from holdfast.activities.endpoints import Endpoint
from holdfast.bounds import CONTINUE_AFTER_BYTES, CONTINUE_AFTER_EVENTS, TOOL_OUTPUT_MAX_CHARS
from holdfast.errors import InputInvalid, field_errors
from holdfast.mcp import McpServer


class Settings(BaseSettings):
    """What a worker may be told; `HOLDFAST_TASK_QUEUE=billing`, say, or `HOLDFAST_ENDPOINTS='{"local/*": {…}}'`."""

    model_config = SettingsConfigDict(
        env_prefix="HOLDFAST_", env_ignore_empty=True, frozen=True, extra="forbid", hide_input_in_errors=True
    )

    task_queue: str = wire.TASK_QUEUE
    thread_task_queue: str | None = None
    """Where new threads live; the worker's own task queue by default. A worker must poll it."""
    endpoints: dict[str, Endpoint] = Field(default_factory=dict)
    """Model name pattern → where it is served; the first that matches counts, and without one litellm's defaults do."""
    model_calls_per_second: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Model calls begun a second, over all workers of the task queue, of models whose endpoint sets no bound."""
    mcp_servers: dict[str, McpServer] = Field(default_factory=dict)
    """Name → how an MCP server is reached; agents take tools from it by its name."""
    tool_output_max_chars: int = Field(default=TOOL_OUTPUT_MAX_CHARS, ge=200, le=65_536)
    """Characters of one tool's output that the model sees, its envelope included."""
    sanitize_tool_output: bool = True
    """Put what tools return into an envelope that they can't forge, and make their hidden characters visible."""
    remote_tool_queues: tuple[str, ...] = ("*",)
    """Task queues, or patterns of them, that agents from outside may name in their tools; never the worker's own.
    Agents and tools of the worker itself may name any."""
    secrets: dict[str, SecretStr] = Field(default_factory=dict)
    """Handle → what tools get by it; HOLDFAST_SECRET_CRM_TOKEN is that of crm_token, too."""
    grace_seconds: float = Field(default=30, ge=0)
    """Seconds that running activities get to end after SIGTERM."""
    max_cached_workflows: int = Field(default=500, ge=1)
    """Runs kept in memory; others are replayed from history when something happens to them."""
    max_concurrent_activities: int = Field(default=100, ge=1)
    """Model and tool calls under way at once; also the threads that sync tools share."""
    breaker_failures: int = Field(default=10, ge=0)
    """Failures of a model in a row, of all runs together, after which it is left alone for a while; 0 never does."""
    breaker_seconds: float = Field(default=30, gt=0, le=600)
    """How long that is at first; it doubles, up to 10 minutes, each time that the model is asked in vain."""
    transcript_cache_bytes: int = Field(default=64 * 1024 * 1024, ge=0)
    """Conversations held so that no call need ask for them."""
    response_cache_bytes: int = Field(default=64 * 1024 * 1024, ge=0)
    """Answers of models, kept for agents whose `model_settings.cache_seconds` allow it."""
    continue_after_events: int = Field(default=CONTINUE_AFTER_EVENTS, ge=10, le=20_000)
    """Events of history after which a run continues as new, in another link of its chain."""
    continue_after_bytes: int = Field(default=CONTINUE_AFTER_BYTES, ge=65_536, le=16 * 1024 * 1024)
    """Bytes of history after which it does."""
    log_format: Literal["auto", "json", "console"] = "auto"
    """auto: console on a terminal, else JSON."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    telemetry: Literal["console", "json", "otel"] | None = None
    """console, json: what happens as log lines of that form. otel: OpenTelemetry's spans and metrics, sent where the
    OTEL_* environment says (the `otel` extra)."""
    folder: Path = Path(".holdfast")
    """Where the embedded server keeps its database."""
    temporal_bin: Path | None = None
    """The `temporal` executable to use instead of the one that the `local` extra brings."""

    @field_validator("mcp_servers", mode="before")
    @classmethod
    def _servers_have_names(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        return {name: {**each, "name": name} if isinstance(each, dict) else each for name, each in given.items()}

    @property
    def known_secrets(self) -> list[tuple[str, str]]:
        """The endpoints' keys, what MCP servers get, and the tools' secrets, with a name for each."""
        keys = [(f"endpoint {pattern}", each.key) for pattern, each in self.endpoints.items() if each.key]
        return [*keys, *mcp_access.secrets(self.mcp_servers.values()), *self.tool_secrets.items()]

    @property
    def tool_secrets(self) -> dict[str, str]:
        """What tools take by handle."""
        return {name: each.get_secret_value() for name, each in self.secrets.items()}


def read_settings(**given: Any) -> Settings:
    """Read the settings; InputInvalid names each that is wrong, and shows no value, which may be a key."""
    try:
        return Settings(**given)
    except ValidationError as error:
        wrong = {f"settings.{field}": message for field, message in field_errors(error).items()}
    except SettingsError as error:
        field = re.search(r'field "(\w+)"', str(error))
        wrong = {f"settings.{field[1]}" if field else "settings": "is no JSON"}
    raise InputInvalid(wrong)
