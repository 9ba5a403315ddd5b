"""`AgentRun`: how a run is started, spoken to and ended. Its steps are in `loop.py`, its decisions in `state.py`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError

from holdfast import wire
from holdfast.bounds import cut
from holdfast.calls import Page
from holdfast.errors import InputInvalid
from holdfast.request import Answer, Decision, Reason, RunRequest, UserMessage
from holdfast.run import TERMINAL, RunError
from holdfast.threads import TurnGiven
from holdfast.workflows import in_thread, pages
from holdfast.workflows.begin import begin
from holdfast.workflows.hands import Failed, Stopped
from holdfast.workflows.live import Live
from holdfast.workflows.loop import take_steps
from holdfast.workflows.outcomes import named
from holdfast.workflows.turn import NotAwaited

OUR_BUGS = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""These fail the run, with their cause, where Temporal would retry the workflow task for ever. A replay that does not
fit (a NondeterminismError) is none of them: it waits for a worker with the right code."""

_ABANDON = workflow.HandlerUnfinishedPolicy.ABANDON
T = TypeVar("T")


# Our modules are shared with the sandbox anyway (loading them for each run costs more than the run), so it would guard
# nothing here and cost an eighth of a worker's CPU; replays of recorded histories hold this code to determinism.
@workflow.defn(name=wire.AGENT_RUN, failure_exception_types=list(OUR_BUGS), sandboxed=False)
class AgentRun:
    """One run of an agent. Takes a RunRequest as one JSON object, and returns a RunResult.

    Handlers take their argument loosely typed and any number of further ones: what does not fit is told, or dropped
    with a word in the log, and never stops the run.
    """

    def __init__(self) -> None:
        self._live = Live()

    @workflow.run
    async def run(self, request: Any = None, *more: Any) -> dict[str, Any]:
        """Run to the end; a cancellation stops activities first and closes the run only after they have ended."""
        work = asyncio.create_task(self._work(request, more))
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            self._live.hands.stop("cancelled")
            await asyncio.wait([work])
            self._live.show("cancelled")
            raise

    # Signals: the sender needs no answer

    @workflow.signal(name=wire.APPEND_MESSAGE, description='Add a user message: {"text": "…", "id": "…"}')
    def append_message(self, message: Any = None, *more: Any) -> None:
        """The model sees it at the next step; the same id twice counts once."""
        with self._signalled("message"):
            taken = UserMessage.read(message)
            self._live.tell(lambda state: state.receive(taken))

    @workflow.signal(name=wire.PAUSE, description='Let no further activity begin: {"reason": "…"}')
    def pause(self, reason: Any = None, *more: Any) -> None:
        """What is under way ends; then the run rests until `resume`."""
        with self._signalled("pause"):
            taken = Reason.read(reason)
            self._live.tell(lambda state: state.pause(taken.reason))
            self._live.hands.tell_children(wire.PAUSE, taken.reason)

    @workflow.signal(name=wire.RESUME, description='End a pause: {"reason": "…"}')
    def resume(self, reason: Any = None, *more: Any) -> None:
        """Go on where the pause took hold."""
        with self._signalled("resume"):
            taken = Reason.read(reason)
            self._live.tell(lambda state: state.unpause())
            self._live.hands.tell_children(wire.RESUME, taken.reason)

    @workflow.signal(name=wire.INTERRUPT, description='Stop at once and keep what was said: {"reason": "…"}')
    def interrupt(self, reason: Any = None, *more: Any) -> None:
        """Model call and tools are aborted, and the run ends `interrupted`; it can be resumed."""
        with self._signalled("interrupt"):
            self._live.interrupt(Reason.read(reason).reason or "")

    @workflow.signal(name=wire.THREAD_TURN, description="From the run's thread: it is its turn")
    def thread_turn(self, turn: Any = None, *more: Any) -> None:
        """The run has waited for this."""
        with self._signalled("turn"):
            in_thread.given(self._live, TurnGiven.read(turn))

    # Updates: the caller must learn that a call is stale

    @workflow.update(
        name=wire.DECIDE,
        description='Approve or deny a tool call: {"call_id": "…", "decision": "approve"}',
        unfinished_policy=_ABANDON,
    )
    async def decide(self, verdict: Any = None, *more: Any) -> None:
        """Refused for an unknown, settled or changed call."""
        await self._updated()
        taken = Decision.read(verdict)
        with _refusing("DecisionRefused"):
            self._live.tell(lambda state: state.decide(taken))

    @decide.validator
    def _check_decision(self, verdict: Any = None, *more: Any) -> None:
        taken = _valid(Decision.read, verdict)
        if self._live.state is not None:
            with _refusing("DecisionRefused"):
                self._live.state.check_decision(taken)

    @workflow.update(
        name=wire.ANSWER,
        description='Answer a question: {"question_id": "…", "text": "…"}',
        unfinished_policy=_ABANDON,
    )
    async def answer(self, answer: Any = None, *more: Any) -> None:
        """Refused for an unknown or answered question."""
        await self._updated()
        taken = Answer.read(answer)
        with _refusing("AnswerRefused"):
            self._live.tell(lambda state: state.answer(taken))

    @answer.validator
    def _check_answer(self, answer: Any = None, *more: Any) -> None:
        taken = _valid(Answer.read, answer)
        if self._live.state is not None:
            with _refusing("AnswerRefused"):
                self._live.state.check_answer(taken)

    # Queries: they read, and change nothing

    @workflow.query(name=wire.STATUS, description="Status, step, what it waits for, usage and limits")
    def status(self, *ignored: Any) -> dict[str, Any]:
        """Return where the run stands."""
        state, status = self._live.state, self._live.status
        return {
            "status": status,
            "step": state.steps if state else 0,
            "waiting_for": state.waiting_for() if state and status not in TERMINAL else [],
            "usage": state.usage.model_dump() if state else {},
            "limits": state.limits.model_dump() if state else {},
        }

    @workflow.query(name=wire.TRANSCRIPT, description='Messages from {"start": 0} to {"stop": n}, 1 MB at most')
    def transcript(self, span: Any = None, *more: Any) -> dict[str, Any]:
        """Return messages; also how a worker fetches what it does not hold."""
        start, stop = pages.span(span)
        page = self._live.state.talk.page(start, stop) if self._live.state else Page()
        return page.model_dump(mode="json", exclude_none=True)

    @workflow.query(name=wire.AGENT, description="The agent that this run is pinned to")
    def agent(self, *ignored: Any) -> dict[str, Any]:
        """Return the resolved agent, once it is loaded."""
        if self._live.state is None:
            raise ValueError("the agent is not loaded yet")
        return self._live.state.loaded.agent.wire()

    @workflow.query(name=wire.CONTEXT, description="Its agent, its place among subagents, and its metadata")
    def context(self, *ignored: Any) -> dict[str, Any]:
        """Return what a tool's call may know of the run, once its agent is loaded."""
        return self._live.context().wire()

    async def _work(self, given: Any, more: tuple[Any, ...]) -> dict[str, Any]:
        live = self._live
        try:
            if more:
                raise InputInvalid({"request": f"must be one JSON object, not {1 + len(more)} arguments"})
            live.request = RunRequest.read(given)
            live.entered = live.request.carried is not None
            state = await begin(live.hands, live.request)
            live.begin(state, live.request.carried)
            return await take_steps(live)
        except Stopped:
            return await self._stopped()
        except Failed as error:
            raise await self._failed(error.error) from None
        except InputInvalid as error:
            raise await self._failed(RunError(type="InputInvalid", message=cut(str(error)))) from None
        except ActivityError as error:
            if live.hands.stopped:
                return await self._stopped()
            raise await self._failed(named(error)) from None
        except OUR_BUGS as error:
            raise await self._failed(RunError(type=type(error).__name__, message=cut(str(error)))) from None

    async def _stopped(self) -> dict[str, Any]:
        """Return an interrupted run's result; a cancelled one's is nobody's to read."""
        live, state = self._live, self._live.state
        fatal = state.family.tolerance.fatal if state is not None else None
        if live.hands.stopped == "failed" and fatal is not None:
            raise await self._failed(fatal)
        await in_thread.leave(live)
        if live.hands.stopped != "interrupted":
            return {}
        live.show("interrupted")
        text = (state.partial_text or state.last_text()) if state else ""
        return live.result("interrupted", final_text=text).model_dump(mode="json")

    async def _failed(self, error: RunError) -> ApplicationError:
        await in_thread.leave(self._live)
        self._live.show("failed")
        result = self._live.result("failed", final_text=error.message, error=error)
        return ApplicationError(error.message, result.model_dump(mode="json"), type=error.type, non_retryable=True)

    @contextmanager
    def _signalled(self, what: str) -> Iterator[None]:
        """Count a signal, and drop one that does not fit with a word in the log."""
        self._live.signals += 1
        try:
            yield
        except InputInvalid as error:
            workflow.logger.warning(f"{what}.refused", extra={"error": cut(str(error), 500)})

    async def _updated(self) -> None:
        """Count an update, and wait for the agent: nothing is known of a decision before."""
        self._live.updates += 1
        if self._live.state is None:
            await workflow.wait_condition(lambda: self._live.state is not None)


@contextmanager
def _refusing(kind: str) -> Iterator[None]:
    """Refuse an update that nobody waits for."""
    try:
        yield
    except NotAwaited as error:
        raise ApplicationError(str(error), type=kind, non_retryable=True) from None


def _valid(read: Callable[[Any], T], given: Any) -> T:
    try:
        return read(given)
    except InputInvalid as error:
        raise ApplicationError(cut(str(error)), type="InputInvalid", non_retryable=True) from None
