"""Whatever the models of a run do, its limits hold, and a link in between changes nothing."""

from __future__ import annotations

from typing import Literal

from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast import Agent, Compaction, Limits
from holdfast.agent import ModelSettings
from holdfast.calls import LoadedAgent
from holdfast.failure import BUDGET_EXCEEDED, CONTEXT_WINDOW_EXCEEDED, MODEL_OUT, NOT_MADE, PRICE_UNKNOWN, Failure
from holdfast.run import RunError
from holdfast.workflows import asking
from holdfast.workflows.moves import CallModel, CallTools, CompactContext, Finish, Rest
from holdfast.workflows.state import RunState
from tests.workflows.states import TOOLS, handed_over, observable, settle, turn

ENDINGS = ["completed", "degraded", "failed"]
WORDS = st.sampled_from(
    [
        *("answers", "calls"),
        *("ModelUnavailable", "ModelRateLimited", "ModelRequestInvalid", CONTEXT_WINDOW_EXCEEDED),
        *(MODEL_OUT, PRICE_UNKNOWN, BUDGET_EXCEEDED),
    ]
)


class Playing:
    """One run, and what was really done in it."""

    def __init__(self, state: RunState) -> None:
        self.state = state
        self.now = 0.0
        self.made = 0
        self.steps: set[int] = set()
        self.ended = ""

    def move(self, word: str) -> None:
        """Make the next move; a model that is asked does what the word says."""
        match self.state.next_move(self.now):
            case CallModel(call):
                assert call.step not in self.steps or call.step == max(self.steps)
                self.steps.add(call.step)
                self.made += word not in NOT_MADE
                if word in ("answers", "calls"):
                    answers = word == "answers" or call.closing
                    said = turn(call.step, text="done") if answers else turn(call.step, "add")
                    self.state.record(said, self.now)
                else:
                    verdict = asking.failed(self.state, RunError(type=word, message="no"), self.now, 30.0)
                    self.ended = "failed" if verdict.ends == "failed" else ""
            case CallTools():
                settle(self.state)
            case CompactContext():
                self.state.talk.not_summarised()
            case Rest(_, until):
                assert until > self.now
                self.now = until
                self.state.models.rested()
            case Finish(status, text):
                assert text
                self.ended = status
            case other:
                raise AssertionError(other)


@settings(max_examples=300, deadline=None)
@given(
    words=st.lists(WORDS, max_size=60),
    on_failure=st.sampled_from(["fail", "degrade", "continue"]),
    fallbacks=st.sampled_from([(), ("b",), ("b", "c")]),
    limits=st.builds(Limits, max_steps=st.integers(1, 4), max_model_calls=st.integers(1, 6)),
    max_outage=st.none() | st.sampled_from([0.0, 100.0]),
    links=st.booleans(),
)
def test_limits_hold_and_links_change_nothing(
    words: list[str],
    on_failure: Literal["fail", "degrade", "continue"],
    fallbacks: tuple[str, ...],
    limits: Limits,
    max_outage: float | None,
    links: bool,
) -> None:
    agent = Agent(
        name="demo",
        model="a",
        fallback_models=fallbacks,
        tools=TOOLS,
        limits=limits,
        failure=Failure(model=on_failure),
        compaction=Compaction(at_tokens=500),
        model_settings=ModelSettings(max_outage_seconds=max_outage),
    )
    playing = Playing(RunState.begin(LoadedAgent(agent=agent, revision=agent.revision, prompts=("Hello",))))
    for word in words:
        playing.move(word)
        state = playing.state
        assert state.counts.model_calls == playing.made <= limits.max_model_calls
        assert state.steps == len(playing.steps) <= limits.max_steps
        if playing.ended:
            assert playing.ended in ENDINGS
            return
        if links:
            playing.state = handed_over(state, playing.now)
            assert observable(playing.state) == observable(state)
