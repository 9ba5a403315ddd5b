"""The demo, as a newcomer runs it."""

from __future__ import annotations

import os
from pathlib import Path

from tests.support.processes import holdfast


def test_the_demo_shows_a_retry_a_killed_worker_and_a_run_that_goes_on(tmp_path: Path) -> None:
    done = holdfast("demo", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    for said in (
        "offline",
        "kill -9",
        "✓ the run completed: completed",
        "✓ a tool failed once and was retried: the order system answered 503",
        "none of them was repeated",
        "ran again, under the same idempotency keys",
        "✓ each invoice has one verdict in the ledger: 5",
        "✓ the model was asked 5 times, once for each step",
        "Cost $",
        "/namespaces/default/workflows/invoice-checker-",
        "Rejected: INV-1002",
    ):
        assert said in done.stdout
    assert "✗" not in done.stdout


def test_the_demo_fails_where_not_all_of_it_happened(tmp_path: Path) -> None:
    os.environ.pop("OPENAI_API_KEY", None)
    done = holdfast("demo", "--model", "openai/gpt-5-mini", cwd=tmp_path)
    assert done.returncode == 1
    assert "✗ the run completed: failed" in done.stdout
    assert "OPENAI_API_KEY" in done.stdout
