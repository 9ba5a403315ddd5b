"""The tool calls that a run's result lists: previews, the latest kept."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence

from holdfast.bounds import (
    CARRIED_EXECUTIONS_BYTES,
    CARRIED_EXECUTIONS_MAX,
    EXECUTIONS_MAX,
    PREVIEW_MAX_BYTES,
    PREVIEWS_MAX_BYTES,
    SUBAGENTS_BYTES,
    SUBAGENTS_MAX,
    cut_json,
    json_size,
    latest,
)
from holdfast.carried import Outcome
from holdfast.message import ToolCall, tool_text
from holdfast.run import SubagentExecution, ToolExecution


class Executions:
    """At most 2,000 calls, with previews of at most 128 KB in all."""

    def __init__(self, earlier: Iterable[ToolExecution] = ()) -> None:
        self._kept: list[ToolExecution] = []
        self._preview_bytes = 0
        self._blanked = 0
        """Those whose output and error have made room for later ones."""
        for each in earlier:
            self._add(each)

    def __iter__(self) -> Iterator[ToolExecution]:
        return iter(self._kept)

    def __len__(self) -> int:
        return len(self._kept)

    def all(self) -> tuple[ToolExecution, ...]:
        """Return what a result lists."""
        return tuple(self._kept)

    def latest(self) -> tuple[ToolExecution, ...]:
        """Return what the next link is handed: at most 100, of at most 32 KB."""
        kept = self._kept[-CARRIED_EXECUTIONS_MAX:]
        return latest(kept, CARRIED_EXECUTIONS_BYTES, lambda each: json_size(each.wire()))

    def extend(self, others: Iterable[ToolExecution]) -> None:
        """Take the calls that a subagent made."""
        for each in others:
            self._add(each)

    def add(self, call: ToolCall, outcome: Outcome, agent_name: str, depth: int = 0, path: str | None = None) -> None:
        """Take one call that has ended."""
        output = outcome.output
        if json_size(output) > PREVIEW_MAX_BYTES:
            output = cut_json(tool_text(output), PREVIEW_MAX_BYTES)
        error = None
        if outcome.error is not None:
            error = cut_json(f"{outcome.error_type}: {outcome.error}", PREVIEW_MAX_BYTES)
        self._add(
            ToolExecution(
                tool_name=cut_json(call.name, 128),
                tool_call_id=call.id,
                success=outcome.error is None,
                output=output,
                error=error,
                latency_ms=outcome.latency_ms,
                agent_name=agent_name,
                agent_depth=depth,
                agent_path=path or agent_name,
            )
        )

    def _add(self, execution: ToolExecution) -> None:
        self._kept.append(execution)
        self._preview_bytes += _preview_size(execution)
        while self._preview_bytes > PREVIEWS_MAX_BYTES:
            oldest = self._kept[self._blanked]
            self._preview_bytes -= _preview_size(oldest)
            self._kept[self._blanked] = oldest.model_copy(update={"output": None, "error": None})
            self._blanked += 1
        if len(self._kept) > EXECUTIONS_MAX:
            first = self._kept.pop(0)
            self._preview_bytes -= 0 if self._blanked else _preview_size(first)
            self._blanked = max(0, self._blanked - 1)


class Subagents:
    """The subagents' runs that a run's result lists: at most 500, of at most 128 KB in all, the latest kept."""

    def __init__(self, earlier: Iterable[SubagentExecution] = ()) -> None:
        self._kept: OrderedDict[str, tuple[SubagentExecution, int]] = OrderedDict()
        self._bytes = 0
        for each in earlier:
            self.add(each)

    def add(self, execution: SubagentExecution) -> None:
        """Take a run that has ended; of one that has ended before, this counts."""
        _, was = self._kept.pop(execution.run_id, (None, 0))
        size = json_size(execution.wire())
        self._kept[execution.run_id] = (execution, size)
        self._bytes += size - was
        while len(self._kept) > SUBAGENTS_MAX or self._bytes > SUBAGENTS_BYTES:
            _, (_, oldest) = self._kept.popitem(last=False)
            self._bytes -= oldest

    def all(self) -> tuple[SubagentExecution, ...]:
        """Return what a result lists."""
        return tuple(each for each, _ in self._kept.values())

    def latest(self) -> tuple[SubagentExecution, ...]:
        """Return what the next link, or the calling run, is handed: at most 32 KB."""
        found = latest(self._kept.values(), CARRIED_EXECUTIONS_BYTES, lambda kept: kept[1])
        return tuple(each for each, _ in found)


def _preview_size(execution: ToolExecution) -> int:
    parts: Sequence[object] = [execution.output, execution.error]
    return json_size(parts)
