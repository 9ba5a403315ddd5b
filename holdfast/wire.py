"""The names on the wire: fixed, so that any Temporal SDK and the plain CLI can use them."""

from __future__ import annotations

TASK_QUEUE = "holdfast"

AGENT_RUN = "AgentRun"
AGENT_LIST = "AgentList"

AGENT_THREAD = "AgentThread"

APPEND_MESSAGE = "append_message"
PAUSE = "pause"
RESUME = "resume"
INTERRUPT = "interrupt"
DECIDE = "decide"
ANSWER = "answer"

ENTER = "enter"
LEAVE = "leave"
COMPACT = "compact"
THREAD_TURN = "thread_turn"
"""Between a thread and its runs; `compact` is for callers."""

STATUS = "status"
TRANSCRIPT = "transcript"
AGENT = "agent"
CONTEXT = "context"

AGENT_LOAD = "agent.load"
AGENT_LIST_ACTIVITY = "agent.list"
MODEL_CALL = "model.call"
TRANSCRIPT_RESTORE = "transcript.restore"
CONTEXT_COMPACT = "context.compact"
POLICY_CHECK = "policy.check"
GUARDRAIL_CHECK = "guardrail.check"
THREAD_ENTER = "thread.enter"
THREAD_READ = "thread.read"
THREAD_COLLECT = "thread.collect"
ACTIVITIES = (
    AGENT_LOAD,
    AGENT_LIST_ACTIVITY,
    MODEL_CALL,
    TRANSCRIPT_RESTORE,
    CONTEXT_COMPACT,
    POLICY_CHECK,
    GUARDRAIL_CHECK,
    THREAD_ENTER,
    THREAD_READ,
    THREAD_COLLECT,
)

SEARCH_ATTRIBUTES = {
    "AgentName": "Keyword",
    "AgentRevision": "Keyword",
    "RunStatus": "Keyword",
    "ThreadId": "Keyword",
    "WaitingFor": "Keyword",
    "CostUsd": "Double",
    "Steps": "Int",
}
"""Registered by `holdfast dev`, `holdfast setup` and every worker that may; written on status changes only."""

REQUEST_DIGEST_MEMO = "holdfast_request"
"""Memo of a run that a client started: the hash of what was asked, so that a key used twice can be told."""
STARTED_AT_MEMO = "holdfast_started_at"
"""Memo of a link that is not its run's first: when the run began, in seconds since the epoch."""
