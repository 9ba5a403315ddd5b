"""`holdfast run … --image`: files stand in the message, URLs stay URLs."""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast.client.cli.images import with_images
from holdfast.content import text_of
from holdfast.errors import InputInvalid
from holdfast.request import RunRequest

GIF = b"GIF89a" + bytes(10)


def test_files_and_urls_stand_behind_the_message(tmp_path: Path) -> None:
    file = tmp_path / "a.gif"
    file.write_bytes(GIF)
    said = with_images("What is this?", [str(file), "https://example.com/cat.png"])
    request = RunRequest.read({"agent": "a", "message": said})
    assert text_of(request.message) == "What is this?\n[image]\n[image https://example.com/cat.png]"
    assert len(RunRequest.read({"agent": "a", "message": with_images(None, [str(file)])}).message or ()) == 1


def test_without_images_the_message_stays_what_it_was() -> None:
    assert with_images("Hello", []) == "Hello"
    assert with_images(None, []) is None


@pytest.mark.parametrize(("name", "says"), [("gone.png", "No such file"), ("a.svg", "no PNG, JPEG, GIF or WebP")])
def test_what_is_no_image_is_named(tmp_path: Path, name: str, says: str) -> None:
    (tmp_path / "a.svg").write_text("<svg/>")
    with pytest.raises(InputInvalid, match=says):
        with_images("Hello", [str(tmp_path / name)])
