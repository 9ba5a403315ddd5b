"""`holdfast demo`: a real run on a real server, with a tool that fails and a worker that is killed in the middle."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from rich.console import Console

from holdfast import examples, wire
from holdfast.client.cli.show import print_event
from holdfast.client.sync import Client
from holdfast.client.views import Run
from holdfast.errors import HoldfastError
from holdfast.event import Event
from holdfast.examples import invoice_script
from holdfast.worker.scripted import ScriptedModel
from holdfast.worker.server import EmbeddedServer, find_binary
from holdfast.worker.settings import read_settings

_EXAMPLES = Path(str(examples.__file__)).parent
_OUTAGE = "PO-7003"
_SECONDS = 300.0
_WORKER_SECONDS = 60.0
_out = Console(highlight=False, soft_wrap=not sys.stdout.isatty())


def run(model: str | None, *, keep: bool = False) -> int:
    """Show it all; returns 0 only if all of it happened."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that nothing is left running
    try:
        settings = read_settings()
        ledger = settings.folder / "verdicts.jsonl"
        with contextlib.ExitStack() as stack:
            server = stack.enter_context(
                EmbeddedServer.start(
                    settings.folder,
                    binary=find_binary(settings.temporal_bin),
                    search_attributes=wire.SEARCH_ATTRIBUTES,
                )
            )
            offline = None if model else stack.enter_context(ScriptedModel(invoice_script.reply))
            _out.print(f"Temporal server  {server.address}   Web UI  {server.ui_url}")
            _say_model(model)
            show = _Show(server, _environment(server, offline, model, ledger), settings.folder)
            stack.callback(show.kill)
            finished = show.play()
            failed = _verify(show, finished, offline, ledger)
            _out.print(f"\nThe run in the Temporal UI: {server.ui_url}/namespaces/default/workflows/{finished.id}")
            if keep:
                _wait_for_enter()
            else:
                _out.print(
                    "(the UI stops with the demo; 'holdfast demo --keep' keeps it up, 'holdfast dev' brings it back)"
                )
        return 1 if failed else 0
    except (HoldfastError, TimeoutError) as error:
        print(f"holdfast: {error}", file=sys.stderr)
        return 2


class _Show:
    """The run, and the workers that serve it one after the other."""

    def __init__(self, server: EmbeddedServer, environment: dict[str, str], folder: Path) -> None:
        self.client = Client(server.address, task_queue=environment["HOLDFAST_TASK_QUEUE"])
        self.killed_at: Event | None = None
        self.seconds_lost = 0.0
        self.before: list[Event] = []
        """What was recorded when the worker was killed."""
        self._environment = environment
        self._log = folder / "demo-worker.log"
        self._worker = self._start()

    def play(self) -> Run:
        """Start the run, show it, kill the worker while verdicts are being recorded, and start another."""
        self._await_worker()
        started = self.client.runs.create(
            "invoice-checker", input={"folder": str(_EXAMPLES / "invoices")}, metadata={"demo": True}
        )
        _out.print(f"Run              {started.id}\n")
        moment = 0.0
        for event in self.client.runs.stream_events(started.id):
            print_event(_out, event)
            if moment and not self.seconds_lost and event.type == "tool_completed":
                self.seconds_lost = time.monotonic() - moment
            if self.killed_at is None:
                self.before.append(event)
                if event.type == "tool_called" and event.data["tool_name"] == "record_verdict":
                    moment = self._kill_in_mid_run(event)
        return self.client.runs.wait(started.id, timeout=_SECONDS)

    def _kill_in_mid_run(self, event: Event) -> float:
        self.killed_at = event
        pid = self._worker.pid
        self.kill()
        moment = time.monotonic()
        _out.print(f"\n[bold red]kill -9 {pid}[/]: the worker is dead, in the middle of its tools. Starting another.\n")
        self._worker = self._start()
        return moment

    def kill(self) -> None:
        """Kill the worker, as a crash would."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._worker.pid, signal.SIGKILL)
        self._worker.wait()

    def _await_worker(self) -> None:
        deadline = time.monotonic() + _WORKER_SECONDS
        while f'"pid": {self._worker.pid},' not in (told := self._log.read_text()):
            if self._worker.poll() is not None or time.monotonic() > deadline:
                raise HoldfastError(f"the demo's worker did not start:\n{told[-2000:]}")
            time.sleep(0.05)

    def _start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "holdfast.client.cli", "worker", str(_EXAMPLES / "invoice_checker.py")]
        with self._log.open("ab") as log:
            return subprocess.Popen(command, env=self._environment, stdout=log, stderr=log, start_new_session=True)


def _environment(
    server: EmbeddedServer, offline: ScriptedModel | None, model: str | None, ledger: Path
) -> dict[str, str]:
    told = {
        "TEMPORAL_ADDRESS": server.address,
        "TEMPORAL_NAMESPACE": server.namespace,
        "HOLDFAST_TASK_QUEUE": f"demo-{os.getpid()}",
        "INVOICE_MODEL": model or "scripted/invoices",
        "INVOICE_LEDGER": str(ledger),
        "INVOICE_DEMO_OUTAGE": _OUTAGE,
    }
    if offline is not None:
        endpoint = {
            "model": "openai/{rest}",
            "api_base": offline.url,
            "api_key": "offline",
            "input_cost_per_token": 2.5e-7,
            "output_cost_per_token": 2e-6,
        }
        told["HOLDFAST_ENDPOINTS"] = json.dumps({"scripted/*": endpoint})
    return {**os.environ, **told}


def _say_model(model: str | None) -> None:
    if model:
        _out.print(f"Model            {model}, for real, with the key of your environment")
    else:
        _out.print(
            "Model            a scripted one, offline: plain code behind a loopback HTTP server, asked through litellm"
        )


def _verify(show: _Show, finished: Run, offline: ScriptedModel | None, ledger: Path) -> list[str]:
    """Check that all of it happened, say so, and return what did not."""
    completed = [event for event in finished.logs if event.type == "tool_completed"]
    retried = [event for event in completed if event.data["tool_name"] == "find_order" and event.data["attempt"] > 1]
    again = [event for event in completed if event.data["tool_name"] == "record_verdict" and event.data["attempt"] > 1]
    settled = [event for event in show.before if event.type in ("model_completed", "tool_completed")]
    repeated = _repeated(finished, show.before)
    verdicts = [json.loads(line) for line in ledger.read_text().splitlines()] if ledger.exists() else []
    mine = Counter(each["invoice"] for each in verdicts if each["key"].startswith(f"{finished.id}:"))
    checks = {
        f"the run completed: {finished.status}": finished.status == "completed",
        f"a tool failed once and was retried: {', '.join(each.data['last_failure'] for each in retried)}": bool(
            retried
        ),
        f"the worker was killed, and the run went on {show.seconds_lost:.1f} s later": show.killed_at is not None
        and show.seconds_lost > 0,
        f"{len(settled)} calls were recorded before the kill, and none of them was repeated": bool(settled)
        and not repeated,
        f"{len(again)} calls were in flight at the kill and ran again, under the same idempotency keys": bool(again),
        f"each invoice has one verdict in the ledger: {len(mine)}": len(mine) == 5 and set(mine.values()) == {1},
    }
    if offline is not None:
        turns = Counter(request.turn for request in offline.requests)
        checks[f"the model was asked {offline.hits} times, once for each step"] = set(turns.values()) == {1}
    _out.print(f"\n[bold]{finished.final_text}[/]\n")
    price = " (a made-up price: the model is a script)" if offline is not None else ""
    _out.print(f"Cost ${finished.cost_usd or 0:.6f}{price}, {finished.steps} steps\n")
    for what, happened in checks.items():
        _out.print(f"  {'[green]✓[/]' if happened else '[bold red]✗[/]'} {what}")
    return [what for what, happened in checks.items() if not happened]


def _repeated(finished: Run, before: list[Event]) -> list[str]:
    """Return the calls that were recorded before the kill and stand in history a second time."""
    calls = Counter(event.data.get("call_id") for event in finished.logs if event.type == "tool_completed")
    steps = Counter(event.data.get("step") for event in finished.logs if event.type == "model_completed")
    done = [
        event.data.get("call_id")
        for event in before
        if event.type == "tool_completed" and calls[event.data["call_id"]] > 1
    ]
    asked = [
        str(event.data["step"]) for event in before if event.type == "model_completed" and steps[event.data["step"]] > 1
    ]
    return [*map(str, done), *asked]


def _wait_for_enter() -> None:
    with contextlib.suppress(KeyboardInterrupt, EOFError):
        input("Enter ends the demo and stops the UI. ")
