"""Content parts: which are taken, what is refused and why, and what is shown of them."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from holdfast.bounds import REQUEST_MAX_BYTES
from holdfast.content import IMAGE_CHARS, chars_of, has_images, inline_image, says_something, text_of, with_text
from holdfast.errors import InputInvalid
from holdfast.message import Message, user_message
from holdfast.request import RunRequest, UserMessage

PNG = b"\x89PNG\r\n\x1a\n" + bytes(40)
PNG_URL = "data:image/png;base64," + base64.b64encode(PNG).decode()


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def image(url: str, **more: Any) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url, **more}}


@pytest.mark.parametrize(
    "parts",
    [
        [text("What is this?")],
        [text("What is this?"), image("https://example.com/cat.png")],
        [image(PNG_URL, detail="low")],
        [image("http://[2001:db8::1]:8080/cat?size=1")],
    ],
)
def test_parts_are_taken_as_openai_has_them_and_stay_as_they_are(parts: list[dict[str, Any]]) -> None:
    request = RunRequest.read({"agent": "a", "message": parts})
    assert request.wire()["message"] == parts
    assert UserMessage.read({"text": parts}).wire()["text"] == parts
    assert Message.recorded({"role": "user", "content": parts}).wire()["content"] == parts


def test_a_message_may_say_content_instead_of_text() -> None:
    assert UserMessage.read({"content": [text("Hello")], "id": "a"}) == UserMessage.read(
        {"text": [text("Hello")], "id": "a"}
    )
    assert UserMessage.read({"content": "Hello"}).text == "Hello"


@pytest.mark.parametrize(
    ("message", "field", "says"),
    [
        (7, "message", "valid string"),
        ([], "message", "one part at least"),
        (["Hello"], "message.0", "dictionary"),
        ([{"type": "audio"}], "message.0", "image_url"),
        ([image("file:///etc/passwd")], "message.0.image_url.image_url.url", "https or http"),
        ([image("/etc/passwd")], "message.0.image_url.image_url.url", "https or http"),
        ([image("https://")], "message.0.image_url.image_url.url", "https or http"),
        ([image("https://me:secret@example.com/a")], "message.0.image_url.image_url.url", "name or a password"),
        ([image("data:text/html;base64,AAAA")], "message.0.image_url.image_url.url", "image/webp"),
        ([image("data:image/svg+xml;base64,AAAA")], "message.0.image_url.image_url.url", "image/webp"),
        ([image("data:image/png,AAAA")], "message.0.image_url.image_url.url", "base64"),
        ([image("data:image/png;base64,A*A=")], "message.0.image_url.image_url.url", "is no base64"),
        ([image("data:image/png;base64,AAAA")], "message.0.image_url.image_url.url", "image of type png"),
        ([image("https://example.com/a", detail="huge")], "message.0.image_url.image_url.detail", "auto"),
        ([text("x" * (REQUEST_MAX_BYTES + 1))], "message", "at most 262,144"),
    ],
)
def test_anything_else_is_refused_and_named(message: Any, field: str, says: str) -> None:
    with pytest.raises(InputInvalid) as refused:
        RunRequest.read({"agent": "a", "message": message})
    assert list(refused.value.errors) == [field]
    assert says in refused.value.errors[field]


def test_parts_are_shown_as_text_with_images_named() -> None:
    parts = [text("Look:"), image(PNG_URL), image("https://example.com/cat.png")]
    said = user_message(UserMessage.read({"text": parts}).text)
    assert said.text == text_of(parts) == "Look:\n[image]\n[image https://example.com/cat.png]"
    assert text_of(None) == ""
    assert text_of("Hello") == "Hello"


def test_an_image_counts_as_a_thousand_tokens_whatever_its_bytes() -> None:
    message = UserMessage.read({"text": [text("abcd"), image(PNG_URL)]})
    assert chars_of(message.text) == 4 + IMAGE_CHARS
    assert chars_of("abcd") == 4


def test_text_is_put_behind_content() -> None:
    assert with_text("a", "b") == "ab"
    parts = UserMessage.read({"text": [image(PNG_URL)]}).text
    assert text_of(with_text(parts, "b")) == "[image]\nb"


def test_spaces_alone_say_nothing() -> None:
    assert not says_something(UserMessage.read({"text": [text(" \n")]}).text)
    assert says_something(UserMessage.read({"text": [image(PNG_URL)]}).text)


def test_images_are_found_in_messages() -> None:
    assert has_images([{"role": "user", "content": [image(PNG_URL)]}])
    assert not has_images([{"role": "user", "content": "image_url"}, {"role": "assistant"}, {"content": [text("a")]}])


def test_an_image_file_is_told_by_its_first_bytes() -> None:
    assert inline_image(PNG).image_url.url == PNG_URL
    assert inline_image(b"RIFF\0\0\0\0WEBPVP8 ").image_url.url.startswith("data:image/webp;base64,")
    with pytest.raises(ValueError, match="no PNG"):
        inline_image(b"<svg></svg>")
