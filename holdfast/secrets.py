"""Secrets by handle: a tool's parameter that is filled in on the worker, unseen by the model and by history."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from pydantic import Field, JsonValue

from holdfast.data import Data
from holdfast.errors import DefinitionError

_HANDLE = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,99}")


@dataclass(frozen=True)
class Secret:
    """Marks a parameter of a tool: `token: Annotated[str, Secret("crm_token")]`."""

    name: str
    """The handle, by which a worker finds the secret itself."""

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not _HANDLE.fullmatch(self.name):
            raise DefinitionError(f"a secret's handle is a word of letters, digits and _, not {self.name!r}")


class SecretRequest(Data):
    """Which secret a worker's resolver is asked for, and for whom."""

    name: str
    """The handle."""
    tool: str
    agent: str
    """The name of the agent whose run calls the tool."""
    run_id: str
    metadata: dict[str, JsonValue] = Field(default_factory=dict)
    """The run's, as whoever started it gave it: a tenant or a user, say."""


SecretResolver = Callable[[SecretRequest], str | Awaitable[str | None] | None]
"""Returns the secret, of at least 8 characters, or None where there is none of that name."""
