"""Calls of MCP tools: one dynamic activity, of the type `server.tool`, for all that is found at run time."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from temporalio import activity
from temporalio.common import RawValue
from temporalio.exceptions import ApplicationError

from holdfast import ids, wire
from holdfast.activities._mcp import Listed, Lost, Rejected
from holdfast.activities.failures import failure
from holdfast.activities.guard import is_mcp_call
from holdfast.activities.mcp_pool import McpPool, Unreachable
from holdfast.activities.memory import Memory
from holdfast.activities.outputs import recordable
from holdfast.activities.secrets import Scrubber
from holdfast.activities.transcripts import TranscriptCache
from holdfast.tools import ToolSpec


class McpActivities:
    """The MCP calls of one worker."""

    def __init__(self, pool: McpPool, cache: TranscriptCache, scrub: Scrubber) -> None:
        self._pool = pool
        self._cache = cache
        self._scrub = scrub

    @activity.defn(dynamic=True)
    async def call(self, given: Sequence[RawValue]) -> Any:
        """Call the tool that the activity's type names, if it is still described as the run knows it."""
        info = activity.info()
        if not is_mcp_call(info, self._pool.names):
            raise _unknown(info)
        spec = await self._spec(info)
        server, _, tool = info.activity_type.partition(".")
        arguments = activity.payload_converter().from_payload(given[0].payload) if given else {}
        try:
            # What must not happen twice shall not meet a dead connection, nor what was approved another description.
            fresh = spec.effect == "once" or spec.requires_approval
            key = ids.idempotency_key(info.workflow_id or "", info.activity_id)
            answered = await self._pool.call(
                server, tool, arguments or {}, key=key, check=partial(_check, spec), fresh=fresh
            )
        except Unreachable as error:
            told = f"the server {server} can't be reached, so {tool} was not called: {error}"
            raise failure("McpUnreachable", told, retryable=True) from None
        except Lost as error:
            raise failure("McpConnectionLost", f"the connection to {server} broke: {error}", retryable=True) from None
        except Rejected as error:
            raise failure("ToolFailed", str(error), retryable=error.passing) from None
        if answered.failed:
            raise failure("ToolFailed", str(answered.value), retryable=False)
        return recordable(answered.value, self._scrub)

    async def _spec(self, info: activity.Info) -> ToolSpec:
        agent = await Memory(self._cache).agent()
        for spec in agent.tool_specs:
            if spec.mcp_server is not None and spec.activity == info.activity_type:
                return spec
        raise _unknown(info)


def _check(spec: ToolSpec, listed: Listed | None) -> None:
    """Refuse a tool that is gone, or that its server describes otherwise than when the run began."""
    if listed is None:
        raise failure("ToolUnknown", f"the server {spec.mcp_server} has this tool no more", retryable=False)
    if listed.fingerprint != spec.fingerprint:
        told = f"the server {spec.mcp_server} describes it otherwise than when this run began, so it was not called"
        raise failure("ToolChanged", told, retryable=False)


def _unknown(info: activity.Info) -> ApplicationError:
    """Refuse what nobody has: a run is told, another workflow waits for a worker that knows it, as Temporal would."""
    told = f"no activity is named {info.activity_type!r} on this worker"
    if info.workflow_type == wire.AGENT_RUN:
        return failure("ToolUnknown", told, retryable=False)
    return ApplicationError(told, type="NotFoundError")
