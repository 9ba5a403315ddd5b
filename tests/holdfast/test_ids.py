"""Ids: which are taken, and how ours are minted."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast import InputInvalid
from holdfast.ids import call_id, check_id, idempotency_key, new_run_id, run_id_of_key, step_of_call

STEPS = st.integers(0, 36**3 - 1)
INDEXES = st.integers(0, 35)


@pytest.mark.parametrize(
    "hostile",
    [
        "",
        "../x",
        "a/../b",
        "a/..",
        "..",
        ".",
        "./a",
        "a\\..\\b",
        "a\0b",
        "a\nb",
        "a\x7fb",
        "a\x85b",
        "a\u202eb",
        "a\u200bb",
        "\ud800",
        " a",
        "a ",
        "\u00a0a",
        "a\u2003",
        "x" * 256,
        "x" * 1001,
    ],
    ids=ascii,
)
def test_a_hostile_id_is_refused_by_field(hostile: str) -> None:
    with pytest.raises(InputInvalid) as refused:
        check_id("run_id", hostile)
    assert list(refused.value.errors) == ["run_id"]
    assert len(str(refused.value)) < 200


@pytest.mark.parametrize("not_a_text", [None, 3, b"x", ["x"]])
def test_what_is_no_text_is_no_id(not_a_text: object) -> None:
    with pytest.raises(InputInvalid):
        check_id("run_id", not_a_text)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "sound", ["invoice-42", "a", "x" * 255, "tenant/2026/11", "a..b", ".env", "Rechnung Nº 7", "日本"]
)
def test_a_sound_id_is_taken_as_it_stands(sound: str) -> None:
    assert check_id("run_id", sound) == sound


@given(STEPS, INDEXES, st.text(), st.text())
def test_a_call_id_is_nine_lowercase_letters_and_digits(step: int, index: int, name: str, arguments: str) -> None:
    assert re.fullmatch(r"[0-9a-z]{9}", call_id(step, index, name, arguments))


@given(st.tuples(STEPS, INDEXES), st.tuples(STEPS, INDEXES), st.text(max_size=5), st.text(max_size=5))
def test_two_places_never_have_the_same_call_id(
    one: tuple[int, int], other: tuple[int, int], name: str, arguments: str
) -> None:
    assert (call_id(*one, name, arguments) == call_id(*other, name, arguments)) == (one == other)


@given(st.integers(0, 10**7), INDEXES, st.text(max_size=5))
def test_the_step_can_be_read_back_from_a_call_id(step: int, index: int, name: str) -> None:
    assert step_of_call(call_id(step, index, name, "{}")) == step


def test_the_same_call_has_the_same_id_and_another_one_at_its_place_has_another() -> None:
    assert call_id(3, 1, "f", '{"x":1}') == call_id(3, 1, "f", '{"x":1}')
    assert call_id(3, 1, "f", '{"x":1}') != call_id(3, 1, "f", '{"x":2}')
    assert call_id(3, 1, "f", "x") != call_id(3, 1, "fx", "")


def test_a_call_with_broken_characters_has_an_id_too() -> None:
    assert len(call_id(1, 0, "f\ud800", "\udfff")) == 9


def test_the_same_key_is_the_same_run_and_the_key_itself_is_not_in_it() -> None:
    assert run_id_of_key("order 7") == run_id_of_key("order 7")
    assert run_id_of_key("order 7") != run_id_of_key("order 8")
    assert re.fullmatch(r"key-[0-9a-f]{32}", run_id_of_key("x" * 1024))


@pytest.mark.parametrize("key", ["", "x" * 1025, "a\nb", "../x"])
def test_a_hostile_key_is_refused(key: str) -> None:
    with pytest.raises(InputInvalid, match="idempotency_key"):
        run_id_of_key(key)


@given(st.text(max_size=200))
def test_a_new_run_id_is_a_sound_id_for_any_agents_name(name: str) -> None:
    made = new_run_id(name)
    assert check_id("run_id", made) == made
    assert re.fullmatch(r"[a-z0-9][a-z0-9-]*-[0-9a-f]{12}", made)
    assert new_run_id(name) != made


def test_an_idempotency_key_names_the_run_and_the_call() -> None:
    assert idempotency_key("invoice-42", "003a9") == "invoice-42:003a9"
