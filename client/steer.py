"""Calls that steer a run: pause, resume, interrupt, cancel, and the answers of a person that it waits for."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Mapping
from typing import Any, TypeVar

from temporalio.client import WorkflowQueryFailedError, WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError

from holdfast import wire
from holdfast.bounds import canonical_json
from holdfast.client.base import RunCalls
from holdfast.client.presence import PATIENCE_SECONDS, expect_worker, while_served
from holdfast.client.rpc import translated
from holdfast.client.views import pending_children, summarize
from holdfast.data import Data
from holdfast.errors import DecisionRefused, HoldfastError, InputInvalid, RunClosed, RunNotFound
from holdfast.request import Answer, Decision, Reason

T = TypeVar("T")
_ANSWER_SECONDS = 20
"""How long a worker that polls, or did within the last minute, may take to answer."""
_ATTEMPTS = 5
"""Of an update that meets a run between two links of its chain."""


class SteeringCalls(RunCalls):
    """Signals need no worker and take effect when one comes; updates and queries are answered by a worker."""

    async def pause(self, run_id: str, reason: str | None = None) -> None:
        """Let a run start nothing more from its next step on, until `resume`; what is under way ends.

        RunClosed for a run that has ended, RunNotFound for an unknown one.
        """
        await self._tell(run_id, wire.PAUSE, reason)

    async def resume(self, run_id: str, reason: str | None = None) -> None:
        """Let a paused run go on. RunClosed for a run that has ended (see `resume_run`), RunNotFound for an unknown."""
        await self._tell(run_id, wire.RESUME, reason)

    async def interrupt(self, run_id: str, reason: str | None = None) -> None:
        """End a run at once as `interrupted`: its model call and tools are aborted, and `resume_run` can take it up.

        Nothing happens to one that has ended. RunNotFound for an unknown one.
        """
        await self._signal(run_id, wire.INTERRUPT, _reason(reason))

    async def cancel(self, run_id: str) -> None:
        """Ask a run to stop: its model call and tools are stopped first. Nothing happens to one that has ended."""
        temporal = await self._client.temporal()
        if summarize(await self._describe(run_id)).closed:
            return
        try:
            with translated(temporal, run_id):
                await temporal.get_workflow_handle(run_id).cancel()
        except RunNotFound:  # it may have ended meanwhile
            if not summarize(await self._describe(run_id)).closed:
                raise

    async def approve(
        self,
        run_id: str,
        call_id: str,
        *,
        arguments: Mapping[str, Any] | None = None,
        reason: str | None = None,
        digest: str | None = None,
    ) -> None:
        """Let a tool call that waits for approval be made, with other `arguments` than the model's if given.

        Returns once the run has taken it; the same approval twice counts once. DecisionRefused for a call that does not
        wait, not any more, or whose arguments are not those of `digest` (from `waiting_for`); InputInvalid over 256 KB;
        RunClosed, RunNotFound. NoWorker where nobody serves the run: then nothing was sent.
        """
        told = {"arguments": arguments, "reason": reason, "digest": digest}
        await self._decide(run_id, call_id, "approve", told)

    async def deny(self, run_id: str, call_id: str, *, reason: str | None = None) -> None:
        """Refuse a tool call that waits for approval; the model is told the reason. Raises what `approve` raises."""
        await self._decide(run_id, call_id, "deny", {"reason": reason})

    async def answer(self, run_id: str, question_id: str, text: str) -> None:
        """Answer a question that the run waits for; the same answer twice counts once. Raises what `approve` raises."""
        await self._update(run_id, wire.ANSWER, Answer.read({"question_id": question_id, "text": text}))

    async def waiting_for(self, run_id: str) -> list[dict[str, Any]]:
        """Return what a run waits for: approvals and questions, each with the `id` to answer with, timers, its thread.

        What its subagents wait for follows, each with the `run_id` to answer under. Empty for one that waits for
        nothing or has ended. NoWorker where nobody serves the run.
        """
        temporal = await self._client.temporal()
        description = await self._describe(run_id)
        if summarize(description).closed:
            return []
        await expect_worker(temporal, description.task_queue, run_id)
        try:
            asked = temporal.get_workflow_handle(run_id).query(wire.STATUS)
            told: dict[str, Any] = await self._answered(run_id, asked)
        except WorkflowQueryFailedError as error:
            raise HoldfastError(f"run {run_id!r} can't say what it waits for: {error.message}") from None
        kin = [each.workflow_id for each in pending_children(description)]
        theirs = await asyncio.gather(*(self.waiting_for(each) for each in kin))
        found = [{"run_id": run_id, **each} for run_id, waits in zip(kin, theirs, strict=True) for each in waits]
        return [*told["waiting_for"], *found]

    async def _tell(self, run_id: str, signal: str, reason: str | None) -> None:
        ended = await self._signal(run_id, signal, _reason(reason))
        if ended is not None:
            raise RunClosed(run_id, summarize(ended).status)

    async def _decide(self, run_id: str, call_id: str, decision: str, told: dict[str, Any]) -> None:
        given = {name: each for name, each in told.items() if each is not None}
        await self._update(run_id, wire.DECIDE, Decision.read({"call_id": call_id, "decision": decision, **given}))

    async def _update(self, run_id: str, name: str, argument: Data) -> None:
        """Send an update and wait until the run has taken it; the same argument is the same update.

        The server hands an update that it could not deliver to a worker that comes later, and giving up does not call
        it back. So nothing is sent before a worker is there.
        """
        temporal = await self._client.temporal()
        given = argument.wire()
        told_as = hashlib.sha256(canonical_json([name, given]).encode()).hexdigest()[:32]
        handle = temporal.get_workflow_handle(run_id)
        for attempt in range(_ATTEMPTS):
            await asyncio.sleep(0.1 * attempt)
            description = await self._describe(run_id)
            if not summarize(description).closed:  # what has ended still knows the updates that it took
                await expect_worker(temporal, description.task_queue, run_id)
            try:
                await self._answered(run_id, handle.execute_update(name, given, id=told_as))
                return
            except WorkflowUpdateFailedError as error:
                raise _refusal(error) from None
            except RunNotFound:  # it has ended, or just now continued in a new link
                found = summarize(await self._describe(run_id))
                if found.closed:
                    raise RunClosed(run_id, found.status) from None
        raise HoldfastError(f"run {run_id!r} takes no word now: repeat the call, which counts once")

    async def _answered(self, run_id: str, asking: Awaitable[T]) -> T:
        """Wait for the worker's answer; NoWorker once it is clear that nobody serves the run."""
        temporal = await self._client.temporal()
        waiting = asyncio.ensure_future(asking)
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                with translated(temporal, run_id):
                    return await while_served(temporal, run_id, waiting, PATIENCE_SECONDS)
        except TimeoutError:
            raise HoldfastError(
                f"no worker has answered for run {run_id!r} within {_ANSWER_SECONDS} s: repeat the call, it counts once"
            ) from None


def _reason(reason: str | None) -> Reason:
    return Reason.read({} if reason is None else {"reason": reason})


def _refusal(error: WorkflowUpdateFailedError) -> Exception:
    cause = error.cause
    kind, said = (cause.type, cause.message) if isinstance(cause, ApplicationError) else (None, str(cause))
    if kind in ("DecisionRefused", "AnswerRefused"):
        return DecisionRefused(said)
    return InputInvalid({"decision": said}) if kind == "InputInvalid" else HoldfastError(said)
