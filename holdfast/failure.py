"""What a run does about failures, by their kind."""

from __future__ import annotations

from typing import Literal

from holdfast.data import Data

OnFailure = Literal["continue", "degrade", "fail"]

CONTEXT_WINDOW_EXCEEDED = "ContextWindowExceeded"
"""The type of a failure whose prompt was beyond the model's window: never retried as it stands."""
BUDGET_EXCEEDED = "BudgetExceeded"
"""The type of a call that was not made, since its input alone would have cost more than may still be spent."""
MODEL_OUT = "ModelOut"
"""The type of a call that was not made, since the worker's circuit breaker holds the model to be out."""
PRICE_UNKNOWN = "ModelPriceUnknown"
CREDENTIALS_MISSING = "ModelCredentialsMissing"
NOT_MADE = frozenset({BUDGET_EXCEEDED, MODEL_OUT, PRICE_UNKNOWN, CREDENTIALS_MISSING})
"""Failures of a model call that came before any request: limits do not count it."""


class Failure(Data):
    """continue: go on, the model is told. degrade: the same, and the run ends `degraded` where it would have ended
    `completed`. fail: the run fails with this cause.
    """

    model: OnFailure = "fail"
    """A model call that failed for good, on every model that the agent names. continue: rest (1 minute, doubling to
    10), and ask again, for as long as the run's limits allow. degrade: end with the last text that the model said."""
    tool: OnFailure = "continue"
    """A tool call that was made and failed, on every attempt."""
    subagent: OnFailure = "continue"
    """A subagent's run that ended neither `completed` nor `degraded`; of a join, one that came to nothing."""
    denial: OnFailure = "continue"
    """A call that a person or a policy denied."""
    output: Literal["degrade", "fail"] = "fail"
    """An answer that does not fit the `output_schema`, also after its repairs."""
