"""A run's activities: started, awaited, and stopped all at once."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

from temporalio import workflow


class Stopped(Exception):
    """The run was told to stop, before this began or while it was awaited."""


class Hands:
    """What a run has under way."""

    def __init__(self) -> None:
        self.stopped: Literal["cancelled", "interrupted"] | None = None
        """How the run was told to stop; what is said last counts."""
        self._in_flight: dict[str, workflow.ActivityHandle[Any]] = {}

    @property
    def busy(self) -> bool:
        """True while an activity is under way."""
        return bool(self._in_flight)

    def stop(self, how: Literal["cancelled", "interrupted"]) -> None:
        """Cancel what is under way, and let nothing begin any more."""
        self.stopped = how
        for handle in list(self._in_flight.values()):
            handle.cancel()

    async def call(self, activity: str, argument: Any, **settings: Any) -> Any:
        """Run an activity to its end; ActivityError where it failed, Stopped where the run was told to stop."""
        if self.stopped:
            raise Stopped
        handle = workflow.start_activity(activity, argument, **settings)
        self._in_flight[handle.get_name()] = handle
        try:
            return await handle
        except asyncio.CancelledError:
            raise Stopped from None  # it had completed when it was cancelled, and the SDK drops such a result
        finally:
            self._in_flight.pop(handle.get_name(), None)
