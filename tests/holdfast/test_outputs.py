"""Which texts are JSON answers, and what is said of the others."""

from __future__ import annotations

from typing import Any

import pytest

from holdfast.bounds import DEPTH_MAX
from holdfast.outputs import read_json, repair_note


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"score": 7}', {"score": 7}),
        (" \n[1, 2]\n", [1, 2]),
        ('"a text"', "a text"),
        ("null", None),
        ('```json\n{"score": 7}\n```', {"score": 7}),
        ('```\n{"score": 7}\n```', {"score": 7}),
        ('```{"score": 7}```', {"score": 7}),
        ('Here it is:\n```json\n{"score": 7}\n```\nI hope that it helps.', {"score": 7}),
        ('```json\n{"code": "```py\\nx```"}\n```', {"code": "```py\nx```"}),
    ],
)
def test_the_whole_text_or_its_one_fenced_block_is_the_answer(text: str, value: Any) -> None:
    assert read_json(text) == value


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "there is no text"),
        ("  \n", "there is no text"),
        ("The score is 7.", "it is no JSON: Expecting value: line 1 column 1"),
        ('{"score": 7', "it is no JSON"),
        ('{"score": 7} and more', "it is no JSON: Extra data"),
        ('The score: {"score": 7}', "it is no JSON"),
        ("```json\n{score: 7}\n```", "its fenced block is no JSON"),
        ('```json\n{"a": 1}\n```\n```json\n{"b": 1}\n```', "its fenced block is no JSON"),
        ("NaN", "NaN is no JSON"),
        ('{"score": -Infinity}', "-Infinity is no JSON"),
        ("1e999", "not JSON compliant"),
        ('"\\ud800"', "surrogates not allowed"),
        ("[" * (DEPTH_MAX + 1) + "]" * (DEPTH_MAX + 1), "nested"),
        ("[" * 100_000 + "]" * 100_000, "nested too deep"),
        ("9" * 5_000, "digits"),
    ],
)
def test_any_other_text_is_refused_with_what_is_wrong(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        read_json(text)


def test_the_model_is_told_what_is_wrong() -> None:
    assert repair_note("output.score: 'seven' is not of type 'integer'").splitlines() == [
        "That answer does not fit: output.score: 'seven' is not of type 'integer'",
        "",
        "Answer again with the whole JSON only, so that it fits the JSON schema.",
    ]
    assert repair_note(None).startswith("Answer again")
