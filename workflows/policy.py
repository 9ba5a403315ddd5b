"""What the policies of worker, agent and hooks say of a tool call: plain decisions, without Temporal."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import JsonValue

from holdfast.bounds import check_depth, cut, one_line, pairs, to_json
from holdfast.calls import LoadedAgent
from holdfast.policy import Action, AskedCall, Policy
from holdfast.tools import ToolSpec

Source = Literal["worker", "agent", "hook"]


@dataclass(frozen=True)
class Judgement:
    """What one policy says of one call."""

    action: Action
    rule: str
    """The rule's id, or the hook's name."""
    policy: Source
    reason: str = ""
    question: str = ""
    into: str | None = None
    failed: bool = False
    """Whether it is a denial only because a hook could not be asked."""


@dataclass(frozen=True)
class Judge:
    """The policies that bear on a run's calls."""

    agent: str = ""
    worker_policy: Policy | None = None
    agent_policy: Policy | None = None
    context: Mapping[str, JsonValue] = field(default_factory=dict)
    verdicts: Mapping[str, Judgement] = field(default_factory=dict)
    """Call id → what the worker's hooks have said of it."""

    @classmethod
    def of(cls, loaded: LoadedAgent, context: Mapping[str, JsonValue], verdicts: Mapping[str, Judgement]) -> Judge:
        """Take the policies that a run is pinned to."""
        return cls(loaded.agent.name, loaded.policy, loaded.agent.policy, context, verdicts)

    def judge(self, call_id: str, spec: ToolSpec, arguments: Mapping[str, Any]) -> Judged:
        """Return what each policy says of a call with these arguments."""
        call = AskedCall(
            tool=spec.name,
            activity=spec.activity or "",
            arguments=dict(arguments),
            agent=self.agent,
            context=dict(self.context),
        )
        said: list[Judgement] = []
        by: tuple[tuple[Source, Policy | None], ...] = (("worker", self.worker_policy), ("agent", self.agent_policy))
        for source, policy in by:
            rule = policy.first(call) if policy is not None else None
            if rule is not None:
                said.append(Judgement(rule.action, rule.id, source, rule.reason, rule.question, rule.into))
        if call_id in self.verdicts:
            said.append(self.verdicts[call_id])
        return Judged(tuple(said))


@dataclass(frozen=True)
class Judged:
    """What all policies say of one call; the one that restrains it most counts."""

    said: tuple[Judgement, ...] = ()

    @property
    def denial(self) -> Judgement | None:
        """Whoever forbids the call."""
        return self._first("deny")

    @property
    def approval(self) -> Judgement | None:
        """Whoever wants it approved."""
        return self._first("request_approval")

    @property
    def needs_nobody(self) -> bool:
        """Whether the worker's own rule allows it, also where its tool asks for approval: no agent may say so."""
        return any(each.action == "allow" and each.policy == "worker" for each in self.said)

    @property
    def is_firm(self) -> bool:
        """Whether an agent's `fallback="approve"` is no approval: it is not the agent who asks for it."""
        return any(each.action == "request_approval" and each.policy != "agent" for each in self.said)

    def question(self, given: Mapping[str, Any]) -> Judgement | None:
        """Return who asks for a person's input, beside what was given by name."""
        asking = (each for each in self.said if each.action == "request_user_input")
        return next((each for each in asking if each.into is None or each.into not in given), None)

    def _first(self, action: Action) -> Judgement | None:
        return next((each for each in self.said if each.action == action), None)


NOTHING_SAID = Judged()


def denied(judgement: Judgement) -> tuple[str, str]:
    """Return type and text of the error that the model is told."""
    if judgement.failed:
        return "PolicyFailed", cut(f"the policy could not be asked, so it was not called: {judgement.reason}")
    return "PolicyDenied", cut(judgement.reason or f"the policy does not allow it (rule {judgement.rule!r})")


def worded(judgement: Judgement, tool: str, arguments: Mapping[str, Any]) -> str:
    """Word what a person is asked."""
    if judgement.question:
        return judgement.question
    asked = one_line(f"{tool} {pairs(arguments)}".strip(), 300)
    wanted = "Say what the model is to be told instead" if judgement.into is None else f"Give its {judgement.into}"
    because = f" ({judgement.reason})" if judgement.reason else ""
    return f"The agent wants to call {asked}{because}. {wanted}."


def typed(text: str, spec: ToolSpec, name: str) -> Any:
    """Read an answer as the argument that it is put into: JSON where the tool wants no text there."""
    properties = spec.parameters.get("properties")
    wanted = properties.get(name) if isinstance(properties, dict) else None
    kind = wanted.get("type") if isinstance(wanted, dict) else None
    if kind in (None, "string"):
        return text
    try:
        value = json.loads(text)
        check_depth(value)
        to_json(value)
    except (ValueError, RecursionError):
        return text  # the tool says what is wrong with it
    return text if isinstance(value, str) else value
