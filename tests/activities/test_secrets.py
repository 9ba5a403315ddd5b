"""Secrets: every known value is replaced by its name, wherever it stands."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from temporalio.client import WorkflowFailureError

from holdfast import Agent
from holdfast.activities.secrets import Scrubber
from holdfast.worker.scripted import say
from tests.support.stage import KEY, MODEL, stage

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


def test_a_text_that_still_grows_is_shown_without_what_may_be_the_first_half_of_a_secret() -> None:
    scrub = Scrubber({"KEY": "sk-live-0123456789", "OTHER": 'pass"word'})
    assert scrub.without_beginning("your key is sk-live-01234") == "your key is "
    assert scrub.without_beginning("your key is sk-") == "your key is sk-", "three characters say nothing"
    assert scrub.without_beginning("your key is sk-loud") == "your key is sk-loud"
    assert scrub.without_beginning('it is {"password": "pass\\"w') == 'it is {"password": "'
    assert Scrubber({}).without_beginning("sk-live-0123456789") == "sk-live-0123456789"


@given(SECRET, st.text(max_size=30))
def test_no_half_of_a_secret_is_shown_at_any_moment(secret: str, before: str) -> None:
    scrub = Scrubber({"A": secret})
    for length in range(4, len(secret)):
        shown = scrub.without_beginning(scrub.text(before + secret[:length]))
        assert not shown.endswith(secret[:length])


async def test_live_text_and_a_partial_answer_never_hold_the_first_half_of_a_secret(address: str) -> None:
    answer = say(f"your key is here: {KEY[:-6]}", pace=1.5)
    async with stage(address, lambda _: answer) as at:
        handle = await at.start(Agent(name="tells", model=MODEL), message="Go")
        beats: list[Any] = []
        for _ in range(60):
            pending = (await handle.describe()).raw_description.pending_activities
            beats += [payload.data.decode() for each in pending for payload in each.heartbeat_details.payloads]
            if any("here: " in each for each in beats):
                break
            await asyncio.sleep(0.1)
        await handle.cancel()
        with pytest.raises(WorkflowFailureError):
            await handle.result()
        assert any("here: " in each for each in beats)
        history = (await handle.fetch_history()).to_json()
        recorded = "".join(base64.b64decode(each).decode() for each in re.findall(r'"data": "([^"]*)"', history))
    assert "your key is here: " in recorded
    for told in (*beats, recorded):
        assert KEY[:4] not in told
