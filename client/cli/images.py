"""Images on the command line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, overload

from holdfast.errors import InputInvalid

if TYPE_CHECKING:
    from holdfast.content import ImagePart, Said


@overload
def with_images(message: str, images: Sequence[str]) -> Said: ...
@overload
def with_images(message: str | None, images: Sequence[str]) -> Said | None: ...
def with_images(message: str | None, images: Sequence[str]) -> Said | None:
    """Put images, files or URLs, behind a message; InputInvalid for a file that can't be read or is no image."""
    if not images:
        return message
    from holdfast.content import TextPart

    texts = [] if message is None else [TextPart(type="text", text=message)]
    return [
        *texts,
        *(
            {"type": "image_url", "image_url": {"url": each}} if "://" in each else _inline(Path(each))
            for each in images
        ),
    ]


def _inline(file: Path) -> ImagePart:
    from holdfast.content import inline_image

    try:
        return inline_image(file.read_bytes())
    except (OSError, ValueError) as error:
        raise InputInvalid({"image": f"{file}: {error}"}) from None
