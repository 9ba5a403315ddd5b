"""How it is described what a run waits for, as the query `status` tells it: all have the same fields."""

from __future__ import annotations

from typing import Any

from holdfast.workflows.admission import Admitted
from holdfast.workflows.slot import Slot

_OF_A_CALL = ("tool_name", "arguments", "question", "options")


def waiting_for(slot: Slot) -> dict[str, Any]:
    """Describe what a call waits for."""
    assert isinstance(slot.decision, Admitted)
    arguments = slot.decision.arguments
    asks = slot.waits == "answer"
    described = {
        "kind": slot.waits,
        "id": slot.call.id,
        "tool_name": slot.call.name,
        "arguments": arguments,
        "question": slot.question if asks else None,
        "options": arguments.get("options") if asks and slot.asks is None else None,
        "until": slot.until,
        "digest": slot.digest,
    }
    wanted = slot.asks or slot.decision.judged.approval
    return described if wanted is None else {**described, "rule": wanted.rule, "reason": wanted.reason}


def waits_for_thread(thread_id: str) -> dict[str, Any]:
    """Describe that a run waits for its turn in a thread."""
    return {"kind": "thread", "id": thread_id, **dict.fromkeys(_OF_A_CALL), "until": None, "digest": None}


def waits_for_model(model: str, until: float) -> dict[str, Any]:
    """Describe that a run rests until it asks a model again."""
    return {"kind": "model", "id": model, **dict.fromkeys(_OF_A_CALL), "until": until, "digest": None}
