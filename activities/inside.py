"""What a tool's call knows of its run, and the secrets that its function is given: fetched on the worker's loop."""

from __future__ import annotations

import asyncio
import inspect
import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from temporalio import activity
from temporalio.client import Client

from holdfast.activities.failures import failure
from holdfast.activities.memory import Memory
from holdfast.activities.secrets import SECRET_VARIABLE, SHORTEST, Scrubber
from holdfast.activities.transcripts import TranscriptCache
from holdfast.calls import RunContext
from holdfast.secrets import SecretRequest, SecretResolver
from holdfast.tools import Tool

_PATIENCE_SECONDS = 10.0


@dataclass(frozen=True)
class Inside:
    """Of one attempt of one call."""

    about: Callable[[], RunContext]
    """From any thread but the worker's loop; asks the run once, where this process does not know."""
    secrets: Mapping[str, str] = field(default_factory=dict)
    """Parameter → its value."""


class Insides:
    """Prepares the calls of one worker's tools."""

    def __init__(
        self, tools: Mapping[str, Tool[..., Any]], cache: TranscriptCache, scrub: Scrubber, resolve: SecretResolver
    ) -> None:
        self._tools = tools
        self.cache = cache
        self.scrub = scrub
        self._resolve = resolve
        self.clients: dict[str, Client] = {}
        """Namespace → the client of its worker, which the SDK hands to async activities alone."""

    async def prepare(self) -> Inside:
        """Resolve the secrets of the tool that is called here; on the worker's loop, before the tool begins."""
        info = activity.info()
        memory = Memory(self.cache, self.clients.get(info.namespace))
        tool = self._tools.get(info.activity_type)
        loop = asyncio.get_running_loop()

        def about() -> RunContext:
            known = memory.held.context
            return known or asyncio.run_coroutine_threadsafe(memory.context(), loop).result(_PATIENCE_SECONDS)

        handles = tool.arguments.secrets if tool is not None else {}
        if not handles:
            return Inside(about)
        context = await memory.context()
        found = {name: await self._secret(handles[name], context) for name in handles}
        return Inside(about, found)

    async def _secret(self, name: str, context: RunContext) -> str:
        info = activity.info()
        if context.metadata is None:
            raise failure("SecretUnknown", f"secret {name!r}: the run's metadata is not known", retryable=False)
        asked = SecretRequest(
            name=name,
            tool=info.activity_type,
            agent=context.agent,
            run_id=info.workflow_id or "",
            metadata=context.metadata,
        )
        try:
            value = await _resolved(self._resolve, asked)
        except LookupError:
            value = None
        except Exception as error:  # noqa: BLE001 - its text may hold anything, and is told to nobody
            told = f"secret {name!r} could not be fetched: {type(error).__name__}"
            raise failure("SecretUnavailable", told, retryable=True) from None
        if value is None:
            raise failure("SecretUnknown", f"this worker has no secret {name!r}", retryable=False)
        if not isinstance(value, str) or len(value) < SHORTEST:
            told = (
                f"secret {name!r} is no text of at least {SHORTEST} characters, so it could not be kept out of records"
            )
            raise failure("SecretUnfit", told, retryable=False)
        self.scrub.learn(name, value)
        return value


async def _resolved(resolve: SecretResolver, asked: SecretRequest) -> str | None:
    """Ask a resolver, a sync one in a thread of its own."""
    if inspect.iscoroutinefunction(resolve) or inspect.iscoroutinefunction(getattr(resolve, "__call__", None)):  # noqa: B004
        found: str | Awaitable[str | None] | None = resolve(asked)
    else:
        found = await asyncio.to_thread(resolve, asked)
    return await found if inspect.isawaitable(found) else found


def of_environment(given: Mapping[str, str]) -> SecretResolver:
    """Make the resolver of a worker that was given none: its settings' secrets, then HOLDFAST_SECRET_… variables."""
    return lambda asked: given.get(asked.name) or os.environ.get(f"{SECRET_VARIABLE}{asked.name.upper()}")
