"""The model of the bench: answers at once, asks for one tool a turn, and ends at the step that the prompt names."""

from __future__ import annotations

from holdfast.worker.scripted import ChatRequest, Reply, call, say


def reply(request: ChatRequest) -> Reply:
    """Read `steps N size B wide W` in the prompt: N - 1 turns call the tool W times for B bytes, the N-th answers."""
    _, steps, _, size, _, wide = request.last_text.split()
    turn = request.turn
    if turn + 1 < int(steps):
        first = turn * int(wide)
        return call(*(("look_up", {"item": first + each, "size": int(size)}) for each in range(int(wide))))
    return say("Everything was looked up.")


def prompt(steps: int, size: int, wide: int = 1) -> str:
    """Write the prompt that `reply` reads."""
    return f"steps {steps} size {size} wide {wide}"
