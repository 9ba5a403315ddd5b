"""The browser of the UI test, and pytest's hooks that leave that test out where there is none.

HOLDFAST_CHROMIUM         the browser to use, instead of the first one on PATH
HOLDFAST_REQUIRE_BROWSER  1: having none is an error
HOLDFAST_SCREENSHOT       a file for the picture of the timeline
"""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from playwright.async_api import Page, async_playwright

CHROMIUM, REQUIRED, SCREENSHOT = VARIABLES = (
    "HOLDFAST_CHROMIUM",
    "HOLDFAST_REQUIRE_BROWSER",
    "HOLDFAST_SCREENSHOT",
)
UI_TEST = Path(__file__).parents[1] / "test_ui.py"
_NAMES = ("chromium", "chromium-browser", "google-chrome")
_OPTIONS = (
    *("--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


def find_chromium() -> str | None:
    """Return the path of a Chromium, or None; UsageError for a named one that can't be run."""
    named = os.environ.get(CHROMIUM)
    if named and shutil.which(named) is None:
        raise pytest.UsageError(f"{CHROMIUM} names {named}, which is no program")
    return shutil.which(named) if named else next(filter(None, map(shutil.which, _NAMES)), None)


@asynccontextmanager
async def browser_page(width: int, height: int) -> AsyncIterator[Page]:
    """Open a page of a headless Chromium with an empty profile."""
    executable = find_chromium()
    assert executable is not None, f"this test needs a Chromium: on PATH, or named by {CHROMIUM}"
    as_root = ("--no-sandbox",) if os.geteuid() == 0 else ()
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=executable, args=[*_OPTIONS, *as_root])
        try:
            yield await browser.new_page(viewport={"width": width, "height": height}, color_scheme="light")
        finally:
            await browser.close()


def pytest_sessionstart(session: pytest.Session) -> None:
    """Refuse to begin without a browser where one is required."""
    if os.environ.get(REQUIRED) == "1" and find_chromium() is None:
        raise pytest.UsageError(f"{REQUIRED} is set, and there is no Chromium: none on PATH, and none in {CHROMIUM}")


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Leave the UI test out where there is no browser."""
    return True if collection_path == UI_TEST and find_chromium() is None else None


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say, in one line, that the UI test was left out, if it was asked for."""
    config = terminalreporter.config
    asked = [config.invocation_params.dir / argument.split("::")[0] for argument in config.args]
    if find_chromium() is None and any(path.resolve() in UI_TEST.parents for path in asked):
        terminalreporter.write_line("The test of the Temporal UI was left out: there is no Chromium on this machine.")
