"""Starts the server's process and waits until it serves; asks it what its own command line can."""

from __future__ import annotations

import ctypes
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from holdfast.errors import ServerError
from holdfast.worker.locks import try_lock

_PR_SET_PDEATHSIG = 1
LOG_LIMIT = 10_000_000
"""Bytes of server.log beyond which the next start begins it anew."""

_OPTIONS = (
    *("--ip", "127.0.0.1", "--log-level", "error"),
    *("--disable-config-file", "--disable-config-env", "--ui-disable-news-fetch"),
    *("--sqlite-pragma", "journal_mode=WAL", "--sqlite-pragma", "synchronous=NORMAL"),
    *("--dynamic-config-value", "history.transferProcessorMaxPollRPS=10000"),
    *("--dynamic-config-value", "history.timerProcessorMaxPollRPS=10000"),
    *("--dynamic-config-value", 'history.timerProcessorMaxTimeShift="1ms"'),
    # What waits in a queue is shared out by fairness keys, where runs have them.
    *("--dynamic-config-value", "matching.enableFairness=true"),
    # Otherwise the server asks a public host for newer versions.
    *("--dynamic-config-value", "frontend.enableServerVersionCheck=false"),
)


@dataclass(frozen=True)
class Record:
    """What server.json says."""

    address: str
    ui_url: str | None
    pid: int


@dataclass(frozen=True)
class Plan:
    """What a start was asked for; the deadline is a time.monotonic()."""

    binary: Path
    folder: Path | None
    port: int
    ui_port: int | None
    deadline: float


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that was free a moment ago."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def answers(address: str, timeout: float = 0.5) -> bool:
    """Say whether something accepts TCP connections at `host:port` within so many seconds."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout).close()
    except OSError:
        return False
    return True


def read_record(folder: Path) -> Record | None:
    try:
        return Record(**json.loads((folder / "server.json").read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


def launch(plan: Plan) -> tuple[subprocess.Popen[bytes], Record]:
    """Start a process and wait until it serves; another one if someone took a port from under it."""
    # Workers of a server that was killed still wait at its old port.
    last = read_record(plan.folder) if plan.folder else None
    wanted = [plan.port, int(last.address.rpartition(":")[2])] if last else [plan.port]
    while True:
        port, ui = _usable(*wanted), None if plan.ui_port is None else _usable(plan.ui_port)
        with _open_log(plan.folder) as log:
            begin = os.fstat(log.fileno()).st_size
            process = _spawn(plan, port, ui, log)
            ui_url = None if ui is None else f"http://127.0.0.1:{ui}"
            record = Record(f"127.0.0.1:{port}", ui_url, process.pid)
            try:
                if plan.folder:
                    (plan.folder / "server.json").write_text(json.dumps(asdict(record)))
                if _wait(plan, process, port, log, begin):
                    return process, record
            except BaseException:
                process.kill()
                process.wait()
                raise


def _usable(*wanted: int) -> int:
    """Return the first of these ports that is not taken, else a free one."""
    for port in filter(None, wanted):
        with socket.socket() as sock, suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(("127.0.0.1", port))
            # macOS allows this bind while another program listens on all addresses.
            if not answers(f"127.0.0.1:{port}"):
                return port
    return free_port()


def _open_log(folder: Path | None) -> IO[bytes]:
    if folder is None:
        return tempfile.TemporaryFile()
    path = folder / "server.log"
    if path.exists() and path.stat().st_size > LOG_LIMIT:
        path.unlink()
    return path.open("ab+")


def _spawn(plan: Plan, port: int, ui: int | None, log: IO[bytes]) -> subprocess.Popen[bytes]:
    flags = ["--port", str(port), *(["--headless"] if ui is None else ["--ui-port", str(ui)])]
    inherited = []
    with ExitStack() as files:
        if plan.folder:
            lock = files.enter_context((plan.folder / "server.lock").open("ab"))
            try_lock(lock)
            inherited.append(lock.fileno())
            # A relative name: an absolute one is read as a URI, which `?` and `%` in a folder's name break.
            flags += ["--db-filename", "temporal.db"]
        return subprocess.Popen(
            [plan.binary, "server", "start-dev", *_OPTIONS, *flags],
            cwd=plan.folder,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=inherited,
            start_new_session=True,  # Ctrl-C is for the workers; the server outlives them.
            preexec_fn=None if plan.folder else _die_with_parent(),
        )


def _die_with_parent() -> Callable[[], None] | None:
    """Make a server in memory die with its owner, however that ends: nobody else could ever use it.

    Linux sends the signal when the *thread* that forked ends (prctl(2), PR_SET_PDEATHSIG), so only the main one asks.
    """
    if sys.platform != "linux" or threading.current_thread() is not threading.main_thread():
        return None
    prctl = ctypes.CDLL(None).prctl  # looked up before the fork
    return lambda: prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _environment() -> dict[str, str]:
    """Only what a launcher script needs: no provider keys, and no TEMPORAL_* settings meant for others."""
    return {name: os.environ[name] for name in ("HOME", "PATH", "TMPDIR") if name in os.environ}


def _wait(plan: Plan, process: subprocess.Popen[bytes], port: int, log: IO[bytes], begin: int) -> bool:
    """Wait until the process serves at the port; False when it lost a port to another program."""
    while True:
        ended = process.poll() is not None
        # Not read(), which would move the offset that the process writes at.
        output = os.pread(log.fileno(), 100_000, begin).decode(errors="replace")
        # Its banner, since an answer alone may come from the program that took the port first.
        announced = re.search(rf"Server:\s+\S+:{port}\b", output)
        if announced and not ended and serves(plan.binary, f"127.0.0.1:{port}"):
            return True
        late = time.monotonic() > plan.deadline
        if ended and not late and "address already in use" in output:
            return False
        if ended or late:
            what = f"exited with code {process.returncode}" if ended else "did not answer in time"
            last = "\n".join(output.strip().splitlines()[-10:]) or "(it printed nothing)"
            raise ServerError(f"the Temporal server {what}; its last lines:\n{last}")
        time.sleep(0.02)


def serves(binary: Path, address: str) -> bool:
    """Say whether a Temporal frontend answers there and has the namespace `default`."""
    return answers(address) and not _ask(binary, address, "namespace", "describe", "-n", "default").returncode


def register(binary: Path, address: str, attributes: Mapping[str, str]) -> None:
    """Register search attributes, new or known: start-dev's own flag skips a database that exists."""
    if not attributes:
        return
    pairs = [part for name, kind in attributes.items() for part in ("--name", name, "--type", kind)]
    done = _ask(binary, address, "search-attribute", "create", "-n", "default", *pairs)
    if done.returncode:
        raise ServerError(f"the search attributes were refused: {done.stderr.strip()}")


def _ask(binary: Path, address: str, *command: str) -> subprocess.CompletedProcess[str]:
    """Run one `temporal operator` command, which speaks gRPC, against the address."""
    options = ["--address", address, "--command-timeout", "5s", "--disable-config-file"]
    return subprocess.run([binary, "operator", *command, *options], env=_environment(), capture_output=True, text=True)


def keep_closed_runs(binary: Path, address: str) -> None:
    """Let closed runs stay for 30 days, where start-dev would forget them after one."""
    done = _ask(binary, address, "namespace", "update", "-n", "default", "--retention", "30d")
    if done.returncode:
        raise ServerError(f"the retention of closed runs was refused: {done.stderr.strip()}")
