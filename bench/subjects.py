"""What is measured, each in a process of its own, and how those processes are started and stopped."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import psutil

ROOT = Path(__file__).resolve().parent.parent
AGENT = "bench"
LEAD = "bench-lead"
"""An agent whose subagent is the other one."""


@dataclass(frozen=True)
class Subject:
    """One way to take the same steps."""

    name: str
    says: str
    is_floor: bool
    model: Literal["none", "whole", "stream"]
    """How litellm is asked, if at all."""


SUBJECTS = {
    subject.name: subject
    for subject in (
        Subject("floor", "bare workflow, a model activity that answers a constant, a tool activity", True, "none"),
        Subject("floor+litellm", "the same, the model asked by litellm, always with one short prompt", True, "whole"),
        Subject("floor+stream", "the same, asking litellm for a stream", True, "stream"),
        Subject("holdfast", "an agent run with its whole conversation, not streaming", False, "whole"),
        Subject("holdfast-stream", "the same, streaming (an agent's default)", False, "stream"),
    )
}
BASE = "floor+litellm"
"""What the ratios are taken to."""
DEFAULT = ("floor", BASE, "holdfast", "holdfast-stream")


@dataclass(frozen=True)
class Running:
    """A subject whose worker polls its own task queue."""

    label: str
    subject: Subject
    task_queue: str
    process: psutil.Process

    def request(self, steps: int, size: int, wide: int = 1, helpers: int = 0) -> tuple[str, dict[str, Any]]:
        """Return the workflow type and the argument of a run."""
        from bench import floor, script

        if self.subject.is_floor:
            return floor.WORKFLOW, {"steps": steps, "size": size, "wide": wide, "helpers": helpers}
        agent = LEAD if helpers else AGENT
        return "AgentRun", {"agent": agent, "message": script.prompt(steps, size, wide, helpers)}

    def cpu_seconds(self) -> float:
        """Return the CPU time that its process has taken so far, user and system."""
        times = self.process.cpu_times()
        return float(times.user + times.system)


@contextmanager
def started(address: str, names: Iterable[str], against: Iterable[Path] = ()) -> Iterator[list[Running]]:
    """Start a model server and every subject, wait until all are ready, and stop them in the end.

    `against` are folders that hold another copy of the package `holdfast`, measured beside this one.
    """
    wanted: list[tuple[str, Subject, Path | None]] = [(name, SUBJECTS[name], None) for name in names]
    ours = [name for name in names if not SUBJECTS[name].is_floor]
    wanted += [(f"{name}@{each.name}", SUBJECTS[name], each) for each in against for name in ours]
    with ExitStack() as stack:
        url = stack.enter_context(model_server())
        workers = []
        for label, subject, package in wanted:
            queue = f"bench-{label}"
            arguments = ["-m", "bench.serve", subject.name, address, queue, url]
            workers.append((label, subject, queue, stack.enter_context(_process(arguments, package))))
        ready = []
        for label, subject, queue, worker in workers:
            _line(worker)
            ready.append(Running(label, subject, queue, psutil.Process(worker.pid)))
        yield ready


@contextmanager
def model_server() -> Iterator[str]:
    """Serve the bench's model from a process of its own, and yield its URL."""
    script = str(ROOT / "bench" / "script.py") + ":reply"
    with _process(["-m", "holdfast.worker.scripted", script], None) as model:
        yield _line(model)


@contextmanager
def _process(arguments: list[str], package: Path | None) -> Iterator[subprocess.Popen[str]]:
    path = os.pathsep.join(str(each) for each in (package, ROOT) if each is not None)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TEMPORAL_", "HOLDFAST_"))}
    log: IO[bytes]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [sys.executable, "-P", *arguments],
            env={**kept, "PYTHONPATH": path, "TEMPORAL_CONFIG_FILE": os.devnull},
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        try:
            yield process
            if process.poll() is not None:
                log.seek(0)
                raise RuntimeError(f"{arguments} ended early:\n{log.read()[-4000:].decode(errors='replace')}")
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline().strip()
    if not line:
        raise RuntimeError(f"{process.args!r} ended before it was ready")
    return line
