"""What a run writes where people look: search attributes, on changes only."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from temporalio import workflow
from temporalio.common import SearchAttributeKey, SearchAttributePair, SearchAttributeUpdate, TypedSearchAttributes

from holdfast.run import TERMINAL, Status
from holdfast.workflows.state import RunState

_NAME = SearchAttributeKey.for_keyword("AgentName")
_REVISION = SearchAttributeKey.for_keyword("AgentRevision")
_STATUS = SearchAttributeKey.for_keyword("RunStatus")
_THREAD = SearchAttributeKey.for_keyword("ThreadId")
_WAITING = SearchAttributeKey.for_keyword("WaitingFor")
_COST = SearchAttributeKey.for_float("CostUsd")
_STEPS = SearchAttributeKey.for_int("Steps")


def first(state: RunState, thread_id: str | None) -> list[SearchAttributeUpdate[Any]]:
    """Say what stays the same for the whole run."""
    written = [_NAME.value_set(state.loaded.agent.name), _REVISION.value_set(state.loaded.revision)]
    return written if thread_id is None else [*written, _THREAD.value_set(thread_id)]


def pending(agent_name: str) -> TypedSearchAttributes:
    """Say what a subagent's run is listed under until a worker has taken it."""
    return TypedSearchAttributes([SearchAttributePair(_NAME, agent_name), SearchAttributePair(_STATUS, "pending")])


def changed(
    state: RunState, status: Status, kinds: Iterable[str], shown_kinds: str | None
) -> list[SearchAttributeUpdate[Any]]:
    """Say a new status, and what the run waits for: kinds, sorted and joined by a comma."""
    written: list[SearchAttributeUpdate[Any]] = [_STATUS.value_set(status)]
    wanted = waiting(kinds)
    if wanted != shown_kinds:
        written.append(_WAITING.value_set(wanted) if wanted else _WAITING.value_unset())
    if status in TERMINAL:
        written += [_COST.value_set(state.usage.cost_usd), _STEPS.value_set(state.steps)]
    return written


def written(info: workflow.Info) -> bool:
    """Say whether somebody has written a status already, so that it may be written."""
    return info.typed_search_attributes.get(_STATUS) is not None


def ended_early(info: workflow.Info, status: Status) -> list[SearchAttributeUpdate[Any]]:
    """Say how a link ended that never came to have an agent."""
    waits = info.typed_search_attributes.get(_WAITING) is not None
    return [_STATUS.value_set(status), *([_WAITING.value_unset()] if waits else [])]


def waiting(kinds: Iterable[str]) -> str | None:
    """Return what `WaitingFor` says."""
    return ",".join(sorted(set(kinds))) or None
