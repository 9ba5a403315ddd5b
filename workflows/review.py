"""What guardrails and hooks have to see before a run goes on, and what comes of what they say: plain decisions.

An answer is checked before any of its calls is made: first by guardrails, then, call by call, by hooks. What people say
is checked before the model sees it, and what the run would end with before it ends.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from holdfast.bounds import canonical_json, cut
from holdfast.calls import GuardrailCheck, GuardrailSaid, HookVerdict, LoadedAgent, PolicyCheck
from holdfast.carried import Carried, OpenTurn, Reviewed
from holdfast.guardrails import GuardrailSpec, Stage
from holdfast.message import user_message
from holdfast.run import RunError
from holdfast.workflows import opening, plans
from holdfast.workflows.moves import Fail, Finish, Move, Review
from holdfast.workflows.policy import Judgement
from holdfast.workflows.turn import Turn

if TYPE_CHECKING:
    from holdfast.workflows.state import RunState


@dataclass
class Reviews:
    """What is still to be checked, by whom, and how often the model was asked again."""

    guardrails: tuple[GuardrailSpec, ...] = ()
    hooks: bool = False
    retries: int = 0
    before: Reviewed = field(default_factory=Reviewed)
    """What the link before has handed on."""
    unheard: int = 0
    """Messages of people at the transcript's end that no guardrail has seen."""
    answer: bool = False
    """Whether the last answer waits for guardrails."""
    calls: tuple[str, ...] = ()
    """Its calls that wait for hooks."""
    handed_on: OpenTurn | None = None
    """What the link before knew of these calls, while they are not open again."""
    seen: tuple[str, ...] = ()
    """The calls that hooks were asked about."""
    verdicts: dict[str, HookVerdict] = field(default_factory=dict)
    """What hooks have said, by call id."""
    passed: str = ""
    """The hash of the text that may be the run's last, and of who let it pass."""
    rewrites: int = 0
    final_rewrites: int = 0
    error: RunError | None = None
    """Why the run is blocked."""

    @classmethod
    def of(cls, loaded: LoadedAgent, carried: Carried | None) -> Reviews:
        """Begin, or go on from what a link has handed on."""
        before = carried.review if carried is not None else Reviewed()
        reviews = cls(tuple(loaded.agent.guardrail_specs), loaded.policy_hooks, loaded.agent.guardrail_retries, before)
        reviews.rewrites, reviews.final_rewrites = before.rewrites, before.final_rewrites
        reviews.passed, reviews.seen = before.passed, before.seen
        reviews.hear(before.unheard)
        told = [HookVerdict.recorded(each) for each in before.verdicts]
        reviews.verdicts = {each.call_id: each for each in told}
        return reviews

    def carried(self, *, planning: bool) -> Reviewed:
        """Return what the next link is handed."""
        return Reviewed(
            planning=planning,
            unheard=self.unheard,
            answer=self.answer,
            rewrites=self.rewrites,
            final_rewrites=self.final_rewrites,
            passed=self.passed,
            seen=self.seen,
            verdicts=tuple(each.wire() for each in self.verdicts.values()),
        )

    @property
    def holds(self) -> bool:
        """Whether the last answer is still to be checked."""
        return self.answer or bool(self.calls)

    def on(self, stage: Stage) -> tuple[GuardrailSpec, ...]:
        """Return the guardrails of one stage."""
        return tuple(each for each in self.guardrails if each.on == stage)

    def hear(self, messages: int) -> None:
        """Note messages of people that have come into the transcript."""
        self.unheard += messages if self.on("input") else 0
        self.final_rewrites = 0 if messages else self.final_rewrites

    def judgements(self) -> dict[str, Judgement]:
        """Return what hooks have said, as policies say it."""
        return {
            call_id: Judgement(each.action, each.hook, "hook", each.reason, each.question, each.into, each.failed)
            for call_id, each in self.verdicts.items()
        }


# What is to be checked now


def due(state: RunState) -> Move | None:
    """Return what must come before anything else: a blocked run's end, or the check of its last answer."""
    reviews = state.review
    if reviews.error is not None:
        return Fail(reviews.error)
    if reviews.answer:
        return _guardrails(state, "answer")
    spent = state.limit_reached == "max_cost_usd"
    if not reviews.calls or spent:
        return None
    return Review(PolicyCheck(calls=reviews.calls, context=state.context, **state.reading()))


def unheard(state: RunState) -> Move | None:
    """Return the check of what people have said, before the model sees it."""
    return _guardrails(state, "input", count=state.review.unheard) if state.review.unheard else None


def final(state: RunState, move: Finish) -> Move:
    """Return the check of what the run would end with; the end itself once it has passed."""
    if not state.review.on("output") or state.review.passed == _hash(state, move.text):
        return move
    answers = (each.text for each in reversed(state.talk.messages) if each.role == "assistant")
    return _guardrails(state, "output", text=None if next(answers, None) == move.text else move.text)


def _guardrails(state: RunState, stage: Stage, **told: Any) -> Review:
    names = tuple(each.name for each in state.review.on(stage))
    return Review(GuardrailCheck(stage=stage, guardrails=names, context=state.context, **told, **state.reading()))


# What was said


def answered(state: RunState, now: float) -> Turn | None:
    """Take that the model has answered: its calls are open at once where nobody has to see them first."""
    reviews = state.review
    reviews.verdicts, reviews.seen, reviews.handed_on, reviews.passed = {}, (), None, ""
    reviews.answer = bool(reviews.on("answer"))
    return None if reviews.answer else _accepted(state, now)


def resumed(state: RunState, now: float, turn: OpenTurn) -> None:
    """Go on with the last answer as the link before has left it."""
    state.review.answer = state.review.before.answer and bool(state.review.on("answer"))
    if not state.review.answer:
        state.review.handed_on = turn
        (_accepted if state.review.before.answer else _open)(state, now)


def guarded(state: RunState, check: GuardrailCheck, said: tuple[GuardrailSaid, ...], now: float) -> Turn | None:
    """Take what guardrails have said; returns the answer's calls where they are open, or refused, by now."""
    reviews, last = state.review, said[-1] if said else GuardrailSaid(guardrail="", action="pass")
    if check.stage == "input":
        if last.action != "pass":
            _blocked(state, last)
            return None
        reviews.unheard = 0
        return None
    again = last.action == "rewrite" and not state.limit_reached
    if check.stage == "output":
        if last.action == "pass":
            reviews.passed = _hash(state, _text(state, check))
            return None
        if not again or reviews.final_rewrites >= reviews.retries:
            _blocked(state, last)
            return None
        reviews.final_rewrites += 1
        _ask_again(state, last)
        return None
    if last.action == "pass":
        reviews.answer, reviews.rewrites = False, 0
        return _accepted(state, now)
    if not again or reviews.rewrites >= reviews.retries:
        _blocked(state, last)
        return None
    reviews.answer = False
    reviews.rewrites += 1
    refused = opening.refuse(state, now, reviews.handed_on, ("GuardrailRewrite", _told(last)))
    state.wake()
    _ask_again(state, last)
    return refused


def judged(state: RunState, verdicts: tuple[HookVerdict, ...], now: float) -> Turn | None:
    """Take what hooks have said of the calls that waited for it."""
    state.review.verdicts |= {each.call_id: each for each in verdicts}
    return _opened(state, now)


def unjudged(state: RunState, error: RunError, now: float) -> Turn | None:
    """Take that the hooks could not be asked: none of the calls that waited for it is made."""
    for call_id in state.review.calls:
        told = {"action": "deny", "reason": cut(error.message, 2_000), "failed": True}
        state.review.verdicts[call_id] = HookVerdict.model_validate({"call_id": call_id, "hook": error.type, **told})
    return _opened(state, now)


def _accepted(state: RunState, now: float) -> Turn | None:
    """Go on from an answer that nobody wants otherwise: a plan is to be carried out, calls are opened."""
    if state.planning:
        state.planning = False
        assert state.talk.last is not None
        state.talk.say(plans.follow_up(state.talk.last))
    return _open(state, now)


def _open(state: RunState, now: float) -> Turn | None:
    """Open the answer's calls, unless hooks have to see some of them first."""
    reviews = state.review
    if reviews.hooks:
        admitted = opening.admitted(state, reviews.handed_on)
        reviews.calls = tuple(call_id for call_id in admitted if call_id not in reviews.seen)
        if reviews.calls:
            return None
    return _opened(state, now)


def _opened(state: RunState, now: float) -> Turn | None:
    reviews = state.review
    reviews.seen += reviews.calls
    handed_on, reviews.handed_on, reviews.calls = reviews.handed_on, None, ()
    opened = opening.open_turn(state, now, handed_on)
    state.wake()
    return opened


def _text(state: RunState, check: GuardrailCheck) -> str:
    if check.text is not None:
        return check.text
    return next(each.text for each in reversed(state.talk.messages) if each.role == "assistant")


def _hash(state: RunState, text: str) -> str:
    names = [each.name for each in state.review.on("output")]
    return hashlib.sha256(canonical_json([names, text]).encode()).hexdigest()[:16]


def _told(said: GuardrailSaid) -> str:
    return cut(said.reason or f"the guardrail {said.guardrail} does not let it pass")


def _blocked(state: RunState, said: GuardrailSaid) -> None:
    state.review.error = RunError(type="GuardrailBlocked", message=cut(f"{said.guardrail}: {_told(said)}"))


def _ask_again(state: RunState, said: GuardrailSaid) -> None:
    note = f"This answer was not accepted: {_told(said)}\nAnswer again, without that."
    state.talk.say(user_message(note))
