"""The model of the bench: answers at once, asks for one tool a turn, and ends at the step that the prompt names."""

from __future__ import annotations

from holdfast.worker.scripted import ChatRequest, Reply, call, say


def reply(request: ChatRequest) -> Reply:
    """Read `steps N size B` in the prompt: N - 1 turns call the tool for B bytes, the N-th one answers."""
    _, steps, _, size = request.last_text.split()
    turn = request.turn
    if turn + 1 < int(steps):
        return call(("look_up", {"item": turn, "size": int(size)}))
    return say("Everything was looked up.")


def prompt(steps: int, size: int) -> str:
    """Write the prompt that `reply` reads."""
    return f"steps {steps} size {size}"
