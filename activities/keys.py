"""Whose an activity is."""

from __future__ import annotations

from temporalio import activity

from holdfast.activities.transcripts import RunKey


def run_key(info: activity.Info) -> RunKey:
    """Return the key of the run that an activity belongs to."""
    return info.workflow_id or "", info.workflow_run_id or ""
