"""Plans: when a run asks for one, and what it says to the model once it has one."""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.agent import Agent
from holdfast.message import Message, user_message

CARRY_OUT = "Carry out this plan."
NO_PLAN = "That was no plan. Go on without one."


def is_due(agent: Agent, own: Sequence[Message]) -> bool:
    """Say whether the next model call is to bring a plan: the first of a run whose agent plans.

    `own` are the run's messages without those that its thread remembered.
    """
    return agent.planning and not any(message.role == "assistant" for message in own)


def follow_up(plan: Message) -> Message:
    """Make what the model is told after its plan."""
    return user_message(CARRY_OUT if plan.content else NO_PLAN)
