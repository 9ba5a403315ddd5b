"""Tool calls: each `@tool` is an activity under its own name, whose one argument is the model's arguments."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

from temporalio import activity
from temporalio.exceptions import ApplicationError, CancelledError

from holdfast import ids
from holdfast.activities.failures import failure, text_of
from holdfast.activities.guard import heart, inside
from holdfast.activities.loops import ToolLoops
from holdfast.activities.outputs import recordable
from holdfast.activities.secrets import Scrubber
from holdfast.bounds import TOOL_OUTPUT_RECORDED_BYTES, to_json
from holdfast.errors import InputInvalid
from holdfast.tool_context import ToolContext
from holdfast.tools import Tool


def activity_of(tool: Tool[..., Any], scrub: Scrubber, loops: ToolLoops) -> Callable[..., Any]:
    """Make the activity that runs a tool: sync functions in the worker's threads, async ones in the tools' own loop."""
    if tool.is_async:

        @activity.defn(name=tool.spec.name)
        async def run_async(arguments: Any = None) -> Any:
            async def work() -> Any:
                return recordable(await tool.function(**_bound(tool, arguments, scrub)), scrub)

            return await loops.run(lambda: _told(work, tool.spec.name))

        return run_async

    @activity.defn(name=tool.spec.name)
    def run_sync(arguments: Any = None) -> Any:
        try:
            return recordable(tool.function(**_bound(tool, arguments, scrub)), scrub)
        except ApplicationError:
            raise
        except BaseException as error:
            if isinstance(error, CancelledError) and activity.is_cancelled():
                raise
            raise _failed(error, tool.spec.name) from error

    return run_sync


async def _told(work: Callable[[], Any], name: str) -> Any:
    try:
        return await work()
    except ApplicationError:
        raise
    except BaseException as error:
        task = asyncio.current_task()
        if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
            raise
        raise _failed(error, name) from error


def _failed(error: BaseException, name: str) -> ApplicationError:
    """Give a tool's exception its type and retry posture; one that would end process or thread is an error too."""
    text = text_of(error) or f"{name} raised {type(error).__name__}"
    return failure(type(error).__name__[:200], text, retryable=True)


def _bound(tool: Tool[..., Any], arguments: Any, scrub: Scrubber) -> dict[str, Any]:
    try:
        bound = tool.arguments.validate({} if arguments is None else arguments)
    except InputInvalid as error:
        raise failure("ToolArgumentsInvalid", scrub.text(str(error)), retryable=False) from None
    if tool.arguments.secrets:
        bound |= inside().secrets
    if tool.arguments.context_name is not None:
        bound[tool.arguments.context_name] = _context(scrub)
    return bound


def _context(scrub: Scrubber) -> ToolContext:
    info = activity.info()
    beating = heart()

    def beat(*details: Any) -> None:
        text = to_json(details)
        if len(text.encode()) > TOOL_OUTPUT_RECORDED_BYTES:
            raise ValueError(f"heartbeat details must be at most {TOOL_OUTPUT_RECORDED_BYTES:,} bytes of JSON")
        beating.tell_from_thread(*scrub.json(json.loads(text)))

    run_id = info.workflow_id or ""
    return ToolContext(
        run_id=run_id,
        call_id=info.activity_id,
        attempt=info.attempt,
        idempotency_key=ids.idempotency_key(run_id, info.activity_id),
        last_heartbeat=tuple(info.heartbeat_details),
        _about=inside().about,
        _beat=beat,
        _cancelled=activity.is_cancelled,
    )
