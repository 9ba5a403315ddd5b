"""What every activity of ours gets: a heartbeat from its first line, bound log names, and errors fit to record."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection, Sequence
from typing import Any

import structlog
from temporalio import activity
from temporalio.exceptions import CancelledError
from temporalio.worker import (
    ActivityInboundInterceptor,
    ActivityOutboundInterceptor,
    ExecuteActivityInput,
    Interceptor,
)

from holdfast import ids, wire
from holdfast.activities.failures import failure, recorded
from holdfast.activities.inside import Inside, Insides
from holdfast.activities.keys import run_key
from holdfast.activities.log import get_logger
from holdfast.mcp import server_of

BEAT_SECONDS = 0.4
_log = get_logger("holdfast.activity")


class Guard(Interceptor):
    """Guards the activities named, and leaves those of other people alone."""

    def __init__(
        self, names: Collection[str], tools: Collection[str], insides: Insides, mcp_servers: Collection[str] = ()
    ) -> None:
        self.names = frozenset(names) | frozenset(tools)
        self.tools = frozenset(tools)
        self.mcp_servers = frozenset(mcp_servers)
        self.scrub = insides.scrub
        self.cache = insides.cache
        self.insides = insides
        _ours.update(self.names)
        _our_servers.update(self.mcp_servers)
        logging.getLogger("temporalio.activity").addFilter(_not_told_already)

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:
        """Wrap one execution (Temporal's own signature)."""
        info = activity.info()
        return _Guarded(next, self) if info.activity_type in self.names or self.is_tool(info) else next

    def is_tool(self, info: activity.Info) -> bool:
        """Say whether an activity is a tool call."""
        return info.activity_type in self.tools or is_mcp_call(info, self.mcp_servers)


_ours: set[str] = set()
_our_servers: set[str] = set()


def _not_told_already(record: logging.LogRecord) -> bool:
    """Leave out Temporal's report, traceback and all, of a failure that `activity.failed` tells in one line."""
    if getattr(record, "__temporal_error_identifier", None) != "ActivityFailure":
        return True
    failed = str(getattr(record, "temporal_activity", {}).get("activity_type"))
    return failed not in _ours and server_of(failed) not in _our_servers


class Heart:
    """Beats for one activity, repeating the last details that it gave, so that none are lost."""

    def __init__(self, outbound: ActivityOutboundInterceptor) -> None:
        self._outbound = outbound
        self._loop = asyncio.get_running_loop()
        self._details: tuple[Any, ...] = tuple(activity.info().heartbeat_details)
        self._handle: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Beat now and then until stopped."""
        self._handle = self._loop.call_later(BEAT_SECONDS, self._tick)

    def stop(self) -> None:
        """Beat no more."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def tell(self, *details: Any) -> None:
        """Replace the details, from the worker's loop; the next beat carries them."""
        self._details = details

    def tell_from_thread(self, *details: Any) -> None:
        """Replace the details from any thread, and beat at once."""
        self._loop.call_soon_threadsafe(self.tell_now, *details)

    def tell_now(self, *details: Any) -> None:
        """Replace the details, from the worker's loop, and beat at once."""
        self._details = details
        if self._handle is not None:
            self._outbound.heartbeat(*self._details)

    def _tick(self) -> None:
        self.start()
        self._outbound.heartbeat(*self._details)


_hearts: dict[bytes, Heart] = {}


def heart() -> Heart:
    """Return the heart of the activity that runs here."""
    return _hearts[activity.info().task_token]


_insides: dict[bytes, Inside] = {}


def inside() -> Inside:
    """Return what the tool that runs here may know, and what it is given."""
    return _insides[activity.info().task_token]


class _Guarded(ActivityInboundInterceptor):
    def __init__(self, next: ActivityInboundInterceptor, guard: Guard) -> None:
        super().__init__(next)
        self._guard = guard

    def init(self, outbound: ActivityOutboundInterceptor) -> None:
        self._heart = Heart(outbound)
        super().init(outbound)

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:
        info = activity.info()
        names = _log_names(info, input.args, self._guard)
        _hearts[info.task_token] = self._heart
        self._heart.start()
        try:
            began = time.perf_counter()
            with structlog.contextvars.bound_contextvars(**names):
                if info.activity_type in self._guard.tools:
                    _insides[info.task_token] = await self._guard.insides.prepare()
                result = await super().execute_activity(input)
            if self._guard.is_tool(info):
                _log.info("tool.called", latency_ms=round((time.perf_counter() - began) * 1000, 1), **names)
                self._guard.cache.feed_output(run_key(info), info.activity_id, result)
            return result
        except (asyncio.CancelledError, CancelledError):
            if activity.cancellation_details() is None and activity.is_worker_shutdown():
                raise failure("WorkerShutdown", "the worker shut down", retryable=True) from None
            raise
        except Exception as error:  # noqa: BLE001 - every failure is made fit to record here
            safe = recorded(error, self._guard.scrub)
            _log.warning(
                "activity.failed",
                error=safe.type,
                cause=safe.message,
                retryable=not safe.non_retryable,
                **names,
            )
            raise safe from None
        finally:
            self._heart.stop()
            _hearts.pop(info.task_token, None)
            _insides.pop(info.task_token, None)


def is_mcp_call(info: activity.Info, servers: frozenset[str]) -> bool:
    """Say whether an activity is a run's call of a tool of one of these MCP servers."""
    return info.workflow_type == wire.AGENT_RUN and server_of(info.activity_type) in servers


def _log_names(info: activity.Info, args: Sequence[Any], guard: Guard) -> dict[str, Any]:
    names: dict[str, Any] = {
        "run_id": info.workflow_id,
        "activity": info.activity_type,
        "attempt": info.attempt,
    }
    agent = guard.cache.agent(run_key(info))
    if agent is not None:
        names["agent"] = agent.name
    if guard.is_tool(info):
        names["call_id"] = info.activity_id
        names["step"] = ids.step_of_call(info.activity_id)
    elif args and hasattr(args[0], "step"):
        names["step"] = args[0].step
    return names
