"""The Temporal UI, read in headless Chromium: what a person sees of a run."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from playwright.async_api import Page, expect

from holdfast import examples
from holdfast.activities.model import warm_up
from holdfast.client.runs import AsyncClient
from holdfast.client.views import Run
from holdfast.examples import invoice_script
from holdfast.worker.discovery import discover
from holdfast.worker.scripted import ChatRequest, Reply
from tests.support.browser import SCREENSHOT, browser_page
from tests.support.stage import stage

pytestmark = pytest.mark.xdist_group("ui")

EXAMPLES = Path(str(examples.__file__)).parent
INVOICES = Path(os.path.relpath(EXAMPLES / "invoices"))
FLAKY_ORDER = "PO-7003"
expect.set_options(timeout=30_000)  # milliseconds: a loaded machine draws the page slowly


def _thinks_first(request: ChatRequest) -> Reply:
    """Answer as the demo's model does, with the waits that make a readable picture."""
    return replace(invoice_script.reply(request), delay=0.4 if request.turn else 2.0, pace=0)


@dataclass
class Seen:
    """A finished run, and the browser's page to look at it."""

    run: Run
    page: Page
    url: str
    rows: list[str]
    """The labels of the timeline, the oldest first."""
    picture: bytes = field(repr=False)

    async def open(self, tab: str) -> Page:
        """Go to one of the tabs of the run."""
        await self.page.goto(f"{self.url}/{tab}")
        return self.page


async def _timeline(page: Page, url: str) -> list[str]:
    """Read all rows: only those in sight are drawn, and what stands above them moves while it loads."""
    await page.goto(f"{url}/timeline?sort=ascending")
    heading = page.get_by_role("heading", name="Timeline")
    rows: list[str] = []
    async with asyncio.timeout(60):
        while not {"agent.load • invoice-checker", "model.call • step 5 · scripted/invoices"} <= {*rows}:
            await heading.evaluate("each => each.scrollIntoView()")
            await asyncio.sleep(0.2)
            texts = await page.locator("#event-history-timeline-graph li").all_inner_texts()
            rows = [" ".join(text.split()) for text in texts]
    return rows


@asynccontextmanager
async def _invoices_checked(address: str, folder: Path) -> AsyncIterator[Run]:
    """Run the example as the demo does: offline, with an order system whose first answer to one question fails."""
    before = dict(os.environ)
    os.environ["INVOICE_MODEL"] = "scripted/invoices"
    os.environ["INVOICE_LEDGER"] = str(folder / "verdicts.jsonl")
    os.environ["INVOICE_DEMO_OUTAGE"] = FLAKY_ORDER
    warm_up()
    for name, module in list(sys.modules.items()):  # the example reads its settings when it is loaded
        if getattr(module, "__file__", None) == str(EXAMPLES / "invoice_checker.py"):
            del sys.modules[name]
    try:
        agents = discover([str(EXAMPLES / "invoice_checker.py")]).agents.values()
        async with stage(address, _thinks_first, agents) as at:
            client = AsyncClient(temporal=at.client, task_queue=at.task_queue)
            started = await client.runs.create("invoice-checker", input={"folder": str(INVOICES)})
            yield await client.runs.wait(started.id, timeout=60)
    finally:
        os.environ.clear()
        os.environ.update(before)


@pytest.fixture(scope="module")
async def seen(address: str, ui_url: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Seen]:
    """A completed run of the invoice checker, one tool at the second attempt; its worker answers queries still."""
    folder = tmp_path_factory.mktemp("invoices")
    async with _invoices_checked(address, folder) as run, browser_page(1400, 900) as page:
        assert run.status == "completed"
        await page.goto(f"{ui_url}/namespaces/default/workflows/{run.id}")
        await page.wait_for_url("**/timeline*")
        url = page.url.rpartition("/")[0]
        rows = await _timeline(page, url)
        yield Seen(run, page, url, rows, await page.screenshot())


def test_every_model_call_is_a_row_with_its_step_and_model(seen: Seen) -> None:
    calls = [row for row in seen.rows if row.startswith("model.call")]
    assert calls == [f"model.call • step {step} · scripted/invoices" for step in range(1, 6)]


def test_every_tool_call_is_a_row_under_the_tools_own_name_with_its_arguments(seen: Seen) -> None:
    assert f"list_invoices • folder={INVOICES}" in seen.rows
    assert [f"read_invoice • folder={INVOICES} number=INV-100{number}" in seen.rows for number in range(1, 6)] == [
        True
    ] * 5
    assert "find_order • number=PO-7001" in seen.rows
    verdicts = [row for row in seen.rows if row.startswith("record_verdict • invoice=INV-")]
    assert len(verdicts) == 5
    assert "record_verdict • invoice=INV-1005 verdict=reject reason=there is no order PO-7999" in verdicts


def test_a_retried_tool_is_marked_with_its_attempt_and_no_other_row_is(seen: Seen) -> None:
    assert [row for row in seen.rows if row[:1].isdigit()] == [f"2 • find_order • number={FLAKY_ORDER}"]


def test_the_timeline_is_photographed_for_the_readme_when_a_file_is_named(seen: Seen) -> None:
    assert seen.picture.startswith(b"\x89PNG")
    assert len(seen.picture) < 400_000
    if os.environ.get(SCREENSHOT):
        Path(os.environ[SCREENSHOT]).write_bytes(seen.picture)


async def test_the_runs_page_tells_goal_status_step_and_cost(seen: Seen) -> None:
    page = await seen.open("user-metadata")
    details = page.frame_locator("#user-metadata-current-details").locator("body")
    await expect(details.locator("h3")).to_have_text("invoice-checker · completed")
    await expect(details).to_contain_text(f"Check every invoice in the folder {INVOICES}")
    await expect(details).to_contain_text("step 5 of at most 50, 16 tool calls")
    await expect(details).to_contain_text(f"${seen.run.cost_usd:.4f}")


async def test_a_run_is_summed_up_by_agent_and_input(seen: Seen) -> None:
    page = await seen.open("user-metadata")
    summary = page.frame_locator("#user-metadata-summary").locator("body")
    await expect(summary).to_contain_text("invoice-checker")
    await expect(summary).to_contain_text(str(INVOICES))


async def test_search_attributes_say_agent_revision_status_steps_and_cost(seen: Seen) -> None:
    page = await seen.open("search-attributes")
    shown = page.get_by_role("textbox", name="Search Attributes", exact=True)
    for line in (
        '"AgentName": "invoice-checker"',
        f'"AgentRevision": "{seen.run.revision}"',
        '"RunStatus": "completed"',
        '"Steps": 5',
        '"CostUsd": 0.00',
    ):
        await expect(shown).to_contain_text(line)


async def test_input_and_result_are_readable(seen: Seen) -> None:
    content = (await seen.open("timeline")).locator("#content")
    await expect(content).to_contain_text('"agent": "invoice-checker"')
    await expect(content).to_contain_text('"status": "completed"')
    await expect(content).to_contain_text('"final_text": "Approved: INV-1001, INV-1003.')
