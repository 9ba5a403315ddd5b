"""`Client`: the same calls from ordinary code."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import temporalio.client

from holdfast.agent import Agent, InteractionMode
from holdfast.client.diff import RunDiff
from holdfast.client.portal import Portal
from holdfast.client.runs import AsyncClient
from holdfast.client.sync_threads import Threads
from holdfast.client.views import Run, RunSummary
from holdfast.content import Said
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
        self.threads = Threads(self._portal, self._client)

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
        message: Said | None = None,
        thread_id: str | None = None,
        revision: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        interaction_mode: InteractionMode | None = None,
        run_id: str | None = None,
        idempotency_key: str | None = None,
        priority: int | None = None,
        fairness_key: str | None = None,
        fairness_weight: float | None = None,
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
                interaction_mode=interaction_mode,
                run_id=run_id,
                idempotency_key=idempotency_key,
                priority=priority,
                fairness_key=fairness_key,
                fairness_weight=fairness_weight,
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

    def waiting_for(self, run_id: str) -> list[dict[str, Any]]:
        """Return what a run waits for, each with the id to answer with."""
        return self._portal.call(self._runs.waiting_for(run_id))

    def append_message(self, run_id: str, text: Said, *, id: str | None = None) -> str:
        """Send a follow-up message, which starts a run that has ended again; returns its id."""
        return self._portal.call(self._runs.append_message(run_id, text, id=id))

    def pause(self, run_id: str, reason: str | None = None) -> None:
        """Let a run start nothing more, until `resume`."""
        self._portal.call(self._runs.pause(run_id, reason))

    def resume(self, run_id: str, reason: str | None = None) -> None:
        """Let a paused run go on."""
        self._portal.call(self._runs.resume(run_id, reason))

    def interrupt(self, run_id: str, reason: str | None = None) -> None:
        """End a run at once as `interrupted`."""
        self._portal.call(self._runs.interrupt(run_id, reason))

    def cancel(self, run_id: str) -> None:
        """Ask a run to stop."""
        self._portal.call(self._runs.cancel(run_id))

    def approve(
        self,
        run_id: str,
        call_id: str,
        *,
        arguments: Mapping[str, Any] | None = None,
        reason: str | None = None,
        digest: str | None = None,
    ) -> None:
        """Let a tool call that waits for approval be made."""
        self._portal.call(
            self._runs.approve(run_id, call_id, arguments=arguments, reason=reason, digest=digest),
        )

    def deny(self, run_id: str, call_id: str, *, reason: str | None = None) -> None:
        """Refuse a tool call that waits for approval."""
        self._portal.call(self._runs.deny(run_id, call_id, reason=reason))

    def answer(self, run_id: str, question_id: str, text: str) -> None:
        """Answer a question that the run waits for."""
        self._portal.call(self._runs.answer(run_id, question_id, text))

    def resume_run(
        self, run_id: str, *, message: Said | None = None, agent: Agent | Mapping[str, Any] | None = None
    ) -> RunSummary:
        """Take a run up where it was stopped; a live or completed one is left alone."""
        return self._portal.call(self._runs.resume_run(run_id, message=message, agent=agent))

    def fork(
        self,
        run_id: str,
        at_step: int | None = None,
        message: Said | None = None,
        agent: str | Agent | Mapping[str, Any] | None = None,
        *,
        new_run_id: str | None = None,
        idempotency_key: str | None = None,
        thread_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> RunSummary:
        """Start a new run from a run's first steps."""
        return self._portal.call(
            self._runs.fork(
                run_id,
                at_step,
                message,
                agent,
                new_run_id=new_run_id,
                idempotency_key=idempotency_key,
                thread_id=thread_id,
                metadata=metadata,
            )
        )

    def diff(self, run_a: str, run_b: str) -> RunDiff:
        """Set two runs side by side, step by step."""
        return self._portal.call(self._runs.diff(run_a, run_b))

    def list(
        self,
        agent_id: str | None = None,
        *,
        status: str | None = None,
        thread_id: str | None = None,
        parent_id: str | None = None,
        subagents: bool = True,
        limit: int = 100,
    ) -> list[RunSummary]:
        """Return the latest runs first; `parent_id` wants a run's subagents, `subagents=False` leaves out all."""
        wanted = {"status": status, "thread_id": thread_id, "parent_id": parent_id}
        return self._portal.call(self._runs.list(agent_id, **wanted, subagents=subagents, limit=limit))


class Agents:
    """The agents that workers know."""

    def __init__(self, portal: Portal, client: AsyncClient) -> None:
        self._portal = portal
        self._agents = client.agents

    def list(self) -> list[dict[str, Any]]:
        """Ask a worker which agents it knows."""
        return self._portal.call(self._agents.list())
