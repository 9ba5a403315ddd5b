"""The scripted model is real HTTP: each claim is tested through litellm, or through a bare client."""

import asyncio
import errno
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import aiohttp
import pytest

os.environ.update(LITELLM_LOCAL_MODEL_COST_MAP="True", LITELLM_MODE="PRODUCTION")

import litellm
from litellm import exceptions

from holdfast.worker.scripted import (
    ChatRequest,
    Reply,
    ScriptedModel,
    ToolCallSpec,
    call,
    empty,
    fail,
    garbage,
    hang,
    reset,
    say,
    truncate,
)

TEXT = "The quick brown fox jumps over the lazy dog, then it rests."
TOOLS = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]
PROMPT_TIMEOUT = 0.1

each_way = pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])


@pytest.fixture
async def model() -> AsyncIterator[ScriptedModel]:
    async with ScriptedModel(lambda request: say(TEXT)) as model:
        yield model


def always(reply: Reply) -> Callable[[ChatRequest], Reply]:
    return lambda request: reply


async def open_answer(model: ScriptedModel, **options: Any) -> Any:
    arguments: dict[str, Any] = {
        "model": "openai/x",
        "api_base": model.url,
        "api_key": "k",
        "num_retries": 0,
        "max_retries": 0,
        "timeout": 5,
        "messages": [{"role": "user", "content": "hello there"}],
    }
    return await litellm.acompletion(**arguments | options)


async def complete(model: ScriptedModel, *, stream: bool = False, **options: Any) -> Any:
    """Return litellm's answer, a streamed one put together again."""
    answer = await open_answer(model, stream=stream, **options)
    if not stream:
        return answer
    shown = [chunk async for chunk in answer]
    # What arrived, usage too: a worker of this process has taught litellm to keep that to itself.
    return litellm.stream_chunk_builder(answer.chunks or shown)


async def texts(model: ScriptedModel) -> AsyncIterator[str]:
    async for chunk in await open_answer(model, stream=True):
        if chunk.choices[0].delta.content:
            yield chunk.choices[0].delta.content


async def post(model: ScriptedModel, body: Any) -> tuple[int, str]:
    async with (
        aiohttp.ClientSession() as http,
        http.post(f"{model.url}/chat/completions", json=body) as answer,
    ):
        return answer.status, await answer.text()


def chunks_of(text: str) -> list[Any]:
    data = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
    assert data.pop() == "[DONE]"
    return [json.loads(one) for one in data]


async def within(seconds: float, condition: Callable[[], Any]) -> bool:
    until = time.monotonic() + seconds
    while not condition() and time.monotonic() < until:
        await asyncio.sleep(0.002)
    return bool(condition())


@each_way
async def test_text_arrives_as_it_was_said(model: ScriptedModel, stream: bool) -> None:
    model.script = always(say(TEXT, reasoning="let me think about this"))
    answer = await complete(model, stream=stream)
    assert answer.choices[0].message.content == TEXT
    assert answer.choices[0].message.reasoning_content == "let me think about this"
    assert answer.choices[0].finish_reason == "stop"
    assert (answer.id, answer.model) == ("chatcmpl-1", "x")


@pytest.mark.parametrize("text", ["", " ", "\n\n", "one", "  led and trailed \n", "word " * 2000, "ü€😀" * 50])
async def test_streamed_text_is_whole_and_in_at_most_eight_chunks(model: ScriptedModel, text: str) -> None:
    model.script = always(say(text))
    status, body = await post(model, {"model": "m", "stream": True, "messages": []})
    chunks = chunks_of(body)
    assert status == 200
    assert len(chunks) <= 8
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks) == text
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert {chunk["model"] for chunk in chunks} == {"m"}


async def test_paced_text_comes_a_few_words_at_a_time(model: ScriptedModel) -> None:
    model.script = always(say("one two three four five six seven", delay=0.05, pace=0.05))
    start = time.monotonic()
    seen = [(text, time.monotonic() - start) async for text in texts(model)]
    assert [text for text, _ in seen] == ["one two three ", "four five six ", "seven"]
    assert seen[0][1] >= 0.1
    assert seen[2][1] - seen[0][1] >= 0.09


@each_way
async def test_tool_calls_arrive_whole_and_invalid_json_verbatim(model: ScriptedModel, stream: bool) -> None:
    model.script = always(call(("look", {"at": "ü" * 90}), ToolCallSpec("look", '{"at": ', id="mine"), text="So."))
    answer = await complete(model, stream=stream, tools=TOOLS)
    first, second = answer.choices[0].message.tool_calls
    assert (first.id, first.function.name) == ("call_1_0", "look")
    assert json.loads(first.function.arguments) == {"at": "ü" * 90}
    assert (second.id, second.function.arguments) == ("mine", '{"at": ')
    assert answer.choices[0].message.content == "So."
    assert answer.choices[0].finish_reason == "tool_calls"
    assert model.requests[0].tool_names == ["look"]


@each_way
async def test_tool_call_ids_may_repeat(model: ScriptedModel, stream: bool) -> None:
    model.script = always(call(("look", {}), ("look", {}), ids=["same", "same"]))
    answer = await complete(model, stream=stream, tools=TOOLS)
    assert [made.id for made in answer.choices[0].message.tool_calls] == ["same", "same"]


async def test_a_streamed_tool_call_names_itself_first_and_brings_arguments_in_pieces(
    model: ScriptedModel,
) -> None:
    model.script = always(call(("look", {"at": "the moon, and all that is near it"})))
    _, body = await post(model, {"model": "m", "stream": True, "messages": []})
    deltas = [chunk["choices"][0]["delta"].get("tool_calls", [None])[0] for chunk in chunks_of(body)]
    first, *rest = [delta for delta in deltas if delta]
    assert (first["id"], first["function"]) == ("call_1_0", {"name": "look", "arguments": ""})
    assert len(rest) > 1
    assert all(delta.keys() == {"index", "function"} for delta in rest)
    arguments = "".join(delta["function"]["arguments"] for delta in rest)
    assert json.loads(arguments) == {"at": "the moon, and all that is near it"}


@each_way
async def test_usage_is_four_characters_a_token_unless_given(model: ScriptedModel, stream: bool) -> None:
    options = {"stream_options": {"include_usage": True}} if stream else {}
    model.script = always(say("x" * 40))
    estimated = (await complete(model, stream=stream, **options)).usage
    assert (estimated.prompt_tokens, estimated.completion_tokens, estimated.total_tokens) == (3, 10, 13)

    given = {"prompt_tokens": 1000, "prompt_tokens_details": {"cached_tokens": 900}}
    model.script = always(say("x" * 40, usage=given))
    usage = (await complete(model, stream=stream, **options)).usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (1000, 10, 1010)
    assert usage.prompt_tokens_details.cached_tokens == 900


async def test_a_stream_carries_usage_only_when_asked(model: ScriptedModel) -> None:
    body = {"model": "m", "stream": True, "messages": []}
    assert all(chunk["choices"] for chunk in chunks_of((await post(model, body))[1]))
    asked = chunks_of((await post(model, body | {"stream_options": {"include_usage": True}}))[1])
    assert asked[-1]["choices"] == []
    assert asked[-1]["usage"]["total_tokens"] == 15


@each_way
async def test_a_finish_reason_may_be_given(model: ScriptedModel, stream: bool) -> None:
    model.script = always(say(TEXT, finish_reason="length"))
    assert (await complete(model, stream=stream)).choices[0].finish_reason == "length"


@each_way
@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (fail(429, message="slow down"), exceptions.RateLimitError),
        (fail(500), exceptions.InternalServerError),
        (fail(503, body="<html>busy</html>"), exceptions.ServiceUnavailableError),
        (
            fail(400, message="This model's maximum context length is 10 tokens"),
            exceptions.ContextWindowExceededError,
        ),
        (fail(404, body={"error": {"message": "no such model"}}), exceptions.NotFoundError),
    ],
    ids=["429", "500", "503", "context", "404"],
)
async def test_a_failure_is_the_providers_error(
    model: ScriptedModel, stream: bool, reply: Reply, expected: type[Exception]
) -> None:
    model.script = always(reply)
    with pytest.raises(expected):
        await complete(model, stream=stream)
    assert model.hits == 1


@each_way
async def test_a_rate_limit_says_how_long_to_wait(model: ScriptedModel, stream: bool) -> None:
    model.script = always(fail(429, message="slow down", headers={"Retry-After": "7"}))
    with pytest.raises(exceptions.RateLimitError, match="slow down") as caught:
        await complete(model, stream=stream)
    headers: Any = getattr(caught.value, "litellm_response_headers", {})
    assert headers["retry-after"] == "7"


@each_way
async def test_a_reset_is_a_connection_error_before_any_byte(model: ScriptedModel, stream: bool) -> None:
    model.script = always(reset())
    with pytest.raises(exceptions.InternalServerError, match=r"(?i)connection"):
        await complete(model, stream=stream)
    hits = model.hits  # one of litellm's two handlers asks once more by itself
    with pytest.raises(aiohttp.ClientOSError) as caught:
        await post(model, {"stream": stream, "messages": []})
    assert caught.value.errno == errno.ECONNRESET
    assert (model.hits, model.aborted) == (hits + 1, 0)


@each_way
async def test_a_hang_ends_with_the_clients_patience(model: ScriptedModel, stream: bool) -> None:
    model.script = always(hang())
    with pytest.raises(exceptions.Timeout):
        await complete(model, stream=stream, timeout=0.2)
    assert await within(PROMPT_TIMEOUT, lambda: model.aborted == 1)


async def test_a_truncated_stream_breaks_after_all_of_its_text(model: ScriptedModel) -> None:
    model.script = always(truncate("one two three"))
    seen: list[str] = []

    async def read() -> None:
        async for text in texts(model):
            seen.append(text)

    with pytest.raises(exceptions.ServiceUnavailableError):
        await read()
    assert "".join(seen) == "one two three"
    assert model.aborted == 0


async def test_a_truncated_body_breaks_half_way(model: ScriptedModel) -> None:
    model.script = always(truncate("one two three"))
    with pytest.raises(exceptions.InternalServerError):
        await complete(model)
    with pytest.raises(aiohttp.ClientPayloadError):
        await post(model, {"messages": []})
    assert model.aborted == 0


async def test_a_cleanly_truncated_stream_ends_without_finish_and_done(model: ScriptedModel) -> None:
    model.script = always(truncate(call(("look", '{"at": "the')), clean=True))
    status, body = await post(model, {"stream": True, "messages": []})
    assert status == 200
    assert "the" in body
    assert "[DONE]" not in body
    assert '"finish_reason":"' not in body


async def test_a_cleanly_truncated_body_is_half_of_the_json(model: ScriptedModel) -> None:
    model.script = always(truncate("one two three", clean=True))
    status, body = await post(model, {"messages": []})
    assert status == 200
    with pytest.raises(json.JSONDecodeError):
        json.loads(body)


async def test_an_empty_answer_has_no_choices(model: ScriptedModel) -> None:
    model.script = always(empty())
    assert (await complete(model)).choices == []
    _, body = await post(model, {"stream": True, "messages": []})
    assert [chunk["choices"] for chunk in chunks_of(body)] == [[]]


@each_way
async def test_garbage_is_no_json(model: ScriptedModel, stream: bool) -> None:
    model.script = always(garbage())
    status, body = await post(model, {"stream": stream, "messages": []})
    assert status == 200
    with pytest.raises(json.JSONDecodeError):
        json.loads(body.removeprefix("data: "))


async def test_a_plain_answer_of_garbage_is_an_api_error(model: ScriptedModel) -> None:
    model.script = always(garbage())
    with pytest.raises((exceptions.APIError, exceptions.InternalServerError)):
        await complete(model)


async def hang_in_the_script(request: ChatRequest) -> Reply:
    await asyncio.sleep(60)
    return say("late")


@each_way
@pytest.mark.parametrize(
    "script",
    [always(hang()), always(say(TEXT, delay=60)), always(call(("look", {}), delay=60)), hang_in_the_script],
    ids=["hang", "delay", "delayed call", "script"],
)
async def test_a_client_that_leaves_while_waiting_is_noticed_at_once(
    model: ScriptedModel, stream: bool, script: Callable[[ChatRequest], Reply | Awaitable[Reply]]
) -> None:
    model.script = script
    asking = asyncio.create_task(complete(model, stream=stream))
    assert await within(5, lambda: model.hits)
    left_at = time.monotonic()
    asking.cancel()
    assert await within(PROMPT_TIMEOUT, lambda: model.aborted == 1)
    assert 0 <= model.aborted_at[0] - left_at < PROMPT_TIMEOUT


async def test_a_client_that_leaves_in_mid_stream_is_noticed_at_once(model: ScriptedModel) -> None:
    model.script = always(say(TEXT * 20, pace=0.02))
    seen = asyncio.Event()

    async def read() -> None:
        async for _ in texts(model):
            seen.set()

    reading = asyncio.create_task(read())
    await asyncio.wait_for(seen.wait(), 5)
    assert model.aborted == 0
    left_at = time.monotonic()
    reading.cancel()
    assert await within(PROMPT_TIMEOUT, lambda: model.aborted == 1)
    assert 0 <= model.aborted_at[0] - left_at < PROMPT_TIMEOUT


async def test_an_answered_request_is_not_aborted_when_its_client_leaves(model: ScriptedModel) -> None:
    await complete(model)
    await post(model, {"messages": []})
    await asyncio.sleep(0.05)
    assert (model.hits, model.aborted) == (2, 0)


async def test_a_server_that_stops_drops_its_clients_at_once_and_calls_none_aborted() -> None:
    async with ScriptedModel(always(hang())) as model:
        asking = asyncio.create_task(post(model, {"messages": []}))
        assert await within(5, lambda: model.hits)
        stopping_at = time.monotonic()
    assert time.monotonic() - stopping_at < 0.5
    with pytest.raises(aiohttp.ClientConnectionError):
        await asking
    assert model.aborted == 0
    with pytest.raises(RuntimeError, match="not being served"):
        _ = model.url


@each_way
async def test_a_script_that_raises_is_a_500_that_says_what(model: ScriptedModel, stream: bool) -> None:
    def script(request: ChatRequest) -> Reply:
        raise KeyError("no such turn")

    model.script = script
    with pytest.raises(exceptions.InternalServerError, match=r"the script raised KeyError\('no such turn'\)"):
        await complete(model, stream=stream)


async def test_a_script_that_returns_no_reply_is_a_500_that_says_so(model: ScriptedModel) -> None:
    model.script = lambda request: "hello"  # type: ignore[return-value,assignment]
    with pytest.raises(exceptions.InternalServerError, match="the script returned 'hello', which is no Reply"):
        await complete(model)


async def test_a_script_may_be_a_coroutine_and_may_be_replaced_between_requests(model: ScriptedModel) -> None:
    async def script(request: ChatRequest) -> Reply:
        await asyncio.sleep(0)
        return say(f"number {request.number}")

    model.script = script
    assert (await complete(model)).choices[0].message.content == "number 1"
    model.script = always(say("another"))
    assert (await complete(model)).choices[0].message.content == "another"


async def test_a_request_tells_its_turn_its_texts_and_its_tool_results(model: ScriptedModel) -> None:
    made = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    messages = [
        {"role": "user", "content": "first"},
        {"role": "assistant", "content": "So.", "tool_calls": [made]},
        {"role": "tool", "tool_call_id": "c1", "content": "seen"},
        {"role": "user", "content": [{"type": "text", "text": "and "}, {"type": "text", "text": "then"}]},
    ]
    before = time.monotonic()
    await complete(model, messages=messages, tools=TOOLS, temperature=0.5)
    request = model.requests[0]
    assert (request.number, request.turn, request.model, request.stream) == (1, 1, "x", False)
    assert (request.tool_results, request.last_text) == ({"c1": "seen"}, "and then")
    assert request.messages == messages
    assert request.body["temperature"] == 0.5
    assert request.headers["authorization"] == "Bearer k"
    assert before <= request.at <= time.monotonic()


async def test_only_the_last_requests_are_kept_but_all_are_counted() -> None:
    async with ScriptedModel(always(say("x")), keep=2) as model:
        for _ in range(3):
            await post(model, {"messages": []})
        assert [request.number for request in model.requests] == [2, 3]
        assert model.hits == 3


async def test_a_conversation_of_many_megabytes_is_accepted(model: ScriptedModel) -> None:
    answer = await complete(model, messages=[{"role": "user", "content": "x " * 2_500_000}])
    assert answer.usage.prompt_tokens == 1_250_000


@pytest.mark.parametrize("body", [[], "text", {"messages": ["text"]}, {"messages": [{"content": "no role"}]}])
async def test_what_is_no_chat_request_is_a_400_and_no_hit(model: ScriptedModel, body: Any) -> None:
    status, text = await post(model, body)
    assert (status, model.hits) == (400, 0)
    assert "this is no chat request" in text


async def test_synchronous_code_hosts_it_in_a_thread_and_may_start_it_again() -> None:
    model = ScriptedModel(always(say("from a thread")))
    for turn in (1, 2):
        with model:
            answer = await asyncio.to_thread(ask_blocking, model)
            assert answer.choices[0].message.content == "from a thread"
            assert model.hits == turn
    model.stop()


def ask_blocking(model: ScriptedModel) -> Any:
    return litellm.completion(
        model="openai/x", api_base=model.url, api_key="k", messages=[{"role": "user", "content": "?"}]
    )


async def test_a_taken_port_is_an_os_error_in_the_thread_that_starts(model: ScriptedModel) -> None:
    second = ScriptedModel(always(say("x")), port=int(model.url.split(":")[2].split("/")[0]))
    with pytest.raises(OSError, match="address already in use"):
        second.start()
    with pytest.raises(OSError, match="address already in use"):
        await second.__aenter__()


SCRIPT = """
    from holdfast.worker.scripted import ChatRequest, Reply, call, say

    def script(request: ChatRequest) -> Reply:
        return call(("look", {})) if request.turn == 0 else say("seen")
"""


def run(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "holdfast.worker.scripted", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


async def test_as_a_process_it_prints_its_url_and_reports_its_hits(tmp_path: Path) -> None:
    (tmp_path / "play.py").write_text(textwrap.dedent(SCRIPT))
    with run(f"{tmp_path / 'play.py'}:script") as process:
        assert process.stdout is not None
        url = (await asyncio.to_thread(process.stdout.readline)).strip()
        try:
            async with aiohttp.ClientSession() as http:
                body = {"model": "m", "messages": [{"role": "user", "content": "?"}]}
                async with http.post(f"{url}/chat/completions", json=body) as answer:
                    message = (await answer.json())["choices"][0]["message"]
            assert message["tool_calls"][0]["function"]["name"] == "look"
            root = url.removesuffix("/v1")
            assert urlopen(f"{root}/healthz").status == 200  # noqa: ASYNC210
            row = {"number": 1, "turn": 0, "model": "m", "stream": False, "messages": 1, "last_role": "user"}
            hits = json.load(urlopen(f"{root}/hits"))  # noqa: ASYNC210
            assert hits == {"hits": 1, "aborted": 0, "requests": [row]}
        finally:
            process.send_signal(signal.SIGTERM)
        assert process.wait(5) == 0


async def test_as_a_process_it_says_what_it_cannot_find(tmp_path: Path) -> None:
    (tmp_path / "play.py").write_text(textwrap.dedent(SCRIPT))
    for target, problem in (
        ("nowhere.py:script", "no file"),
        (f"{tmp_path / 'play.py'}:other", "no function"),
    ):
        with run(target) as process:
            _, errors = await asyncio.to_thread(process.communicate)
        assert process.returncode == 2
        assert problem in errors
