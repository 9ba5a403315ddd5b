"""The CPU of one model call as its conversation grows, beside raw httpx: `python -m bench.calls [--quick]`."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import uvloop

from bench import report
from bench.measure import LONG_RESULT_BYTES
from bench.script import prompt
from bench.subjects import model_server
from holdfast import Agent, tool
from holdfast.activities._litellm import LiteLLM, load
from holdfast.activities.answer import Answer
from holdfast.activities.endpoints import Endpoint
from holdfast.activities.requests import request_of
from holdfast.activities.responses import Responses
from holdfast.activities.secrets import Scrubber
from holdfast.activities.turns import record
from holdfast.agent import ModelSettings
from holdfast.calls import ModelCall
from holdfast.carried import Reference
from holdfast.message import Message, ToolCall, tool_message, user_message

STEPS = (0, 50, 200, 400)
Call = Callable[[list[dict[str, Any]]], Awaitable[object]]
_HEAD = {"authorization": "Bearer bench-no-key"}


@tool
def look_up(item: int, size: int) -> str:
    """Look an item up, and return so many bytes of it."""
    return f"{item} " * size


def conversation(steps: int) -> list[dict[str, Any]]:
    """Return what a run has said after so many steps, in wire form: a tool call and 2 KB of result each."""
    messages = [user_message(prompt(steps + 1, LONG_RESULT_BYTES))]
    for step in range(steps):
        call = ToolCall.of(f"call-{step:09}", "look_up", json.dumps({"item": step, "size": LONG_RESULT_BYTES}))
        messages.append(Message(role="assistant", tool_calls=(call,)))
        messages.append(tool_message(call.id, "x" * LONG_RESULT_BYTES))
    return [message.wire() for message in messages]


def raw(client: httpx.AsyncClient, url: str, *, stream: bool) -> Call:
    """Ask with httpx alone: write the request, read the answer's text."""
    function = look_up.spec.model_dump(include={"name", "description", "parameters"})
    tools = [{"type": "function", "function": function}]

    async def call(messages: list[dict[str, Any]]) -> object:
        body: dict[str, Any] = {"model": "bench", "messages": messages, "tools": tools}
        if not stream:
            answer = (await client.post(f"{url}/chat/completions", json=body, headers=_HEAD)).json()
            return answer["choices"][0]["message"]["content"]
        body |= {"stream": True, "stream_options": {"include_usage": True}}
        text = ""
        async with client.stream("POST", f"{url}/chat/completions", json=body, headers=_HEAD) as response:
            async for line in response.aiter_lines():
                if line.startswith("data: {"):
                    for choice in json.loads(line[6:])["choices"]:
                        text += choice["delta"].get("content") or ""
        return text

    return call


def ours(url: str, *, stream: bool) -> Call:
    """Ask as `model.call` does, from the messages to what is recorded; Temporal's part is left out."""
    agent = Agent(name="bench", model="bench/model", tools=[look_up], model_settings=ModelSettings(stream=stream))
    told = {"model": "openai/{rest}", "api_base": url, "api_key": "bench-no-key"}
    prices = {"input_cost_per_token": 1e-6, "output_cost_per_token": 4e-6}
    complete = LiteLLM({"bench/*": Endpoint.model_validate(told | prices)}, Responses(0)).complete
    scrub = Scrubber.of_environment([("bench", "bench-no-key")])

    async def call(messages: list[dict[str, Any]]) -> object:
        reference = Reference(length=len(messages), digest="0" * 32)
        asked = ModelCall(step=1, model=agent.model, transcript=reference)
        answer = Answer(model=agent.model)
        await complete(request_of(asked, agent, messages), answer)
        return record(answer, asked, scrub).message.content

    return call


async def cpu_ms(call: Call, messages: list[dict[str, Any]], times: int) -> float:
    """Return the milliseconds of CPU that one call takes this process, of so many."""
    for _ in range(3):
        assert await call(messages)
    began = time.process_time()
    for _ in range(times):
        await call(messages)
    return 1000 * (time.process_time() - began) / times


async def measured(url: str, rounds: int, times: int) -> dict[str, dict[int, list[float]]]:
    """Return CPU milliseconds by subject and steps, one figure a round; the subjects take turns."""
    load()
    async with httpx.AsyncClient(timeout=60) as client:
        subjects = {
            "httpx": raw(client, url, stream=False),
            "holdfast": ours(url, stream=False),
            "httpx-stream": raw(client, url, stream=True),
            "holdfast-stream": ours(url, stream=True),
        }
        found: dict[str, dict[int, list[float]]] = {name: {steps: [] for steps in STEPS} for name in subjects}
        said = {steps: conversation(steps) for steps in STEPS}
        for _ in range(rounds):
            for steps in STEPS:
                for name, call in subjects.items():
                    found[name][steps].append(await cpu_ms(call, said[steps], times))
    return found


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.calls", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two rounds of five calls")
    parser.add_argument("--profile", action="store_true", help="say where the CPU of 400 steps goes, and no more")
    options = parser.parse_args()
    with model_server() as url:
        if options.profile:
            uvloop.run(_profile(url))
            return
        found = uvloop.run(measured(url, *((2, 5) if options.quick else (7, 20))))
    print(report.calls_table(f"CPU of one call by steps before it, {LONG_RESULT_BYTES:,} bytes a tool result", found))


async def _profile(url: str) -> None:
    import cProfile
    import pstats

    load()
    for stream in (False, True):
        call, said = ours(url, stream=stream), conversation(STEPS[-1])
        await cpu_ms(call, said, 1)
        with cProfile.Profile() as profile:
            for _ in range(20):
                await call(said)
        pstats.Stats(profile).sort_stats("tottime").print_stats(25)


if __name__ == "__main__":
    main()
