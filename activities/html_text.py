"""Plain text of web pages, by simple means: what a reader would see, without markup, scripts and styles.

The time it takes grows with the page's length alone, whatever stands there: html.parser needs a minute for 300 KB of
comments that never end.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import unescape

_UNSEEN = frozenset(("script", "style", "noscript", "template", "svg", "iframe", "object"))
_BLOCKS = frozenset(
    (
        *("address", "article", "aside", "blockquote", "br", "dd", "div", "dl", "dt", "figcaption", "footer", "form"),
        *("h1", "h2", "h3", "h4", "h5", "h6", "header", "hr", "li", "main", "nav", "ol", "p", "pre", "section"),
        *("table", "td", "th", "title", "tr", "ul"),
    )
)
_TAG = re.compile(r"<(/?)([a-zA-Z][a-zA-Z0-9:-]*)")
_TITLE_MAX_CHARS = 300


def text_of_html(html: str) -> tuple[str, str]:
    """Return a page's title, and its text with one empty line at most between paragraphs."""
    title, parts = "", []
    for kind, text in _pieces(html):
        if kind == "title":
            title = title or " ".join(unescape(text[: 4 * _TITLE_MAX_CHARS]).split())
        else:
            parts.append(text if kind == "break" else unescape(text))
    lines = (" ".join(line.split()) for line in "".join(parts).split("\n"))
    return title[:_TITLE_MAX_CHARS], re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


def _pieces(html: str) -> Iterator[tuple[str, str]]:
    """Yield texts, breaks between blocks, and the title, in order."""
    at = 0
    while at < len(html):
        begin = _or_end(html.find("<", at), html)
        yield "text", html[at:begin]
        tag = _TAG.match(html, begin)
        if tag is None:
            at = _after_markup(html, begin)
            yield "text", "<" if at == begin + 1 and begin < len(html) else ""
            continue
        name, at = tag[2].lower(), _or_end(html.find(">", begin), html) + 1
        if name in _BLOCKS:
            yield "break", "\n"
        if not tag[1] and (name in _UNSEEN or name == "title"):
            closing = re.compile(f"</{name}", re.IGNORECASE).search(html, at)
            end = closing.start() if closing else len(html)
            if name == "title":
                yield "title", html[at:end]
            at = end


def _after_markup(html: str, begin: int) -> int:
    """Return where a comment or a declaration ends, or the next character where it is neither."""
    if html.startswith("<!--", begin):
        return _or_end(html.find("-->", begin + 4), html) + 3
    if html.startswith(("<!", "<?", "</"), begin):
        return _or_end(html.find(">", begin), html) + 1
    return begin + 1


def _or_end(index: int, html: str) -> int:
    return len(html) if index < 0 else index
