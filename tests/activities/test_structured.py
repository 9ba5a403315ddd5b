"""What is wrong with an answer, and how a provider is held to JSON."""

from __future__ import annotations

import time
from typing import Any

import pytest

from holdfast import DefinitionError
from holdfast.activities.json_mode import JsonMode, mode_of, response_format
from holdfast.activities.schemas import check_schema
from holdfast.activities.structured import output_error
from holdfast.bounds import OUTPUT_ERROR_MAX_BYTES

SCORE = {
    "type": "object",
    "properties": {"score": {"type": "integer", "minimum": 0}},
    "required": ["score"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"score": 7}', None),
        ('```json\n{"score": 7}\n```', None),
        ('{"score": "seven"}', "output.score: 'seven' is not of type 'integer'"),
        ('{"score": -1}', "output.score: -1 is less than the minimum of 0"),
        ("{}", "output: 'score' is a required property"),
        ("[]", "output: [] is not of type 'object'"),
        ("seven", "it is no JSON: Expecting value: line 1 column 1 (char 0)"),
    ],
)
def test_an_answer_is_held_against_the_schema(text: str, says: str | None) -> None:
    assert output_error(SCORE, text) == says


def test_what_is_wrong_is_told_of_long_data_too() -> None:
    found = output_error({"type": "integer"}, f'"{"x" * 5_000}"')
    assert found is not None
    assert found.startswith("output: 'xxx")
    assert found.endswith("xxx' is not of type 'integer'")


def test_what_is_wrong_is_told_in_2_kb() -> None:
    wrong = "[" + ", ".join(f'"{"x" * 200}{number}"' for number in range(500)) + "]"
    found = output_error({"type": "array", "items": {"type": "integer"}}, wrong)
    assert found is not None
    assert 1_000 < len(found.encode()) <= OUTPUT_ERROR_MAX_BYTES


def test_a_check_that_would_take_for_ever_is_given_up() -> None:
    began = time.monotonic()
    wide = {f"d{i}": {"anyOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 2} for i in range(40)} | {"d40": False}
    found = output_error({"$defs": wide, "$ref": "#/$defs/d0"}, "{}")
    assert found == "output: takes too long to be checked against the schema"
    assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    "schema",
    [
        SCORE,
        {"$defs": {"n": {"type": "integer"}}, "items": {"$ref": "#/$defs/n"}},
        {"properties": {"$ref": {"type": "string"}}},
        {"const": {"$ref": "nowhere"}},
        {},
    ],
)
def test_a_sound_schema_is_taken(schema: dict[str, Any]) -> None:
    check_schema(schema, name="output_schema")


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        ({"type": "integr"}, "output_schema is no JSON schema"),
        ({"properties": []}, "output_schema is no JSON schema"),
        ({"$schema": []}, "output_schema can't be used"),
        ({"items": {"$ref": "#/$defs/gone"}}, "refers to what is not in it"),
        ({"items": {"$ref": "http://169.254.169.254/schema"}}, "refers to what is not in it"),
    ],
)
def test_what_is_no_schema_is_refused(schema: dict[str, Any], says: str) -> None:
    with pytest.raises(DefinitionError, match=says):
        check_schema(schema, name="output_schema")


@pytest.mark.parametrize(
    ("set_to", "provider", "known", "takes", "beside_tools", "mode"),
    [
        (None, "openai", True, "schema", False, "schema"),
        (None, "openai", True, "schema", True, "schema"),
        (None, "openai", True, "object", False, "object"),
        (None, "openai", True, "object", True, "none"),
        (None, "openai", False, "object", False, "none"),
        (None, "anthropic", True, "schema", False, "schema"),
        (None, "anthropic", True, "schema", True, "none"),
        (None, "gemini", True, "schema", True, "none"),
        (None, "deepseek", True, "object", False, "object"),
        (None, "ollama", True, "none", False, "none"),
        ("none", "openai", True, "schema", False, "none"),
        ("object", "openai", False, "none", True, "object"),
        ("schema", "openai", False, "none", False, "schema"),
    ],
)
def test_a_json_mode_is_used_where_it_is_known_to_do_no_harm(
    set_to: JsonMode | None, provider: str, known: bool, takes: JsonMode, beside_tools: bool, mode: JsonMode
) -> None:
    found = mode_of(
        set_to=set_to,
        provider=provider,
        known=known,
        takes_schema=takes == "schema",
        takes_object=takes != "none",
        beside_tools=beside_tools,
    )
    assert found == mode


def test_a_json_mode_is_for_objects_only() -> None:
    assert response_format("object", SCORE) == {"type": "json_object"}
    assert response_format("schema", SCORE) == {
        "type": "json_schema",
        "json_schema": {"name": "answer", "schema": SCORE, "strict": False},
    }
    assert response_format("none", SCORE) is None
    assert response_format("schema", {"type": "array"}) is None
    assert response_format("object", {}) is None
