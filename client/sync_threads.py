"""`Client.threads`: the same calls from ordinary code."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.client.portal import Portal
from holdfast.client.threads import Compaction, Thread, ThreadSummary

if TYPE_CHECKING:
    from holdfast.client.runs import AsyncClient


class Threads:
    """The threads of a namespace; each method is AsyncThreads' own, waited for."""

    def __init__(self, portal: Portal, client: AsyncClient) -> None:
        self._portal = portal
        self._threads = client.threads

    def get(self, thread_id: str) -> Thread:
        """Return a thread as it stands."""
        return self._portal.call(self._threads.get(thread_id))

    def list(self, limit: int = 100) -> list[ThreadSummary]:
        """Return the latest threads first."""
        return self._portal.call(self._threads.list(limit))

    def compact(self, thread_id: str, model: str | None = None, *, keep_tokens: int = 0) -> Compaction:
        """Have a model summarise what is old."""
        return self._portal.call(self._threads.compact(thread_id, model, keep_tokens=keep_tokens))

    def delete(self, thread_id: str) -> None:
        """Delete a thread and all that it remembers."""
        self._portal.call(self._threads.delete(thread_id))
