"""Secrets: every known value is replaced by its name, wherever it stands."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.activities.secrets import Scrubber

SECRET = st.text(min_size=8, max_size=30).filter(lambda text: "[secret A]" not in text)


def test_a_secret_becomes_its_name() -> None:
    scrub = Scrubber({"OPENAI_API_KEY": "sk-0123456789"})
    assert scrub.text("Incorrect key sk-0123456789!") == "Incorrect key [secret OPENAI_API_KEY]!"
    assert scrub.text("sk-0123456789sk-0123456789") == "[secret OPENAI_API_KEY]" * 2
    assert scrub.text("nothing here") == "nothing here"


@given(SECRET, st.text(max_size=30), st.text(max_size=30))
def test_no_text_around_a_secret_hides_it(secret: str, before: str, after: str) -> None:
    scrub = Scrubber({"A": secret})
    cleaned = scrub.text(before + secret + after)
    assert "[secret A]" in cleaned
    assert secret not in cleaned.replace("[secret A]", "\0")


@given(SECRET)
def test_a_secret_is_found_inside_json_text_too(secret: str) -> None:
    scrub = Scrubber({"A": secret})
    for text in (json.dumps({"k": secret}), json.dumps({"k": secret}, ensure_ascii=False)):
        assert json.loads(scrub.text(text)) == {"k": "[secret A]"}


def test_the_longer_of_two_secrets_that_begin_alike_is_replaced_whole() -> None:
    scrub = Scrubber({"SHORT": "abcdefgh", "LONG": "abcdefgh-ijkl"})
    assert scrub.text("abcdefgh-ijkl abcdefgh") == "[secret LONG] [secret SHORT]"


def test_a_secret_is_a_text_and_not_a_pattern() -> None:
    scrub = Scrubber({"A": "a.c+(e)[g]|"})
    assert scrub.text("a.c+(e)[g]| abccceg") == "[secret A] abccceg"


@pytest.mark.parametrize("value", ["", "true", "1234567"])
def test_what_is_too_short_to_be_a_secret_is_left_alone(value: str) -> None:
    assert Scrubber({"A_TOKEN": value}).text(f"it is {value} indeed") == f"it is {value} indeed"


def test_json_is_cleaned_in_keys_and_values_at_any_depth_and_keeps_its_shape() -> None:
    scrub = Scrubber({"A": "0123456789"})
    value: Any = {"0123456789": ["x0123456789", {"k": "0123456789"}, 123456789, None, True, 1.5]}
    assert scrub.json(value) == {"[secret A]": ["x[secret A]", {"k": "[secret A]"}, 123456789, None, True, 1.5]}
    assert value["0123456789"][0] == "x0123456789"


def test_without_secrets_everything_stays() -> None:
    value = {"a": ["b"]}
    assert Scrubber({}).json(value) == value
    assert Scrubber({}).text("a") == "a"


@pytest.mark.parametrize(
    "name",
    [
        "OPENAI_API_KEY",
        "APIKEY",
        "SIGNING_KEY",
        "GITHUB_TOKEN",
        "client_secret",
        "DB_PASSWORD",
        "PGPASSWORD",
        "MY_CREDENTIALS",
    ],
)
def test_variables_whose_name_says_so_are_secrets(name: str) -> None:
    os.environ[name] = "canary-0123456789"
    try:
        assert Scrubber.of_environment().text("canary-0123456789") == f"[secret {name}]"
    finally:
        del os.environ[name]


@pytest.mark.parametrize("name", ["HOME_FOLDER", "KEYBOARD", "TOKENIZERS", "SECRETARY"])
def test_other_variables_are_not(name: str) -> None:
    os.environ[name] = "canary-0123456789"
    try:
        assert Scrubber.of_environment().text("canary-0123456789") == "canary-0123456789"
    finally:
        del os.environ[name]


def test_what_settings_hold_is_secret_beside_the_environment() -> None:
    scrub = Scrubber.of_environment([("endpoint scripted/*", "sk-endpoint-01234")])
    assert scrub.text("sk-endpoint-01234") == "[secret endpoint scripted/*]"
