"""A run and its subagents: whose subagent it is itself, which it has, and what their ends mean. Without Temporal."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from pydantic import JsonValue

from holdfast.agent import Agent, Limits
from holdfast.bounds import PREVIEW_MAX_BYTES, cut, cut_json, json_size
from holdfast.carried import Begun, Carried, Outcome
from holdfast.message import Usage, tool_text
from holdfast.run import RunError, RunResult, SubagentExecution
from holdfast.subagents import Lineage, Subagent
from holdfast.workflows.admission import Admitted
from holdfast.workflows.executions import Subagents
from holdfast.workflows.join import Verdict, verdict
from holdfast.workflows.slot import Slot
from holdfast.workflows.tolerance import Tolerance, kind_of
from holdfast.workflows.turn import Turn

JOIN_SETTLED = "JoinSettled"
START_ATTEMPTS = 30
"""How often a subagent's run is started whose id is still taken by its own earlier start, a second apart."""
_LEAST_USD = 1e-9
_PARTIAL_MAX_CHARS = 2_000
_ENOUGH = "it was stopped: enough of the others have answered"
_HOPELESS = "it was stopped: too many of the others have failed"


@dataclass
class Child:
    """One subagent's run, of a call that is open."""

    run_id: str
    link: str | None = None
    """One of its links by Temporal's own run id; of one that has closed, the last."""
    counted: Usage = field(default_factory=Usage)
    """What of its usage the caller has counted already."""
    under_way: bool = False
    budget_usd: float = 0.0
    """What is set aside for it while it is under way."""
    refused: int = 0
    """How often its id was still taken."""


class Family:
    """The kin of one run, while it lives."""

    def __init__(self, agent: Agent, lineage: Lineage | None = None, carried: Carried | None = None) -> None:
        known = carried or Carried(link="")
        self.agent = agent
        self.lineage = lineage
        self.tolerance = Tolerance(agent.failure, known.tolerated)
        self.executions = Subagents(known.subagents)
        self.children = {each.call_id: Child(each.run_id, each.link, each.usage) for each in known.children}
        """Call id → the run that carries the call out, of the open turn."""
        self.lost: dict[str, str] = {}
        """Calls that a join no longer wants, and why."""
        self._noted = set[str]()
        self._join_noted = False

    @property
    def depth(self) -> int:
        """0 for a run that nobody called."""
        return self.lineage.depth if self.lineage else 0

    @property
    def path(self) -> str:
        """The names of the agents from the root's to this one's."""
        return self.lineage.path if self.lineage else self.agent.name

    @property
    def under_way(self) -> list[str]:
        """The run ids of its subagents at work."""
        return [each.run_id for each in self.children.values() if each.under_way]

    @property
    def losers(self) -> list[str]:
        """Those calls that a join no longer wants, and whose runs are under way."""
        return [call_id for call_id in self.lost if call_id in self.children and self.children[call_id].under_way]

    def summary(self) -> tuple[SubagentExecution, ...]:
        """Return what a result lists; that of a subagent stands in its caller's history as well."""
        return self.executions.all() if self.lineage is None else self.executions.latest()

    def subagent(self, tool_name: str) -> Subagent:
        """Return the subagent that the model knows by this name."""
        return next(each for each in self.agent.called if each.tool_name == tool_name)

    def share(self, turn: Turn, cost_left: float | None) -> float | None:
        """Return what a subagent that starts now may spend: its part of what no other one has been promised."""
        if cost_left is None:
            return None
        promised = sum(each.budget_usd for each in self.children.values() if each.under_way)
        waiting = [each for each in _calls(turn) if each.outcome is None and each.waits is None]
        starting = [each for each in waiting if not self._is_under_way(each)]
        return max(_LEAST_USD, (cost_left - promised) / max(1, len(starting)))

    def began(self, call_id: str, run_id: str, budget_usd: float | None = None) -> None:
        """Note that a call's run is about to start."""
        child = self.children.setdefault(call_id, Child(run_id))
        child.under_way, child.budget_usd = True, budget_usd or 0.0

    def refused(self, call_id: str) -> Outcome | None:
        """Note that the run's id is still taken; returns the call's outcome once that has lasted too long."""
        child = self.children[call_id]
        child.under_way = False
        child.refused += 1
        if child.refused < START_ATTEMPTS:
            return None
        return Outcome(error_type="SubagentBusy", error=f"its run {child.run_id!r} is still under way elsewhere")

    def ended(self, call_id: str, tool_name: str, result: RunResult, latency_ms: float | None) -> Usage:
        """Note how a call's run has ended, and return the usage that is new."""
        child = self.children[call_id]
        child.under_way = False
        for each in result.subagent_executions:
            self.executions.add(each)
        self.executions.add(self._execution(call_id, tool_name, result, latency_ms))
        new = result.usage_aggregate - child.counted
        child.counted = result.usage_aggregate
        return new

    def outcome(self, call_id: str, result: RunResult, latency_ms: float | None, *, stopped: bool) -> Outcome | None:
        """Say what the model is told; None where the calling run was stopped, and its subagent with it."""
        if result.status in ("completed", "degraded"):
            return Outcome(output=answer_of(result), latency_ms=latency_ms)
        if call_id in self.lost:
            return Outcome(error_type=JOIN_SETTLED, error=self.lost[call_id], latency_ms=latency_ms)
        if stopped:
            return None
        error = error_of(result)
        return Outcome(error_type=error.type, error=error.message, latency_ms=latency_ms)

    def notice(self, turn: Turn) -> None:
        """Look at a turn's calls after a change: let the join settle them, and weigh new failures."""
        found = self._judge(turn)
        if found != "open":
            self._lose(turn, _ENOUGH if found == "enough" else _HOPELESS)
        for call_id, slot in turn.slots.items():
            if slot.outcome is not None and call_id not in self._noted:
                self._noted.add(call_id)
                self._weigh(slot, slot.outcome)
        if found == "hopeless" and not self._join_noted:
            self._join_noted = True
            failed = _failures(turn)
            told = f"{len(failed)} of {len(_calls(turn))} subagents failed; the first: {failed[0].error}"
            self.tolerance.take("subagent", RunError(type="SubagentsFailed", message=cut(told)))

    def take_over(self, turn: Turn) -> None:
        """Leave alone what an earlier link has weighed already."""
        self._noted |= {call_id for call_id, slot in turn.slots.items() if slot.outcome is not None}
        self._join_noted = self._judge(turn) == "hopeless"

    def closed(self) -> None:
        """Forget the calls of a turn that has closed."""
        self.children, self.lost, self._noted, self._join_noted = {}, {}, set(), False

    def handed_on(self) -> tuple[Begun, ...]:
        """Return what the next link must know of subagents whose calls are open."""
        return tuple(
            Begun(call_id=call_id, run_id=child.run_id, link=child.link, usage=child.counted)
            for call_id, child in self.children.items()
        )

    def _judge(self, turn: Turn) -> Verdict:
        calls = _calls(turn)
        succeeded = sum(each.outcome is not None and each.outcome.error is None for each in calls)
        return verdict(self.agent.join, total=len(calls), succeeded=succeeded, failed=len(_failures(turn)))

    def _lose(self, turn: Turn, why: str) -> None:
        for slot in _calls(turn):
            if slot.outcome is None:
                self.lost.setdefault(slot.call.id, why)
                if not self._is_under_way(slot):
                    slot.settle(Outcome(error_type=JOIN_SETTLED, error=why), made=False)

    def _weigh(self, slot: Slot, outcome: Outcome) -> None:
        subagent = is_subagent(slot)
        kind = kind_of(outcome.error_type, made=slot.made and not _is_builtin(slot), subagent=subagent)
        joined = kind == "subagent" and self.agent.join.mode != "all"
        if kind is None or joined or outcome.error_type == JOIN_SETTLED:
            return
        told = f"{slot.call.name[:100]}: {outcome.error}"
        self.tolerance.take(kind, RunError(type=outcome.error_type or "Error", message=cut(told)))

    def _is_under_way(self, slot: Slot) -> bool:
        child = self.children.get(slot.call.id)
        return child is not None and child.under_way

    def _execution(
        self, call_id: str, tool_name: str, result: RunResult, latency_ms: float | None
    ) -> SubagentExecution:
        name = self.subagent(tool_name).agent_name
        success = result.status in ("completed", "degraded")
        output = answer_of(result) if success else None
        if json_size(output) > PREVIEW_MAX_BYTES:
            output = cut_json(tool_text(output), PREVIEW_MAX_BYTES)
        error = None if success else error_of(result)
        return SubagentExecution(
            agent_name=name,
            run_id=self.children[call_id].run_id,
            tool_call_id=call_id,
            status=result.status,
            success=success,
            output=output,
            error=None if error is None else cut_json(f"{error.type}: {error.message}", PREVIEW_MAX_BYTES),
            latency_ms=latency_ms,
            cost_usd=result.cost_usd,
            steps=result.steps,
            agent_depth=self.depth + 1,
            agent_path=f"{self.path}/{name}",
        )


def is_subagent(slot: Slot) -> bool:
    """Say whether a call is one of a subagent that may be made."""
    return isinstance(slot.decision, Admitted) and slot.decision.spec.subagent is not None


def answer_of(result: RunResult) -> JsonValue:
    """Return a subagent's answer: structured where it is, else its text."""
    structured = result.output is not None and not isinstance(result.output, str)
    return result.output if structured else result.final_text


def error_of(result: RunResult) -> RunError:
    """Return what a calling model is told of a subagent that has not answered."""
    if result.error is not None:
        return result.error
    if result.status == "cancelled":
        return RunError(type="Cancelled", message="it was cancelled")
    why = result.state_snapshot.get("interrupted_by") or "no reason was given"
    said = f"; until then it had said: {result.final_text[:_PARTIAL_MAX_CHARS]}" if result.final_text else ""
    return RunError(type="Interrupted", message=cut(f"it was interrupted ({why}){said}"))


def limits_of(agent: Agent, lineage: Lineage | None) -> Limits:
    """Return a run's limits: a subagent's are bounded by what its caller gives it."""
    own = agent.limits
    if lineage is None:
        return own
    return own.model_copy(
        update={
            "max_subagent_depth": lineage.levels_left,
            "max_cost_usd": _least(own.max_cost_usd, lineage.budget_usd),
            "deadline_seconds": _least(own.deadline_seconds, lineage.deadline_seconds),
        }
    )


def _least(*bounds: float | None) -> float | None:
    return min((each for each in bounds if each is not None), default=None)


def _calls(turn: Turn) -> list[Slot]:
    return [slot for slot in turn.slots.values() if is_subagent(slot)]


def _failures(turn: Turn) -> list[Outcome]:
    ended: Iterable[Outcome] = [slot.outcome for slot in _calls(turn) if slot.outcome is not None]
    return [each for each in ended if each.error is not None and each.error_type != JOIN_SETTLED]


def _is_builtin(slot: Slot) -> bool:
    return isinstance(slot.decision, Admitted) and slot.decision.spec.builtin is not None
