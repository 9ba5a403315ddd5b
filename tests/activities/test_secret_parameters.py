"""Secrets reach the tool's function, and neither the model nor any record."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Sequence
from typing import Annotated, Any

import pytest

from holdfast import Agent, Secret, SecretRequest, Settings, Tool, ToolContext, tool
from holdfast.client.connect import connect
from holdfast.secrets import SecretResolver
from holdfast.worker.build import make_worker
from holdfast.worker.plugin import HoldfastPlugin
from holdfast.worker.scripted import ChatRequest, Reply, ScriptedModel, call, say
from tests.support.stage import MODEL, Stage, endpoints, stage

SEEN: list[str] = []


@tool(max_attempts=1)
def ask_crm(customer: int, token: Annotated[str, Secret("crm_token")], context: ToolContext) -> dict[str, str]:
    """Ask the customer database, and tell what must not be told."""
    SEEN.append(token)
    context.heartbeat({"with": token})
    return {token: f"asked {customer} with {token} for {context.metadata.get('tenant')} of {context.agent_name}"}


@tool(max_attempts=1)
async def fails(token: Annotated[str, Secret("crm_token")]) -> str:
    """Fail, and name the key."""
    SEEN.append(token)
    raise PermissionError(f"the key {token} was refused")


@tool
async def repeats() -> str:
    """Say what another tool was given."""
    return f"it was {SEEN[-1]}"


TOOLS = (ask_crm, fails, repeats)
AGENT = Agent(name="crm", model=MODEL, tools=TOOLS)


def script(request: ChatRequest) -> Reply:
    if request.turn == 0:
        return call(("ask_crm", {"customer": 7}), ("fails", {}))
    return call(("repeats", {})) if request.turn == 1 else say("done")


async def everything(at: Stage, run_id: str) -> str:
    """Return all that is recorded of a run, and all that the model was sent."""
    history = await at.client.get_workflow_handle(run_id).fetch_history()
    payloads = [
        payload.data.decode(errors="replace")
        for event in history.events
        for payload in (
            *event.activity_task_completed_event_attributes.result.payloads,
            *event.activity_task_scheduled_event_attributes.input.payloads,
            *event.workflow_execution_completed_event_attributes.result.payloads,
        )
    ]
    return "".join([history.to_json(), *payloads, *(json.dumps(each.body) for each in at.model.requests)])


async def serve(
    address: str, model: ScriptedModel, resolve: SecretResolver | None, tools: Sequence[Tool[..., Any]] = TOOLS
) -> tuple[Stage, Any]:
    settings = Settings(task_queue=f"secrets-{os.urandom(6).hex()}", endpoints=endpoints(model.url), grace_seconds=1)
    client = await connect(address)
    worker = make_worker(client, HoldfastPlugin([AGENT], tools, settings, secrets=resolve))
    return Stage(client, model, settings), worker


async def test_a_resolver_chooses_by_tenant_and_the_secret_is_in_no_record(address: str) -> None:
    asked: list[SecretRequest] = []

    async def resolve(request: SecretRequest) -> str:
        asked.append(request)
        return f"crm-canary-of-{request.metadata['tenant']}-91c7"

    async with ScriptedModel(script) as model:
        at, worker = await serve(address, model, resolve)
        async with worker:
            first, second = await asyncio.gather(
                *(at.run("crm", message="Go", metadata={"tenant": tenant}) for tenant in ("acme", "globex"))
            )
        assert (first.status, second.status) == ("completed", "completed")
        assert {"crm-canary-of-acme-91c7", "crm-canary-of-globex-91c7"} == set(SEEN)
        assert {(each.name, each.agent) for each in asked} == {("crm_token", "crm")}
        assert {each.run_id for each in asked} == {first.run_id, second.run_id}
        recorded = await everything(at, first.run_id) + await everything(at, second.run_id)
        assert "crm-canary-of" not in recorded
        assert "[secret crm_token]" in recorded
        output = first.tool_executions[0].output
        assert output == {"[secret crm_token]": "asked 7 with [secret crm_token] for acme of crm"}
        assert first.tool_executions[1].error == "PermissionError: the key [secret crm_token] was refused"
        assert first.tool_executions[2].output == "it was [secret crm_token]"


@pytest.mark.parametrize("way", ["variable", "setting"])
async def test_without_a_resolver_the_settings_and_the_environment_are_asked(address: str, way: str) -> None:
    SEEN.clear()
    os.environ["HOLDFAST_SECRET_CRM_TOKEN"] = "of-the-environment-17"
    given: dict[str, Any] = {"secrets": {"crm_token": "of-the-settings-17"}} if way == "setting" else {}
    async with stage(address, script, [AGENT], **given) as at:
        result = await at.run("crm", message="Go")
        assert result.tool_executions[0].success
        assert set(SEEN) == {f"of-the-{'settings' if way == 'setting' else 'environment'}-17"}
        assert SEEN[0] not in await everything(at, result.run_id)
        assert "of-the-settings" not in repr(at.settings)


def none(request: SecretRequest) -> str | None:
    return None


def unknown(request: SecretRequest) -> str:
    return {"other": "something"}[request.name]


def short(request: SecretRequest) -> str:
    return "1234"


def broken(request: SecretRequest) -> str:
    raise ConnectionError("the vault at vault.internal refused hvs.canary-token-of-the-vault")


@pytest.mark.parametrize(
    ("resolve", "error"),
    [
        (none, "SecretUnknown: this worker has no secret 'crm_token'"),
        (unknown, "SecretUnknown: this worker has no secret 'crm_token'"),
        (short, "SecretUnfit: secret 'crm_token' is no text of at least 8 characters"),
        (broken, "SecretUnavailable: secret 'crm_token' could not be fetched: ConnectionError"),
    ],
)
async def test_a_secret_that_is_not_to_be_had_is_a_tool_error_that_names_the_handle_only(
    address: str, resolve: SecretResolver, error: str
) -> None:
    SEEN.clear()
    async with ScriptedModel(lambda each: say("done") if each.turn else call(("fails", {}))) as model:
        at, worker = await serve(address, model, resolve)
        async with worker:
            result = await at.run("crm", message="Go")
        assert result.status == "completed"
        assert str(result.tool_executions[0].error).startswith(error)
        assert SEEN == []
        assert "hvs.canary" not in await everything(at, result.run_id)


@tool
async def who(context: ToolContext) -> dict[str, Any]:
    """Say for whom the run is."""
    return {"agent": context.agent_name, "tenant": context.metadata["tenant"]}


@pytest.mark.parametrize("cache", [64 * 1024 * 1024, 0])
async def test_a_tool_knows_its_runs_metadata_and_agent_in_every_link_also_where_nothing_is_held(
    address: str, cache: int
) -> None:
    def asks(request: ChatRequest) -> Reply:
        return say("done") if request.turn == 6 else call(("who", {}))

    agent = Agent(name="reader", model=MODEL, tools=[who])
    async with stage(address, asks, [agent], continue_after_events=20, transcript_cache_bytes=cache) as at:
        result = await at.run("reader", message="Go", metadata={"tenant": "acme"})
        assert [each.output for each in result.tool_executions] == [{"agent": "reader", "tenant": "acme"}] * 6


async def test_metadata_that_is_too_large_for_every_link_is_an_error_where_it_is_not_known(address: str) -> None:
    def asks(request: ChatRequest) -> Reply:
        return say("done") if request.turn == 6 else call(("who", {}))

    agent = Agent(name="reader", model=MODEL, tools=[who])
    async with stage(address, asks, [agent], continue_after_events=20) as at:
        result = await at.run("reader", message="Go", metadata={"tenant": "x" * 20_000})
        assert result.status == "completed"
        assert result.tool_executions[0].success
        assert "too large to be known" in str(result.tool_executions[-1].error)


async def test_metadata_that_secrets_need_is_refused_at_once_where_it_is_too_large(address: str) -> None:
    async with stage(address, script, [AGENT]) as at:
        result = await at.run("crm", message="Go", metadata={"tenant": "x" * 20_000})
        assert (result.status, at.model.hits) == ("failed", 0)
        assert result.error is not None
        assert "metadata" in result.error.message
