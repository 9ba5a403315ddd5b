"""What becomes of the UI test on a machine without a browser."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.support.browser import VARIABLES

ROOT = Path(__file__).resolve().parent.parent
LEFT_OUT = "The test of the Temporal UI was left out: there is no Chromium on this machine."
ONLY_THE_UI_TEST = "--ignore-glob=*/test_[!u]*"


def collect(nowhere: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Collect tests with nothing on PATH."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *arguments]
    inherited = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    given = {**inherited, "PATH": str(nowhere), **environment}
    return subprocess.run(command, cwd=ROOT, env=given, capture_output=True, text=True, timeout=60)


def test_without_a_browser_one_line_says_that_the_ui_test_was_left_out(tmp_path: Path) -> None:
    said = collect(tmp_path, ONLY_THE_UI_TEST).stdout
    assert said.splitlines().count(LEFT_OUT) == 1
    assert "test_ui.py" not in said
    assert "skipped" not in said


def test_nothing_is_said_where_the_ui_test_was_not_asked_for(tmp_path: Path) -> None:
    assert LEFT_OUT not in collect(tmp_path, "tests/workflows", ONLY_THE_UI_TEST).stdout


def test_a_required_browser_that_is_missing_is_an_error(tmp_path: Path) -> None:
    done = collect(tmp_path, ONLY_THE_UI_TEST, HOLDFAST_REQUIRE_BROWSER="1")
    assert done.returncode == 4
    assert "there is no Chromium" in done.stderr


def test_a_browser_that_is_named_counts(tmp_path: Path) -> None:
    done = collect(tmp_path, ONLY_THE_UI_TEST, HOLDFAST_REQUIRE_BROWSER="1", HOLDFAST_CHROMIUM=sys.executable)
    assert done.returncode == 0
    assert "tests/test_ui.py::" in done.stdout
    assert LEFT_OUT not in done.stdout
