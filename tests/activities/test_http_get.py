"""`http_get` against a real server on loopback, which it may fetch by an allowance of its own, and nothing else."""

from __future__ import annotations

import asyncio
import gzip
import os
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from temporalio.exceptions import ApplicationError

from holdfast import Agent, Source, make_http_get
from holdfast.activities.html_text import text_of_html
from holdfast.worker.scripted import ChatRequest, Reply, call, say
from tests.support.stage import MODEL, stage

PAGE = (
    "<html><head><title>Boats &amp; ships</title><style>p {}</style></head><body><h1>Boats</h1><p>3 &lt; 4</p></body>"
)


class Site:
    """A server that notes what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.port = 0

    @property
    def place(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer by path."""
        self.asked.append(request.path)
        self.headers.append({name.lower(): value for name, value in request.headers.items()})
        match request.path.strip("/").partition("/"):
            case ("page", _, _):
                return web.Response(text=PAGE, content_type="text/html", headers={"Set-Cookie": "a=b"})
            case ("latin", _, _):
                return web.Response(
                    body="Grüße".encode("latin-1"), headers={"Content-Type": "text/plain; charset=latin-1"}
                )
            case ("json", _, _):
                return web.json_response({"boats": 3})
            case ("missing", _, _):
                return web.Response(status=404, text="no such page")
            case ("image", _, _):
                return web.Response(body=b"\x89PNG", content_type="image/png")
            case ("packed", _, _):
                return web.Response(
                    body=gzip.compress(b"x"), headers={"Content-Encoding": "gzip", "Content-Type": "text/plain"}
                )
            case ("endless", _, _):
                return await self._endless(request)
            case ("round", _, _):
                raise web.HTTPFound("/round")
            case ("to", _, target):
                raise web.HTTPFound(target.replace("SELF", self.place))
        return web.Response(status=500)

    async def _endless(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await response.prepare(request)
        while True:
            await response.write(b"x" * 65_536)


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    served, app = Site(), web.Application()
    app.router.add_get("/{path:.*}", served.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    where = web.TCPSite(runner, "127.0.0.1", 0)
    await where.start()
    served.port = runner.addresses[0][1]
    yield served
    await runner.cleanup()


async def fetch(site: Site, path: str) -> dict[str, Any]:
    get = make_http_get([site.place])
    async with asyncio.timeout(20):
        found: dict[str, Any] = await get(f"http://{site.place}/{path}")
        return found


async def test_a_page_comes_as_its_text_with_its_source(site: Site) -> None:
    url = f"http://{site.place}/page"
    assert await fetch(site, "page") == {
        "url": url,
        "status": 200,
        "title": "Boats & ships",
        "text": "Boats\n\n3 < 4",
        "sources": [{"url": url, "title": "Boats & ships"}],
    }


async def test_texts_come_as_they_are_in_their_own_encoding_and_an_error_page_too(site: Site) -> None:
    assert (await fetch(site, "latin"))["text"] == "Grüße"
    assert (await fetch(site, "json"))["text"] == '{"boats": 3}'
    missing = await fetch(site, "missing")
    assert (missing["status"], missing["text"]) == (404, "no such page")


async def test_a_redirect_is_followed_and_the_last_address_is_the_source(site: Site) -> None:
    found = await fetch(site, "to/http://SELF/to//page")
    assert site.asked == ["/to/http://SELF/to//page", "/to//page", "/page"]
    assert found["sources"][0]["url"] == f"http://{site.place}/page"


@pytest.mark.parametrize(
    "target",
    [
        *("http://127.0.0.1:1/", "http://127.0.0.1/", "http://localhost/", "http://169.254.169.254/latest/meta-data/"),
        *(
            "http://[::1]/",
            "http://[::ffff:169.254.169.254]/",
            "http://2130706433/",
            "file:///etc/passwd",
            "//10.0.0.1/",
        ),
    ],
)
async def test_a_redirect_to_what_is_not_public_is_refused_and_nothing_is_asked_there(site: Site, target: str) -> None:
    with pytest.raises(ApplicationError) as refused:
        await fetch(site, f"to/{target}")
    assert (refused.value.type, refused.value.non_retryable) == ("AddressRefused", True)
    assert len(site.asked) == 1


async def test_redirects_without_end_are_refused(site: Site) -> None:
    with pytest.raises(ApplicationError, match="redirects more than 5 times"):
        await fetch(site, "round")
    assert len(site.asked) == 6


async def test_without_an_allowance_loopback_is_refused(site: Site) -> None:
    with pytest.raises(ApplicationError, match="port"):
        await make_http_get()(f"http://{site.place}/page")
    assert site.asked == []


@pytest.mark.parametrize(("path", "kind"), [("image", "NoText"), ("packed", "NoText")])
async def test_what_is_no_text_is_refused(site: Site, path: str, kind: str) -> None:
    with pytest.raises(ApplicationError) as refused:
        await fetch(site, path)
    assert refused.value.type == kind


async def test_an_endless_page_is_read_to_its_bound(site: Site) -> None:
    found = await fetch(site, "endless")
    assert len(found["text"].encode()) <= 48 * 1024
    assert "bytes in all]" in found["text"]


async def test_neither_cookies_nor_the_environments_proxies_are_used(site: Site) -> None:
    os.environ["HTTP_PROXY"] = os.environ["http_proxy"] = "http://127.0.0.1:1"
    await fetch(site, "page")
    await fetch(site, "to//page")
    assert not any("cookie" in each or "authorization" in each for each in site.headers)


@pytest.mark.parametrize("piece", ["<", "<!--", "</", "<a x='", "<script>", "<script></script>", "<![CDATA[", "&#"])
def test_a_hostile_page_takes_no_longer_than_its_length(piece: str) -> None:
    async def read() -> None:
        async with asyncio.timeout(20):
            await asyncio.to_thread(text_of_html, piece * (300_000 // len(piece)))

    asyncio.run(read())


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("<p>a<p>b", "a\nb"),
        ("a < b", "a < b"),
        ("<!-- <p>no</p> -->yes", "yes"),
        ("<SCRIPT>if (a<b) {}</SCRIPT >seen", "seen"),
        ("<ul><li>one<li>two</ul>", "one\ntwo"),
        ("unclosed <a href='x'", "unclosed"),
        ("x<br/>y &amp; z&nbsp;", "x\ny & z"),
    ],
)
def test_markup_is_left_out_and_text_stays(html: str, text: str) -> None:
    assert text_of_html(html)[1] == text


async def test_an_agent_fetches_a_page_and_its_result_lists_it(address: str, site: Site) -> None:
    def script(request: ChatRequest) -> Reply:
        return (
            say("done")
            if request.turn
            else call(
                ("http_get", {"url": f"http://{site.place}/page"}), ("http_get", {"url": "http://169.254.169.254/"})
            )
        )

    agent = Agent(name="reader", model=MODEL, tools=[make_http_get([site.place])])
    async with stage(address, script, [agent]) as at:
        result = await at.run("reader", message="Go")
        assert result.sources == (Source(url=f"http://{site.place}/page", title="Boats & ships"),)
        assert str(result.tool_executions[1].error).startswith("AddressRefused: http://169.254.169.254/")
