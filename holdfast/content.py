"""What a person may say to a model: a text, or OpenAI's content parts, texts and images."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Discriminator, Field, Tag, field_validator

from holdfast.bounds import one_line
from holdfast.data import Data
from holdfast.errors import CHOICE

IMAGE_TYPES = ("image/png", "image/jpeg", "image/gif", "image/webp")
"""Of images that stand in a message themselves."""
IMAGE_CHARS = 4_000
"""What an image counts as where tokens are estimated; providers take about 1,000 tokens for one."""


class TextPart(Data):
    """A text, beside images."""

    type: Literal["text"]
    text: str


class ImageUrl(Data):
    """Where an image is, or the image itself."""

    url: str = Field(min_length=1)
    """https://… or http://…, which the provider fetches; or data:image/png;base64,… (also jpeg, gif, webp)."""
    detail: Literal["auto", "low", "high"] | None = None

    @field_validator("url")
    @classmethod
    def _is_an_image(cls, url: str) -> str:
        _check_data(url) if url.startswith("data:") else _check_address(url)
        return url


class ImagePart(Data):
    """An image."""

    type: Literal["image_url"]
    image_url: ImageUrl


def _some(parts: tuple[Any, ...]) -> tuple[Any, ...]:
    if not parts:
        raise ValueError("must hold one part at least")
    return parts


_TEXT, _PARTS = f"{CHOICE}text", f"{CHOICE}parts"
ContentPart = Annotated[TextPart | ImagePart, Field(discriminator="type")]
_ContentParts = Annotated[tuple[ContentPart, ...], AfterValidator(_some), Tag(_PARTS)]


def _kind(given: Any) -> str:
    return _PARTS if isinstance(given, list | tuple) else _TEXT


Content = Annotated[Annotated[str, Tag(_TEXT)] | _ContentParts, Discriminator(_kind)]
"""What a message holds: a text, or parts."""
Said = str | Sequence[TextPart | ImagePart | Mapping[str, Any]]
"""What a caller may hand over as content."""


def text_of(content: Any) -> str:
    """Return content as a text, in whichever form it stands: images are named, not shown."""
    if content is None or isinstance(content, str):
        return content or ""
    return "\n".join(_shown(part if isinstance(part, Mapping) else part.model_dump()) for part in content)


def chars_of(content: Any) -> int:
    """Return how many characters content counts as, where tokens are estimated."""
    if content is None or isinstance(content, str):
        return len(content or "")
    return sum(len(part.text) if isinstance(part, TextPart) else IMAGE_CHARS for part in content)


def content_form(content: Any) -> Any:
    """Return content as JSON data."""
    if content is None or isinstance(content, str):
        return content
    return [part.wire() if isinstance(part, Data) else part for part in content]


def with_text(content: Any, text: str) -> Any:
    """Return content with a text behind it."""
    return content + text if isinstance(content, str) else (*content, TextPart(type="text", text=text))


def says_something(content: Any) -> bool:
    """Say whether there is an image, or a text of more than spaces."""
    return bool(text_of(content).strip())


def has_images(messages: Iterable[Mapping[str, Any]]) -> bool:
    """Say whether any of the messages, in wire form, holds an image."""
    return any(
        part.get("type") == "image_url"
        for message in messages
        if isinstance(message.get("content"), list)
        for part in message["content"]
    )


def image_part(url: str) -> ImagePart:
    """Make the part of an image by its URL, a data: URL too."""
    return ImagePart(type="image_url", image_url=ImageUrl(url=url))


def inline_image(data: bytes) -> ImagePart:
    """Make the part of an image that stands in the message itself; ValueError for what is no PNG, JPEG, GIF or WebP."""
    kind = _kind_of(data)
    if kind is None:
        raise ValueError("is no PNG, JPEG, GIF or WebP")
    return image_part(f"data:{kind};base64,{base64.b64encode(data).decode()}")


def _shown(part: Mapping[str, Any]) -> str:
    if part.get("type") == "text":
        return str(part.get("text", ""))
    url = str((part.get("image_url") or {}).get("url", ""))
    return "[image]" if url.startswith("data:") else f"[image {one_line(url, 200)}]"


def _check_address(url: str) -> None:
    try:
        parts = urlsplit(url)
        sound = parts.scheme in ("http", "https") and bool(parts.hostname) and url.isprintable() and " " not in url
    except ValueError:
        sound = False
    if not sound:
        raise ValueError("must be the https or http URL of an image, or a data: URL")
    if parts.username or parts.password:
        raise ValueError("must not hold a name or a password")


def _check_data(url: str) -> None:
    head, _, body = url.removeprefix("data:").partition(",")
    kind, _, encoding = head.partition(";")
    if kind not in IMAGE_TYPES or encoding != "base64":
        raise ValueError(f"must begin with data:TYPE;base64, where TYPE is one of {', '.join(IMAGE_TYPES)}")
    try:
        data = base64.b64decode(body, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("is no base64") from None
    if _kind_of(data) != kind:
        raise ValueError(f"does not hold an {kind.replace('/', ' of type ')}")


def _kind_of(data: bytes) -> str | None:
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if data.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "image/gif"
    return "image/webp" if data[:4] == b"RIFF" and data[8:12] == b"WEBP" else None
