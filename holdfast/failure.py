"""What a run does about failures, by their kind."""

from __future__ import annotations

from typing import Literal

from holdfast.data import Data

OnFailure = Literal["continue", "degrade", "fail"]


class Failure(Data):
    """continue: go on, the model is told. degrade: the same, and the run ends `degraded` where it would have ended
    `completed`. fail: the run fails with this cause.
    """

    model: OnFailure = "fail"
    """A model call that failed for good, on every model that the agent names. continue: rest, and ask again, for as
    long as the run's clocks allow. degrade: end with the last text that the model said."""
    tool: OnFailure = "continue"
    """A tool call that was made and failed, on every attempt."""
    subagent: OnFailure = "continue"
    """A subagent's run that ended neither `completed` nor `degraded`; of a join, one that came to nothing."""
    denial: OnFailure = "continue"
    """A call that a person or a policy denied."""
    output: Literal["degrade", "fail"] = "fail"
    """An answer that does not fit the `output_schema`, also after its repairs."""
