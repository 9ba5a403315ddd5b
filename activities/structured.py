"""Structured answers: held against the agent's output_schema where they are made, so that a run need not."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from holdfast.activities import schemas
from holdfast.activities.failures import failure
from holdfast.agent import Agent
from holdfast.bounds import OUTPUT_ERROR_MAX_BYTES, cut
from holdfast.calls import ModelCall
from holdfast.errors import DefinitionError, InputInvalid
from holdfast.message import Turn
from holdfast.outputs import read_json


async def checked(turn: Turn, agent: Agent, call: ModelCall) -> Turn:
    """Return a turn that says what is wrong with it, where it is an answer that does not fit."""
    if agent.output_schema is None or turn.message.tool_calls or call.planning:
        return turn
    try:
        # In a thread: a check may take 2 seconds, and other runs' activities go on meanwhile.
        wrong = await asyncio.to_thread(output_error, agent.output_schema, turn.message.text)
    except DefinitionError as error:
        raise failure("DefinitionError", str(error), retryable=False) from None
    return turn if wrong is None else turn.model_copy(update={"output_error": wrong})


def output_error(schema: Mapping[str, Any], text: str) -> str | None:
    """Say what is wrong with an answer, in at most 2 KB; None where it is JSON that fits."""
    try:
        answer = read_json(text)
    except ValueError as error:
        return cut(str(error), OUTPUT_ERROR_MAX_BYTES)
    try:
        schemas.check(dict(schema), answer, name="output_schema", where="output")
    except InputInvalid as error:
        return cut(str(error), OUTPUT_ERROR_MAX_BYTES)
    return None
