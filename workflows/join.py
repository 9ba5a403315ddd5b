"""Joins: when enough of the subagents that one turn started have answered. Plain decisions, without Temporal."""

from __future__ import annotations

from typing import Literal

from holdfast.subagents import Join

Verdict = Literal["open", "enough", "hopeless"]


def verdict(join: Join, *, total: int, succeeded: int, failed: int) -> Verdict:
    """Say whether the rest is still wanted: not once enough have succeeded, nor once too many have failed.

    `all` waits for each, whatever becomes of the others. A quorum of more than were started is all of them.
    """
    if join.mode == "all" or total == 0:
        return "open"
    wanted = min(join.count or 1, total)
    if succeeded >= wanted:
        return "enough"
    return "hopeless" if total - failed < wanted else "open"
