"""`agent.load`: which agent a run is pinned to, and what its model is first told."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from temporalio import activity
from temporalio.exceptions import ApplicationError

from holdfast import wire
from holdfast.activities import mcp_tools, schemas
from holdfast.activities.goals import render
from holdfast.activities.keys import run_key
from holdfast.activities.mcp_pool import McpPool
from holdfast.activities.past import Past
from holdfast.activities.queues import Queues
from holdfast.activities.transcripts import TranscriptCache
from holdfast.agent import Agent
from holdfast.bounds import (
    CONTEXT_MAX_BYTES,
    CONTINUE_AFTER_BYTES,
    CONTINUE_AFTER_EVENTS,
    REQUEST_MAX_BYTES,
    TOOL_OUTPUT_MAX_CHARS,
    cut,
    json_size,
    to_json,
)
from holdfast.calls import LoadAgent, LoadedAgent, RunContext
from holdfast.content import Content, content_form, says_something, with_text
from holdfast.errors import AgentNotFound, DefinitionError, HoldfastError, InputInvalid
from holdfast.guardrails import GuardrailSpec
from holdfast.hooks import PolicyEngine
from holdfast.request import After, RunRequest
from holdfast.tools import ToolSpec


class AgentActivities:
    """The agents and tools that one worker was started with."""

    def __init__(
        self,
        agents: Mapping[str, Agent],
        tools: Mapping[str, ToolSpec],
        cache: TranscriptCache,
        *,
        search_attributes: Callable[[], bool] = lambda: False,
        tool_output_max_chars: int = TOOL_OUTPUT_MAX_CHARS,
        sanitize_tool_output: bool = True,
        tool_queues: Sequence[str] = ("*",),
        continue_after: tuple[int, int] = (CONTINUE_AFTER_EVENTS, CONTINUE_AFTER_BYTES),
        past: Callable[[After], Awaitable[Past]],
        policy: PolicyEngine | None = None,
        mcp: McpPool | None = None,
        guardrails: Mapping[str, GuardrailSpec] | None = None,
        queues: Queues | None = None,
    ) -> None:
        self._agents = agents
        self._tools = dict(tools)
        self._cache = cache
        self._search_attributes = search_attributes
        self._tool_output_max_chars = tool_output_max_chars
        self._sanitize = sanitize_tool_output
        self._tool_queues = tool_queues
        self._continue_after = continue_after
        self._past = past
        self._policy = policy or PolicyEngine()
        self._mcp = mcp
        self._guardrails = dict(guardrails or {})
        self._queues = queues

    @activity.defn(name=wire.AGENT_LOAD)
    async def load(self, call: LoadAgent) -> dict[str, Any]:
        """Look the agent up, check the input and render the goal; returns a LoadedAgent's wire form."""
        request = call.request
        try:
            if request.after is None:
                loaded = await self._anew(request)
            else:
                loaded = await self._reload(request, request.after, pinned=call.pinned)
            check_context(loaded, request.metadata)
            if request.after is None:
                self._cache.held(run_key(activity.info())).context = context_of(loaded.agent, request)
            if self._queues is not None:
                queues = self._queues.of(loaded.agent, activity.info().task_queue)
                loaded = loaded.model_copy(update={"queues": queues})
            return loaded.model_dump(mode="json")
        except HoldfastError as error:
            raise ApplicationError(cut(str(error)), type=type(error).__name__, non_retryable=True) from None

    @activity.defn(name=wire.AGENT_LIST_ACTIVITY)
    def catalog(self) -> list[dict[str, Any]]:
        """Describe the agents that this worker knows by name."""
        return [
            {
                "name": agent.name,
                "description": agent.description,
                "model": agent.model,
                "tools": agent.function_names,
                "revision": agent.resolved(self._tools, self._agents, self._guardrails).revision,
            }
            for _, agent in sorted(self._agents.items())
        ]

    def _load(self, request: RunRequest) -> LoadedAgent:
        agent = self._named(request.agent) if isinstance(request.agent, str) else request.agent
        agent = self._resolved(agent)
        if request.revision not in (None, agent.revision):
            raise InputInvalid({"revision": f"{request.revision!r} is not what this worker has: {agent.revision!r}"})
        if request.after is None:
            check_input(agent, request.input)
        return self._pinned(agent, first_messages(agent, request))

    async def _reload(self, request: RunRequest, after: After, *, pinned: bool) -> LoadedAgent:
        """Go on after a closed link: with the agent that it had, where the run continues as new or nobody knows better.

        A run that ended before it had begun begins now, with what it was asked for then.
        """
        held = self._cache.agent((run_key(activity.info())[0], after.run)) if pinned else None
        if held is not None:
            return self._pinned(held, ())
        past = await self._past(after)
        if past.loaded is not None and pinned:
            return self._pinned(past.loaded.agent, ())
        if past.loaded is None and past.request is not None:
            first = past.request.model_copy(update={"after": None, "agent": request.agent})
            loaded = await self._anew(first)
            said = () if request.message is None else (request.message,)
            return loaded.model_copy(update={"prompts": (*loaded.prompts, *past.unread, *said)})
        if past.loaded is not None and isinstance(request.agent, str) and request.agent not in self._agents:
            agent = self._resolved(past.loaded.agent)
            return await self._listed(self._pinned(agent, first_messages(agent, request)))
        return await self._anew(request)

    async def _anew(self, request: RunRequest) -> LoadedAgent:
        return await self._listed(await asyncio.to_thread(self._load, request))

    async def _listed(self, loaded: LoadedAgent) -> LoadedAgent:
        """Add the tools of the agent's MCP servers, as they are now."""
        if self._mcp is None or not loaded.agent.mcp_servers:
            return loaded
        agent = await mcp_tools.with_listed(loaded.agent, self._mcp)
        self._cache.held(run_key(activity.info())).agent = agent
        return loaded.model_copy(update={"agent": agent})

    def _resolved(self, agent: Agent) -> Agent:
        """Return the agent as pure data; DefinitionError for a task queue or MCP server that its runs may not use."""
        mcp_tools.check_servers(agent, self._mcp.names if self._mcp else ())
        for spec in agent.tools_elsewhere:
            queue, own = spec.task_queue, activity.info().task_queue
            allowed = queue not in (None, own) and any(fnmatchcase(str(queue), each) for each in self._tool_queues)
            if spec.name not in self._tools and not allowed:
                told = f"agent {agent.name!r}: tool {spec.name!r}: an agent from outside may not call"
                raise DefinitionError(f"{told} activities of task queue {queue or own!r}")
        return agent.unlisted().resolved(self._tools, self._agents, self._guardrails)

    def _pinned(self, agent: Agent, prompts: tuple[Content, ...]) -> LoadedAgent:
        if agent.output_schema is not None:
            schemas.check_schema(agent.output_schema, name=f"agent {agent.name!r}: output_schema")
        self._cache.held(run_key(activity.info())).agent = agent
        events, size = self._continue_after
        return LoadedAgent(
            agent=agent,
            revision=agent.revision,
            prompts=prompts,
            search_attributes=self._search_attributes(),
            tool_output_max_chars=self._tool_output_max_chars,
            policy=self._policy.policy if self._policy.policy.rules else None,
            policy_hooks=bool(self._policy.hooks),
            boundary=secrets.token_hex(8) if self._sanitize else None,
            policy_seconds=self._policy.timeout_seconds,
            policy_attempts=self._policy.max_attempts,
            continue_after_events=events,
            continue_after_bytes=size,
        )

    def _named(self, name: str) -> Agent:
        if name not in self._agents:
            known = ", ".join(sorted(self._agents)) or "none"
            raise AgentNotFound(f"no agent is named {name!r} on this worker; it knows: {known}")
        return self._agents[name]


def context_of(agent: Agent, request: RunRequest) -> RunContext:
    """Return what the tools of a run that goes on from nothing may know of it, as the run itself would say."""
    metadata, lineage = request.metadata, request.lineage
    if lineage is None:
        return RunContext(agent=agent.name, agent_path=agent.name, metadata=metadata)
    return RunContext(agent=agent.name, agent_depth=lineage.depth, agent_path=lineage.path, metadata=metadata)


def check_context(loaded: LoadedAgent, metadata: dict[str, Any]) -> None:
    """Raise InputInvalid for metadata of which policies may know more than every link can hand on."""
    size = json_size(loaded.context_of(metadata))
    if size > CONTEXT_MAX_BYTES:
        told = f"has {size:,} bytes that policies, guardrails or secrets need; at most {CONTEXT_MAX_BYTES:,} are taken"
        raise InputInvalid({"metadata": told})


def check_input(agent: Agent, given: dict[str, Any]) -> None:
    """Raise InputInvalid, with every field's message, for an input that does not fit the agent's schema."""
    if agent.input_schema is not None:
        schemas.check(agent.input_schema, given, name=f"agent {agent.name!r}: input_schema", where="input")


def first_messages(agent: Agent, request: RunRequest) -> tuple[Content, ...]:
    """Return the first user messages: the rendered goal (or else the input as JSON), then the request's message.

    A run that goes on after a closed link has only the request's message, if any.
    """
    if request.after is not None:
        return () if request.message is None else (request.message,)
    messages: list[Content] = []
    if agent.goal:
        messages.append(render(agent.goal, request.input))
    elif request.input and request.message is None:
        messages.append(to_json(request.input))
    if request.message:
        said = request.message
        if request.input and not agent.goal:
            said = with_text(said, f"\n\nInput: {to_json(request.input)}")
        messages.append(said)
    if not any(map(says_something, messages)):
        raise InputInvalid({"message": "there is nothing to do: give a message, an input, or the agent a goal"})
    if any(_bytes(said) > REQUEST_MAX_BYTES for said in messages):
        raise InputInvalid({"message": f"the first message is larger than {REQUEST_MAX_BYTES:,} bytes"})
    return tuple(messages)


def _bytes(said: Content) -> int:
    return len(said.encode()) if isinstance(said, str) else json_size(content_form(said))
