"""`policy.check` and `guardrail.check`: what the worker's own Python says of tool calls, messages and answers."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from temporalio import activity

from holdfast import wire
from holdfast.activities.failures import failure, text_of
from holdfast.activities.loops import ToolLoops
from holdfast.activities.memory import Memory
from holdfast.activities.secrets import Scrubber
from holdfast.activities.transcripts import TranscriptCache
from holdfast.bounds import cut
from holdfast.calls import (
    GuardrailCheck,
    GuardrailChecked,
    GuardrailSaid,
    HookVerdict,
    PolicyCheck,
    PolicyChecked,
)
from holdfast.guardrails import CalledTool, Guardrail, GuardrailRequest, GuardrailResult
from holdfast.hooks import PolicyDecision, PolicyEngine, PolicyRequest
from holdfast.message import Message
from holdfast.outputs import read_json
from holdfast.policy import RESTRAINT

_THREADS = 32


class CheckActivities:
    """The hooks and guardrails of one worker: sync ones run in threads of their own, async ones in the tools' loop."""

    def __init__(
        self,
        engine: PolicyEngine,
        guardrails: Mapping[str, Guardrail],
        cache: TranscriptCache,
        scrub: Scrubber,
        loops: ToolLoops,
    ) -> None:
        self._engine = engine
        self._guardrails = dict(guardrails)
        self._cache = cache
        self._scrub = scrub
        self._loops = loops
        self._threads = ThreadPoolExecutor(_THREADS, "holdfast-check")

    @activity.defn(name=wire.POLICY_CHECK)
    async def policy(self, check: PolicyCheck) -> dict[str, Any]:
        """Ask the hooks about calls of the last answer; returns PolicyChecked's wire form.

        PolicyFailed where a hook raises, or says something else than a decision.
        """
        memory = Memory(self._cache)
        agent, message = await memory.agent(), _last_answer(await memory.messages(check))
        elsewhere = {spec.name: spec.activity or "" for spec in agent.tool_specs}
        verdicts: list[HookVerdict] = []
        for call in message.tool_calls:
            if call.id in check.calls:
                asked = PolicyRequest(
                    tool=call.name,
                    arguments=json.loads(call.function.arguments or "{}"),
                    activity=elsewhere.get(call.name, ""),
                    agent=agent.name,
                    context=check.context,
                    run_id=memory.key[0],
                    call_id=call.id,
                )
                verdicts += await self._judged(asked)
        return PolicyChecked(verdicts=tuple(verdicts)).wire()

    async def _judged(self, asked: PolicyRequest) -> list[HookVerdict]:
        """Return what the hook says that restrains a call most, if any says something."""
        said: list[HookVerdict] = []
        for name, hook in self._engine.hooks.items():
            decision = await self._ask("PolicyFailed", f"hook {name}", hook, asked, PolicyDecision)
            if decision is not None:
                told = decision.model_dump()
                told |= {"reason": self._safe(decision.reason), "question": self._safe(decision.question)}
                said.append(HookVerdict.model_validate({"call_id": asked.call_id, "hook": name, **told}))
            if decision is not None and decision.action == "deny":
                break
        return [max(said, key=lambda each: RESTRAINT[each.action])] if said else []

    @activity.defn(name=wire.GUARDRAIL_CHECK)
    async def guardrail(self, check: GuardrailCheck) -> dict[str, Any]:
        """Ask guardrails, in order, until one does not let it pass; returns GuardrailChecked's wire form.

        GuardrailFailed where one raises, takes too long, or says something else than a result.
        """
        memory = Memory(self._cache)
        agent = await memory.agent()
        request = _request(check, await memory.messages(check), agent.name, memory.key[0], agent.output_schema)
        said: list[GuardrailSaid] = []
        for name in check.guardrails:
            if name not in self._guardrails:
                raise failure("GuardrailFailed", f"this worker has no guardrail named {name!r}", retryable=True)
            one = self._guardrails[name]
            what, seconds = f"guardrail {name}", one.spec.timeout_seconds
            result = await self._ask("GuardrailFailed", what, one.function, request, GuardrailResult, seconds)
            result = result or GuardrailResult(action="pass")
            said.append(GuardrailSaid(guardrail=name, action=result.action, reason=self._safe(result.reason)))
            if result.action != "pass":
                break
        return GuardrailChecked(said=tuple(said)).wire()

    async def _ask(
        self, kind: str, what: str, function: Callable[..., Any], request: Any, wanted: type[Any], seconds: float = 3600
    ) -> Any:
        try:
            async with asyncio.timeout(seconds):
                found = await self._called(function, request)
        except TimeoutError:
            raise failure(kind, f"{what} took longer than {seconds:g} s", retryable=True) from None
        except Exception as error:  # noqa: BLE001 - whatever it raises, nothing may pass because of it
            told = text_of(error) or type(error).__name__
            raise failure(kind, f"{what} raised {type(error).__name__}: {told}", retryable=True) from None
        if found is not None and not isinstance(found, wanted):
            told = f"{what} returned {type(found).__name__}, not {wanted.__name__} or None"
            raise failure(kind, told, retryable=False)
        return found

    async def _called(self, function: Callable[..., Any], request: Any) -> Any:
        async def call() -> Any:
            return await function(request)

        if inspect.iscoroutinefunction(function):
            return await self._loops.run(call)
        found = await asyncio.get_running_loop().run_in_executor(self._threads, function, request)
        if inspect.isawaitable(found):  # a plain function that returns a coroutine
            awaited = found

            async def wait() -> Any:
                return await awaited

            return await self._loops.run(wait)
        return found

    def _safe(self, text: str) -> str:
        return cut(self._scrub.text(text.encode(errors="replace").decode()))


def _request(
    check: GuardrailCheck, messages: list[dict[str, Any]], agent: str, run_id: str, schema: dict[str, Any] | None
) -> GuardrailRequest:
    told: dict[str, Any] = {"stage": check.stage, "agent": agent, "run_id": run_id, "context": check.context}
    if check.stage == "input":
        said = [Message.recorded(each).text for each in messages[len(messages) - check.count :]]
        return GuardrailRequest(text="\n\n".join(said), **told)
    answer = _last_answer(messages) if check.text is None else Message(role="assistant", content=check.text)
    if check.stage == "output":
        return GuardrailRequest(text=answer.text, output=_json_of(answer.text) if schema else None, **told)
    calls = [CalledTool(name=each.name, arguments=each.function.arguments) for each in answer.tool_calls]
    return GuardrailRequest(text=answer.text, tool_calls=tuple(calls), **told)


def _json_of(text: str) -> Any:
    try:
        return read_json(text)
    except ValueError:
        return None  # a run that ends degraded may end with any text


def _last_answer(messages: list[dict[str, Any]]) -> Message:
    return Message.recorded(next(each for each in reversed(messages) if each["role"] == "assistant"))
