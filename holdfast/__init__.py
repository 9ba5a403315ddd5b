"""Durable LLM agent runs on Temporal.

Names are loaded when they are first used, so that importing holdfast is cheap and never pulls in litellm.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from holdfast.activities.http_get import http_get, make_http_get
    from holdfast.agent import Agent, Compaction, Interaction, Limits, ModelSettings
    from holdfast.builtins import ask_user, sleep, wait_until
    from holdfast.client import AsyncClient, Client, Run, RunSummary, Thread
    from holdfast.conditions import Condition
    from holdfast.errors import (
        AgentNotFound,
        DecisionRefused,
        DefinitionError,
        HoldfastError,
        IdempotencyConflict,
        InputInvalid,
        NoWorker,
        RunClosed,
        RunExists,
        RunNotFound,
        ServerError,
        ServerUnavailable,
        ThreadNotFound,
    )
    from holdfast.event import Event
    from holdfast.failure import Failure
    from holdfast.guardrails import (
        Guardrail,
        GuardrailRequest,
        GuardrailResult,
        GuardrailSpec,
        block,
        guardrail,
        passed,
        rewrite,
    )
    from holdfast.hooks import PolicyDecision, PolicyEngine, PolicyRequest
    from holdfast.mcp import McpServer, McpTools
    from holdfast.message import Message, ToolCall, Usage
    from holdfast.policy import Match, Policy, PolicyRule
    from holdfast.request import RunRequest
    from holdfast.run import RunResult, Source, SubagentExecution, ToolExecution
    from holdfast.secrets import Secret, SecretRequest
    from holdfast.subagents import Join, Subagent
    from holdfast.tool_context import ToolContext
    from holdfast.tools import Tool, ToolSpec, tool
    from holdfast.worker import HoldfastPlugin, Runner, RunnerConfig, Settings

_WHERE = {
    "Agent": "agent",
    "AgentNotFound": "errors",
    "AsyncClient": "client",
    "Client": "client",
    "Compaction": "agent",
    "Condition": "conditions",
    "DecisionRefused": "errors",
    "DefinitionError": "errors",
    "Event": "event",
    "Failure": "failure",
    "Guardrail": "guardrails",
    "GuardrailRequest": "guardrails",
    "GuardrailResult": "guardrails",
    "GuardrailSpec": "guardrails",
    "HoldfastError": "errors",
    "HoldfastPlugin": "worker",
    "IdempotencyConflict": "errors",
    "InputInvalid": "errors",
    "Interaction": "agent",
    "Join": "subagents",
    "Limits": "agent",
    "Match": "policy",
    "McpServer": "mcp",
    "McpTools": "mcp",
    "Message": "message",
    "ModelSettings": "agent",
    "NoWorker": "errors",
    "Policy": "policy",
    "PolicyDecision": "hooks",
    "PolicyEngine": "hooks",
    "PolicyRequest": "hooks",
    "PolicyRule": "policy",
    "Run": "client",
    "RunClosed": "errors",
    "RunExists": "errors",
    "RunNotFound": "errors",
    "RunRequest": "request",
    "RunResult": "run",
    "RunSummary": "client",
    "Runner": "worker",
    "RunnerConfig": "worker",
    "Secret": "secrets",
    "SecretRequest": "secrets",
    "ServerError": "errors",
    "ServerUnavailable": "errors",
    "Settings": "worker",
    "Source": "run",
    "Subagent": "subagents",
    "SubagentExecution": "run",
    "Thread": "client",
    "ThreadNotFound": "errors",
    "Tool": "tools",
    "ToolCall": "message",
    "ToolContext": "tool_context",
    "ToolExecution": "run",
    "ToolSpec": "tools",
    "Usage": "message",
    "ask_user": "builtins",
    "block": "guardrails",
    "guardrail": "guardrails",
    "http_get": "activities.http_get",
    "make_http_get": "activities.http_get",
    "passed": "guardrails",
    "rewrite": "guardrails",
    "sleep": "builtins",
    "tool": "tools",
    "wait_until": "builtins",
}

__all__ = [
    "Agent",
    "AgentNotFound",
    "AsyncClient",
    "Client",
    "Compaction",
    "Condition",
    "DecisionRefused",
    "DefinitionError",
    "Event",
    "Failure",
    "Guardrail",
    "GuardrailRequest",
    "GuardrailResult",
    "GuardrailSpec",
    "HoldfastError",
    "HoldfastPlugin",
    "IdempotencyConflict",
    "InputInvalid",
    "Interaction",
    "Join",
    "Limits",
    "Match",
    "McpServer",
    "McpTools",
    "Message",
    "ModelSettings",
    "NoWorker",
    "Policy",
    "PolicyDecision",
    "PolicyEngine",
    "PolicyRequest",
    "PolicyRule",
    "Run",
    "RunClosed",
    "RunExists",
    "RunNotFound",
    "RunRequest",
    "RunResult",
    "RunSummary",
    "Runner",
    "RunnerConfig",
    "Secret",
    "SecretRequest",
    "ServerError",
    "ServerUnavailable",
    "Settings",
    "Source",
    "Subagent",
    "SubagentExecution",
    "Thread",
    "ThreadNotFound",
    "Tool",
    "ToolCall",
    "ToolContext",
    "ToolExecution",
    "ToolSpec",
    "Usage",
    "ask_user",
    "block",
    "guardrail",
    "http_get",
    "make_http_get",
    "passed",
    "rewrite",
    "sleep",
    "tool",
    "wait_until",
]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'holdfast' has no attribute {name!r}")
    value = getattr(import_module(f"holdfast.{_WHERE[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return list(__all__)
