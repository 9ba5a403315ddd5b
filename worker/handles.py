"""What a `Runner` hands out: a run to steer, and a run to listen to."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator, Mapping
from typing import Any, TypeVar

from holdfast.client.portal import Portal
from holdfast.client.runs import AsyncClient
from holdfast.client.views import RunSummary
from holdfast.content import Said
from holdfast.event import Event
from holdfast.run import RunResult

T = TypeVar("T")


class RunHandle:
    """One run that a runner has started."""

    def __init__(self, portal: Portal, client: AsyncClient, run: RunSummary) -> None:
        self.run_id = run.id
        self._portal = portal
        self._client = client

    @property
    def events(self) -> AsyncIterator[Event]:
        """The run's events from its first on, live, until it has ended; each use reads them anew.

        What a model says comes as `text_delta` events too, while it says it.
        """
        return self._portal.bridge_items(self._client.runs.stream_events(self.run_id, deltas=True))

    async def append_message(self, text: Said) -> str:
        """Send a follow-up message, which starts a run that has ended again; returns its id."""
        return await self._bridge(self._client.runs.append_message(self.run_id, text))

    async def cancel(self) -> None:
        """Ask the run to stop."""
        await self._bridge(self._client.runs.cancel(self.run_id))

    async def pause(self, reason: str | None = None) -> None:
        """Let the run start nothing more from its next step on, until `resume`. RunClosed where it has ended."""
        await self._bridge(self._client.runs.pause(self.run_id, reason))

    async def resume(self, reason: str | None = None) -> None:
        """Let the paused run go on. RunClosed where it has ended; see `Runner.resume`."""
        await self._bridge(self._client.runs.resume(self.run_id, reason))

    async def interrupt(self, reason: str | None = None) -> None:
        """End the run at once as `interrupted`, in the middle of its model call; `Runner.resume` takes it up."""
        await self._bridge(self._client.runs.interrupt(self.run_id, reason))

    async def waiting_for(self) -> list[dict[str, Any]]:
        """Return what the run waits for, each with the id to answer with."""
        return await self._bridge(self._client.runs.waiting_for(self.run_id))

    async def approve(
        self,
        call_id: str,
        *,
        arguments: Mapping[str, Any] | None = None,
        reason: str | None = None,
        digest: str | None = None,
    ) -> None:
        """Let a tool call that waits for approval be made. DecisionRefused where it does not wait."""
        told = self._client.runs.approve(self.run_id, call_id, arguments=arguments, reason=reason, digest=digest)
        await self._bridge(told)

    async def deny(self, call_id: str, *, reason: str | None = None) -> None:
        """Refuse a tool call that waits for approval. DecisionRefused where it does not wait."""
        await self._bridge(self._client.runs.deny(self.run_id, call_id, reason=reason))

    async def answer(self, question_id: str, text: str) -> None:
        """Answer a question that the run waits for. DecisionRefused where it does not wait."""
        await self._bridge(self._client.runs.answer(self.run_id, question_id, text))

    async def status(self) -> RunSummary:
        """Return what the server says at once."""
        return await self._bridge(self._client.runs.status(self.run_id))

    async def await_result(self) -> RunResult:
        """Wait for the end; a failed or cancelled run's result is a result."""
        return await self._bridge(result_of(self._client, self.run_id))

    async def _bridge(self, work: Coroutine[Any, Any, T]) -> T:
        return await self._portal.bridge(work)


class RunStream:
    """The events of a run that starts with the first of them; `result` and `run_id` are set as they become known."""

    def __init__(self, begin: Callable[[], Awaitable[RunHandle]]) -> None:
        self.run_id: str | None = None
        self.result: RunResult | None = None
        self._begin = begin
        self._items: AsyncIterator[Event] | None = None

    def __await__(self) -> Generator[Any, None, RunStream]:
        yield from ()
        return self

    def __aiter__(self) -> AsyncIterator[Event]:
        if self._items is None:
            self._items = self._events()
        return self._items

    async def _events(self) -> AsyncIterator[Event]:
        handle = await self._begin()
        self.run_id = handle.run_id
        async for event in handle.events:
            yield event
        self.result = await handle.await_result()


async def result_of(client: AsyncClient, run_id: str) -> RunResult:
    """Wait for a run's end; a failed one's result is a result."""
    result = (await client.runs.wait(run_id)).result
    assert result is not None
    return result
