"""Input schemas that mean harm, or are wrong: refused in bounded time, and nobody is asked for anything."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from holdfast import Agent, DefinitionError, InputInvalid
from holdfast.activities.agents import check_input
from holdfast.worker.scripted import say
from tests.support.stage import MODEL, stage


def checked(schema: dict[str, Any], given: dict[str, Any]) -> None:
    check_input(Agent(name="a", model="m", input_schema=schema), given)


@pytest.fixture
def hits() -> Iterator[tuple[str, list[str]]]:
    """A loopback server that would hand out schemas, and the paths that it was asked for."""
    paths: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            paths.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"type": "object"}')

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", paths
        server.shutdown()


async def test_a_reference_to_a_url_fails_the_run_at_once_and_fetches_nothing(
    address: str, hits: tuple[str, list[str]]
) -> None:
    url, paths = hits
    asks = Agent(name="asks", model=MODEL, input_schema={"$ref": f"{url}/schema.json"})
    async with stage(address, lambda _: say("done")) as at:
        result = await at.run(asks, input={"a": 1})
        assert (result.status, at.model.hits) == ("failed", 0)
        assert result.error is not None
        assert result.error.type == "DefinitionError"
    for schema in (
        {"$schema": f"{url}/meta"},
        {"$id": f"{url}/", "properties": {"a": {"$ref": "other"}}},
        {"$dynamicRef": f"{url}/d#x"},
    ):
        try:
            checked(schema, {"a": 1})
        except DefinitionError as error:
            assert "refers to what is not in it" in str(error)
    assert paths == []


def test_references_within_the_schema_are_followed() -> None:
    schema = {"$defs": {"n": {"type": "integer"}}, "properties": {"a": {"$ref": "#/$defs/n"}}}
    checked(schema, {"a": 1})
    with pytest.raises(InputInvalid) as wrong:
        checked(schema, {"a": "x"})
    assert wrong.value.errors == {"input.a": "'x' is not of type 'integer'"}


_LONG = "a" * 64 + "b"
_WIDE = {f"d{i}": {"anyOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 2} for i in range(40)} | {"d40": False}


@pytest.mark.parametrize(
    ("schema", "given"),
    [
        ({"properties": {"a": {"pattern": "^(a|a)*$"}}}, {"a": _LONG}),
        ({"properties": {"a": {"pattern": "^(a+)+$"}}}, {"a": _LONG}),
        ({"patternProperties": {"^(a|a)*$": {}}}, {_LONG: 1}),
        ({"patternProperties": {"^(a|a)*$": {}}, "additionalProperties": False}, {_LONG: 1}),
        ({"$defs": _WIDE, "$ref": "#/$defs/d0"}, {}),
    ],
)
def test_what_would_take_for_ever_to_check_is_refused_soon(schema: dict[str, Any], given: dict[str, Any]) -> None:
    began = time.monotonic()
    with pytest.raises(InputInvalid):
        checked(schema, given)
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "nothing"},
        {"pattern": "("},
        {"$ref": "#"},
        {"$ref": "#/$defs/lost"},
        {"$schema": []},
        {"patternProperties": {"a": {}}, "unevaluatedProperties": False},
    ],
)
def test_a_schema_that_is_none_is_told_and_never_retried(schema: dict[str, Any]) -> None:
    with pytest.raises(DefinitionError, match="agent 'a': input_schema"):
        checked(schema, {"a": "b"})


def test_patterns_mean_what_they_mean_elsewhere() -> None:
    schema = {
        "properties": {"number": {"type": "string", "pattern": r"^INV-\d{4}$"}},
        "patternProperties": {"^x-": {"type": "integer"}},
        "additionalProperties": False,
    }
    checked(schema, {"number": "INV-1001", "x-a": 1})
    with pytest.raises(InputInvalid) as wrong:
        checked(schema, {"number": "1001", "x-a": "1", "other": 1})
    assert wrong.value.errors == {
        "input.number": r"'1001' does not match '^INV-\\d{4}$'",
        "input.x-a": "'1' is not of type 'integer'",
        "input": "Additional properties are not allowed ('other' was unexpected)",
    }
