"""`AgentRun`: the step loop. What to do next is decided by `RunState`; this file only awaits."""

from __future__ import annotations

import asyncio
from typing import Any

from pydantic import ValidationError
from temporalio import workflow
from temporalio.common import SearchAttributeKey, SearchAttributePair
from temporalio.exceptions import ActivityError, ApplicationError

from holdfast import wire
from holdfast.bounds import cut, pairs, summary
from holdfast.calls import LoadedAgent, ModelCall, Page
from holdfast.errors import InputInvalid
from holdfast.message import Turn
from holdfast.request import RunRequest, UserMessage
from holdfast.run import RunError, RunResult, Status
from holdfast.workflows import details, options
from holdfast.workflows.admission import Admitted, Decision, Refused
from holdfast.workflows.outcomes import from_failure, from_output, named
from holdfast.workflows.state import CallModel, CallTools, Finish, RunState, ToolOutcome, refusal

OUR_BUGS = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""These fail the run, with their cause, where Temporal would retry the workflow task for ever. A replay that does not
fit (a NondeterminismError) is none of them: it waits for a worker with the right code."""

_NAME = SearchAttributeKey.for_keyword("AgentName")
_REVISION = SearchAttributeKey.for_keyword("AgentRevision")
_STATUS = SearchAttributeKey.for_keyword("RunStatus")
_THREAD = SearchAttributeKey.for_keyword("ThreadId")
_COST = SearchAttributeKey.for_float("CostUsd")
_STEPS = SearchAttributeKey.for_int("Steps")


class Stopped(Exception):
    """The run was told to stop while it awaited this."""


# Our modules are shared with the sandbox anyway (loading them for each run costs more than the run), so it would guard
# nothing here and cost an eighth of a worker's CPU; replays of recorded histories hold this code to determinism.
@workflow.defn(name=wire.AGENT_RUN, failure_exception_types=list(OUR_BUGS), sandboxed=False)
class AgentRun:
    """One run of an agent. Takes a RunRequest as one JSON object, and returns a RunResult.

    Handlers take their argument loosely typed and any number of further ones: what does not fit is told, or dropped
    with a word in the log, and never stops the run.
    """

    def __init__(self) -> None:
        self._state: RunState | None = None
        self._request: RunRequest | None = None
        self._early: list[UserMessage] = []
        self._status: Status = "running"
        self._stopping = False
        self._in_flight: dict[str, workflow.ActivityHandle[Any]] = {}

    @workflow.run
    async def run(self, request: Any = None, *more: Any) -> dict[str, Any]:
        """Run to the end; a cancellation stops activities first and closes the run only after they have ended."""
        work = asyncio.create_task(self._work(request, more))
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            self._stopping = True
            for handle in list(self._in_flight.values()):
                handle.cancel()
            await asyncio.wait([work])
            self._show("cancelled")
            raise

    @workflow.signal(name=wire.APPEND_MESSAGE, description='Add a user message: {"text": "…", "id": "…"}')
    def append_message(self, message: Any = None, *more: Any) -> None:
        """A signal: the sender needs no answer. The model sees it at the next step; the same id twice counts once."""
        try:
            taken = UserMessage.read(message)
        except InputInvalid as error:
            workflow.logger.warning("message.refused", extra={"error": cut(str(error), 500)})
            return
        if self._state is None:
            self._early.append(taken)
        else:
            self._state.receive(taken)

    @workflow.query(name=wire.STATUS, description="Status, step, what it waits for, usage and limits")
    def status(self, *ignored: Any) -> dict[str, Any]:
        """A query: reads, changes nothing."""
        state = self._state
        return {
            "status": self._status,
            "step": state.steps if state else 0,
            "waiting_for": [],
            "usage": state.usage.model_dump() if state else {},
            "limits": state.limits.model_dump() if state else {},
        }

    @workflow.query(name=wire.TRANSCRIPT, description='Messages from {"start": 0} to {"stop": n}, 1 MB at most')
    def transcript(self, span: Any = None, *more: Any) -> dict[str, Any]:
        """A query: also how a worker fetches what it does not hold."""
        span = span if isinstance(span, dict) else {}
        start, stop = span.get("start", 0), span.get("stop")
        if not isinstance(start, int) or start < 0 or not isinstance(stop, int | None):
            raise ValueError('the argument must be {"start": int ≥ 0, "stop": int or null}')
        page = self._state.page(start, stop) if self._state else Page()
        return page.model_dump(mode="json", exclude_none=True)

    @workflow.query(name=wire.AGENT, description="The agent that this run is pinned to")
    def agent(self, *ignored: Any) -> dict[str, Any]:
        """A query: the resolved agent, once it is loaded."""
        if self._state is None:
            raise ValueError("the agent is not loaded yet")
        return self._state.loaded.agent.wire()

    async def _work(self, given: Any, more: tuple[Any, ...]) -> dict[str, Any]:
        try:
            if more:
                raise InputInvalid({"request": f"must be one JSON object, not {1 + len(more)} arguments"})
            self._request = RunRequest.read(given)
            state = await self._load(self._request)
            return await self._steps(state)
        except InputInvalid as error:
            raise self._failed(RunError(type="InputInvalid", message=cut(str(error)))) from None
        except ActivityError as error:
            if self._stopping:
                return {}
            raise self._failed(named(error)) from None
        except Stopped:
            return {}
        except OUR_BUGS as error:
            raise self._failed(RunError(type=type(error).__name__, message=cut(str(error)))) from None

    async def _load(self, request: RunRequest) -> RunState:
        name = request.agent if isinstance(request.agent, str) else request.agent.name
        loaded = await self._call(wire.AGENT_LOAD, request.wire(), summary=summary(name), **options.agent_load())
        try:
            self._state = state = RunState(LoadedAgent.model_validate(loaded))
        except ValidationError as error:  # never with half of an agent: wait for a worker that knows all of it
            told = cut(str(error), 1000)
            raise workflow.NondeterminismError(f"another version of Holdfast loaded this agent: {told}") from None
        for message in self._early:
            state.receive(message)
        if not self._stopping:
            self._show("running")
        return state

    async def _steps(self, state: RunState) -> dict[str, Any]:
        while not self._stopping:
            if options.history_is_full(workflow.info()):
                state.reach("history")
            match state.next_move():
                case CallModel(call):
                    state.record(await self._call_model(call))
                case CallTools(decisions):
                    outcomes = await self._call_tools(decisions)
                    if not self._stopping:
                        state.settle(decisions, outcomes)
                case Finish(status, text):
                    self._show(status)
                    return self._result(status, final_text=text, output=text).model_dump(mode="json")
            workflow.set_current_details(details.page(state, self._status))
        return {}

    async def _call_model(self, call: ModelCall) -> Turn:
        label = summary(f"step {call.step} · {call.model}")
        assert self._state is not None
        bounds = options.model_call(self._state.loaded.agent.model_settings)
        turn = await self._call(wire.MODEL_CALL, call.wire(), **bounds, summary=label)
        return Turn.recorded(turn)

    async def _call_tools(self, decisions: list[Decision]) -> list[ToolOutcome]:
        assert self._state is not None
        gate = asyncio.Semaphore(self._state.limits.max_parallel_tools)

        async def settle(decision: Decision) -> ToolOutcome:
            if isinstance(decision, Refused):
                return refusal(decision)
            async with gate:
                return await self._call_tool(decision)

        return list(await asyncio.gather(*map(settle, decisions)))

    async def _call_tool(self, decision: Admitted) -> ToolOutcome:
        if self._stopping:
            return ToolOutcome(error_type="Cancelled", error="the run was cancelled")
        call, began = decision.call, workflow.time()
        label = summary(pairs(decision.arguments))
        try:
            output = await self._call(
                decision.spec.name,
                decision.arguments,
                activity_id=call.id,
                summary=label or None,
                **options.tool_call(decision.spec),
            )
        except Stopped:
            return ToolOutcome(error_type="Cancelled", error="the run was cancelled")
        except ActivityError as error:
            return from_failure(error.cause, decision.spec, round((workflow.time() - began) * 1000, 1))
        return from_output(output, round((workflow.time() - began) * 1000, 1))

    async def _call(self, activity: str, argument: Any, **settings: Any) -> Any:
        handle = workflow.start_activity(activity, argument, **settings)
        self._in_flight[handle.get_name()] = handle
        try:
            return await handle
        except asyncio.CancelledError:
            raise Stopped from None  # it had completed when it was cancelled, and the SDK drops such a result
        finally:
            self._in_flight.pop(handle.get_name(), None)

    def _failed(self, error: RunError) -> ApplicationError:
        self._show("failed")
        result = self._result("failed", final_text=error.message, error=error)
        return ApplicationError(error.message, result.model_dump(mode="json"), type=error.type, non_retryable=True)

    def _result(self, status: Status, **fields: Any) -> RunResult:
        state, request = self._state, self._request
        known: dict[str, Any] = {"run_id": workflow.info().workflow_id}
        if request is not None:
            known["thread_id"] = request.thread_id
            known["agent"] = request.agent if isinstance(request.agent, str) else request.agent.name
        if state is not None:
            known.update(state.summary())
        return RunResult(status=status, **known, **fields)

    def _show(self, status: Status) -> None:
        """Say the status where people look: search attributes (on changes only) and the run's page in the UI."""
        self._status = status
        state = self._state
        if state is None:
            return
        workflow.set_current_details(details.page(state, status))
        if not state.loaded.search_attributes:
            return
        written: list[SearchAttributePair[Any]] = [SearchAttributePair(_STATUS, status)]
        if status == "running":
            written += [
                SearchAttributePair(_NAME, state.loaded.agent.name),
                SearchAttributePair(_REVISION, state.loaded.revision),
            ]
            if self._request is not None and self._request.thread_id is not None:
                written.append(SearchAttributePair(_THREAD, self._request.thread_id))
        else:
            written += [
                SearchAttributePair(_COST, state.usage.cost_usd),
                SearchAttributePair(_STEPS, state.steps),
            ]
        workflow.upsert_search_attributes([pair.key.value_set(pair.value) for pair in written])
