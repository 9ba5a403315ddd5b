"""What each action does in each state: the table of docs/runs.md as data, and what every cell must come to."""

from __future__ import annotations

from dataclasses import dataclass, replace

STEP = ("step_started", "model_called")
CALL = ("tool_called", "tool_completed")
END = (*STEP, "model_completed", "run_completed")


@dataclass(frozen=True)
class State:
    """Where a run stands, told by its events: those before the action, of what then ends by itself, and the rest."""

    said: str
    shown: str
    """The status meanwhile."""
    before: tuple[str, ...] = ()
    ends: tuple[str, ...] = ()
    rest: tuple[str, ...] = END
    aborted: tuple[str, ...] = ()
    """What is told of what an interrupt or a cancel aborts."""
    retried: str = ""
    """The tool, or "model", that the back-off is about."""
    partial: str = ""
    """The text that an aborted model call had said."""


_BEGUN = ("run_started", "declared_functions", *STEP)
_ASKED = (*_BEGUN, "model_completed")
_IN_TOOL = State("", "running", (*_ASKED, "tool_called"), ("tool_completed",), END, ("tool_call_exception",))

OPEN = {
    "queued": State("queued, no worker", "pending", ("run_started",), ("declared_functions",), (*STEP, *END[2:])),
    "loading": State("loading", "running", ("run_started",), ("declared_functions",), (*STEP, *END[2:])),
    "streaming": State(
        "in a model call that streams",
        "running",
        _BEGUN,
        ("model_completed",),
        (*CALL, *END),
        aborted=("model_completed",),
        partial="word word",
    ),
    "silent": State(
        "in a model call that is silent", "running", _BEGUN, ("model_completed",), (*CALL, *END), ("model_completed",)
    ),
    "tool": replace(_IN_TOOL, said="in an async tool"),
    "thread": replace(_IN_TOOL, said="in a sync tool"),
    "model-backs-off": State(
        "between two attempts of a model call", "running", _BEGUN, ("model_completed",), (*CALL, *END), retried="model"
    ),
    "tool-backs-off": replace(_IN_TOOL, said="between two attempts of a tool", retried="flaky"),
    "approval": State(
        "waiting for approval",
        "waiting",
        (*_ASKED, "approval_requested"),
        rest=("approval_resolved", *CALL, *END),
    ),
    "answer": State("waiting for an answer", "waiting", (*_ASKED, "question_asked"), rest=("question_answered", *END)),
    "resting": State(
        "resting", "waiting", (*_ASKED, "tool_called"), rest=("user_added_message", "tool_completed", *END)
    ),
    "parked": State(
        "resting, since its model is out",
        "waiting",
        (*_BEGUN, "model_call_exception"),
        rest=("model_called", "model_completed", *CALL, *END),
    ),
    "paused": State("paused", "paused", (*_ASKED, "tool_called", "paused", "tool_completed"), rest=("resumed", *END)),
    "paused-approval": State(
        "paused, with an approval open",
        "paused",
        (*_ASKED, "approval_requested", "paused"),
        rest=("resumed", "approval_resolved", *CALL, *END),
    ),
    "between": State(
        "between two links, with an approval open",
        "waiting",
        (*_ASKED, "approval_requested", "run_continued"),
        rest=("approval_resolved", *CALL, *END),
    ),
    "rolling": State("continuing as new, again and again", "running"),
}
CLOSED = {
    "completed": "completed",
    "degraded": "degraded",
    "failed": "failed",
    "cancelled": "cancelled",
    "interrupted": "interrupted",
    "terminated": "terminated",
}
ACTIONS = {
    "pause": "`pause`",
    "resume": "`resume`",
    "interrupt": "`interrupt`",
    "cancel": "cancel",
    "append": "`append_message`",
    "approve": "`decide` approve",
    "deny": "`decide` deny",
    "answer": "`answer`",
    "query": "`status` query",
    "describe": "`runs.status`",
    "again": "start again",
    "again-append": "start again, with a message",
}
"""Each, and how the table is headed."""

WORDS = {
    "held": "what is under way ends, then nothing begins until `resume`",
    "goes on": "the pause ends",
    "interrupted": "what is under way is aborted within a second; the run ends `interrupted`, with the text so far",
    "cancelled": "what is under way is aborted within a second; the run ends `cancelled`",
    "heard": "the model sees the message at the next step",
    "wakes": "the rest ends, and the model sees the message",
    "approved": "the tool is called, once",
    "approved, held": "the tool is called, once, after `resume`",
    "denied": "the tool is not called, and the model is told",
    "denied, held": "the tool is not called; the model is told after `resume`",
    "answered": "the model gets the answer",
    "joined": "nothing: there is one execution, and the caller gets that one",
    "nothing": "nothing, and no event tells of it",
    "refused": "the caller gets an error (`DecisionRefused`, `AnswerRefused`); the run goes on as if nothing was said",
    "gone": "the caller gets an error: the run has ended",
    "repeated": "the same answer again, `completed`, with no call; `run_seq` + 1",
    "resumed": "goes on from the last recorded step; `run_seq` + 1",
    "resumed, heard": "goes on from the last recorded step, and the model sees the message; `run_seq` + 1",
    "later": "the answer, once a worker is up",
}
"""What the words in the table mean; a status stands for itself."""


def outcome(state: str, action: str) -> str:
    """Return the word of a cell: one of WORDS, or a status that is shown."""
    if state in CLOSED:
        return _of_closed(state, action)
    special = {
        ("paused", "pause"): "nothing",
        ("paused-approval", "pause"): "nothing",
        ("paused", "resume"): "goes on",
        ("paused-approval", "resume"): "goes on",
        ("resting", "append"): "wakes",
        ("resting", "again-append"): "wakes",
        ("approval", "approve"): "approved",
        ("approval", "deny"): "denied",
        ("paused-approval", "approve"): "approved, held",
        ("paused-approval", "deny"): "denied, held",
        ("between", "approve"): "approved",
        ("between", "deny"): "denied",
        ("between", "query"): "running",
        ("answer", "answer"): "answered",
        ("queued", "query"): "later",
        ("loading", "describe"): "running",
    }
    usual = {
        "pause": "held",
        "resume": "nothing",
        "interrupt": "interrupted",
        "cancel": "cancelled",
        "append": "heard",
        "approve": "refused",
        "deny": "refused",
        "answer": "refused",
        "query": OPEN[state].shown,
        "describe": OPEN[state].shown,
        "again": "joined",
        "again-append": "heard",
    }
    return special.get((state, action), usual[action])


def _of_closed(state: str, action: str) -> str:
    match action:
        case "describe":
            return "failed" if state == "terminated" else state
        case "query":  # the run itself never learnt that it was terminated
            return "running" if state == "terminated" else state
        case "cancel":
            return "nothing"
        case "again":
            return "repeated" if state in ("completed", "degraded") else "resumed"
        case "again-append":
            return "resumed, heard"
        case _:
            return "gone"


CELLS = [(state, action) for state in (*OPEN, *CLOSED) for action in ACTIONS]


def markdown() -> str:
    """Return the table and its legend as docs/runs.md has them."""
    lines = [f"| | {' | '.join(ACTIONS.values())} |", "|---" * (len(ACTIONS) + 1) + "|"]
    for state in (*OPEN, *CLOSED):
        said = (
            OPEN[state].said if state in OPEN else f"`{state}`" if state != "terminated" else "terminated in Temporal"
        )
        lines.append(f"| {said} | {' | '.join(_word(state, action) for action in ACTIONS)} |")
    legend = [f"| {word} | {meaning} |" for word, meaning in WORDS.items()]
    return "\n".join([*lines, "", "| word | meaning |", "|---|---|", *legend])


def _word(state: str, action: str) -> str:
    word = outcome(state, action)
    return f"`{word}`" if action in ("query", "describe") and word != "later" else word
