"""Messages with images, through real runs: what the model's server gets, and what is refused before it."""

from __future__ import annotations

import base64
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from holdfast import Agent, Compaction, Limits, Runner, Settings, tool
from holdfast.activities.endpoints import Endpoint
from holdfast.agent import ModelSettings
from holdfast.client.runs import AsyncClient
from holdfast.worker.scripted import ChatRequest, Reply, ScriptedModel, call, say
from tests.support.stage import KEY, MODEL, endpoints, stage, timeline

PNG_URL = "data:image/png;base64," + base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(3_000)).decode()
PARTS: list[dict[str, Any]] = [
    {"type": "text", "text": "What is this?"},
    {"type": "image_url", "image_url": {"url": PNG_URL, "detail": "low"}},
]
FAR = {"type": "image_url", "image_url": {"url": "https://example.com/cat.png"}}
AGENT = Agent(name="looks", model=MODEL)


@tool
def note(text: str) -> str:
    """Note a text."""
    return "noted"


async def test_parts_reach_the_model_as_they_are_and_are_shown_as_text(address: str) -> None:
    async with stage(address, lambda _: say("A cat."), [AGENT]) as at:
        result = await at.run("looks", message=PARTS)
        folded, events = await timeline(at.client, result.run_id)
        (request,) = at.model.requests
    assert (result.status, result.output) == ("completed", "A cat.")
    assert request.messages == [{"role": "user", "content": PARTS}]
    assert folded.messages[0].wire() == {"role": "user", "content": PARTS}
    assert events[0].data["message"] == PARTS


async def test_a_follow_up_may_hold_images_while_it_runs_and_after_its_end(address: str) -> None:
    async with stage(address, lambda request: say(f"answer {request.turn}"), [AGENT]) as at:
        runs = AsyncClient(temporal=at.client, task_queue=at.task_queue).runs
        started = await runs.create("looks", message="Hello")
        await runs.wait(started.id)
        await runs.append_message(started.id, [*PARTS, FAR])
        run = await runs.wait(started.id)
        assert run.output == "answer 1"
        assert run.original_prompt == "Hello"
        told = [each.message for each in run.logs if each.type == "user_added_message"]
        assert told == ["What is this? [image] [image https://example.com/cat.png]"]
        assert at.model.requests[-1].messages[-1] == {"role": "user", "content": [*PARTS, FAR]}
        forked = await runs.fork(started.id, at_step=2)
        await runs.wait(forked.id)
        assert at.model.requests[-1].messages[-1] == {"role": "user", "content": [*PARTS, FAR]}


async def test_an_input_stands_behind_the_parts(address: str) -> None:
    async with stage(address, lambda _: say("A cat."), [AGENT]) as at:
        await at.run("looks", message=PARTS, input={"colour": "red"})
        (request,) = at.model.requests
        assert request.messages[0]["content"] == [*PARTS, {"type": "text", "text": '\n\nInput: {"colour":"red"}'}]


async def test_a_conversation_with_images_is_compacted_as_text(address: str) -> None:
    def script(request: ChatRequest) -> Reply:
        if not request.tools:
            return say("It was about a picture.")
        return call(("note", {"text": "x" * 1500})) if request.number < 9 else say("Done.")

    agent = Agent(name="looks", model=MODEL, tools=[note], compaction=Compaction(at_tokens=1_500, keep_tokens=100))
    async with stage(address, script, [agent]) as at:
        result = await at.run("looks", message=[*PARTS, *PARTS])
        assert (result.status, result.final_text) == ("completed", "Done.")
        (asked,) = [request for request in at.model.requests if not request.tools][:1]
        assert "What is this?\n[image]" in asked.last_text
        assert PNG_URL not in asked.last_text


async def test_a_run_with_images_goes_on_over_links(address: str) -> None:
    def script(request: ChatRequest) -> Reply:
        return call(("note", {"text": "x"})) if request.turn < 4 else say("Done.")

    agent = Agent(name="looks", model=MODEL, tools=[note])
    async with stage(address, script, [agent], continue_after_events=12) as at:
        result = await at.run("looks", message=PARTS)
        assert result.final_text == "Done."
        assert at.model.requests[-1].messages[1] == {"role": "user", "content": PARTS}


def _serving(url: str, model: str) -> dict[str, Any]:
    return {"endpoints": {"*": Endpoint.model_validate({"model": model, "api_base": url, "api_key": KEY})}}


async def test_images_for_a_model_that_is_known_to_take_none_are_refused_before_any_request(address: str) -> None:
    async with ScriptedModel(lambda _: say("never")) as model:
        asked = _serving(model.url, "openai/gpt-3.5-turbo")
        async with stage(address, lambda _: say("never"), [AGENT], **asked) as at:
            result = await at.run("looks", message=PARTS)
        assert (result.status, model.hits) == ("failed", 0)
    assert result.error is not None
    assert result.error.type == "ModelInputUnsupported"
    assert "takes no images" in result.error.message


async def test_a_fallback_that_takes_images_takes_over(address: str) -> None:
    async with ScriptedModel(lambda _: say("A cat.")) as model:
        told = endpoints(model.url)["scripted/*"]
        known = {"blind": told.model_copy(update={"model": "openai/gpt-3.5-turbo"}), "sees": told}
        asked: dict[str, Any] = {"endpoints": known | {"sees": told.model_copy(update={"model": "openai/test"})}}
        agent = AGENT.model_copy(update={"model": "blind", "fallback_models": ("sees",)})
        async with stage(address, lambda _: say("never"), [agent], **asked) as at:
            result = await at.run("looks", message=PARTS)
        assert (result.status, result.final_text, model.hits) == ("completed", "A cat.", 1)


@pytest.fixture
def private() -> Iterator[tuple[str, list[str]]]:
    """A server at a private address, and the paths that it was asked for."""
    paths: list[str] = []

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            paths.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"\x89PNG\r\n\x1a\n" + bytes(40))

        def log_message(self, format: str, *args: object) -> None:
            return None

    with HTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", paths
        server.shutdown()


@pytest.mark.parametrize("model", ["anthropic/claude-sonnet-4-5", "gemini/gemini-2.5-flash", "ollama/llava"])
async def test_an_image_that_litellm_would_fetch_itself_is_never_fetched_from_a_private_address(
    address: str, private: tuple[str, list[str]], model: str
) -> None:
    url, paths = private
    agent = AGENT.model_copy(update={"model_settings": ModelSettings(max_attempts=1), "limits": Limits(max_steps=1)})
    image = {"type": "image_url", "image_url": {"url": f"{url}/cat.png"}}
    async with (
        ScriptedModel(lambda _: say("never")) as server,
        stage(address, lambda _: say("never"), [agent], **_serving(server.url, model)) as at,
    ):
        result = await at.run("looks", message=[image])
    assert result.status == "failed"
    assert paths == []
    assert result.error is not None
    assert "image" in result.error.message.lower()


async def test_a_runner_takes_parts_as_its_user_message(address: str) -> None:
    async with ScriptedModel(lambda _: say("A cat.")) as model:
        with Runner(address=address, settings=Settings(endpoints=endpoints(model.url))) as runner:
            result = await runner.run(AGENT, user_message=PARTS)
        assert result.final_text == "A cat."
        assert model.requests[0].messages[0]["content"] == PARTS
