"""`Client`: the same calls from ordinary code."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import temporalio.client

from holdfast.agent import Agent
from holdfast.client.portal import Portal
from holdfast.client.runs import AsyncClient
from holdfast.client.views import Run, RunSummary
from holdfast.event import Event
from holdfast.run import RunResult


class Client:
    """A caller's view of Holdfast, for ordinary code; see AsyncClient for what each call does and raises."""

    def __init__(
        self,
        address: str | None = None,
        namespace: str | None = None,
        *,
        api_key: str | None = None,
        task_queue: str | None = None,
        temporal: temporalio.client.Client | None = None,
    ) -> None:
        self._portal = Portal()
        self._client = AsyncClient(address, namespace, api_key=api_key, task_queue=task_queue, temporal=temporal)
        self.runs = Runs(self._portal, self._client)
        self.agents = Agents(self._portal, self._client)

    def close(self) -> None:
        """Stop the thread behind this client; it also stops at exit."""
        self._portal.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Runs:
    """The runs of a namespace; each method is AsyncRuns' own, waited for."""

    def __init__(self, portal: Portal, client: AsyncClient) -> None:
        self._portal = portal
        self._runs = client.runs

    def create(
        self,
        agent_id: str | None = None,
        *,
        agent: Agent | Mapping[str, Any] | None = None,
        input: Mapping[str, Any] | None = None,
        message: str | None = None,
        thread_id: str | None = None,
        revision: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        run_id: str | None = None,
        idempotency_key: str | None = None,
    ) -> RunSummary:
        """Start a run and return at once."""
        return self._portal.call(
            self._runs.create(
                agent_id,
                agent=agent,
                input=input,
                message=message,
                thread_id=thread_id,
                revision=revision,
                metadata=metadata,
                run_id=run_id,
                idempotency_key=idempotency_key,
            )
        )

    def status(self, run_id: str) -> RunSummary:
        """Return what the server says at once."""
        return self._portal.call(self._runs.status(run_id))

    def get(self, run_id: str) -> Run:
        """Return a run with its messages and logs."""
        return self._portal.call(self._runs.get(run_id))

    def result(self, run_id: str) -> RunResult | None:
        """Return a closed run's result."""
        return self._portal.call(self._runs.result(run_id))

    def wait(self, run_id: str, timeout: float | None = None, poll_interval: float = 2.0) -> Run:
        """Wait until a run has closed, and return it."""
        return self._portal.call(self._runs.wait(run_id, timeout, poll_interval))

    def stream_events(self, run_id: str, *, after: str | None = None, deltas: bool = False) -> Iterator[Event]:
        """Yield a run's events, live, until the run has ended; with `deltas`, a model's text while it grows."""
        return self._portal.iterate(self._runs.stream_events(run_id, after=after, deltas=deltas))

    def append_message(self, run_id: str, text: str, *, id: str | None = None) -> str:
        """Send a follow-up message; returns its id."""
        return self._portal.call(self._runs.append_message(run_id, text, id=id))

    def cancel(self, run_id: str) -> None:
        """Ask a run to stop."""
        self._portal.call(self._runs.cancel(run_id))

    def list(
        self,
        agent_id: str | None = None,
        *,
        status: str | None = None,
        thread_id: str | None = None,
        limit: int = 100,
    ) -> list[RunSummary]:
        """Return the latest runs first."""
        return self._portal.call(self._runs.list(agent_id, status=status, thread_id=thread_id, limit=limit))


class Agents:
    """The agents that workers know."""

    def __init__(self, portal: Portal, client: AsyncClient) -> None:
        self._portal = portal
        self._agents = client.agents

    def list(self) -> list[dict[str, Any]]:
        """Ask a worker which agents it knows."""
        return self._portal.call(self._agents.list())
