"""The step loop: asks `RunState` what to do next, and does it."""

from __future__ import annotations

import asyncio
from typing import Any

from temporalio import workflow
from temporalio.exceptions import ActivityError

from holdfast import wire
from holdfast.bounds import is_small, pairs, summary
from holdfast.calls import Compact, Compacted, ModelCall
from holdfast.message import Turn
from holdfast.request import RunRequest
from holdfast.workflows import asking, options
from holdfast.workflows.admission import Admitted
from holdfast.workflows.checks import ask_worker
from holdfast.workflows.hands import Failed, Stopped
from holdfast.workflows.in_thread import may_finish, take_turn
from holdfast.workflows.live import Live
from holdfast.workflows.moves import CallModel, CallTools, CompactContext, Fail, Finish, Rest, Review
from holdfast.workflows.outcomes import from_failure, from_output, named, readable, retry_after, spent_by
from holdfast.workflows.slot import Slot
from holdfast.workflows.state import RunState
from holdfast.workflows.subagents import call_subagent
from holdfast.workflows.turn import Turn as OpenCalls


async def take_steps(live: Live) -> dict[str, Any]:
    """Run to the end, and return the RunResult's wire form; Stopped where the run was told to stop."""
    state = live.state
    assert state is not None
    clock = asyncio.create_task(live.watch_clock())
    try:
        await take_turn(live, state)
        while not live.hands.stopped:
            if live.crowded:
                await _continue_as_new(live, state)
            if options.history_is_full(workflow.info()):
                state.reach("history")
            await _may_begin(live, state)
            if live.hands.stopped or live.crowded:
                continue
            match state.next_move(workflow.time()):
                case CallModel(call):
                    await _call_model(live, state, call)
                case CallTools(turn):
                    await _settle(live, state, turn)
                case CompactContext(compact):
                    await _compact(live, state, compact)
                case Review(check):
                    await ask_worker(live, state, check)
                case Rest(model, until):
                    await _rest(live, state, model, until)
                case Finish(status, text):
                    if not await may_finish(live, state, status):
                        continue
                    live.show(status)
                    output = state.answers.output(text)
                    return live.result(status, final_text=text, output=output).model_dump(mode="json")
                case Fail(failed):
                    raise Failed(failed)
            live.refresh()
            live.draw()
        raise Stopped
    finally:
        clock.cancel()


async def _may_begin(live: Live, state: RunState) -> None:
    """Hold while the run is paused."""
    if state.paused is None:
        return
    live.refresh()
    await workflow.wait_condition(lambda: state.paused is None or bool(live.hands.stopped) or live.crowded)
    live.refresh()


async def _continue_as_new(live: Live, state: RunState) -> None:
    """Go on in a new link; a signal that comes at the last moment undoes this, and nothing is lost."""
    await workflow.wait_condition(workflow.all_handlers_finished)
    if live.hands.stopped:
        return
    state.read_inbox_to_go_on()
    request = live.request
    assert request is not None
    following = RunRequest(
        agent=state.loaded.agent.name,
        input=request.input if is_small(request.input) else {},
        thread_id=request.thread_id,
        interaction_mode=request.interaction_mode,
        metadata=request.metadata if is_small(request.metadata) else {},
        lineage=request.lineage,
        carried=live.handed_on(),
    )
    memo = dict(workflow.memo())
    memo.setdefault(wire.STARTED_AT_MEMO, workflow.info().start_time.timestamp())
    workflow.continue_as_new(following.wire(), memo=memo)


async def _call_model(live: Live, state: RunState, call: ModelCall) -> None:
    label = summary(f"step {call.step} · {call.model}{' · plan' if call.planning else ''}")
    bounds = options.model_call(state.loaded.agent.model_settings, another=call.patience_seconds is not None)
    bounds |= options.queue(state.loaded, f"{options.MODEL_QUEUE}{call.model}")
    try:
        turn = await live.hands.call(wire.MODEL_CALL, call.wire(), **bounds, summary=label)
    except ActivityError as error:
        state.budget.spend(spent_by(error))
        if live.hands.stopped:
            raise
        if asking.failed(state, named(error), workflow.time(), retry_after(error)).ends == "failed":
            raise
        return
    state.record(Turn.recorded(turn), workflow.time())


async def _rest(live: Live, state: RunState, model: str, until: float) -> None:
    """Ask no model before a time; a link that is crowded leaves the rest of it to the next one."""
    live.refresh()
    try:
        await workflow.wait_condition(
            lambda: live.hands.stopped is not None or live.crowded,
            timeout=max(0.001, until - workflow.time()),
            timeout_summary=summary(f"model {model}"),
        )
    except TimeoutError:
        state.models.rested()


async def _compact(live: Live, state: RunState, call: Compact) -> None:
    label = summary(f"messages {call.start} to {call.stop} · {call.model}")
    bounds = options.compact(state.loaded.agent.model_settings)
    bounds |= options.queue(state.loaded, f"{options.MODEL_QUEUE}{call.model}")
    try:
        found = await live.hands.call(wire.CONTEXT_COMPACT, call.wire(), **bounds, summary=label)
    except ActivityError as error:
        if live.hands.stopped:
            raise
        state.budget.spend(spent_by(error))
        workflow.logger.warning("context.not_compacted", extra={"error": named(error).message[:500]})
        state.talk.not_summarised()
        return
    compacted = Compacted.recorded(found)
    state.compacted(call, compacted.summary, compacted.usage)


async def _settle(live: Live, state: RunState, turn: OpenCalls) -> None:
    """See each call of a turn to its end, or leave those that wait to the next link."""
    gate = asyncio.Semaphore(state.limits.max_parallel_tools)
    leaving = False

    def halted() -> bool:
        return leaving or live.hands.stopped is not None

    async def see_to(slot: Slot) -> None:
        if slot.waits is not None:
            await _wait(state, slot, halted)
            live.refresh()
        if slot.outcome is not None or halted():
            return
        async with gate:
            await _may_begin(live, state)
            if slot.outcome is None and not halted() and state.paused is None:
                await _call_tool(live, state, slot)
        live.refresh()

    tasks = [asyncio.create_task(see_to(slot)) for slot in turn.open]
    live.refresh()

    def ended() -> bool:
        return all(task.done() for task in tasks) or (live.crowded and not live.hands.busy and _only_waits(state, turn))

    await workflow.wait_condition(ended)
    leaving = True
    await asyncio.gather(*tasks)


def _only_waits(state: RunState, turn: OpenCalls) -> bool:
    return state.paused is not None or len(turn.waiting) == len(turn.open)


async def _wait(state: RunState, slot: Slot, halted: Any) -> None:
    # Never 0, which would start no timer and leave no footprint in history.
    seconds = None if slot.until is None else max(0.001, slot.until - workflow.time())
    label = f"{slot.waits} {slot.call.id}"
    try:
        await workflow.wait_condition(
            lambda: slot.waits is None or halted(),
            timeout=seconds,
            timeout_summary=None if seconds is None else label,
        )
    except TimeoutError:
        state.expire(slot.call.id)


async def _call_tool(live: Live, state: RunState, slot: Slot) -> None:
    decision = slot.decision
    assert isinstance(decision, Admitted)
    if decision.spec.subagent is not None:
        await call_subagent(live, state, slot)
        return
    began, label = workflow.time(), summary(pairs(slot.arguments))
    try:
        output = await live.hands.call(
            decision.spec.activity_type,
            slot.arguments,
            activity_id=slot.call.id,
            summary=label or None,
            leavable=True,
            **options.tool_call(decision.spec),
            **options.queue(state.loaded, decision.spec.name),
        )
    except Stopped:
        return
    except ActivityError as error:
        if live.hands.stopped:  # how it ends then is no outcome: it is called again where the run goes on
            return
        outcome = from_failure(error.cause, decision.spec, round((workflow.time() - began) * 1000, 1))
        state.settle(slot.call.id, outcome)
        return
    output = readable(output, workflow.payload_converter())
    state.settle(slot.call.id, from_output(output, round((workflow.time() - began) * 1000, 1)))
