"""An agent whose runs are parked, as a file that `holdfast worker` serves; its payments go to a journal."""

from __future__ import annotations

import os

from holdfast import Agent, ModelSettings, ToolContext, ask_user, sleep, tool

JOURNAL = "PARKED_JOURNAL"
"""The environment variable that names the journal's file."""


@tool(requires_approval=True, effect="once")
def pay(invoice: str, context: ToolContext) -> str:
    """Pay an invoice."""
    file = os.open(os.environ[JOURNAL], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(file, f"{invoice} {context.idempotency_key}\n".encode())
    finally:
        os.close(file)
    return f"paid {invoice}"


agent = Agent(name="parked", model="scripted/parked", tools=[pay, ask_user, sleep])
forsaken = Agent(name="forsaken", model="scripted/away", model_settings=ModelSettings(max_attempts=2))
"""Its model is out."""
