"""Where a run's answer is from: what its tools named as their sources, each once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, TypeGuard

from holdfast.bounds import (
    CARRIED_SOURCES_BYTES,
    SOURCE_TITLE_MAX_CHARS,
    SOURCE_URL_MAX_BYTES,
    SOURCES_MAX,
    SOURCES_MAX_BYTES,
    json_size,
    latest,
    one_line,
)
from holdfast.envelope import visible
from holdfast.run import Source


class Sources:
    """At most 200 of at most 64 KB, in the order in which they were first named; the latest are kept."""

    def __init__(self, earlier: Iterable[Source] = ()) -> None:
        self._kept: dict[str, Source] = {}
        self._bytes = 0
        self.take(earlier)

    def add(self, output: Any) -> None:
        """Take what a tool names as `{"sources": [{"url": …, "title": …}, …]}`; what is no link is left out."""
        self.take(named_in(output))

    def take(self, sources: Iterable[Source]) -> None:
        """Take sources, each URL once, with the first title that says anything."""
        for source in sources:
            known = self._kept.get(source.url)
            if known is not None and (known.title or not source.title):
                continue
            self._bytes += json_size(source.wire()) - (json_size(known.wire()) if known else 0)
            self._kept[source.url] = source
            while len(self._kept) > SOURCES_MAX or self._bytes > SOURCES_MAX_BYTES:
                self._bytes -= json_size(self._kept.pop(next(iter(self._kept))).wire())

    def all(self) -> tuple[Source, ...]:
        """Return what a result lists."""
        return tuple(self._kept.values())

    def latest(self) -> tuple[Source, ...]:
        """Return what the next link is handed: the latest, at most 16 KB."""
        return latest(self._kept.values(), CARRIED_SOURCES_BYTES, lambda each: json_size(each.wire()))


def named_in(output: Any) -> Iterator[Source]:
    """Yield the sources that a tool's output names."""
    listed = output.get("sources") if isinstance(output, dict) else None
    for each in listed[:SOURCES_MAX] if isinstance(listed, list) else ():
        url, title = (each.get("url"), each.get("title")) if isinstance(each, dict) else (None, None)
        if _is_address(url):
            yield Source(url=url, title=_title(title) if isinstance(title, str) else "")


def _title(title: str) -> str:
    return one_line(visible(title[: 4 * SOURCE_TITLE_MAX_CHARS]), SOURCE_TITLE_MAX_CHARS)


def _is_address(url: Any) -> TypeGuard[str]:
    """Say whether a value is a link that may be shown: of the web, bounded, without spaces or hidden characters."""
    if not isinstance(url, str) or not url.lower().startswith(("http://", "https://")):
        return False
    return len(url.encode()) <= SOURCE_URL_MAX_BYTES and url.isprintable() and not any(map(str.isspace, url))
