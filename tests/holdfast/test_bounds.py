"""Sizes: what is cut is never larger than promised, for any text."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from holdfast.bounds import canonical_json, cut, cut_chars, cut_json, json_size, one_line, summary, to_json

WHOLE = st.text() | st.text('aé日😀\n"\\\x01', max_size=300)
ANY = st.text(st.characters(exclude_categories=()), max_size=300)
"""Lone surrogates included."""


@given(WHOLE, st.integers(0, 400))
@example("😀" * 1000, 100)
@example("a" * 10_000, 3)
def test_cut_never_exceeds_its_bytes_and_never_splits_a_character(text: str, max_bytes: int) -> None:
    short = cut(text, max_bytes)
    assert len(short.encode()) <= max_bytes
    if len(text.encode()) <= max_bytes:
        assert short == text
    else:
        kept, note, _ = short.partition("… [cut: ")
        assert text.startswith(kept) if note else "… [cut: ".startswith(short)


def test_cut_says_how_much_there_was() -> None:
    assert cut("é" * 3000, 100) == "é" * 35 + "… [cut: 6,000 bytes in all]"


@given(ANY, st.integers(0, 200))
def test_cut_takes_broken_characters_without_an_error(text: str, max_bytes: int) -> None:
    assert len(cut(text, max_bytes).encode(errors="replace")) <= max_bytes


@given(WHOLE, st.integers(0, 400))
@example("x" * 1_000_000, 57)
def test_cut_chars_never_exceeds_its_characters(text: str, max_chars: int) -> None:
    short = cut_chars(text, max_chars)
    assert len(short) <= max_chars
    assert short == text or len(text) > max_chars


def test_cut_chars_says_how_much_is_kept_of_how_much() -> None:
    short = cut_chars("x" * 20_000, 12_000)
    kept = short.index("\n")
    assert short == "x" * kept + f"\n… [cut: the first {kept:,} of 20,000 characters]"
    assert kept > 11_900


@given(WHOLE, st.integers(2, 400))
@example("\x01" * 1000, 100)
@example('"' * 70_000, 65_536)
def test_cut_json_never_exceeds_its_bytes_as_json(text: str, max_bytes: int) -> None:
    short = cut_json(text, max_bytes)
    assert json_size(short) <= max_bytes
    assert short == text or json_size(text) > max_bytes


@given(ANY)
@example("\ud800" * 500)
@example('"\\' * 300)
@example("a\u2028b\u0085c\x00d\re")
@example("😀" * 500)
def test_a_summary_is_one_printable_line_of_at_most_300_bytes_of_json(text: str) -> None:
    line = summary(text)
    assert len(json.dumps(line, ensure_ascii=False).encode()) <= 300
    assert line.isprintable()
    assert line == line.strip()


def test_a_short_text_is_its_own_summary() -> None:
    assert summary("id=42 name=Zoë") == "id=42 name=Zoë"
    assert summary("a\n\tb") == "a b"
    assert summary("") == ""


@given(ANY, st.integers(1, 100))
def test_one_line_is_one_line_of_at_most_its_characters(text: str, max_chars: int) -> None:
    line = one_line(text, max_chars)
    assert len(line) <= max_chars
    assert len(line.splitlines()) <= 1


@pytest.mark.parametrize(
    "value", [math.nan, math.inf, -math.inf, "\ud800", {"\udfff": 1}, [{"a": [math.nan]}], object()]
)
def test_to_json_refuses_what_no_reader_could_read_back(value: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        to_json(value)


@given(st.dictionaries(st.text(), st.integers() | st.text() | st.lists(st.booleans())))
def test_json_is_compact_and_its_size_is_in_bytes(value: dict[str, Any]) -> None:
    text = to_json(value)
    assert json.loads(text) == value
    assert json_size(value) == len(text.encode())
    backwards = dict(reversed(value.items()))
    assert canonical_json(backwards) == canonical_json(value)
