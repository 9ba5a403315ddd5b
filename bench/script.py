"""The model of the bench: answers at once, asks for one tool a turn, and ends at the step that the prompt names."""

from __future__ import annotations

from holdfast.worker.scripted import ChatRequest, Reply, call, say


def reply(request: ChatRequest) -> Reply:
    """Read the prompt: `steps N size B wide W`: N - 1 turns call the tool W times for B bytes, the N-th answers.

    `helpers H` before it: the first turn gives the rest of the prompt to H subagents at once, the second answers.
    """
    turn = request.turn
    if request.last_text.startswith("helpers"):
        _, helpers, rest = request.last_text.split(maxsplit=2)
        return say("All have helped.") if turn else call(*[("bench", {"message": rest})] * int(helpers))
    _, steps, _, size, _, wide = request.last_text.split()
    if turn + 1 < int(steps):
        first = turn * int(wide)
        return call(*(("look_up", {"item": first + each, "size": int(size)}) for each in range(int(wide))))
    return say("Everything was looked up.")


def prompt(steps: int, size: int, wide: int = 1, helpers: int = 0) -> str:
    """Write the prompt that `reply` reads."""
    return f"helpers {helpers} " * bool(helpers) + f"steps {steps} size {size} wide {wide}"
