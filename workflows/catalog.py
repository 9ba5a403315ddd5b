"""`AgentList`: asks a worker which agents it knows, so that any client can."""

from __future__ import annotations

from typing import Any

from temporalio import workflow

from holdfast import wire
from holdfast.workflows import options


@workflow.defn(name=wire.AGENT_LIST, sandboxed=False)
class AgentList:
    """Returns one entry an agent: name, description, model, tools, revision."""

    @workflow.run
    async def run(self, *ignored: Any) -> list[dict[str, Any]]:
        """Ask once."""
        found: list[dict[str, Any]] = await workflow.execute_activity(wire.AGENT_LIST_ACTIVITY, **options.agent_load())
        return found
