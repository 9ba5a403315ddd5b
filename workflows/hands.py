"""A run's activities: started, awaited, and stopped all at once."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

from temporalio import workflow

from holdfast.run import RunError


class Stopped(Exception):
    """The run was told to stop, before this began or while it was awaited."""


class Failed(Exception):
    """The run is to end as failed, by its own decision."""

    def __init__(self, error: RunError) -> None:
        super().__init__(error.message)
        self.error = error


class Hands:
    """What a run has under way."""

    def __init__(self) -> None:
        self.stopped: Literal["cancelled", "interrupted"] | None = None
        """How the run was told to stop; what is said last counts."""
        self._in_flight: dict[str, workflow.ActivityHandle[Any]] = {}
        self._leavable: dict[str, asyncio.Task[Any]] = {}
        """Who awaits what need not be waited for once the run was interrupted."""

    @property
    def busy(self) -> bool:
        """True while an activity is under way."""
        return bool(self._in_flight)

    def stop(self, how: Literal["cancelled", "interrupted"]) -> None:
        """Cancel what is under way, and let nothing begin any more."""
        self.stopped = how
        for handle in list(self._in_flight.values()):
            handle.cancel()

    @property
    def may_leave(self) -> bool:
        """True while something is under way that need not be waited for."""
        return bool(self._leavable)

    def leave(self) -> None:
        """Wait no longer for what was told to stop and does not: a thread can't be stopped inside a blocking call."""
        for waiting in list(self._leavable.values()):
            waiting.cancel()

    async def call(self, activity: str, argument: Any, *, leavable: bool = False, **settings: Any) -> Any:
        """Run an activity to its end; ActivityError where it failed, Stopped where the run was told to stop."""
        if self.stopped:
            raise Stopped
        handle = workflow.start_activity(activity, argument, **settings)
        name, waiting = handle.get_name(), asyncio.current_task()
        self._in_flight[name] = handle
        if leavable and waiting is not None:
            self._leavable[name] = waiting
        try:
            return await (asyncio.shield(handle) if leavable else handle)
        except asyncio.CancelledError:
            raise Stopped from None  # it was left, or had completed when it was cancelled: the SDK drops such a result
        finally:
            self._in_flight.pop(name, None)
            self._leavable.pop(name, None)
