"""What a `Runner` may be told of all its runs."""

from __future__ import annotations

from pydantic import Field

from holdfast.agent import InteractionMode
from holdfast.data import Data


class RunnerConfig(Data):
    """Handed to `Runner(config=…)`; what is left out stays as the agent and the worker's settings have it."""

    interaction_mode: InteractionMode | None = None
    """Whether somebody is there to approve and to answer; "headless" for a server. The agent's own word by default."""
    tool_output_max_chars: int | None = Field(default=None, ge=200, le=65_536)
    """Characters of one tool's output that the model sees; the worker's settings by default."""
    sanitize_tool_output: bool | None = None
    """Whether what tools return is enveloped; the worker's settings by default."""
