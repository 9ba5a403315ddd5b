"""Real processes: the command line as people run it."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from holdfast.worker.scripted import Script, ScriptedModel

HOLDFAST = (sys.executable, "-m", "holdfast.client.cli")
SECONDS = 90.0


Done = subprocess.CompletedProcess[str]


def holdfast(*arguments: str, env: dict[str, str] | None = None, cwd: Path | None = None) -> Done:
    """Run one command to its end."""
    given = {**os.environ, **(env or {})}
    command = [*HOLDFAST, *arguments]
    return subprocess.run(command, env=given, cwd=cwd, capture_output=True, text=True, timeout=SECONDS)


def temporal(address: str, *arguments: str) -> Done:
    """Run Temporal's own CLI, with nothing of ours on the caller's side."""
    binary = str(Path(sys.executable).parent / "temporal")
    return subprocess.run([binary, *arguments, "--address", address], capture_output=True, text=True, timeout=SECONDS)


@contextmanager
def hosting(
    *arguments: str, env: dict[str, str], log: Path, cwd: Path | None = None
) -> Iterator[subprocess.Popen[str]]:
    """Run a command that hosts a worker, from the moment that it says so."""
    with log.open("w") as out:
        process = subprocess.Popen(
            [*HOLDFAST, *arguments], env={**os.environ, **env}, cwd=cwd, stdout=subprocess.PIPE, stderr=out, text=True
        )
    try:
        wait_for_line(log, "worker.started", process)
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.communicate()


@contextmanager
def serving(agents: str, script: Script, *, address: str, folder: Path) -> Iterator[dict[str, str]]:
    """Run a worker process with agents of a scripted model, and yield the environment in which commands find it."""
    (folder / "agents.py").write_text(agents)
    with ScriptedModel(script) as model:
        told = {
            "TEMPORAL_ADDRESS": address,
            "HOLDFAST_TASK_QUEUE": f"{folder.name}-{uuid.uuid4().hex[:8]}",
            "HOLDFAST_ENDPOINTS": endpoints(model.url),
        }
        with hosting("worker", str(folder / "agents.py"), env=told, log=folder / "worker.log"):
            yield told


def wait_for_line(log: Path, text: str, process: subprocess.Popen[str], seconds: float = SECONDS) -> str:
    """Wait until a log says something, and return the line."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for line in log.read_text().splitlines():
            if text in line:
                return line
        if process.poll() is not None:
            break
        select.select([], [], [], 0.05)
    raise AssertionError(f"{text!r} was not logged (exit {process.poll()}):\n{log.read_text()[-3000:]}")


def endpoints(url: str) -> str:
    """Return HOLDFAST_ENDPOINTS for a scripted model."""
    return json.dumps({"*": {"model": "openai/{rest}", "api_base": url, "api_key": "sk-canary-0123456789abcdef"}})
