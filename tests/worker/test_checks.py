"""What brings policy, hooks and guardrails to a worker: files, plugins, runners."""

from __future__ import annotations

import asyncio
import uuid
from pathlib import Path
from typing import Any

import pytest

from holdfast import (
    Agent,
    DefinitionError,
    HoldfastPlugin,
    PolicyEngine,
    Runner,
    Settings,
    guardrail,
)
from holdfast.worker.discovery import discover
from holdfast.worker.scripted import ScriptedModel, call, say
from tests.support.checks import (
    ON_INPUT,
    ON_OUTPUT,
    RAN,
    careful,
    desk,
    in_loop,
    in_thread,
    order,
)
from tests.support.shapes import turns
from tests.support.stage import endpoints


def test_a_file_brings_agents_with_their_guardrails_and_the_workers_policy(tmp_path: Path) -> None:
    source = tmp_path / f"desk_{uuid.uuid4().hex}.py"
    source.write_text(
        "from holdfast import Agent, PolicyEngine, guardrail\n"
        "def hook(request):\n    return None\n"
        "@guardrail(on='input')\ndef polite(request):\n    return None\n"
        "@guardrail(on='output')\ndef spare(request):\n    return None\n"
        "agent = Agent(name='desk', model='m', guardrails=[polite])\n"
        "policy = PolicyEngine([{'id': 'r', 'action': 'deny'}], hooks=[hook])\n"
    )
    registry = discover([str(source)])
    assert set(registry.guardrails) == {"polite", "spare"}
    assert registry.policy_engine is not None
    assert list(registry.policy_engine.hooks) == ["hook"]
    source.write_text(source.read_text() + "other = PolicyEngine()\n")
    copy = tmp_path / f"two_{uuid.uuid4().hex}.py"
    copy.write_text(source.read_text())
    with pytest.raises(DefinitionError, match="one policy"):
        discover([str(copy)])


def takes_two(one: Any, two: Any) -> Any:
    """Take more than a hook is given."""


WRONG: Any = takes_two
NOTHING: Any = "careful"


@pytest.mark.parametrize(
    "made",
    [
        lambda: PolicyEngine([{"id": "r", "action": "forbid"}]),
        lambda: PolicyEngine([{"id": "r", "action": "deny"}] * 2),
        lambda: PolicyEngine(hooks=[WRONG]),
        lambda: PolicyEngine(hooks=[careful, careful]),
        lambda: PolicyEngine(hooks=[NOTHING]),
        lambda: PolicyEngine(timeout_seconds=0),
        lambda: PolicyEngine(max_attempts=0),
        lambda: guardrail(on="input")(WRONG),
        lambda: guardrail(on=NOTHING)(in_thread),
        lambda: guardrail(on="input", name="two words")(in_thread),
        lambda: guardrail(on="input", timeout_seconds=0)(in_thread),
        lambda: HoldfastPlugin([Agent(name="a", model="m", guardrails=["nobody"])]),
        lambda: HoldfastPlugin(guardrails=[ON_INPUT, guardrail(on="answer", name="on_input")(in_loop)]),
    ],
    ids=range(13),
)
def test_a_broken_hook_rule_or_guardrail_is_refused_when_it_is_made(made: Any) -> None:
    with pytest.raises(DefinitionError):
        made()


def test_a_bare_function_is_no_guardrail() -> None:
    with pytest.raises(ValueError, match="put @guardrail on it"):
        Agent.model_validate({"name": "a", "model": "m", "guardrails": [in_thread]})


async def test_a_runner_holds_its_agents_to_its_policy_and_brings_their_guardrails(address: str) -> None:
    number = order("bad")
    rule = {"id": "no", "action": "deny", "match": {"tool": "refund"}}
    script = turns(call(("refund", {"order": number})), say("AGAIN"), say("Done."))
    async with ScriptedModel(script) as model:
        settings = Settings(endpoints=endpoints(model.url))
        queue = f"runner-{number}"
        runner = Runner(address=address, settings=settings, policy_engine=PolicyEngine([rule]), task_queue=queue)
        try:
            done = await runner.run(desk(guardrails=[ON_OUTPUT]), user_message="Pay!")
        finally:
            await asyncio.to_thread(runner.close)
    assert (done.status, done.final_text, RAN[number]) == ("completed", "Done.", 0)
    assert str(done.tool_executions[0].error).startswith("PolicyDenied")
