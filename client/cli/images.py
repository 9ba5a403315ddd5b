"""Images on the command line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import overload

from holdfast.content import ImagePart, Said, TextPart, inline_image
from holdfast.errors import InputInvalid


@overload
def with_images(message: str, images: Sequence[str]) -> Said: ...
@overload
def with_images(message: str | None, images: Sequence[str]) -> Said | None: ...
def with_images(message: str | None, images: Sequence[str]) -> Said | None:
    """Put images, files or URLs, behind a message; InputInvalid for a file that can't be read or is no image."""
    if not images:
        return message
    texts = [] if message is None else [TextPart(type="text", text=message)]
    return [
        *texts,
        *(
            {"type": "image_url", "image_url": {"url": each}} if "://" in each else _inline(Path(each))
            for each in images
        ),
    ]


def _inline(file: Path) -> ImagePart:
    try:
        return inline_image(file.read_bytes())
    except (OSError, ValueError) as error:
        raise InputInvalid({"image": f"{file}: {error}"}) from None
